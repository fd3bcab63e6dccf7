#include <math.h>
#include <string.h>

#include "check/check.h"
#include "check/fold.h"
#include "check/rows.h"
#include "check/tol.h"

/* Tile of rows as unpackk defines it, with NaN in what is padding. */
struct tile {
    float *t, *dk, *mk;
};

static void tile_create(struct tile *tile, const struct check *check, const struct rows *rows) {
    const struct varve_format_traits *const format = rows->format;
    const size_t line_bytes = VARVE_TILE_ROWS * sizeof(float);
    const size_t n_block = format->quantized ? (size_t)rows->head_dim / VARVE_BLOCK : 0;
    tile->t = check_aligned(BUFFER_T, (size_t)rows->head_dim * line_bytes);
    tile->dk = check_aligned(BUFFER_DK, n_block * line_bytes);
    tile->mk = check_aligned(BUFFER_MK, (format->has_min ? n_block : 0) * line_bytes);
    const struct varve_unpackk_args args = {.format = format,
                                            .head_dim = rows->head_dim,
                                            .n_row = rows->n_row,
                                            .rows = rows->rows,
                                            .t = tile->t,
                                            .dk = tile->dk,
                                            .mk = tile->mk};
    check->scalar->unpackk[format->format].run(&args);
    if (!format->has_min) tile->mk = NULL;
    if (!format->quantized) tile->dk = NULL;
}

/* Sums in double over column r of the tile. */
static double score_tile(const struct varve_queries *q, const struct tile *tile, bool q8, int a,
                         int r, double *sum_abs) {
    double sum = 0;
    *sum_abs = 0;
    for (int i = 0; i < q->head_dim; i++) {
        const double t = tile->t[i * VARVE_TILE_ROWS + r];
        double factor = 1;
        if (q8) {
            const int b = i / VARVE_BLOCK;
            factor = (double)q->d[a * q->n_block + b] * tile->dk[b * VARVE_TILE_ROWS + r];
        }
        const double term = factor * t * (q8 ? q->fi : q->f)[a * q->ld + i];
        sum += term;
        *sum_abs += fabs(term);
    }
    for (int b = 0; q8 && tile->mk != NULL && b < q->n_block; b++) {
        const double term = (double)q->d[a * q->n_block + b] * tile->mk[b * VARVE_TILE_ROWS + r] *
                            q->sum[a * q->n_block + b];
        sum += term;
        *sum_abs += fabs(term);
    }
    return sum;
}

static void compare(struct check *check, const struct varve_tilescore_args *args,
                    const struct tile *tile, bool q8, const float *reference, bool exact_case) {
    const struct varve_queries *const q = args->q;
    for (int a = 0; a < q->n; a++) {
        for (int r = 0; r < VARVE_TILE_ROWS; r++) {
            const int at = a * VARVE_TILE_ROWS + r;
            if (r >= (args->n_row + 15) / 16 * 16 && !isnan(args->s[at])) {
                check_fail(check, "wrote s[%d][%d], past n_row rounded up", a, r);
            }
            if (r >= args->n_row) continue;
            double sum_abs;
            const double want = score_tile(q, tile, q8, a, r, &sum_abs);
            const double tolerance =
                q8 ? tol_score_q8(q->n_block, sum_abs) : tol_dot(q->head_dim, sum_abs);
            check_near(check, "s", a, r, args->s[at], want, exact_case ? 0 : tolerance);
            check_near(check, "s (scalar)", a, r, args->s[at], reference[at],
                       exact_case ? 0 : 2 * tolerance);
        }
    }
}

