#include "check/rows.h"

#include <stdlib.h>
#include <string.h>

#include "base/fp16.h"
#include "check/tol.h"

const char *rows_kind_name(enum rows_kind kind) {
    static const char *const names[ROWS_KIND_COUNT] = {"normal",  "zero",    "small", "huge",
                                                       "pattern", "integer", "mixed"};
    return names[kind];
}

static void *allocate(size_t bytes) {
    void *const p = calloc(1, bytes + 1);
    if (p == NULL) exit(2);
    return p;
}

static void store_f16(uint8_t *p, float f) {
    const uint16_t h = varve_f32_to_f16(f);
    memcpy(p, &h, sizeof h);
}

/* Random bytes, then a step and minimum chosen: d at byte 0 and m, if any, at byte 2. */
static void fill_pattern(struct check *check, const struct varve_format_traits *format,
                         uint8_t *row, size_t n_byte, bool integer) {
    for (size_t i = 0; i < n_byte; i++) row[i] = (uint8_t)(check_random(check) >> 24);
    for (size_t i = 0; i < n_byte; i += (size_t)format->block_bytes) {
        store_f16(row + i, integer ? 1 : check_unit(check));
        if (format->has_min) {
            store_f16(row + i + 2, integer ? (float)check_range(check, -3, 3) : check_unit(check));
        }
    }
}

static void fill_values(struct check *check, enum rows_kind kind, float *x, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const float u = check_unit(check);
        switch (kind) {
        case ROWS_ZERO: x[i] = 0; break;
        case ROWS_SMALL: x[i] = u * INPUT_SMALL; break;
        case ROWS_HUGE: x[i] = u * INPUT_HUGE; break;
        case ROWS_INTEGER: x[i] = (float)check_range(check, -8, 8); break;
        default: x[i] = u + check_unit(check) * u * u; break;
        }
    }
}

static void fill_row(struct check *check, const struct varve_format_traits *format,
                     enum rows_kind kind, int32_t head_dim, uint8_t *row, size_t n_byte) {
    if (kind == ROWS_MIXED) kind = (enum rows_kind)check_range(check, 0, ROWS_PATTERN);
    if (format->quantized && (kind == ROWS_PATTERN || kind == ROWS_INTEGER)) {
        fill_pattern(check, format, row, n_byte, kind == ROWS_INTEGER);
        return;
    }
    float *const x = allocate((size_t)head_dim * sizeof *x);
    fill_values(check, kind, x, head_dim);
    format->encode(x, head_dim, row);
    free(x);
}

void rows_create(struct rows *rows, struct check *check, const struct varve_format_traits *format,
                 enum rows_kind kind, int32_t head_dim, int32_t n_row) {
    const size_t n_byte = (size_t)(head_dim / format->block_values * format->block_bytes);
    const size_t n_block = (size_t)((head_dim + VARVE_BLOCK - 1) / VARVE_BLOCK);
    const size_t n_value = (size_t)n_row * (size_t)head_dim;
    *rows = (struct rows){.format = format, .head_dim = head_dim, .n_row = n_row};
    rows->value = allocate(n_value * sizeof *rows->value);
    rows->q = allocate(n_value);
    rows->d = allocate((size_t)n_row * n_block * sizeof *rows->d);
    rows->m = allocate((size_t)n_row * n_block * sizeof *rows->m);
    for (int32_t r = 0; r < VARVE_TILE_ROWS; r++) {
        rows->rows[r] = check_forbidden();
        if (r >= n_row) continue;
        const enum check_place place = (enum check_place)check_range(check, 0, PLACE_COUNT - 1);
        uint8_t *const row = check_place(check, BUFFER_ROW + r, n_byte, place);
        rows->rows[r] = row;
        fill_row(check, format, kind, head_dim, row, n_byte);
        format->decode(row, head_dim, rows->value + (size_t)r * (size_t)head_dim);
        if (format->quantized) {
            format->split(row, head_dim, rows->q + (size_t)r * (size_t)head_dim,
                          rows->d + (size_t)r * n_block, rows->m + (size_t)r * n_block);
        }
    }
}

void rows_poison(struct rows *rows, int32_t r) {
    const size_t n_byte =
        (size_t)(rows->head_dim / rows->format->block_values * rows->format->block_bytes);
    /* rows are kept as const because kernels get them so; this memory is ours */
    uint8_t *const row = (uint8_t *)(uintptr_t)rows->rows[r];
    memset(row, 0xFF, n_byte);
    rows->format->decode(row, rows->head_dim, rows->value + (size_t)r * (size_t)rows->head_dim);
}

void rows_destroy(struct rows *rows) {
    free(rows->value);
    free(rows->q);
    free(rows->d);
    free(rows->m);
}

double rows_abs(const struct rows *rows, int32_t r, int32_t i) {
    const int64_t at = (int64_t)r * rows->head_dim + i;
    if (!rows->format->quantized) return fabs((double)rows->value[at]);
    const int64_t block = (int64_t)r * (rows->head_dim / VARVE_BLOCK) + i / VARVE_BLOCK;
    return fabs((double)rows->d[block] * rows->q[at]) + fabs((double)rows->m[block]);
}

const struct varve_format_traits *rows_format(struct check *check, enum varve_format first,
                                              enum varve_format last) {
    return varve_format_traits((enum varve_format)check_range(check, (int)first, (int)last));
}

