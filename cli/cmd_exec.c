/* varve exec: prepares the environment and becomes the command, so that signals, exit code and
 * terminal are the command's own. */
#include "args.h"
#include "launch.h"

#include <argp.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct exec_args {
    const char *type_k; /* canonical, or NULL */
    const char *type_v;
    const char *isa;
    const char *arithmetic; /* the name of a class, or NULL */
    struct launch_tiers tiers;
    char **command; /* NULL-terminated, NULL: none given */
};

/* ---- options -------------------------------------------------------------------------------- */

static const char doc[] =
    "Runs a program of llama.cpp (or one that uses its shared libraries) with attention computed "
    "by varve. Nothing is patched: a plug-in is loaded, and the program becomes this process."
    "\vExamples:\n"
    "  varve exec -- llama-completion -m model.gguf -p Hello\n"
    "  varve exec --ctk q4_0 --ctv q4_0 -- llama-server -m model.gguf -c 32768\n"
    "  varve exec --ctk q8_0 --ctv q8_0 -- llama-bench -m model.gguf -d 8192\n\n"
    "One line on stderr says that varve took hold, after attention has been computed, or why it "
    "could not. Cache types reach the program as LLAMA_ARG_CACHE_TYPE_K and _V, and llama-bench "
    "as arguments; options of the program itself come first.\n\n"
    "Environment: VARVE_DISABLE=1 turns varve off, VARVE_TRACE=1 shows plans and counters, "
    "GLIBC_TUNABLES=glibc.malloc.hugetlb=0 keeps the program to small pages.\n\n"
    "Exit code: that of the command; 125 when it could not be prepared, 126 when it cannot be "
    "executed, 127 when it was not found.";

enum { KEY_TYPE_K = 0x100, KEY_TYPE_V, KEY_TIERS, KEY_SINKS, KEY_HOT_MAX, KEY_ISA, KEY_CLASS };

