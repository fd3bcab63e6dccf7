/* The integer dot product of the levels that have one: for score_dotprod.c and score_i8mm.c, which
 * include kernel/quant_score.h behind it. */
#ifndef VARVE_KERNEL_QUANT_DOTPROD_H
#define VARVE_KERNEL_QUANT_DOTPROD_H

#include "kernel/quant_neon.h"

struct score_codes {
    int8x16_t x[8];
};

struct score_query {
    const int8_t *i;
};

VEC_INLINE void score_codes(const enum varve_format f, const int32x4_t x[8],
                            struct score_codes *codes) {
    (void)f;
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) codes->x[j] = vreinterpretq_s8_s32(x[j]);
}

VEC_INLINE void score_query(const enum varve_format f, const int8_t *i, int32_t n_block,
                            struct score_query *query) {
    (void)f;
    (void)n_block;
    query->i = i;
}

/* The bias is off the codes already. */
VEC_INLINE int32x4_t score_dot(const enum varve_format f, const struct score_codes *codes,
                               const struct score_query *query, int32_t b, int32_t q_sum) {
    const int8_t *const i = query->i + b * VARVE_BLOCK;
    int32x4_t rows01 = vdupq_n_s32(0);
    int32x4_t rows23 = vdupq_n_s32(0);
    (void)f;
    (void)q_sum;
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        const int8x8_t half = vld1_s8(i + 8 * j);
        const int8x16_t y = vcombine_s8(half, half);
        rows01 = vdotq_s32(rows01, codes->x[j], y);
        rows23 = vdotq_s32(rows23, codes->x[4 + j], y);
    }
    return vpaddq_s32(rows01, rows23);
}

#endif
