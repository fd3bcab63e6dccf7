/* packk and packscore. */
#include <math.h>
#include <string.h>

#include "check/check.h"
#include "check/rows.h"
#include "check/tol.h"

struct pack {
    uint32_t *x;
    float *dk, *mk;
};

/* NaN in what is padding. */
static struct pack pack_rows(const struct rows *rows, varve_packk_fn *run) {
    const size_t line_bytes = VARVE_TILE_ROWS * sizeof(float);
    const size_t n_block = (size_t)rows->head_dim / VARVE_BLOCK;
    struct pack pack;
    pack.x = check_aligned(BUFFER_T, n_block * 8 * line_bytes);
    pack.dk = check_aligned(BUFFER_DK, n_block * line_bytes);
    pack.mk = check_aligned(BUFFER_MK, (rows->format->has_min ? n_block : 0) * line_bytes);
    const struct varve_packk_args args = {.format = rows->format,
                                          .head_dim = rows->head_dim,
                                          .n_row = rows->n_row,
                                          .rows = rows->rows,
                                          .x = pack.x,
                                          .dk = pack.dk,
                                          .mk = pack.mk};
    run(&args);
    if (!rows->format->has_min) pack.mk = NULL;
    return pack;
}

static void compare_pack(struct check *check, const struct rows *rows, const struct pack *pack) {
    const int n_block = rows->head_dim / VARVE_BLOCK;
    for (int i = 0; i < rows->head_dim; i++) {
        for (int r = 0; r < rows->n_row; r++) {
            uint8_t byte[4];
            memcpy(byte, &pack->x[i / 4 * VARVE_TILE_ROWS + r], sizeof byte);
            check_near(check, "x", i, r, byte[i % 4],
                       rows->q[(int64_t)r * rows->head_dim + i] + 128, 0);
        }
    }
    for (int b = 0; b < n_block; b++) {
        for (int r = 0; r < (rows->n_row + 15) / 16 * 16; r++) {
            const bool valid = r < rows->n_row;
            const int at = b * VARVE_TILE_ROWS + r;
            check_near(check, "dk", b, r, pack->dk[at], valid ? rows->d[r * n_block + b] : 0, 0);
            if (pack->mk == NULL) continue;
            check_near(check, "mk", b, r, pack->mk[at], valid ? rows->m[r * n_block + b] : 0, 0);
        }
    }
    check_around(check, BUFFER_T, "x");
    check_around(check, BUFFER_DK, "dk");
    check_around(check, BUFFER_MK, "mk");
}

static void run_pack(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    struct rows rows;
    rows_create(&rows, check, format, kind, rows_head_dim(check, format), n_row);
    check_case(check, "D %d, n_row %d, rows %s", rows.head_dim, n_row, rows_kind_name(kind));
    const struct pack pack = pack_rows(&rows, (varve_packk_fn *)line->run);
    compare_pack(check, &rows, &pack);
    rows_destroy(&rows);
}

/* The formula of score q8 in double. */
static double exact_score(const struct varve_queries *q, const struct rows *rows, int a, int r,
                          double *sum_abs) {
    double sum = 0;
    *sum_abs = 0;
    for (int b = 0; b < q->n_block; b++) {
        const double d = q->d[a * q->n_block + b];
        for (int i = b * VARVE_BLOCK; i < (b + 1) * VARVE_BLOCK; i++) {
            const double term = d * rows->d[r * q->n_block + b] * q->i[a * q->ld + i] *
                                rows->q[(int64_t)r * rows->head_dim + i];
            sum += term;
            *sum_abs += fabs(term);
        }
        const double term = d * rows->m[r * q->n_block + b] * q->sum[a * q->n_block + b];
        sum += term;
        *sum_abs += fabs(term);
    }
    return sum;
}

static void run_score(struct check *check, const struct check_line *line, int32_t n_row) {
    const struct varve_format_traits *const format =
        rows_format(check, VARVE_FORMAT_Q8_0, VARVE_FORMAT_COUNT - 1);
    struct score_case score;
    score_create(&score, check, format, n_row);
    const struct varve_queries *const q = &score.q;
    const struct pack pack = pack_rows(&score.rows, check->scalar->packk[format->format].run);
    struct varve_packscore_args args = {
        .q = q, .x = pack.x, .dk = pack.dk, .mk = pack.mk, .n_row = n_row, .s = score.scalar};
    check->scalar->packscore.run(&args);
    args.s = score.s;
    ((varve_packscore_fn *)line->run)(&args);
    for (int a = 0; a < q->n; a++) {
        for (int r = 0; r < n_row; r++) {
            const int at = a * VARVE_TILE_ROWS + r;
            double sum_abs;
            const double want = exact_score(q, &score.rows, a, r, &sum_abs);
            const double tolerance = score.exact ? 0 : tol_score_q8(q->n_block, sum_abs);
            check_near(check, "s", a, r, args.s[at], want, tolerance);
            check_near(check, "s (scalar)", a, r, args.s[at], score.scalar[at], 2 * tolerance);
        }
    }
    check_around(check, BUFFER_S, "s");
    score_destroy(&score);
}

static void call_score(check_fn *run, const void *args) { ((varve_packscore_fn *)run)(args); }

static void bench_score(struct check *check, const struct check_line *line) {
    const int32_t n = check_tile_queries(check);
    struct score_case score;
    score_bench(&score, check, varve_format_traits(VARVE_FORMAT_Q8_0), n);
    const struct pack pack = pack_rows(&score.rows, check->scalar->packk[VARVE_FORMAT_Q8_0].run);
    const struct varve_packscore_args args = {.q = &score.q,
                                              .x = pack.x,
                                              .dk = pack.dk,
                                              .mk = pack.mk,
                                              .n_row = VARVE_TILE_ROWS,
                                              .s = score.s};
    check_bench(check, line, (check_fn *)check->scalar->packscore.run, call_score, &args,
                BENCH_D * VARVE_TILE_ROWS, n * VARVE_TILE_ROWS * BENCH_D);
    score_destroy(&score);
}

static void call_pack(check_fn *run, const void *args) { ((varve_packk_fn *)run)(args); }

static void bench_pack(struct check *check, const struct check_line *line) {
    enum { D = 128 };
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    struct rows rows;
    rows_create(&rows, check, format, ROWS_NORMAL, D, VARVE_TILE_ROWS);
    const struct pack pack = pack_rows(&rows, (varve_packk_fn *)line->run);
    const struct varve_packk_args args = {.format = format,
                                          .head_dim = D,
                                          .n_row = VARVE_TILE_ROWS,
                                          .rows = rows.rows,
                                          .x = pack.x,
                                          .dk = pack.dk,
                                          .mk = pack.mk};
    check_bench(check, line, (check_fn *)check->scalar->packk[line->index].run, call_pack, &args,
                D / format->block_values * format->block_bytes * VARVE_TILE_ROWS, 0);
    rows_destroy(&rows);
}

void varve_check_packk(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_pack, bench_pack);
}

void varve_check_packscore(struct check *check, const struct check_line *line) {
    check_blocks(check, line, check->n_case, run_score, bench_score);
}