int32_t rows_head_dim(struct check *check, const struct varve_format_traits *format) {
    static const int32_t common[] = {64, 128, 80, 96, 256, 576};
    const int32_t n_common = (int32_t)(sizeof common / sizeof common[0]);
    const int choice = check_range(check, 0, 9);
    if (format->block_values > 1) return VARVE_BLOCK * check_range(check, 1, 18);
    if (choice < 4) return common[check_range(check, 0, n_common - 1)];
    if (choice == 4) return check_range(check, 1, 31);
    return check_range(check, 32, 576);
}

static void fill_query(struct check *check, enum queries_kind kind, float *x, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const float u = check_unit(check);
        switch (kind) {
        case QUERIES_HUGE: x[i] = u * INPUT_HUGE; break;
        case QUERIES_ZERO: x[i] = 0; break;
        case QUERIES_INTEGER: x[i] = (float)check_range(check, -127, 127); break;
        default: x[i] = u; break;
        }
    }
    /* with this value in each block the step is 1 and the integers are the values */
    for (int32_t i = 0; kind == QUERIES_INTEGER && i < n; i += VARVE_BLOCK) x[i] = 127;
}

void queries_create(struct varve_queries *queries, struct check *check, enum queries_kind kind,
                    int32_t n, int32_t head_dim) {
    const int32_t ld = (head_dim + 15) / 16 * 16;
    const int32_t n_block = head_dim % VARVE_BLOCK == 0 ? head_dim / VARVE_BLOCK : 0;
    const size_t n_value = (size_t)n * (size_t)ld;
    const size_t n_part = (size_t)n * (size_t)n_block;
    float *const f = check_aligned(BUFFER_F, n_value * sizeof *f);
    int8_t *const i8 = check_aligned(BUFFER_I, n_value);
    float *const fi = check_aligned(BUFFER_FI, n_value * sizeof *fi);
    float *const d = check_aligned(BUFFER_D, n_part * sizeof *d);
    int32_t *const sum = check_aligned(BUFFER_SUM, n_part * sizeof *sum);
    const int32_t ld_pair = (head_dim + VARVE_PAIRED - 1) / VARVE_PAIRED * VARVE_PAIRED / 2;
    uint32_t *const pair = check_aligned(BUFFER_PAIR, (size_t)n * (size_t)ld_pair * sizeof *pair);
    memset(f, 0, n_value * sizeof *f);
    for (int32_t a = 0; a < n; a++) {
        const size_t row = (size_t)a * (size_t)ld;
        fill_query(check, kind, f + row, head_dim);
        for (int32_t j = 0; j < ld_pair; j++) { /* ld is even: no value stands without its second */
            const bool past = 2 * j >= ld;
            pair[a * ld_pair + j] =
                past ? 0 : varve_bf16_pair(f[row + 2 * (size_t)j], f[row + 2 * (size_t)j + 1]);
        }
        if (n_block == 0) continue;
        const struct varve_quantq_args args = {.head_dim = head_dim,
                                               .x = f + row,
                                               .i = i8 + row,
                                               .fi = fi + row,
                                               .d = d + (size_t)a * (size_t)n_block,
                                               .sum = sum + (size_t)a * (size_t)n_block};
        check->scalar->quantq.run(&args);
    }
    *queries = (struct varve_queries){.n = n,
                                      .head_dim = head_dim,
                                      .ld = ld,
                                      .n_block = n_block,
                                      .f = f,
                                      .i = i8,
                                      .fi = fi,
                                      .d = d,
                                      .sum = sum,
                                      .ld_pair = ld_pair,
                                      .pair = pair};
}

static void score_buffers(struct score_case *score) {
    const size_t bytes = (size_t)score->q.n * VARVE_TILE_ROWS * sizeof(float);
    score->scalar = check_aligned(BUFFER_S2, bytes);
    score->s = check_aligned(BUFFER_S, bytes);
}

void score_create(struct score_case *score, struct check *check,
                  const struct varve_format_traits *format, int32_t n_row) {
    const enum rows_kind kind = check_range(check, 0, ROWS_KIND_COUNT - 1);
    const enum queries_kind q_kind =
        kind == ROWS_INTEGER ? QUERIES_INTEGER : check_range(check, 0, QUERIES_KIND_COUNT - 1);
    const int32_t head_dim = rows_head_dim(check, format), n = check_queries(check);
    check_case(check, "%s, D %d, n %d, n_row %d, rows %s", format->name, head_dim, n, n_row,
               rows_kind_name(kind));
    score->exact = kind == ROWS_INTEGER;
    queries_create(&score->q, check, q_kind, n, head_dim);
    rows_create(&score->rows, check, format, kind, head_dim, n_row);
    score_buffers(score);
}

void score_bench(struct score_case *score, struct check *check,
                 const struct varve_format_traits *format, int32_t n) {
    score->exact = false;
    queries_create(&score->q, check, QUERIES_NORMAL, n, BENCH_D);
    rows_create(&score->rows, check, format, ROWS_NORMAL, BENCH_D, VARVE_TILE_ROWS);
    score_buffers(score);
}

void score_destroy(struct score_case *score) { rows_destroy(&score->rows); }
