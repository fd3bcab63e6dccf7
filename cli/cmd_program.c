/* Subcommands that are programs of their own beside this one, because they need what it does not
 * link: llama.cpp's libraries (varve-run, varve-plan, varve-eval), ggml's (varve-bench), the kernel
 * checker (varve-verify). */
#include "args.h"
#include "launch.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int become(const char *program, char **argv, const char *needs) {
    char path[PATH_MAX];
    if (!launch_find_program(program, needs, path, sizeof(path))) {
        return EXIT_LAUNCHER;
    }
    /* Under `varve exec` the preloaded library would load the plug-in; varve-run does that itself,
     * into some of its processes only, and the others have no use for it. */
    unsetenv("VARVE_PLUGIN");
    if (!launch_large_pages()) {
        return EXIT_LAUNCHER;
    }
    execv(path, argv); /* with argv[0] as in "varve run", the name in its messages */
    cli_say("%s: %s", path, strerror(errno));
    return EXIT_NOT_EXECUTABLE;
}

int cmd_run(int argc, char **argv) {
    (void)argc;
    return become("varve-run", argv, "llama.cpp's libllama.so and jansson");
}

int cmd_eval(int argc, char **argv) {
    (void)argc;
    return become("varve-eval", argv, "llama.cpp's libllama.so and jansson");
}

int cmd_plan(int argc, char **argv) {
    (void)argc;
    return become("varve-plan", argv, "llama.cpp's libllama.so and jansson");
}

int cmd_bench(int argc, char **argv) {
    (void)argc;
    return become("varve-bench", argv, "ggml's libggml-cpu.so and jansson");
}

int cmd_verify(int argc, char **argv) {
    (void)argc;
    return become("varve-verify", argv, NULL);
}
