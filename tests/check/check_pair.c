/* The four operations of class fast. */
#include <math.h>
#include <string.h>

#include "base/fp16.h"
#include "check/check.h"
#include "check/fold.h"
#include "check/rows.h"
#include "check/tol.h"

static int round_up(int n, int step) { return (n + step - 1) / step * step; }

/* Value i (0 or 1) of a pair. */
static float half_of(uint32_t pair, int i) {
    return i == 0 ? varve_pair_first(pair) : varve_pair_second(pair);
}

/* The bits of bfloat16, but for denormals, which may be kept. */
static void check_half(struct check *check, int a, int r, uint32_t pair, int i, float value) {
    const float want = varve_bits_to_f32((uint32_t)varve_f32_to_normal_bf16(value) << 16);
    if (isnan(want) && isnan(half_of(pair, i))) return;
    check_near(check, "x", a, r, half_of(pair, i), want, TOL_TINY);
}

/* ---------------------------------------------------------------------------------------- pairk */

static uint32_t *pack_k(const struct rows *rows, varve_pairk_fn *run) {
    const size_t n = (size_t)round_up(rows->head_dim, VARVE_PAIRED) / 2 * VARVE_TILE_ROWS;
    uint32_t *const x = check_aligned(BUFFER_T, n * sizeof *x);
    const struct varve_pairk_args args = {.format = rows->format,
                                          .head_dim = rows->head_dim,
                                          .n_row = rows->n_row,
                                          .rows = rows->rows,
                                          .x = x};
    run(&args);
    return x;
}

static void run_k(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    struct rows rows;
    rows_create(&rows, check, format, kind, rows_head_dim(check, format), n_row);
    check_case(check, "D %d, n_row %d, rows %s", rows.head_dim, n_row, rows_kind_name(kind));
    const uint32_t *const x = pack_k(&rows, (varve_pairk_fn *)line->run);
    for (int i = 0; i < round_up(rows.head_dim, VARVE_PAIRED); i++) {
        for (int r = 0; r < n_row; r++) {
            const bool past = i >= rows.head_dim;
            check_half(check, i, r, x[i / 2 * VARVE_TILE_ROWS + r], i % 2,
                       past ? 0 : rows.value[(int64_t)r * rows.head_dim + i]);
        }
    }
    check_around(check, BUFFER_T, "x");
    rows_destroy(&rows);
}

/* ---------------------------------------------------------------------------------------- pairv */

static uint32_t *pack_v(const struct rows *rows, int32_t ld, varve_pairv_fn *run) {
    const size_t n = (size_t)round_up(rows->n_row, VARVE_PAIRED) / 2 * (size_t)ld;
    uint32_t *const x = check_aligned(BUFFER_T, n * sizeof *x);
    const struct varve_pairv_args args = {.format = rows->format,
                                          .head_dim = rows->head_dim,
                                          .ld = ld,
                                          .n_row = rows->n_row,
                                          .rows = rows->rows,
                                          .x = x};
    run(&args);
    return x;
}

static void run_v(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    struct rows rows;
    rows_create(&rows, check, format, kind, rows_head_dim(check, format), n_row);
    check_case(check, "D %d, n_row %d, rows %s", rows.head_dim, n_row, rows_kind_name(kind));
    const int32_t ld = round_up(rows.head_dim, 16);
    const uint32_t *const x = pack_v(&rows, ld, (varve_pairv_fn *)line->run);
    for (int r = 0; r < round_up(n_row, VARVE_PAIRED); r++) {
        for (int i = 0; i < ld; i++) {
            const bool past = i >= rows.head_dim || r >= n_row;
            check_half(check, r, i, x[r / 2 * ld + i], r % 2,
                       past ? 0 : rows.value[(int64_t)r * rows.head_dim + i]);
        }
    }
    check_around(check, BUFFER_T, "x");
    rows_destroy(&rows);
}

/* ------------------------------------------------------------------------------------ pairscore */

