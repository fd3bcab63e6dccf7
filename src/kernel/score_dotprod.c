#include "kernel/score_neon.h"

/* The bias is off the codes already. */
VEC_INLINE int32x4_t score_dot(const enum varve_format f, const struct score_codes *codes,
                               const struct score_query *query, int32_t b, int32_t q_sum) {
    int32x4_t rows01 = vdupq_n_s32(0);
    int32x4_t rows23 = vdupq_n_s32(0);
    (void)f;
    (void)q_sum;
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        const int8x16_t y = score_twice(query, b, j);
        rows01 = vdotq_s32(rows01, codes->x[j], y);
        rows23 = vdotq_s32(rows23, codes->x[4 + j], y);
    }
    return vpaddq_s32(rows01, rows23);
}

#include "kernel/quant_score.h"

SCORE_QUANT(varve_score_q8_0_dotprod, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_dotprod, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_dotprod, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_dotprod, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_dotprod, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_dotprod, VARVE_FORMAT_IQ4_NL)
