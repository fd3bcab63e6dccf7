/* varve-verify, the program behind `varve verify` and the kernel checker of the tests: runs every
 * kernel of kernels.inc that this CPU can run against its contract. */
#include <argp.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check/check.h"

/* The slots of a table all have one shape, so a slot's index within its array is a difference. */
#define VARVE_KERNEL(op, slot, isa, symbol)                                              \
    {#op,                                                                                \
     #slot,                                                                              \
     #symbol,                                                                            \
     VARVE_ISA_##isa,                                                                    \
     (int)((offsetof(struct varve_kernels, slot) - offsetof(struct varve_kernels, op)) / \
           sizeof(((struct varve_kernels *)0)->slot)),                                   \
     (check_fn *)symbol,                                                                 \
     varve_check_##op},
static const struct check_line lines[] = {
#include "kernel/kernels.inc"
};
#undef VARVE_KERNEL
enum { N_LINE = sizeof lines / sizeof lines[0] };

enum { CASES_BRIEF = 1, CASES_QUICK = 2, CASES = 10, CASES_LONG = 40 };

struct options {
    const char *isa;
    const char *op;
    const char *kernel; /* a pattern, or a part of a symbol */
    uint64_t seed;
    int n_case;
    bool bench, count, list;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *const options = state->input;
    char *end = NULL;
    switch (key) {
    case 'i': options->isa = arg; break;
    case 'o': options->op = arg; break;
    case 'k': options->kernel = arg; break;
    case 'b': options->bench = true; break;
    case 'B': options->n_case = CASES_BRIEF; break;
    case 'c': options->count = true; break;
    case 'q': options->n_case = CASES_QUICK; break;
    case 'l': options->n_case = CASES_LONG; break;
    case 'L': options->list = true; break;
    case 's':
        errno = 0;
        options->seed = strtoull(arg, &end, 0);
        if (*end != '\0' || end == arg || *arg == '-' || errno != 0)
            argp_error(state, "--seed %s: expected a whole number from 0 to 2^64 - 1", arg);
        break;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option argp_options[] = {
    {"isa", 'i', "LEVEL", 0, "Kernels of this instruction set only, as in avx2 (default: all)", 0},
    {"op", 'o', "OP", 0, "Kernels of this operation only: score, fold, ..., or codec", 0},
    {"kernel", 'k', "PATTERN", 0,
     "Kernels whose name matches only: a pattern as in a shell, or a part of the name, as in q8_0",
     0},
    {"brief", 'B', NULL, 0,
     "Every kernel, but not all row counts: a sixth of --quick, for emulators", 0},
    {"quick", 'q', NULL, 0, "A fifth of the cases (seconds)", 0},
    {"long", 'l', NULL, 0, "Four times as many cases", 0},
    {"seed", 's', "N", 0, "Seed of the random inputs (default: from the clock; it is printed)", 0},
    {"list", 'L', NULL, 0, "List the kernels and stop", 0},
    {"bench", 'b', NULL, 0, "Also time each kernel, against scalar", 0},
    {"count", 'c', NULL, 0,
     "Check nothing: print how many instructions each kernel takes for the block that --bench "
     "times",
     0},
    {0},
};
static const struct argp argp = {
    argp_options,
    parse,
    NULL,
    "Checks every kernel of varve that this CPU can run, on random and on difficult inputs: each "
    "against its contract, computed in double, and against the scalar kernel. No byte outside of a "
    "row may be read."
    "\vExamples:\n"
    "  varve verify\n"
    "  varve verify --quick --isa avx2\n"
    "  varve verify --kernel 'varve_score_*' --seed 7\n\n"
    "A failure names the kernel and the case; the same seed, with the same other options, repeats "
    "it.\n\n"
    "Exit code: 0 when all is well, 1 when a kernel failed or nothing could be checked, 64 for a "
    "wrong option.",
    NULL,
    NULL,
    NULL};

static enum varve_isa isa_of_name(const char *name) {
    int isa = 0;
    while (isa < VARVE_ISA_COUNT && strcmp(varve_isa_text((enum varve_isa)isa), name) != 0) isa++;
    return (enum varve_isa)isa;
}

static bool matches(const char *pattern, const char *symbol) {
    return strpbrk(pattern, "*?[") != NULL ? fnmatch(pattern, symbol, 0) == 0
                                           : strstr(symbol, pattern) != NULL;
}

static bool wanted(const struct options *options, const struct check_line *line) {
    if (options->kernel != NULL && !matches(options->kernel, line->symbol)) return false;
    if (options->op != NULL && strcmp(options->op, line->op) != 0) return false;
    return options->isa == NULL || line->isa == isa_of_name(options->isa);
}

static bool op_exists(const char *op) {
    for (int i = 0; i < N_LINE; i++) {
        if (strcmp(lines[i].op, op) == 0) return true;
    }
    return strcmp(op, "codec") == 0;
}

static void run_line(struct check *check, const void *data) {
    const struct check_line *const line = data;
    line->test(check, line);
}

static void run_codec(struct check *check, const void *data) { varve_check_codec(check, data); }

static bool passes(struct check *check, const char *name,
                   void (*body)(struct check *, const void *), const void *data) {
    check->name = name;
    check->n_failure = 0;
    check_case(check, "start");
    check_guarded(check, body, data);
    if (check->n_failure != 0) printf("FAIL %s: %d failures\n", name, check->n_failure);
    fflush(stdout);
    return check->n_failure == 0;
}

static void print_levels(const struct options *options) {
    for (int i = 0; i < VARVE_ISA_COUNT; i++) {
        const enum varve_isa isa = (enum varve_isa)i;
        if (options->isa != NULL && isa_of_name(options->isa) != isa) continue;
        if (varve_isa_enable(isa))
            printf("exercised: %s\n", varve_isa_text(isa));
        else
            printf("skipped: %s (this CPU lacks %s)\n", varve_isa_text(isa), varve_isa_needs(isa));
        if (varve_isa_by_name_only(isa)) {
            printf("opt-in: %s (used only where VARVE_ISA or --isa names it: no CPU is known to "
                   "have passed this check yet)\n",
                   varve_isa_text(isa));
        }
    }
}

/* Formats have no ISA: they are checked unless something narrows the kernels down. */
static int run_codecs(struct check *check, const struct options *options) {
    const bool all = options->op == NULL && options->isa == NULL && options->kernel == NULL;
    if (!all && !(options->op != NULL && strcmp(options->op, "codec") == 0)) return 0;
    int n_fail = 0;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        const struct varve_format_traits *const format = varve_format_traits((enum varve_format)i);
        n_fail += !passes(check, format->name, run_codec, format);
    }
    printf("%d formats checked, %d failed\n", VARVE_FORMAT_COUNT, n_fail);
    return n_fail;
}

static bool can_run(const struct options *options, const struct check_line *line) {
    return wanted(options, line) && varve_isa_enable(line->isa);
}

/* Lines of symbol and count, for tests/check/instructions.txt. */
static int count(const struct options *options) {
    struct varve_kernels scalar;
    varve_kernels_select(VARVE_ISA_SCALAR, &scalar);
    printf("# compiler %s\n", __VERSION__);
    for (int i = 0; i < N_LINE; i++) { /* each with the same inputs, whatever else is counted */
        struct check check = {.random = 1, .scalar = &scalar, .bench = true, .count = true};
        if (can_run(options, &lines[i])) lines[i].test(&check, &lines[i]);
    }
    return EXIT_SUCCESS;
}

static int run(const struct options *options) {
    struct varve_kernels scalar;
    varve_kernels_select(VARVE_ISA_SCALAR, &scalar);
    struct check check = {.random = options->seed,
                          .bench = options->bench,
                          .scalar = &scalar,
                          .brief = options->n_case == CASES_BRIEF,
                          .n_case = options->n_case};
    int n_checked = 0, n_fail = 0, n_skip = 0;
    printf("seed %llu\n", (unsigned long long)options->seed);
    fflush(stdout);
    for (int i = 0; i < N_LINE; i++) {
        if (!wanted(options, &lines[i])) continue;
        if (!varve_isa_enable(lines[i].isa)) {
            n_skip++;
            continue;
        }
        n_checked++;
        n_fail += !passes(&check, lines[i].symbol, run_line, &lines[i]);
    }
    print_levels(options);
    if (n_skip > 0) printf("%d kernels skipped\n", n_skip);
    const int n_codec_fail = run_codecs(&check, options);
    printf("%d kernels checked, %d failed\n", n_checked, n_fail);
    const bool codec_only = options->op != NULL && strcmp(options->op, "codec") == 0;
    if (n_checked == 0 && !codec_only) {
        fprintf(stderr, "%s: this CPU can run none of these kernels\n", program_invocation_name);
        return EXIT_FAILURE;
    }
    return n_fail + n_codec_fail == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static bool any_wanted(const struct options *options) {
    for (int i = 0; i < N_LINE; i++) {
        if (wanted(options, &lines[i])) return true;
    }
    return options->op != NULL && strcmp(options->op, "codec") == 0;
}

/* False after a line. */
static bool options_fit(const struct options *options) {
    const char *const name = program_invocation_name;
    if (options->isa != NULL && isa_of_name(options->isa) == VARVE_ISA_COUNT) {
        fprintf(stderr, "%s: --isa %s: no such level; known are", name, options->isa);
        for (int i = 0; i < VARVE_ISA_COUNT; i++) {
            fprintf(stderr, "%s %s", i > 0 ? "," : "", varve_isa_text((enum varve_isa)i));
        }
        fprintf(stderr, "\n");
        return false;
    }
    if (options->op != NULL && !op_exists(options->op)) {
        fprintf(stderr, "%s: --op %s: no such operation; --list shows all\n", name, options->op);
        return false;
    }
    if (!any_wanted(options)) {
        fprintf(stderr, "%s: no kernel is all that was asked for; --list shows all\n", name);
        return false;
    }
    return true;
}

int main(int argc, char **argv) {
    struct options options = {.seed = (uint64_t)time(NULL), .n_case = CASES};
    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0 || !options_fit(&options)) return 64;
    for (int i = 0; options.list && i < N_LINE; i++) {
        if (wanted(&options, &lines[i])) printf("%-34s %s\n", lines[i].slot, lines[i].symbol);
    }
    if (options.list) return EXIT_SUCCESS;
    return options.count ? count(&options) : run(&options);
}