/* The sum in double over what was rounded. */
static double exact_score(const struct varve_queries *q, const uint32_t *x, int a, int r,
                          double *sum_abs, double *largest) {
    double sum = 0;
    *sum_abs = *largest = 0;
    for (int i = 0; i < q->head_dim; i++) {
        const double left = half_of(q->pair[a * q->ld_pair + i / 2], i % 2);
        const double term = left * half_of(x[i / 2 * VARVE_TILE_ROWS + r], i % 2);
        sum += term;
        *sum_abs += fabs(term);
        *largest = fmax(*largest, fabs(left));
    }
    return sum;
}

static void compare_scores(struct check *check, const struct varve_pairscore_args *args,
                           const float *reference, bool exact_case) {
    for (int a = 0; a < args->q->n; a++) {
        for (int r = 0; r < VARVE_TILE_ROWS; r++) {
            const int at = a * VARVE_TILE_ROWS + r;
            if (r >= round_up(args->n_row, 16) && !isnan(args->s[at])) {
                check_fail(check, "wrote s[%d][%d], past n_row rounded up", a, r);
            }
            if (r >= args->n_row) continue;
            double sum_abs, largest;
            const double want = exact_score(args->q, args->x, a, r, &sum_abs, &largest);
            const double tolerance =
                exact_case ? 0 : tol_pairs(args->q->head_dim, sum_abs, largest);
            check_near(check, "s", a, r, args->s[at], want, tolerance);
            check_near(check, "s (scalar)", a, r, args->s[at], reference[at], 2 * tolerance);
        }
    }
}

static void run_score(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format =
        rows_format(check, VARVE_FORMAT_F32, VARVE_FORMAT_Q8_0 - 1);
    struct score_case score;
    score_create(&score, check, format, n_row);
    const uint32_t *const x = pack_k(&score.rows, check->scalar->pairk[format->format].run);
    struct varve_pairscore_args args = {&score.q, x, n_row, score.scalar};
    check->scalar->pairscore.run(&args);
    args.s = score.s;
    ((varve_pairscore_fn *)line->run)(&args);
    compare_scores(check, &args, score.scalar, score.exact);
    check_around(check, BUFFER_S, "s");
    score_destroy(&score);
}

/* ------------------------------------------------------------------------------------- pairfold */

/* Compares o with the sum in double over what was rounded, and with the scalar kernel's. */
static void compare_fold(const struct fold_case *fold, struct check *check, const uint32_t *x) {
    for (int a = 0; a < fold->n; a++) {
        for (int i = 0; i < fold->head_dim; i++) {
            const int at = a * fold->ld + i;
            double want = fold->alpha[a] != 0 ? (double)fold->alpha[a] * fold->before[at] : 0;
            double sum_abs = fabs(want), largest = 0;
            for (int r = 0; r < fold->n_row; r++) {
                const uint32_t p = varve_bf16_pair(fold->p[a * VARVE_TILE_ROWS + r], 0);
                if (p == 0) continue;
                const double value = half_of(x[r / 2 * fold->ld + i], r % 2);
                want += varve_pair_first(p) * value;
                sum_abs += fabs(varve_pair_first(p) * value);
                largest = fmax(largest, fabs(value));
            }
            const double tolerance = tol_pairs(fold->n_row + 5, sum_abs, largest);
            check_near(check, "o", a, i, fold->o[at], want, tolerance);
            check_near(check, "o (scalar)", a, i, fold->o[at], fold->scalar[at], 2 * tolerance);
        }
    }
    check_around(check, BUFFER_O, "o");
}

static void run_fold(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format =
        rows_format(check, VARVE_FORMAT_F32, VARVE_FORMAT_COUNT - 1);
    struct fold_case fold;
    fold_create(&fold, check, format, n_row);
    const uint32_t *const x = pack_v(&fold.rows, fold.ld, check->scalar->pairv[format->format].run);
    struct varve_pairfold_args args = {.n = fold.n,
                                       .head_dim = fold.head_dim,
                                       .ld = fold.ld,
                                       .n_row = n_row,
                                       .sparse = fold.sparse,
                                       .x = x,
                                       .p = fold.p,
                                       .alpha = fold.alpha,
                                       .o = fold.scalar};
    check->scalar->pairfold.run(&args);
    args.o = fold.o;
    ((varve_pairfold_fn *)line->run)(&args);
    compare_fold(&fold, check, x);
    fold_destroy(&fold);
}

