/* packv and packfold. */
#include <string.h>

#include "check/check.h"
#include "check/fold.h"
#include "check/tol.h"

struct pack {
    int16_t (*x)[2];
    float *dv, *mv;
};

/* NaN in what is padding. */
static struct pack pack_rows(const struct rows *rows, varve_packv_fn *run) {
    const size_t line_bytes = VARVE_TILE_ROWS * sizeof(float);
    const size_t n_block = (size_t)rows->head_dim / VARVE_BLOCK;
    struct pack pack;
    pack.x = check_aligned(BUFFER_T, n_block * VARVE_BLOCK * VARVE_TILE_ROWS * sizeof(int16_t));
    pack.dv = check_aligned(BUFFER_DK, n_block * line_bytes);
    pack.mv = check_aligned(BUFFER_MK, (rows->format->has_min ? n_block : 0) * line_bytes);
    const struct varve_packv_args args = {.format = rows->format,
                                          .head_dim = rows->head_dim,
                                          .n_row = rows->n_row,
                                          .rows = rows->rows,
                                          .x = pack.x,
                                          .dv = pack.dv,
                                          .mv = pack.mv};
    run(&args);
    if (!rows->format->has_min) pack.mv = NULL;
    return pack;
}

static void run_pack(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    struct rows rows;
    rows_create(&rows, check, format, kind, rows_head_dim(check, format), n_row);
    check_case(check, "D %d, n_row %d, rows %s", rows.head_dim, n_row, rows_kind_name(kind));
    const struct pack pack = pack_rows(&rows, (varve_packv_fn *)line->run);
    const int n_block = rows.head_dim / VARVE_BLOCK;
    for (int b = 0; b < n_block; b++) {
        for (int r = 0; r < VARVE_TILE_ROWS; r++) {
            const bool valid = r < n_row;
            const int at = b * VARVE_TILE_ROWS + r;
            const int pair = (b * VARVE_TILE_ROWS / 2 + r / 2) * VARVE_BLOCK;
            for (int c = 0; c < VARVE_BLOCK && valid; c++) {
                const int64_t q = (int64_t)r * rows.head_dim + b * VARVE_BLOCK + c;
                check_near(check, "x", b * VARVE_BLOCK + c, r, pack.x[pair + c][r % 2], rows.q[q],
                           0);
            }
            check_near(check, "dv", b, r, pack.dv[at], valid ? rows.d[r * n_block + b] : 0, 0);
            if (pack.mv == NULL) continue;
            check_near(check, "mv", b, r, pack.mv[at], valid ? rows.m[r * n_block + b] : 0, 0);
        }
    }
    check_around(check, BUFFER_T, "x");
    check_around(check, BUFFER_DK, "dv");
    check_around(check, BUFFER_MK, "mv");
    rows_destroy(&rows);
}

static struct varve_packfold_args args_of(const struct fold_case *fold, const struct pack *pack,
                                          float *o) {
    return (struct varve_packfold_args){.n = fold->n,
                                        .head_dim = fold->head_dim,
                                        .ld = fold->ld,
                                        .n_row = fold->n_row,
                                        .sparse = fold->sparse,
                                        .x = (const int16_t(*)[2])pack->x,
                                        .dv = pack->dv,
                                        .mv = pack->mv,
                                        .p = fold->p,
                                        .alpha = fold->alpha,
                                        .o = o};
}

static void run_fold(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format =
        rows_format(check, VARVE_FORMAT_Q8_0, VARVE_FORMAT_COUNT - 1);
    struct fold_case fold;
    fold_create(&fold, check, format, n_row);
    const struct pack pack = pack_rows(&fold.rows, check->scalar->packv[format->format].run);
    const struct varve_packfold_args scalar = args_of(&fold, &pack, fold.scalar);
    const struct varve_packfold_args args = args_of(&fold, &pack, fold.o);
    check->scalar->packfold.run(&scalar);
    ((varve_packfold_fn *)line->run)(&args);
    fold_compare(&fold, check, true);
    fold_destroy(&fold);
}

static void call_pack(check_fn *run, const void *args) { ((varve_packv_fn *)run)(args); }
static void call_fold(check_fn *run, const void *args) { ((varve_packfold_fn *)run)(args); }

static void bench_pack(struct check *check, const struct check_line *line) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    struct rows rows;
    rows_create(&rows, check, format, ROWS_NORMAL, BENCH_D, VARVE_TILE_ROWS);
    const struct pack pack = pack_rows(&rows, (varve_packv_fn *)line->run);
    const struct varve_packv_args args = {.format = format,
                                          .head_dim = BENCH_D,
                                          .n_row = VARVE_TILE_ROWS,
                                          .rows = rows.rows,
                                          .x = pack.x,
                                          .dv = pack.dv,
                                          .mv = pack.mv};
    check_bench(check, line, (check_fn *)check->scalar->packv[line->index].run, call_pack, &args,
                BENCH_D / format->block_values * format->block_bytes * VARVE_TILE_ROWS, 0);
    rows_destroy(&rows);
}

static void bench_fold(struct check *check, const struct check_line *line) {
    const int32_t n = check_tile_queries(check);
    struct fold_case fold;
    fold_bench(&fold, check, varve_format_traits(VARVE_FORMAT_Q8_0), n);
    const struct pack pack = pack_rows(&fold.rows, check->scalar->packv[VARVE_FORMAT_Q8_0].run);
    const struct varve_packfold_args args = args_of(&fold, &pack, fold.o);
    check_bench(check, line, (check_fn *)check->scalar->packfold.run, call_fold, &args,
                BENCH_D * VARVE_TILE_ROWS * sizeof(int16_t), BENCH_D * VARVE_TILE_ROWS * n);
    fold_destroy(&fold);
}

void varve_check_packv(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_pack, bench_pack);
}

void varve_check_packfold(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_fold, bench_fold);
}
