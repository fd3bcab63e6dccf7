/* Sizes and small loops shared by the scalar kernels. */
#ifndef VARVE_KERNEL_SCALAR_H
#define VARVE_KERNEL_SCALAR_H

#include "kernel/dispatch.h" /* the prototypes */
#include "kernel/kernel.h"

/* Values of a row decoded at once: a multiple of the blocks of every format and of 16, small enough
 * that the buffers stay in L1 beside o and q. Rows of any length are worked off in such pieces. */
#define VARVE_PIECE 256
#define VARVE_PIECE_BLOCKS (VARVE_PIECE / VARVE_BLOCK)

/* Independent sums per dot product, so that the compiler may keep them in vector registers without
 * reordering floating-point additions. Divides VARVE_PIECE and every leading dimension. */
#define VARVE_LANES 16

static inline int32_t varve_min_i32(int32_t a, int32_t b) { return a < b ? a : b; }

static inline int32_t varve_round_up_16(int32_t n) { return (n + 15) / 16 * 16; }

/* Start of the piece of a row that begins with value `from`, a multiple of VARVE_BLOCK. */
static inline const uint8_t *varve_row_piece(const struct varve_format_traits *format,
                                             const uint8_t *row, int32_t from) {
    return row + (int64_t)(from / format->block_values) * format->block_bytes;
}

/* o = alpha * o + sum of p[r] * v[r][...], for n values rounded up to VARVE_LANES: o and v have
 * that much padding. Where alpha is 0, o is not read; if sparse, v is not read where p is 0. */
static inline void varve_fold_rows(float *restrict o, const float *restrict v, int32_t ld,
                                   const float *restrict p, float alpha, int32_t n, int32_t n_row,
                                   bool sparse) {
    for (int32_t from = 0; from < n; from += VARVE_LANES) {
        float sum[VARVE_LANES] = {0};
        if (alpha != 0.0f) {
            for (int32_t j = 0; j < VARVE_LANES; j++) sum[j] = alpha * o[from + j];
        }
        for (int32_t r = 0; r < n_row; r++) {
            const float *const row = v + (int64_t)r * ld + from;
            if (sparse && p[r] == 0.0f) continue;
            for (int32_t j = 0; j < VARVE_LANES; j++) sum[j] += p[r] * row[j];
        }
        for (int32_t j = 0; j < VARVE_LANES; j++) o[from + j] = sum[j];
    }
}

#endif