/* ---------------------------------------------------------------------------------------- bench */

static void call_k(check_fn *run, const void *args) { ((varve_pairk_fn *)run)(args); }
static void call_v(check_fn *run, const void *args) { ((varve_pairv_fn *)run)(args); }
static void call_score(check_fn *run, const void *args) { ((varve_pairscore_fn *)run)(args); }
static void call_fold(check_fn *run, const void *args) { ((varve_pairfold_fn *)run)(args); }

static double bench_bytes(const struct varve_format_traits *format) {
    return BENCH_D / format->block_values * format->block_bytes * VARVE_TILE_ROWS;
}

static void bench_k(struct check *check, const struct check_line *line) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    struct rows rows;
    rows_create(&rows, check, format, ROWS_NORMAL, BENCH_D, VARVE_TILE_ROWS);
    const struct varve_pairk_args args = {
        .format = format,
        .head_dim = BENCH_D,
        .n_row = rows.n_row,
        .rows = rows.rows,
        .x = check_aligned(BUFFER_T, BENCH_D / 2 * VARVE_TILE_ROWS * sizeof(uint32_t))};
    check_bench(check, line, (check_fn *)check->scalar->pairk[line->index].run, call_k, &args,
                bench_bytes(format), 0);
    rows_destroy(&rows);
}

static void bench_v(struct check *check, const struct check_line *line) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    struct rows rows;
    rows_create(&rows, check, format, ROWS_NORMAL, BENCH_D, VARVE_TILE_ROWS);
    const struct varve_pairv_args args = {
        .format = format,
        .head_dim = BENCH_D,
        .ld = BENCH_D,
        .n_row = rows.n_row,
        .rows = rows.rows,
        .x = check_aligned(BUFFER_T, BENCH_D * VARVE_TILE_ROWS / 2 * sizeof(uint32_t))};
    check_bench(check, line, (check_fn *)check->scalar->pairv[line->index].run, call_v, &args,
                bench_bytes(format), 0);
    rows_destroy(&rows);
}

static void bench_score(struct check *check, const struct check_line *line) {
    const struct varve_format_traits *const format = varve_format_traits(VARVE_FORMAT_F16);
    const int32_t n = check_tile_queries(check);
    struct score_case score;
    score_bench(&score, check, format, n);
    const struct varve_pairscore_args args = {
        &score.q, pack_k(&score.rows, check->scalar->pairk[VARVE_FORMAT_F16].run), VARVE_TILE_ROWS,
        score.s};
    check_bench(check, line, (check_fn *)check->scalar->pairscore.run, call_score, &args,
                bench_bytes(format), BENCH_D * VARVE_TILE_ROWS * n);
    score_destroy(&score);
}

static void bench_fold(struct check *check, const struct check_line *line) {
    const struct varve_format_traits *const format = varve_format_traits(VARVE_FORMAT_F16);
    struct fold_case fold;
    fold_bench(&fold, check, format, check_tile_queries(check));
    const struct varve_pairfold_args args = {
        .n = fold.n,
        .head_dim = BENCH_D,
        .ld = fold.ld,
        .n_row = VARVE_TILE_ROWS,
        .x = pack_v(&fold.rows, fold.ld, check->scalar->pairv[VARVE_FORMAT_F16].run),
        .p = fold.p,
        .alpha = fold.alpha,
        .o = fold.o};
    check_bench(check, line, (check_fn *)check->scalar->pairfold.run, call_fold, &args,
                bench_bytes(format), BENCH_D * VARVE_TILE_ROWS * fold.n);
    fold_destroy(&fold);
}

/* ---------------------------------------------------------------------------------------- table */

void varve_check_pairk(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_k, bench_k);
}

void varve_check_pairv(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_v, bench_v);
}

void varve_check_pairscore(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_score, bench_score);
}

void varve_check_pairfold(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_fold, bench_fold);
}
