/* varve run: becomes varve-run, a program of its own because it needs llama.cpp's libraries, which
 * this one does not. */
#include "args.h"
#include "launch.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cmd_run(int argc, char **argv) {
    (void)argc;
    char path[PATH_MAX];
    if (!launch_find_program("varve-run", path, sizeof(path))) {
        return EXIT_LAUNCHER;
    }
    /* It loads the plug-in by itself, into some of its processes only; under `varve exec` the
     * preloaded library would load it into all of them. */
    unsetenv("VARVE_PLUGIN");
    execv(path, argv); /* with argv[0] "varve run", the name in its messages */
    cli_say("%s: %s", path, strerror(errno));
    return EXIT_NOT_EXECUTABLE;
}
