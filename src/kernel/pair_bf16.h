/* Rounding to bfloat16, for the files of the levels that have it. */
#ifndef VARVE_KERNEL_PAIR_BF16_H
#define VARVE_KERNEL_PAIR_BF16_H

#include "kernel/vec_avx512.h"

enum { PAIR_ROWS = VARVE_TILE_ROWS / 2 };

/* 32 values in two vectors to bfloat16, the first 16 in the lower half. */
VEC_INLINE __m512i to_bf16(__m512 first, __m512 second) {
    return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

/* The weights of n queries in pairs of rows, complete up to a multiple of VARVE_PAIRED; those past
 * the last row are zero. */
VEC_INLINE void round_weights(const float *p, int32_t n, int32_t n_row,
                              uint32_t (*pair)[PAIR_ROWS]) {
    for (int32_t a = 0; a < n; a++, p += VARVE_TILE_ROWS) {
        for (int32_t r = 0; r < n_row; r += VARVE_PAIRED) {
            const __m512 first = _mm512_maskz_load_ps(vec_first(n_row - r), p + r);
            const __m512 second = n_row - r > 16
                                      ? _mm512_maskz_load_ps(vec_first(n_row - r - 16), p + r + 16)
                                      : _mm512_setzero_ps();
            _mm512_store_si512(&pair[a][r / 2], to_bf16(first, second));
        }
    }
}

#endif
