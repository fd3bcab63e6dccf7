#include "plot.h"

#include "args.h"
#include "gnuplot.h"
#include "measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- series: results that differ in length only --------------------------------------------- */

static bool same_series(const struct bench_result *a, const struct bench_result *b) {
    return a->c.kind == b->c.kind && a->c.type_k == b->c.type_k && a->c.type_v == b->c.type_v;
}

static bool first_of_series(const struct bench_result *results, int i) {
    for (int j = 0; j < i; j++) {
        if (same_series(&results[j], &results[i])) return false;
    }
    return true;
}

static void name_series(const struct bench_result *r, bool with_kind, char *text, size_t bytes) {
    const char *const k = varve_format_name(r->c.type_k), *const v = varve_format_name(r->c.type_v);
    snprintf(text, bytes, "%s%s%s%s%s", with_kind ? bench_kind_name(r->c.kind) : "",
             with_kind ? " " : "", k, strcmp(k, v) == 0 ? "" : "/", strcmp(k, v) == 0 ? "" : v);
}

static bool several_kinds(const struct bench_result *results, int n) {
    for (int i = 1; i < n; i++) {
        if (results[i].c.kind != results[0].c.kind) return true;
    }
    return false;
}

typedef double (*figure_fn)(const struct bench_result *);

static double read_limit(const struct bench_result *r) { return r->read_gbps; }
/* Prefill and writes stay in the cache where they fit it, and so does the read beside them. */
static double memory_limit(const struct bench_result *r) {
    return r->c.kind == BENCH_DECODE || r->c.kind == BENCH_MIXED ? r->read_gbps : NAN;
}
static double peak_limit(const struct bench_result *r) { return r->peak_gflops; }
static double gbps(const struct bench_result *r) { return r->gbps; }
static double stock_gbps(const struct bench_result *r) { return 1e-6 * r->bytes / r->stock_ms; }
static double gflops(const struct bench_result *r) { return r->gflops; }
static double stock_gflops(const struct bench_result *r) { return 1e-6 * r->flops / r->stock_ms; }
static double speedup(const struct bench_result *r) { return r->speedup; }

/* $name: the figure of one series over length. */
static void put_series(FILE *to, const char *name, int number, const struct bench_result *results,
                       int n, int of, figure_fn figure) {
    fprintf(to, "$%s%d << EOD\n", name, number);
    for (int i = 0; i < n; i++) {
        if (!same_series(&results[i], &results[of])) continue;
        fprintf(to, "%lld %.6g\n", (long long)results[i].c.n_row, figure(&results[i]));
    }
    fprintf(to, "EOD\n");
}

static double median_where(const struct bench_result *results, int n, int64_t n_row,
                           figure_fn figure) {
    double *const values = measure_allocate((size_t)n * sizeof *values);
    for (int i = 0; i < n; i++) {
        values[i] = n_row == 0 || results[i].c.n_row == n_row ? figure(&results[i]) : NAN;
    }
    const double median = measure_median(values, n);
    free(values);
    return median;
}

static void put_limit(FILE *to, const struct bench_result *results, int n, figure_fn figure) {
    fprintf(to, "$limit << EOD\n");
    int64_t last = 0;
    for (int i = 0; i < n && results[i].c.n_row > last; i++) { /* the lengths of the first series */
        last = results[i].c.n_row;
        fprintf(to, "%lld %.6g\n", (long long)last, median_where(results, n, last, figure));
    }
    fprintf(to, "EOD\n");
}

static void put_length_axis(FILE *to, const struct bench_result *results, int n) {
    int64_t last = 0;
    fprintf(to, "set logscale x 2\nset xlabel 'context length, rows'\nset xtics (");
    for (int i = 0; i < n && results[i].c.n_row > last; i++) {
        last = results[i].c.n_row;
        const bool kilo = last >= 1024 && last % 1024 == 0;
        fprintf(to, "%s'%lld%s' %lld", i > 0 ? ", " : "", (long long)(kilo ? last / 1024 : last),
                kilo ? "K" : "", (long long)last);
    }
    fprintf(to, ")\nset xrange [%g:%g]\n", 0.85 * (double)results[0].c.n_row, 1.18 * (double)last);
}

static void put_log_y(FILE *to) {
    fprintf(to,
            "set logscale y 10\nset ytics (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, "
            "100, 200, 500, 1000, 2000, 5000, 10000)\n");
}

static void put_title(FILE *to, const struct bench_result *r, const char *what) {
    fprintf(to,
            "set multiplot layout 1,2 title 'varve %s, %s: %s; %d threads, head size %d, %d heads "
            "over %d KV heads'\n",
            varve_version(), r->isa, what, r->c.n_thread, r->c.head_dim_k, r->c.n_head,
            r->c.n_head_kv);
}