static const struct argp_option options[] = {
    {"ctk", KEY_TYPE_K, "TYPE", 0,
     "Type of the K cache: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, "
     "q5_1 or iq4_nl (default: the program's, which is f16)",
     0},
    {"ctv", KEY_TYPE_V, "TYPE", 0, "Type of the V cache", 0},
    {"tiers", KEY_TIERS, "TIERS", 0,
     "f16:W keeps the W most recent rows of a quantized cache in F16 too (W: rows, 1 to 2^30); "
     "none turns that off (default: VARVE_TIERS, else f16:256)",
     0},
    {"sinks", KEY_SINKS, "N", 0,
     "First rows of a sequence that stay in F16, unless tiers are off (rows, 0 to 2^30; default: "
     "VARVE_SINKS, else 4)",
     0},
    {"hot-max", KEY_HOT_MAX, "BYTES", 0,
     "The most memory for the rows in F16, in bytes; K, M and G stand for 2^10, 2^20 and 2^30 "
     "(default: VARVE_HOT_MAX, else 0, no limit but a few windows for each layer)",
     0},
    {"isa", KEY_ISA, "LEVEL", 0,
     "Highest instruction set to use: scalar, avx2, avxvnni, avx512, vnni, vbmi, bf16, amx; on ARM "
     "scalar, neon, dotprod, i8mm (default: the best of this CPU but amx, which has not been run "
     "on hardware yet)",
     0},
    {"class", KEY_CLASS, "CLASS", 0,
     "Arithmetic: default, exact, q8, or fast, which reads prompts with products in bfloat16 where "
     "the CPU has them (default: VARVE_CLASS, else default)",
     0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state) {
    struct exec_args *args = state->input;
    enum varve_arithmetic known;
    switch (key) {
    case KEY_TYPE_K:
        args->type_k = cli_cache_type("--ctk", arg);
        return args->type_k != NULL ? 0 : EINVAL;
    case KEY_TYPE_V:
        args->type_v = cli_cache_type("--ctv", arg);
        return args->type_v != NULL ? 0 : EINVAL;
    case KEY_TIERS: return cli_tiers("--tiers", arg, &args->tiers.tiers) ? 0 : EINVAL;
    case KEY_SINKS: return cli_sinks("--sinks", arg, &args->tiers.n_sink) ? 0 : EINVAL;
    case KEY_HOT_MAX: return cli_bytes("--hot-max", arg, &args->tiers.hot_max) ? 0 : EINVAL;
    case KEY_ISA: args->isa = cli_isa(arg); return args->isa != NULL ? 0 : EINVAL;
    case KEY_CLASS: args->arithmetic = arg; return cli_class(arg, &known) ? 0 : EINVAL;
    case ARGP_KEY_ARG:
        /* The command begins; what follows belongs to it. */
        args->command = &state->argv[state->next - 1];
        state->next = state->argc;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the command ---------------------------------------------------------------------------- */

/* Finds the command as execvp will. Returns 0, or the exit code after a line. */
static int find_command(const char *name, char *path, size_t path_bytes) {
    if (strchr(name, '/') != NULL) {
        snprintf(path, path_bytes, "%s", name);
        struct stat info;
        if (stat(path, &info) != 0) {
            cli_say("%s: %s", name, strerror(errno));
            return EXIT_NOT_FOUND;
        }
        if (S_ISDIR(info.st_mode) || access(path, X_OK) != 0) {
            cli_say("%s: not an executable file", name);
            return EXIT_NOT_EXECUTABLE;
        }
        return 0;
    }
    const char *search = getenv("PATH");
    bool found_any = false;
    for (const char *at = search != NULL ? search : "/bin:/usr/bin"; at != NULL;) {
        const char *colon = strchr(at, ':');
        const int length = colon != NULL ? (int)(colon - at) : (int)strlen(at);
        snprintf(path, path_bytes, "%.*s/%s", length > 0 ? length : 1, length > 0 ? at : ".", name);
        struct stat info;
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) {
            if (access(path, X_OK) == 0) {
                return 0;
            }
            found_any = true;
        }
        at = colon != NULL ? colon + 1 : NULL;
    }
    cli_say(found_any ? "%s: found in PATH, but not executable" : "%s: command not found", name);
    return found_any ? EXIT_NOT_EXECUTABLE : EXIT_NOT_FOUND;
}

/* A 64-bit ELF program without an interpreter: nothing can be loaded into it. */
static bool is_static_program(const char *path) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    Elf64_Ehdr head;
    bool is_static = false;
    if (pread(fd, &head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
        memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 && head.e_ident[EI_CLASS] == ELFCLASS64) {
        is_static = true;
        for (int i = 0; i < head.e_phnum; i++) {
            Elf64_Phdr part;
            const off_t at = (off_t)head.e_phoff + (off_t)i * head.e_phentsize;
            if (pread(fd, &part, sizeof(part), at) != (ssize_t)sizeof(part) ||
                part.p_type == PT_INTERP) {
                is_static = false;
                break;
            }
        }
    }
    close(fd);
    return is_static;
}

/* llama-bench has its own parser, which does not read LLAMA_ARG_*. Returns the number of leading
 * words that make it up, 0 for another program. */
static int bench_words(char **command) {
    const char *slash = strrchr(command[0], '/');
    const char *base = slash != NULL ? slash + 1 : command[0];
    if (strcmp(base, "llama-bench") == 0) {
        return 1;
    }
    return strcmp(base, "llama") == 0 && command[1] != NULL && strcmp(command[1], "bench") == 0 ? 2
                                                                                                : 0;
}

static bool has_option(char **command, const char *brief, const char *full) {
    for (int i = 1; command[i] != NULL; i++) {
        if (strcmp(command[i], brief) == 0 || strcmp(command[i], full) == 0) {
            return true;
        }
    }
    return false;
}

/* The command with -ctk and -ctv put in where it needs them; NULL when memory is out. */
static char **with_cache_types(const struct exec_args *args) {
    const int n_lead = bench_words(args->command);
    int n = 0;
    while (args->command[n] != NULL) {
        n++;
    }
    char **out = calloc((size_t)n + 5, sizeof(*out));
    if (out == NULL || n_lead == 0) {
        free(out);
        return n_lead == 0 ? args->command : NULL;
    }
    int at = 0;
    for (int i = 0; i < n_lead; i++) {
        out[at++] = args->command[i];
    }
    static char option_k[] = "-ctk";
    static char option_v[] = "-ctv";
    if (args->type_k != NULL && !has_option(args->command, option_k, "--cache-type-k")) {
        out[at++] = option_k;
        out[at++] = strdup(args->type_k);
    }
    if (args->type_v != NULL && !has_option(args->command, option_v, "--cache-type-v")) {
        out[at++] = option_v;
        out[at++] = strdup(args->type_v);
    }
    for (int i = n_lead; i < n; i++) {
        out[at++] = args->command[i];
    }
    return out;
}

/* ---- environment ---------------------------------------------------------------------------- */

/* GGML_BACKEND_PATH holds one path, so it cannot be shared. */
static bool set_backend_path(const char *plugin) {
    const char *old = getenv("GGML_BACKEND_PATH");
    char real[PATH_MAX];
    if (old != NULL && old[0] != '\0' &&
        (realpath(old, real) == NULL || strcmp(real, plugin) != 0)) {
        cli_say("GGML_BACKEND_PATH is set to %s already, and ggml loads one back end from there; "
                "unset it to use varve",
                old);
        return false;
    }
    return launch_set("GGML_BACKEND_PATH", plugin);
}

static bool prepend_preload(const char *preload) {
    if (strpbrk(preload, ": \t") != NULL) {
        cli_say("%s cannot be preloaded: its path has a space or colon; install varve elsewhere",
                preload);
        return false;
    }
    const char *old = getenv("LD_PRELOAD");
    if (old == NULL || old[0] == '\0') {
        return launch_set("LD_PRELOAD", preload);
    }
    const size_t length = strlen(preload);
    if (strncmp(old, preload, length) == 0 && (old[length] == '\0' || old[length] == ':')) {
        return true; /* an exec within an exec */
    }
    return launch_set_list("LD_PRELOAD", preload, old);
}

static bool set_environment(const struct exec_args *args, const char *plugin, const char *preload) {
    char pid[32];
    snprintf(pid, sizeof(pid), "%ld", (long)getpid()); /* exec keeps it */
    return set_backend_path(plugin) && prepend_preload(preload) && launch_large_pages() &&
           launch_set("VARVE_PLUGIN", plugin) && launch_set("VARVE_EXEC_PID", pid) &&
           (args->isa == NULL || launch_set("VARVE_ISA", args->isa)) &&
           (args->arithmetic == NULL || launch_set("VARVE_CLASS", args->arithmetic)) &&
           (args->type_k == NULL || launch_set("LLAMA_ARG_CACHE_TYPE_K", args->type_k)) &&
           (args->type_v == NULL || launch_set("LLAMA_ARG_CACHE_TYPE_V", args->type_v)) &&
           launch_set_tiers(&args->tiers);
}

int cmd_exec(int argc, char **argv) {
    static const struct argp argp = {options, parse_option, "-- COMMAND [ARGUMENT...]", doc, NULL,
                                     NULL,    NULL};
    struct exec_args args = {.tiers = LAUNCH_TIERS_UNSET};
    if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &args) != 0) {
        return EXIT_LAUNCHER;
    }
    if (args.command == NULL) {
        cli_say("exec: no command given; try `varve exec --help`");
        return EXIT_LAUNCHER;
    }
    char plugin[PATH_MAX];
    char preload[PATH_MAX];
    char path[2 * PATH_MAX];
    if (!launch_find_library("libggml-varve.so", plugin, sizeof(plugin)) ||
        !launch_find_library("libvarve-preload.so", preload, sizeof(preload))) {
        return EXIT_LAUNCHER;
    }
    const int failed = find_command(args.command[0], path, sizeof(path));
    if (failed != 0) {
        return failed;
    }
    if (is_static_program(path)) {
        cli_say("%s is linked statically, so nothing can be loaded into it: it runs without varve; "
                "use a llama.cpp built with shared libraries",
                args.command[0]);
    }
    char **command = with_cache_types(&args);
    if (command == NULL || !set_environment(&args, plugin, preload)) {
        return EXIT_LAUNCHER;
    }
    execvp(command[0], command);
    cli_say("%s: %s", args.command[0], strerror(errno));
    return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}
