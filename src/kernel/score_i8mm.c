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

/* Two rows by two queries, 8 codes of each: 32 products an instruction. */
VEC_INLINE void score_multiply(const struct score_codes *codes, const int8_t *q0, const int8_t *q1,
                               int32x4_t i[2]) {
    int32x4_t rows01 = vdupq_n_s32(0);
    int32x4_t rows23 = vdupq_n_s32(0);
    VEC_UNROLL
    for (int32_t j = 0; j < 2; j++) {
        uint8x16_t y[2];
        quant_pair(vreinterpretq_u8_s8(vld1q_s8(q0 + 16 * j)),
                   vreinterpretq_u8_s8(vld1q_s8(q1 + 16 * j)), y);
        VEC_UNROLL
        for (int32_t k = 0; k < 2; k++) {
            const int8x16_t x = vreinterpretq_s8_u8(y[k]);
            rows01 = vmmlaq_s32(rows01, codes->x[2 * j + k], x);
            rows23 = vmmlaq_s32(rows23, codes->x[4 + 2 * j + k], x);
        }
    }
    i[0] = vuzp1q_s32(rows01, rows23);
    i[1] = vuzp2q_s32(rows01, rows23);
}

VEC_INLINE void score_dot_pair(const struct score_codes *codes, const struct score_query query[2],
                               int32_t b, int32x4_t i[2]) {
    score_multiply(codes, query[0].i + b * VARVE_BLOCK, query[1].i + b * VARVE_BLOCK, i);
}

/* A query without a partner is its own. */
VEC_INLINE int32x4_t score_dot(const enum varve_format f, const struct score_codes *codes,
                               const struct score_query *query, int32_t b, int32_t q_sum) {
    const int8_t *const q = query->i + b * VARVE_BLOCK;
    int32x4_t i[2];
    (void)f;
    (void)q_sum;
    score_multiply(codes, q, q, i);
    return i[0];
}

#define SCORE_PAIR
#include "kernel/quant_score.h"

SCORE_QUANT(varve_score_q8_0_i8mm, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_i8mm, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_i8mm, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_i8mm, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_i8mm, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_i8mm, VARVE_FORMAT_IQ4_NL)
