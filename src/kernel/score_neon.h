/* What kernel/quant_score.h wants of codes and queries, for score_neon.c and score_dotprod.c. */
#ifndef VARVE_KERNEL_SCORE_NEON_H
#define VARVE_KERNEL_SCORE_NEON_H

#include "kernel/quant_neon.h"

struct score_codes {
    int8x16_t x[8];
};

/* A piece of a query, each 8 values twice: once for either row of a vector. */
struct score_query {
    int8_t twice[SCORE_PIECE * 2 * VARVE_BLOCK] __attribute__((aligned(16)));
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
    for (int32_t at = 0; at < n_block * VARVE_BLOCK; at += 8) {
        const int8x8_t half = vld1_s8(i + at);
        vst1q_s8(query->twice + 2 * at, vcombine_s8(half, half));
    }
}

/* Values 8j .. 8j + 7 of block b, twice. */
VEC_INLINE int8x16_t score_twice(const struct score_query *query, int32_t b, const int32_t j) {
    return vld1q_s8(query->twice + 2 * (b * VARVE_BLOCK + 8 * j));
}

#endif