static void put_lines(FILE *to, const struct bench_result *results, int n, bool with_stock) {
    const bool kinds = several_kinds(results, n);
    int colour = 0;
    char name[64];
    for (int i = 0; i < n; i++) {
        if (!first_of_series(results, i)) continue;
        name_series(&results[i], kinds, name, sizeof name);
        const char *const rgb = gnuplot_colours[colour++ % GNUPLOT_N_COLOUR];
        fprintf(to,
                ", $a%d using 1:2 with linespoints lc rgb '%s' lw 2 pt 7 ps 0.6 title 'varve "
                "%s' noenhanced",
                i, rgb, name);
        if (!with_stock) continue;
        fprintf(to,
                ", $b%d using 1:2 with linespoints lc rgb '%s' lw 1.5 dt 2 pt 6 ps 0.6 title "
                "'stock %s' noenhanced",
                i, rgb, name);
    }
    fprintf(to, "\n");
}

bool plot_sweep(const char *path, const struct bench_result *results, int n) {
    FILE *const to = gnuplot_open(path, 1240, 600);
    if (to == NULL) return false;
    const bool arithmetic = results[0].c.kind == BENCH_PREFILL;
    for (int i = 0; i < n; i++) {
        if (!first_of_series(results, i)) continue;
        put_series(to, "a", i, results, n, i, arithmetic ? gflops : gbps);
        put_series(to, "b", i, results, n, i, arithmetic ? stock_gflops : stock_gbps);
    }
    put_limit(to, results, n, arithmetic ? peak_limit : read_limit);
    put_title(to, &results[0], bench_kind_name(results[0].c.kind));
    put_length_axis(to, results, n);
    fprintf(to,
            "set key below vertical maxrows 4 samplen 3 width 1\nset bmargin 9\n"
            "set autoscale y noextend\nset offsets 0, 0, graph 0.06, graph 0.06\n"
            "set title '%s'\nset ylabel '%s'\n",
            arithmetic ? "Arithmetic" : "Bytes of K and V read", arithmetic ? "GFLOPS" : "GB/s");
    put_log_y(to);
    fprintf(to, "plot $limit using 1:2 with lines lc rgb '#808080' lw 5 title '%s'",
            arithmetic ? "peak" : "plain read");
    put_lines(to, results, n, true);
    for (int i = 0; i < n; i++) {
        if (first_of_series(results, i)) put_series(to, "a", i, results, n, i, speedup);
    }
    fprintf(to, "set title 'Speed of varve over stock ggml'\nset ylabel 'times as fast'\n"
                "plot 1 with lines lc rgb '#808080' lw 3 title 'as fast as "
                "stock'");
    put_lines(to, results, n, false);
    fprintf(to, "unset multiplot\n");
    return gnuplot_close(path, to);
}

/* ---- times, one line for each case ---------------------------------------------------------- */

bool plot_times(const char *path, const struct bench_result *results, int n) {
    FILE *const to = gnuplot_open(path, 900, 230 + 46 * n);
    if (to == NULL) return false;
    fprintf(to, "$d << EOD\n");
    for (int i = 0; i < n; i++) {
        const struct bench_result *const r = &results[i];
        fprintf(to, "%d %.6g %.6g %.6g \"%.*fx\"\n", n - i, r->ms, r->stock_ms,
                r->ms * r->read_ratio, r->speedup < 2 ? 2 : 1, r->speedup);
    }
    fprintf(to, "EOD\nset ytics (");
    for (int i = 0; i < n; i++) {
        char name[64];
        name_series(&results[i], true, name, sizeof name);
        fprintf(to, "%s\"%s, %lld x %lld\" %d", i > 0 ? ", " : "", name,
                (long long)results[i].c.n_query, (long long)results[i].c.n_row, n - i);
    }
    fprintf(
        to,
        ") noenhanced\nset logscale x 10\nset yrange [0.4:%g]\nset xlabel 'milliseconds for one "
        "layer'\nset key below vertical maxrows 3 samplen 1\nset bmargin 8\n"
        "set autoscale x noextend\nset offsets graph 0.05, graph 0.05, 0, 0\n"
        "set title 'varve %s, %s, beside stock ggml; %d threads (case and types, queries x "
        "rows)'\n",
        n + 0.9, varve_version(), results[0].isa, results[0].c.n_thread);
    fprintf(to, "plot $d using 2:1:($3-$2):(0) with vectors nohead lc rgb '#b0b0b0' lw 2 notitle, "
                "$d using 4:1 with points pt 2 ps 1 lw 2 lc rgb '#808080' title 'plain read', "
                "$d using 3:1 with points pt 6 ps 1.2 lw 2 lc rgb '#d55e00' title 'stock ggml', "
                "$d using 2:1 with points pt 7 ps 1.2 lc rgb '#0072b2' title 'varve', "
                "$d using (sqrt($2*$3)):1:5 with labels offset 0,0.8 tc rgb '#404040' notitle\n");
    return gnuplot_close(path, to);
}

