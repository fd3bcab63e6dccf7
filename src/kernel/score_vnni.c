#include "kernel/quant_avx512.h"

struct score_codes {
    __m512i x[8];
};

struct score_query {
    const int8_t *i;
};

VEC_INLINE void score_codes(const enum varve_format f, const __m512i x[8],
                            struct score_codes *codes) {
    (void)f;
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) codes->x[j] = x[j];
}

VEC_INLINE void score_query(const enum varve_format f, const int8_t *i, int32_t n_block,
                            struct score_query *query) {
    (void)f;
    (void)n_block;
    query->i = i;
}

/* sum += unsigned codes by four signed bytes in memory. As an intrinsic, GCC copies the sum first.
 */
VEC_INLINE __m512i score_add_quads(__m512i sum, __m512i codes, const int8_t *i) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(sum)
            : "v"(codes), "m"(*(const int32_t *)(const void *)i));
    return sum;
}

VEC_INLINE __m512i score_dot(const enum varve_format f, const struct score_codes *codes,
                             const struct score_query *query, int32_t b, int32_t q_sum) {
    const int8_t *const i = query->i + b * VARVE_BLOCK;
    __m512i i0 = _mm512_set1_epi32(-quant_bias(f) * q_sum);
    __m512i i1 = _mm512_setzero_si512();
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j += 2) {
        i0 = score_add_quads(i0, codes->x[j], i + 4 * j);
        i1 = score_add_quads(i1, codes->x[j + 1], i + 4 * j + 4);
    }
    return _mm512_add_epi32(i0, i1);
}

#include "kernel/quant_score.h"

SCORE_QUANT(varve_score_q8_0_vnni, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_vnni, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_vnni, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_vnni, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_vnni, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_vnni, VARVE_FORMAT_IQ4_NL)
