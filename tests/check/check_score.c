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
    struct score_case score;
    score_create(&score, check, format, n_row);
    struct varve_score_args args = {.format = format,
                                    .q = &score.q,
                                    .rows = score.rows.rows,
                                    .n_row = n_row,
                                    .s = score.scalar};
    check->scalar->score[line->index].run(&args);
    args.s = score.s;
    ((varve_score_fn *)line->run)(&args);
    compare(check, &args, &score.rows, score.scalar, score.exact);
    check_around(check, BUFFER_S, "s");
    score_destroy(&score);
}

static void call(check_fn *run, const void *args) { ((varve_score_fn *)run)(args); }

static void bench(struct check *check, const struct check_line *line) {
    enum { N = 4 };
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    struct score_case score;
    score_bench(&score, check, format, N);
    const struct varve_score_args args = {.format = format,
                                          .q = &score.q,
                                          .rows = score.rows.rows,
                                          .n_row = VARVE_TILE_ROWS,
                                          .s = score.s};
    check_bench(check, line, (check_fn *)check->scalar->score[line->index].run, call, &args,
                BENCH_D / format->block_values * format->block_bytes * VARVE_TILE_ROWS,
                N * VARVE_TILE_ROWS * BENCH_D);
    score_destroy(&score);
}

void varve_check_score(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_case, bench);
}
