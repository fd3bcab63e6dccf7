/* test-flash-attn-state: varve_ggml_flash_attn_ext_with_state against stock ggml and an oracle in
 * double, in one call, call by call, and as partial states that are merged. Ends with the line
 * "N passed, N failed". */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "flash_table.h"
#include "flash_torch.h"
#include "thin.h"

enum { CASES = 200 / THIN(4), CASES_LONG = 4000, THREADS_MAX = 64 };

struct options {
    uint64_t seed; /* 0: none was given */
    int n_case;    /* random ones; below 0: the default */
    int n_thread;
    const char *filter;
    bool is_long, pytorch;
};

static uint64_t number(const char *text, uint64_t max, struct argp_state *state) {
    char *end = NULL;
    const uint64_t value = strtoull(text, &end, 0);
    if (*end != '\0' || end == text || text[0] == '-' || value > max) {
        argp_error(state, "'%s': expected a whole number, at most %llu", text,
                   (unsigned long long)max);
    }
    return value;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct options *const options = state->input;
    switch (key) {
    case 'l': options->is_long = true; break;
    case 's': options->seed = number(arg, UINT64_MAX, state); break;
    case 'c': options->n_case = (int)number(arg, 1000000, state); break;
    case 't': options->n_thread = (int)number(arg, THREADS_MAX, state); break;
    case 'f': options->filter = arg; break;
    case 'p': options->pytorch = true; break;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_option argp_options[] = {
    {"long", 'l', NULL, 0, "Twenty times as many random cases, others each time", 0},
    {"seed", 's', "N", 0, "Seed of the random cases (default: 1; with --long, from the clock)", 0},
    {"cases", 'c', "N", 0, "Number of random cases", 0},
    {"threads", 't', "N", 0, "Threads of all cases (default: of each case its own)", 0},
    {"filter", 'f', "TEXT", 0, "Cases with TEXT in their name or description only", 0},
    {"pytorch", 'p', NULL, 0, "Compare some cases with PyTorch, if python3 has it", 0},
    {0},
};
static const struct argp argp = {
    argp_options, parse,
    NULL,         "Tests attention with a state in ggml graphs against stock ggml and an oracle.",
    NULL,         NULL,
    NULL};

static bool wanted(const struct options *options, const struct flash_case *c) {
    char text[512];
    flash_case_describe(c, text, sizeof text);
    return options->filter == NULL || strstr(c->name, options->filter) != NULL ||
           strstr(text, options->filter) != NULL;
}

int main(int argc, char **argv) {
    struct options options = {.n_case = -1};
    struct flash_totals totals = {0};
    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0) return 2;
    if (options.n_case < 0) options.n_case = options.is_long ? CASES_LONG : CASES;
    if (options.seed == 0) options.seed = options.is_long ? (uint64_t)time(NULL) : 1;
    printf("seed %llu\n", (unsigned long long)options.seed);
    flash_table_head();
    const int n_listed = flash_case_n_listed();
    for (int i = 0; i < n_listed + options.n_case; i++) {
        struct flash_case c;
        if (i < n_listed)
            flash_case_listed(i, &c);
        else
            flash_case_random(options.seed, i - n_listed, &c);
        if (options.n_thread > 0) c.n_thread = options.n_thread;
        if (wanted(&options, &c)) flash_table_row(&c, &totals);
    }
    if (options.pytorch) flash_torch(options.seed, &totals);
    printf("seed %llu repeats this\n", (unsigned long long)options.seed);
    const bool good =
        totals.n_failed == 0 && totals.n_passed > 0; /* no case at all is no success */
    printf("%s: %d passed, %d failed\n", good ? "passed" : "failed", totals.n_passed,
           totals.n_failed);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
