#include "kernel/quant_dotprod.h"

#define SCORE_PAIR
/* Two rows by two queries, 8 codes of each: 32 products an instruction. */
VEC_INLINE void score_dot_pair(const struct score_codes *codes, const struct score_query query[2],
                               int32_t b, int32x4_t i[2]) {
    int32x4_t rows01 = vdupq_n_s32(0);
    int32x4_t rows23 = vdupq_n_s32(0);
    VEC_UNROLL
    for (int32_t j = 0; j < 2; j++) {
        const int64_t at = (int64_t)b * VARVE_BLOCK + 16 * j;
        uint8x16_t y[2];
        quant_pair(vreinterpretq_u8_s8(vld1q_s8(query[0].i + at)),
                   vreinterpretq_u8_s8(vld1q_s8(query[1].i + at)), y);
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

#include "kernel/quant_score.h"

SCORE_QUANT(varve_score_q8_0_i8mm, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_i8mm, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_i8mm, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_i8mm, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_i8mm, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_i8mm, VARVE_FORMAT_IQ4_NL)
