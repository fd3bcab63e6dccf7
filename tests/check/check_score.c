#include <math.h>

#include "check/check.h"
#include "check/rows.h"
#include "check/tol.h"

/* q . k in double with the sum of absolute terms. */
static double score_exact(const struct varve_queries *q, const struct rows *rows, int a, int r,
                          double *sum_abs) {
    double sum = 0;
    *sum_abs = 0;
    for (int i = 0; i < q->head_dim; i++) {
        const double term =
            (double)q->f[a * q->ld + i] * rows->value[(int64_t)r * rows->head_dim + i];
        sum += term;
        *sum_abs += fabs(term);
    }
    return sum;
}

static double score_q8(const struct varve_queries *q, const struct rows *rows, int a, int r,
                       double *sum_abs) {
    double sum = 0;
    *sum_abs = 0;
    for (int b = 0; b < q->n_block; b++) {
        const int8_t *const i = q->i + a * q->ld + b * VARVE_BLOCK;
        const int8_t *const k = rows->q + (int64_t)r * rows->head_dim + b * VARVE_BLOCK;
        int dot = 0, dot_abs = 0;
        for (int j = 0; j < VARVE_BLOCK; j++) {
            dot += i[j] * k[j];
            dot_abs += i[j] * k[j] < 0 ? -i[j] * k[j] : i[j] * k[j];
        }
        const double d = q->d[a * q->n_block + b];
        const double dk = rows->d[r * q->n_block + b];
        const double minimum = (double)rows->m[r * q->n_block + b] * q->sum[a * q->n_block + b];
        sum += d * (dk * dot + minimum);
        *sum_abs += fabs(d) * (fabs(dk) * dot_abs + fabs(minimum));
    }
    return sum;
}

static void compare(struct check *check, const struct varve_score_args *args,
                    const struct rows *rows, const float *reference, bool exact_case) {
    const struct varve_queries *const q = args->q;
    for (int a = 0; a < q->n; a++) {
        for (int r = 0; r < VARVE_TILE_ROWS; r++) {
            const int at = a * VARVE_TILE_ROWS + r;
            if (r >= args->n_row) {
                if (!isnan(args->s[at])) check_fail(check, "wrote s[%d][%d], past n_row", a, r);
                continue;
            }
            double sum_abs;
            const double want = rows->format->quantized ? score_q8(q, rows, a, r, &sum_abs)
                                                        : score_exact(q, rows, a, r, &sum_abs);
            const double tolerance = rows->format->quantized ? tol_score_q8(q->n_block, sum_abs)
                                                             : tol_dot(q->head_dim, sum_abs);
            check_near(check, "s", a, r, args->s[at], want, exact_case ? 0 : tolerance);
            check_near(check, "s (scalar)", a, r, args->s[at], reference[at],
                       exact_case ? 0 : 2 * tolerance);
        }
    }
}

static void run_case(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    const enum queries_kind q_kind =
        kind == ROWS_INTEGER ? QUERIES_INTEGER : check_range(check, 0, QUERIES_KIND_COUNT - 1);
    const int32_t head_dim = rows_head_dim(check, format);
    const int32_t n = check_queries(check);
    check_case(check, "D %d, n %d, n_row %d, rows %s", head_dim, n, n_row, rows_kind_name(kind));
    struct varve_queries q;
    struct rows rows;
    queries_create(&q, check, q_kind, n, head_dim);
    rows_create(&rows, check, format, kind, head_dim, n_row);
    const size_t bytes = (size_t)n * VARVE_TILE_ROWS * sizeof(float);
    struct varve_score_args args = {.format = format, .q = &q, .rows = rows.rows, .n_row = n_row};
    float *const reference = check_aligned(BUFFER_S2, bytes);
    args.s = reference;
    check->scalar->score[line->index].run(&args);
    args.s = check_aligned(BUFFER_S, bytes);
    ((varve_score_fn *)line->run)(&args);
    compare(check, &args, &rows, reference, kind == ROWS_INTEGER);
    check_around(check, BUFFER_S, "s");
    rows_destroy(&rows);
}

static void call(check_fn *run, const void *args) { ((varve_score_fn *)run)(args); }

static void bench(struct check *check, const struct check_line *line) {
    enum { D = 128, N = 4 };
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    struct varve_queries q;
    struct rows rows;
    queries_create(&q, check, QUERIES_NORMAL, N, D);
    rows_create(&rows, check, format, ROWS_NORMAL, D, VARVE_TILE_ROWS);
    const struct varve_score_args args = {
        .format = format,
        .q = &q,
        .rows = rows.rows,
        .n_row = VARVE_TILE_ROWS,
        .s = check_aligned(BUFFER_S, N * VARVE_TILE_ROWS * sizeof(float))};
    check_bench(check, line, (check_fn *)check->scalar->score[line->index].run, call, &args,
                D / format->block_values * format->block_bytes * VARVE_TILE_ROWS,
                N * VARVE_TILE_ROWS * D);
    rows_destroy(&rows);
}

void varve_check_score(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_case, bench);
}
