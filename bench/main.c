/* varve bench: cases one after the other, their figures as they come. */
#include "args.h"
#include "gnuplot.h"
#include "json_file.h"
#include "options.h"
#include "plot.h"
#include "progress.h"
#include "report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What F32 sums over so many rows may lose is far below this, and so is the rounding of weights to
 * 16 bits (docs/NUMERICS.md 5): a larger error is a wrong result, whose time means nothing. */
static const double error_most = 1e-3;
/* Four factors with 8 bits each. */
static const double fast_error_most = 0.03;
/* Stock rounds queries to 8 bits, or to F16, as it goes along. */
static const double stock_error_most = 0.3;

static bool is_right(const struct bench_result *r) {
    const bool fast = r->c.arithmetic == VARVE_ARITHMETIC_FAST;
    if (!(r->max_rel_err <= (fast ? fast_error_most : error_most))) {
        cli_say("bench: the result of varve is wrong: relative error %.3g", r->max_rel_err);
        return false;
    }
    if (!(r->stock_rel_err <= stock_error_most)) {
        cli_say("bench: the result of ggml is wrong: relative error %.3g; its time means nothing",
                r->stock_rel_err);
        return false;
    }
    return true;
}

static bool add_json(const struct bench_options *o, int fd, json_t *list,
                     const struct bench_result *r) {
    return fd < 0 ||
           (json_array_append_new(list, report_json(r)) == 0 && json_file_write(o->json, fd, list));
}

static bool measure(const struct bench_options *o, const struct bench_case *cases, int n_case,
                    int fd, struct bench_result *results, int *n_result) {
    json_t *const list = json_array();
    bool ok = list != NULL;
    *n_result = 0;
    progress_total(n_case, o->seconds * n_case);
    for (int i = 0; i < n_case && ok; i++) {
        struct bench_result *const r = &results[*n_result];
        progress_next();
        ok = bench_run(&cases[i], r);
        if (!ok) break;
        if (*n_result == 0) report_head(&r->c, r->isa);
        (*n_result)++;
        report_line(r);
        const bool kept = add_json(o, fd, list, r); /* a wrong one too */
        ok = is_right(r) && kept;
    }
    json_decref(list);
    return ok;
}

static bool draw(const struct bench_options *o, const struct bench_result *results, int n) {
    bool ok = true;
    if (o->plot != NULL && n > 0) {
        ok = o->sweep ? plot_sweep(o->plot, results, n) : plot_times(o->plot, results, n);
    }
    if (o->roofline != NULL && n > 0) ok = plot_roofline(o->roofline, results, n) && ok;
    return ok;
}

static void warn_of_load(void) {
    double load = 0;
    if (getloadavg(&load, 1) == 1 && load > 0.5) {
        cli_say("bench: the load average is %.2f: other programs disturb the figures", load);
    }
}

int main(int argc, char **argv) {
    static struct bench_options options;
    struct bench_case *cases = NULL;
    int n_case = 0, n_result = 0, fd = -1;
    if (!options_parse(argc, argv, &options) || !options_cases(&options, &cases, &n_case)) {
        return 64; /* EX_USAGE, as argp has it */
    }
    if (options.json != NULL && (fd = json_file_open(options.json)) < 0) return EXIT_FAILURE;
    if (options.plot != NULL && !gnuplot_possible("--plot")) options.plot = NULL;
    if (options.roofline != NULL && !gnuplot_possible("--roofline")) options.roofline = NULL;
    warn_of_load();
    struct bench_result *const results = calloc((size_t)n_case, sizeof *results);
    bool ok = results != NULL && measure(&options, cases, n_case, fd, results, &n_result);
    ok = draw(&options, results, n_result) && ok;
    if (fd >= 0) ok = json_file_close(options.json, fd) && ok;
    free(results);
    free(cases);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
