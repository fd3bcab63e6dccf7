#include <math.h>
#include <string.h>

#include "check/check.h"
#include "check/rows.h"
#include "check/tol.h"

static int round_up_16(int n) { return (n + 15) / 16 * 16; }

/* What column r of a tile must hold in line i. */
static float tile_value(const struct rows *rows, int i, int r) {
    const int64_t at = (int64_t)r * rows->head_dim + i;
    if (r >= rows->n_row) return 0;
    return rows->format->quantized ? (float)rows->q[at] : rows->value[at];
}

static void compare_tile(struct check *check, const struct rows *rows, const float *t) {
    for (int i = 0; i < rows->head_dim; i++) {
        for (int r = 0; r < round_up_16(rows->n_row); r++) {
            check_near(check, "t", i, r, t[i * VARVE_TILE_ROWS + r], tile_value(rows, i, r), 0);
        }
    }
}

static void compare_parts(struct check *check, const struct rows *rows, const char *name,
                          const float *part, const float *want) {
    const int n_block = rows->head_dim / VARVE_BLOCK;
    for (int b = 0; b < n_block; b++) {
        for (int r = 0; r < round_up_16(rows->n_row); r++) {
            check_near(check, name, b, r, part[b * VARVE_TILE_ROWS + r],
                       r < rows->n_row ? want[r * n_block + b] : 0, 0);
        }
    }
}

static void run_k(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    const int32_t head_dim = rows_head_dim(check, format);
    struct rows rows;
    check_case(check, "D %d, n_row %d, rows %s", head_dim, n_row, rows_kind_name(kind));
    rows_create(&rows, check, format, kind, head_dim, n_row);
    const size_t line_bytes = VARVE_TILE_ROWS * sizeof(float);
    const size_t n_block = format->quantized ? (size_t)head_dim / VARVE_BLOCK : 0;
    struct varve_unpackk_args args = {
        .format = format, .head_dim = head_dim, .n_row = n_row, .rows = rows.rows};
    args.t = check_aligned(BUFFER_T, (size_t)head_dim * line_bytes);
    args.dk = check_aligned(BUFFER_DK, n_block * line_bytes);
    args.mk = check_aligned(BUFFER_MK, (format->has_min ? n_block : 0) * line_bytes);
    ((varve_unpackk_fn *)line->run)(&args);
    compare_tile(check, &rows, args.t);
    check_around(check, BUFFER_T, "t");
    if (format->quantized) compare_parts(check, &rows, "dk", args.dk, rows.d);
    check_around(check, BUFFER_DK, "dk");
    if (format->has_min) compare_parts(check, &rows, "mk", args.mk, rows.m);
    check_around(check, BUFFER_MK, "mk");
    rows_destroy(&rows);
}

static void run_v(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    const int32_t head_dim = rows_head_dim(check, format);
    const int32_t ld = round_up_16(head_dim);
    struct rows rows;
    check_case(check, "D %d, n_row %d, rows %s", head_dim, n_row, rows_kind_name(kind));
    rows_create(&rows, check, format, kind, head_dim, n_row);
    float *const v = check_aligned(BUFFER_T, (size_t)n_row * (size_t)ld * sizeof *v);
    const struct varve_unpackv_args args = {.format = format,
                                            .head_dim = head_dim,
                                            .ld = ld,
                                            .n_row = n_row,
                                            .rows = rows.rows,
                                            .v = v};
    ((varve_unpackv_fn *)line->run)(&args);
    for (int r = 0; r < n_row; r++) {
        for (int i = 0; i < head_dim; i++) {
            const float want = rows.value[(int64_t)r * head_dim + i];
            const double scale = format->has_min ? rows_abs(&rows, r, i) : 0;
            check_near(check, "v", r, i, v[r * ld + i], want,
                       format->has_min ? tol_decode(scale, scale) : 0);
        }
        for (int i = head_dim; i < ld; i++) check_near(check, "v", r, i, v[r * ld + i], 0, 0);
    }
    check_around(check, BUFFER_T, "v");
    rows_destroy(&rows);
}

static void call_k(check_fn *run, const void *args) { ((varve_unpackk_fn *)run)(args); }
static void call_v(check_fn *run, const void *args) { ((varve_unpackv_fn *)run)(args); }

static void bench(struct check *check, const struct check_line *line, bool is_k) {
    enum { D = 128 };
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const double bytes = D / format->block_values * format->block_bytes * VARVE_TILE_ROWS;
    const size_t line_bytes = VARVE_TILE_ROWS * sizeof(float);
    struct rows rows;
    rows_create(&rows, check, format, ROWS_NORMAL, D, VARVE_TILE_ROWS);
    float *const t = check_aligned(BUFFER_T, D * line_bytes);
    const struct varve_unpackk_args k = {
        .format = format,
        .head_dim = D,
        .n_row = VARVE_TILE_ROWS,
        .rows = rows.rows,
        .t = t,
        .dk = check_aligned(BUFFER_DK, D / VARVE_BLOCK * line_bytes),
        .mk = check_aligned(BUFFER_MK, D / VARVE_BLOCK * line_bytes)};
    const struct varve_unpackv_args v = {.format = format,
                                         .head_dim = D,
                                         .ld = D,
                                         .n_row = VARVE_TILE_ROWS,
                                         .rows = rows.rows,
                                         .v = t};
    if (is_k) {
        check_bench(check, line, (check_fn *)check->scalar->unpackk[line->index].run, call_k, &k,
                    bytes, 0);
    } else {
        check_bench(check, line, (check_fn *)check->scalar->unpackv[line->index].run, call_v, &v,
                    bytes, 0);
    }
    rows_destroy(&rows);
}

static void bench_k(struct check *check, const struct check_line *line) {
    bench(check, line, true);
}

static void bench_v(struct check *check, const struct check_line *line) {
    bench(check, line, false);
}

void varve_check_unpackk(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_k, bench_k);
}

void varve_check_unpackv(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_v, bench_v);
}
