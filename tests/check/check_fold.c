#include "check/check.h"
#include "check/fold.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check/tol.h"

static void fill_weights(struct fold_case *fold, struct check *check) {
    for (int r = 0; r < fold->n_row; r++) {
        const bool hidden = check_range(check, 0, 3) == 0;
        for (int a = 0; a < fold->n; a++) {
            float *const p = &fold->p[a * VARVE_TILE_ROWS + r];
            *p = hidden || check_range(check, 0, 5) == 0 ? 0 : fabsf(check_unit(check));
        }
        if (hidden && fold->sparse) rows_poison(&fold->rows, r);
    }
}

/* Weights, factors and accumulators to the rows. */
static void fill(struct fold_case *fold, struct check *check, int32_t n, bool sparse) {
    const int32_t head_dim = fold->rows.head_dim, ld = (head_dim + 15) / 16 * 16;
    const size_t bytes = (size_t)n * (size_t)ld * sizeof(float);
    fold->n = n;
    fold->head_dim = head_dim;
    fold->ld = ld;
    fold->n_row = fold->rows.n_row;
    fold->sparse = sparse;
    fold->p = check_aligned(BUFFER_P, (size_t)n * VARVE_TILE_ROWS * sizeof(float));
    fold->alpha = check_aligned(BUFFER_ALPHA, (size_t)n * sizeof(float));
    fold->scalar = check_aligned(BUFFER_O2, bytes);
    fold->o = check_aligned(BUFFER_O, bytes);
    fold->before = malloc(bytes);
    if (fold->before == NULL) exit(2);
    fill_weights(fold, check);
    for (int a = 0; a < n; a++) {
        const int choice = check_range(check, 0, 3);
        fold->alpha[a] = choice == 0 ? 0 : choice == 1 ? 1 : fabsf(check_unit(check));
        for (int i = 0; i < ld; i++) {
            const bool unread = choice == 0 || i >= head_dim;
            fold->before[a * ld + i] = unread ? NAN : check_unit(check);
        }
    }
    memcpy(fold->scalar, fold->before, bytes);
    memcpy(fold->o, fold->before, bytes);
}

void fold_create(struct fold_case *fold, struct check *check,
                 const struct varve_format_traits *format, int32_t n_row) {
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    rows_create(&fold->rows, check, format, kind, rows_head_dim(check, format), n_row);
    const int32_t n = check_queries(check);
    fill(fold, check, n, check_range(check, 0, 1) == 1);
    check_case(check, "%s, D %d, n %d, n_row %d, rows %s%s", format->name, fold->head_dim, n, n_row,
               rows_kind_name(kind), fold->sparse ? ", sparse" : "");
}

void fold_bench(struct fold_case *fold, struct check *check,
                const struct varve_format_traits *format, int32_t n) {
    rows_create(&fold->rows, check, format, ROWS_NORMAL, BENCH_D, VARVE_TILE_ROWS);
    fill(fold, check, n, false);
    for (int a = 0; a < n; a++) fold->alpha[a] = INPUT_SCALE;
    memset(fold->o, 0, (size_t)n * (size_t)fold->ld * sizeof(float));
}

/* What foldq may miss by in column i. */
static double rounding(const struct fold_case *fold, int a, int i) {
    const struct rows *const rows = &fold->rows;
    double largest_p = 0, largest_d = 0, sum_abs_q = 0;
    for (int r = 0; r < fold->n_row; r++) {
        const double p = fold->p[a * VARVE_TILE_ROWS + r];
        if (fold->sparse && p == 0) continue;
        const int n_block = rows->head_dim / VARVE_BLOCK;
        largest_p = fmax(largest_p, p);
        largest_d = fmax(largest_d, fabs(rows->d[r * n_block + i / VARVE_BLOCK]));
        if (p != 0) sum_abs_q += abs(rows->q[(int64_t)r * rows->head_dim + i]);
    }
    return tol_foldq(fmax(largest_p * largest_d / 32767, TOL_TINY), sum_abs_q);
}

void fold_compare(const struct fold_case *fold, struct check *check, bool rounded) {
    const struct rows *const rows = &fold->rows;
    for (int a = 0; a < fold->n; a++) {
        for (int i = 0; i < fold->head_dim; i++) {
            const int at = a * fold->ld + i;
            double want = 0, sum_abs = 0;
            if (fold->alpha[a] != 0) want = (double)fold->alpha[a] * fold->before[at];
            sum_abs = fabs(want);
            for (int r = 0; r < fold->n_row; r++) {
                const double p = fold->p[a * VARVE_TILE_ROWS + r];
                if (p == 0) continue;
                want += p * rows->value[(int64_t)r * rows->head_dim + i];
                sum_abs += fabs(p) * rows_abs(rows, r, i);
            }
            const double tolerance = tol_fold(fold->n_row, sum_abs);
            check_near(check, "o", a, i, fold->o[at], want,
                       tolerance + (rounded ? rounding(fold, a, i) : 0));
            check_near(check, "o (scalar)", a, i, fold->o[at], fold->scalar[at], 2 * tolerance);
        }
    }
    check_around(check, BUFFER_O, "o");
}

void fold_destroy(struct fold_case *fold) {
    free(fold->before);
    rows_destroy(&fold->rows);
}

static bool is_rounded(const struct check_line *line) { return strcmp(line->op, "foldq") == 0; }

static varve_fold_fn *scalar_of(const struct check *check, const struct check_line *line) {
    return is_rounded(line) ? check->scalar->foldq[line->index].run
                            : check->scalar->fold[line->index].run;
}

static void run_case(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    struct fold_case fold;
    fold_create(&fold, check, format, n_row);
    struct varve_fold_args args = {.format = format,
                                   .n = fold.n,
                                   .head_dim = fold.head_dim,
                                   .ld = fold.ld,
                                   .n_row = n_row,
                                   .sparse = fold.sparse,
                                   .rows = fold.rows.rows,
                                   .p = fold.p,
                                   .alpha = fold.alpha};
    args.o = fold.scalar;
    scalar_of(check, line)(&args);
    args.o = fold.o;
    ((varve_fold_fn *)line->run)(&args);
    fold_compare(&fold, check, is_rounded(line));
    fold_destroy(&fold);
}

static void call(check_fn *run, const void *args) { ((varve_fold_fn *)run)(args); }

static void bench(struct check *check, const struct check_line *line) {
    enum { N = 4 };
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    struct fold_case fold;
    fold_bench(&fold, check, format, N);
    const struct varve_fold_args args = {.format = format,
                                         .n = N,
                                         .head_dim = BENCH_D,
                                         .ld = fold.ld,
                                         .n_row = VARVE_TILE_ROWS,
                                         .rows = fold.rows.rows,
                                         .p = fold.p,
                                         .alpha = fold.alpha,
                                         .o = fold.o};
    check_bench(check, line, (check_fn *)scalar_of(check, line), call, &args,
                BENCH_D / format->block_values * format->block_bytes * VARVE_TILE_ROWS,
                N * VARVE_TILE_ROWS * BENCH_D);
    fold_destroy(&fold);
}

void varve_check_fold(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_case, bench);
}

void varve_check_foldq(struct check *check, const struct check_line *line) {
    varve_check_fold(check, line);
}