static void run_score(struct check *check, const struct check_line *line, int32_t n_row) {
    const bool q8 = line->index == 1;
    /* a format for the slot: any of its class */
    const struct varve_format_traits *const format =
        q8 ? rows_format(check, VARVE_FORMAT_Q8_0, VARVE_FORMAT_COUNT - 1)
           : rows_format(check, VARVE_FORMAT_F32, VARVE_FORMAT_Q8_0 - 1);
    struct score_case score;
    struct tile tile;
    score_create(&score, check, format, n_row);
    tile_create(&tile, check, &score.rows);
    struct varve_tilescore_args args = {.q = &score.q,
                                        .t = tile.t,
                                        .dk = tile.dk,
                                        .mk = tile.mk,
                                        .n_row = n_row,
                                        .s = score.scalar};
    check->scalar->tilescore[line->index].run(&args);
    args.s = score.s;
    ((varve_tilescore_fn *)line->run)(&args);
    compare(check, &args, &tile, q8, score.scalar, score.exact);
    check_around(check, BUFFER_S, "s");
    score_destroy(&score);
}

/* The decoded rows as a tile, NaN in the padding columns. */
static float *value_tile(const struct rows *rows, int32_t ld) {
    float *const v = check_aligned(BUFFER_T, (size_t)rows->n_row * (size_t)ld * sizeof *v);
    for (int r = 0; r < rows->n_row; r++) {
        memcpy(v + r * ld, rows->value + (int64_t)r * rows->head_dim,
               (size_t)rows->head_dim * sizeof *v);
    }
    return v;
}

static void run_fold(struct check *check, const struct check_line *line, int32_t n_row) {
    struct fold_case fold;
    fold_create(&fold, check, rows_format(check, VARVE_FORMAT_F32, VARVE_FORMAT_COUNT - 1), n_row);
    struct varve_tilefold_args args = {.n = fold.n,
                                       .head_dim = fold.head_dim,
                                       .ld = fold.ld,
                                       .n_row = n_row,
                                       .sparse = fold.sparse,
                                       .v = value_tile(&fold.rows, fold.ld),
                                       .p = fold.p,
                                       .alpha = fold.alpha,
                                       .o = fold.scalar};
    check->scalar->tilefold.run(&args);
    args.o = fold.o;
    ((varve_tilefold_fn *)line->run)(&args);
    fold_compare(&fold, check, false);
    fold_destroy(&fold);
}

static void call_score(check_fn *run, const void *args) { ((varve_tilescore_fn *)run)(args); }
static void call_fold(check_fn *run, const void *args) { ((varve_tilefold_fn *)run)(args); }

static void bench_score(struct check *check, const struct check_line *line) {
    const bool q8 = line->index == 1;
    const int32_t n = check_tile_queries(check);
    struct score_case score;
    struct tile tile;
    score_bench(&score, check, varve_format_traits(q8 ? VARVE_FORMAT_Q8_0 : VARVE_FORMAT_F16), n);
    tile_create(&tile, check, &score.rows);
    const struct varve_tilescore_args args = {.q = &score.q,
                                              .t = tile.t,
                                              .dk = tile.dk,
                                              .mk = tile.mk,
                                              .n_row = VARVE_TILE_ROWS,
                                              .s = score.s};
    check_bench(check, line, (check_fn *)check->scalar->tilescore[line->index].run, call_score,
                &args, BENCH_D * VARVE_TILE_ROWS * sizeof(float), BENCH_D * VARVE_TILE_ROWS * n);
    score_destroy(&score);
}

static void bench_fold(struct check *check, const struct check_line *line) {
    const int32_t n = check_tile_queries(check);
    struct fold_case fold;
    fold_bench(&fold, check, varve_format_traits(VARVE_FORMAT_F16), n);
    const struct varve_tilefold_args args = {.n = n,
                                             .head_dim = BENCH_D,
                                             .ld = fold.ld,
                                             .n_row = VARVE_TILE_ROWS,
                                             .v = value_tile(&fold.rows, fold.ld),
                                             .p = fold.p,
                                             .alpha = fold.alpha,
                                             .o = fold.o};
    check_bench(check, line, (check_fn *)check->scalar->tilefold.run, call_fold, &args,
                BENCH_D * VARVE_TILE_ROWS * sizeof(float), BENCH_D * VARVE_TILE_ROWS * n);
    fold_destroy(&fold);
}

void varve_check_tilescore(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_score, bench_score);
}

void varve_check_tilefold(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_fold, bench_fold);
}