/* ---- roofline ------------------------------------------------------------------------------- */

/* Williams, Waterman and Patterson 2009: GFLOPS over flops per byte, below both limits. */
static void put_points(FILE *to, const struct bench_result *results, int n) {
    for (int i = 0; i < n; i++) {
        if (!first_of_series(results, i) || results[i].flops == 0) continue;
        fprintf(to, "$p%d << EOD\n", i);
        for (int j = 0; j < n; j++) {
            const struct bench_result *const r = &results[j];
            if (!same_series(r, &results[i])) continue;
            fprintf(to, "%.6g %.6g %.6g\n", r->flops / r->bytes, r->gflops, stock_gflops(r));
        }
        fprintf(to, "EOD\n");
    }
}

/* Room around the points and both limits. */
static void put_ranges(FILE *to, const struct bench_result *results, int n, double bandwidth,
                       double peak) {
    double x_most = 4 * peak / bandwidth, x_least = 0.25 * peak / bandwidth, y_least = peak / 10;
    double y_most = peak;
    for (int i = 0; i < n; i++) {
        if (results[i].flops == 0) continue;
        const double x = results[i].flops / results[i].bytes;
        x_most = fmax(x_most, 2 * x);
        x_least = fmin(x_least, x / 2);
        y_least = fmin(y_least, fmin(results[i].gflops, stock_gflops(&results[i])) / 2);
        y_most = fmax(y_most, results[i].gflops);
    }
    fprintf(to, "set xrange [%.3g:%.3g]\nset yrange [%.3g:%.3g]\n", x_least, x_most, y_least,
            2.5 * y_most);
    fprintf(to, "b = %.6g\np = %.6g\nlim(x) = b * x < p ? b * x : p\n", bandwidth, peak);
    fprintf(to, "set label '%.0f GFLOPS of F32 multiply-adds' at %.6g, %.6g left offset 0, 0.8\n",
            peak, peak / bandwidth, peak);
    fprintf(to, "set label '%.0f GB/s of plain read' at %.6g, %.6g left offset 2, -0.7\n",
            bandwidth, 1.1 * x_least, 1.1 * x_least * bandwidth);
}

bool plot_roofline(const char *path, const struct bench_result *results, int n) {
    double bandwidth = median_where(results, n, 0, memory_limit);
    if (isnan(bandwidth)) bandwidth = median_where(results, n, 0, read_limit);
    const double peak = median_where(results, n, 0, peak_limit);
    if (isnan(peak)) {
        cli_say("--roofline %s: nothing was multiplied in these cases, so there is nothing to draw",
                path);
        return false;
    }
    FILE *const to = gnuplot_open(path, 900, 660);
    if (to == NULL) return false;
    put_points(to, results, n);
    fprintf(to,
            "set logscale x 10\nset key below vertical maxrows 5 samplen 2 width 1\n"
            "set bmargin 11\nset samples 2000\nset ylabel 'GFLOPS'\n"
            "set xlabel 'arithmetic intensity, flops per byte of K and V'\n"
            "set title 'Roofline: varve %s, %s, %d threads, head size %d, %d heads over %d KV "
            "heads'\n",
            varve_version(), results[0].isa, results[0].c.n_thread, results[0].c.head_dim_k,
            results[0].c.n_head, results[0].c.n_head_kv);
    put_log_y(to);
    fprintf(to, "set xtics (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)\n");
    put_ranges(to, results, n, bandwidth, peak);
    fprintf(to, "plot lim(x) with lines lc rgb '#808080' lw 4 title 'limit'");
    const bool kinds = several_kinds(results, n);
    int colour = 0;
    char name[64];
    for (int i = 0; i < n; i++) {
        if (!first_of_series(results, i) || results[i].flops == 0) continue;
        name_series(&results[i], kinds, name, sizeof name);
        const char *const rgb = gnuplot_colours[colour++ % GNUPLOT_N_COLOUR];
        fprintf(to,
                ", $p%d using 1:2 with points pt 7 ps 0.9 lc rgb '%s' title 'varve %s' noenhanced"
                ", $p%d using 1:3 with points pt 6 ps 0.9 lw 1.5 lc rgb '%s' title 'stock %s' "
                "noenhanced",
                i, rgb, name, i, rgb, name);
    }
    fprintf(to, "\n");
    return gnuplot_close(path, to);
}
