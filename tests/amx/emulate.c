/* The tile registers of AMX in plain C, as Intel's manual defines palette 1 (volume 2, TILELOADD,
 * TDPBF16PS, TDPBSSD), for machines without them. What would raise an exception ends the process.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fp16.h"
#include "kernel/tile_amx.h"

enum { N_TILE = 8 };

struct tile {
    uint8_t row[AMX_ROWS][AMX_ROW_BYTES];
};

static _Thread_local struct tile tiles[N_TILE];
static _Thread_local struct amx_config current; /* palette 0: none */

static void must(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "AMX, emulated: %s\n", what);
    abort();
}

__attribute__((constructor)) static void say_so(void) {
    printf("emulated: amx (plain C in place of the tile registers)\n"
           "skipped: amx, the instructions themselves\n");
    fflush(stdout);
}

/* ------------------------------------------------------------------------------- configuration */

void varve_amx_configure(const struct amx_config *config) {
    must(config->palette == 1 && config->start_row == 0, "palette 1 and start row 0 expected");
    for (size_t i = 0; i < sizeof config->reserved; i++) {
        must(config->reserved[i] == 0, "a reserved byte is not zero");
    }
    for (int t = 0; t < 16; t++) {
        must((config->rows[t] == 0) == (config->row_bytes[t] == 0), "a tile with one size only");
        must(config->rows[t] <= AMX_ROWS && config->row_bytes[t] <= AMX_ROW_BYTES,
             "a tile is too large");
        must(t < N_TILE || config->rows[t] == 0, "there are eight tiles");
    }
    current = *config;
    memset(tiles, 0, sizeof tiles);
}

void varve_amx_begin(const struct amx_config *config) {
    must(current.palette == 0, "a kernel before this one has not released the tiles");
    varve_amx_configure(config);
}

void varve_amx_release(void) { memset(&current, 0, sizeof current); }

static struct tile *tile_of(int t) {
    must(current.palette == 1 && t >= 0 && t < N_TILE && current.rows[t] > 0,
         "a tile is used that is not configured");
    return &tiles[t];
}

/* ---------------------------------------------------------------------------------- loads, stores
 */

void varve_amx_zero(int t) { memset(tile_of(t), 0, sizeof(struct tile)); }

void varve_amx_load(int t, const void *from, int64_t stride) {
    struct tile *const tile = tile_of(t);
    memset(tile, 0, sizeof *tile);
    for (int r = 0; r < current.rows[t]; r++) {
        memcpy(tile->row[r], (const uint8_t *)from + r * stride, current.row_bytes[t]);
    }
}

void varve_amx_store(int t, void *to, int64_t stride) {
    const struct tile *const tile = tile_of(t);
    for (int r = 0; r < current.rows[t]; r++) {
        memcpy((uint8_t *)to + r * stride, tile->row[r], current.row_bytes[t]);
    }
}

/* ------------------------------------------------------------------------------------- products */

static void check_shapes(int sum, int a, int b) {
    must(sum != a && sum != b && a != b, "the three tiles of a product must differ");
    (void)tile_of(sum);
    (void)tile_of(a);
    (void)tile_of(b);
    must(current.rows[sum] == current.rows[a] && current.row_bytes[sum] == current.row_bytes[b] &&
             current.row_bytes[a] == 4 * current.rows[b] && current.row_bytes[b] % 4 == 0,
         "the tiles of a product do not fit together");
}

/* Denormals are zero, sign kept. */
static float flush(float x) { return fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x; }

static float half(const uint8_t *row, int i) {
    uint16_t h;
    memcpy(&h, row + 2 * i, sizeof h);
    return flush(varve_bf16_to_f32(h));
}

/* For each sum: even and odd products apart, each one fused, then their sum, then the old one. */
void varve_amx_dot_bf16(int sum, int a, int b) {
    check_shapes(sum, a, b);
    for (int m = 0; m < current.rows[sum]; m++) {
        for (int n = 0; n < current.row_bytes[sum] / 4; n++) {
            float even = 0, odd = 0, old;
            for (int k = 0; k < current.rows[b]; k++) {
                const uint8_t *const left = tiles[a].row[m], *const right = tiles[b].row[k];
                even = flush(fmaf(half(left, 2 * k), half(right, 2 * n), even));
                odd = flush(fmaf(half(left, 2 * k + 1), half(right, 2 * n + 1), odd));
            }
            memcpy(&old, tiles[sum].row[m] + 4 * n, sizeof old);
            old = flush(flush(old) + flush(even + odd));
            memcpy(tiles[sum].row[m] + 4 * n, &old, sizeof old);
        }
    }
}

/* A byte of a row, with a sign or without. */
static int byte(const uint8_t *row, int i, bool has_sign) {
    return has_sign ? (int8_t)row[i] : row[i];
}

/* Sums modulo 2^32. */
static void dot_bytes(int sum, int a, int b, bool sign_a, bool sign_b) {
    check_shapes(sum, a, b);
    for (int m = 0; m < current.rows[sum]; m++) {
        for (int n = 0; n < current.row_bytes[sum] / 4; n++) {
            uint32_t total;
            memcpy(&total, tiles[sum].row[m] + 4 * n, sizeof total);
            for (int k = 0; k < current.rows[b]; k++) {
                for (int i = 0; i < 4; i++) {
                    total += (uint32_t)(byte(tiles[a].row[m], 4 * k + i, sign_a) *
                                        byte(tiles[b].row[k], 4 * n + i, sign_b));
                }
            }
            memcpy(tiles[sum].row[m] + 4 * n, &total, sizeof total);
        }
    }
}

void varve_amx_dot_i8_u8(int sum, int a, int b) { dot_bytes(sum, a, b, true, false); }
void varve_amx_dot_i8_i8(int sum, int a, int b) { dot_bytes(sum, a, b, true, true); }
void varve_amx_dot_u8_i8(int sum, int a, int b) { dot_bytes(sum, a, b, false, true); }
