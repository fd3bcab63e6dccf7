/* varve-check: runs every kernel of kernels.inc that this CPU can run against its contract. */
#include <argp.h>
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

struct options {
    const char *isa;
    const char *op;
    uint64_t seed;
    bool bench, is_long, is_quick, list;
};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *const options = state->input;
    char *end = NULL;
    switch (key) {
    case 'i': options->isa = arg; break;
    case 'o': options->op = arg; break;
    case 'b': options->bench = true; break;
    case 'l': options->is_long = true; break;
    case 'q': options->is_quick = true; break;
    case 'L': options->list = true; break;
    case 's':
        options->seed = strtoull(arg, &end, 0);
        if (*end != '\0' || end == arg) argp_error(state, "no number: '%s'", arg);
        break;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option argp_options[] = {
    {"isa", 'i', "LEVEL", 0, "Check kernels of this level only", 0},
    {"op", 'o', "OP", 0, "Check this op only (score, fold, ..., or codec)", 0},
    {"bench", 'b', NULL, 0, "Also time each kernel, against scalar", 0},
    {"long", 'l', NULL, 0, "Twenty times as many cases", 0},
    {"quick", 'q', NULL, 0, "A sixth of the cases, for emulators: every kernel, fewer row counts",
     0},
    {"seed", 's', "N", 0, "Seed of the random inputs (default: from the clock)", 0},
    {"list", 'L', NULL, 0, "List the kernels and stop", 0},
    {0},
};
static const struct argp argp = {
    argp_options,
    parse,
    NULL,
    "Checks the kernels of varve: each against its contract in double, and against the scalar one.",
    NULL,
    NULL,
    NULL};

static const char *isa_needs(enum varve_isa isa) {
    static const char *const texts[] = {
#define VARVE_ISA(suffix, name, text) text,
#include "base/isa.inc"
#undef VARVE_ISA
    };
    return texts[isa];
}

static enum varve_isa isa_of_name(const char *name) {
    int isa = 0;
    while (isa < VARVE_ISA_COUNT && strcmp(varve_isa_text((enum varve_isa)isa), name) != 0) isa++;
    return (enum varve_isa)isa;
}

static bool wanted(const struct options *options, const struct check_line *line) {
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
        if (varve_isa_available(isa))
            printf("exercised: %s\n", varve_isa_text(isa));
        else
            printf("skipped: %s (this CPU lacks %s)\n", varve_isa_text(isa), isa_needs(isa));
    }
}

static int run(const struct options *options) {
    struct varve_kernels scalar;
    varve_kernels_select(VARVE_ISA_SCALAR, &scalar);
    struct check check = {.random = options->seed,
                          .bench = options->bench,
                          .scalar = &scalar,
                          .quick = options->is_quick,
                          .n_case = options->is_long    ? 40
                                    : options->is_quick ? 1
                                                        : 2};
    int n_pass = 0, n_fail = 0, n_line = 0, n_skip = 0;
    printf("seed %llu\n", (unsigned long long)options->seed);
    for (int i = 0; i < N_LINE; i++) {
        if (!wanted(options, &lines[i])) continue;
        n_line++;
        if (!varve_isa_available(lines[i].isa))
            n_skip++;
        else if (passes(&check, lines[i].symbol, run_line, &lines[i]))
            n_pass++;
        else
            n_fail++;
    }
    print_levels(options);
    printf("%d lines, %d tested, %d skipped\n", n_line, n_line - n_skip, n_skip);
    const bool codec = options->op == NULL ? options->isa == NULL : n_line == 0;
    for (int i = 0; codec && i < VARVE_FORMAT_COUNT; i++) {
        const struct varve_format_traits *const format = varve_format_traits((enum varve_format)i);
        if (passes(&check, format->name, run_codec, format))
            n_pass++;
        else
            n_fail++;
    }
    if (codec) printf("%d codecs tested\n", VARVE_FORMAT_COUNT);
    printf("%d passed, %d failed\n", n_pass, n_fail);
    return n_fail == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
    struct options options = {.seed = (uint64_t)time(NULL)};
    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0) return 2;
    if (options.isa != NULL && isa_of_name(options.isa) == VARVE_ISA_COUNT) {
        fprintf(stderr, "varve-check: no ISA level '%s'\n", options.isa);
        return 2;
    }
    if (options.op != NULL && !op_exists(options.op)) {
        fprintf(stderr, "varve-check: no op '%s'\n", options.op);
        return 2;
    }
    for (int i = 0; options.list && i < N_LINE; i++) {
        if (wanted(&options, &lines[i])) printf("%-34s %s\n", lines[i].slot, lines[i].symbol);
    }
    return options.list ? EXIT_SUCCESS : run(&options);
}
