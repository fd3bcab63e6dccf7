#include "kernel/vec_avx512.h"

/* The halves whose exponent is that of infinity and NaN. */
VEC_INLINE __mmask32 find_bad(__m512i h) {
    const __m512i exponent = _mm512_set1_epi16(0x7C00);
    return _mm512_cmpeq_epi16_mask(_mm512_and_si512(h, exponent), exponent);
}

VEC_INLINE __m512i narrow(__m512 x0, __m512 x1) {
    const __m256i h0 = _mm512_cvtps_ph(x0, _MM_FROUND_TO_NEAREST_INT);
    const __m256i h1 = _mm512_cvtps_ph(x1, _MM_FROUND_TO_NEAREST_INT);
    return _mm512_inserti64x4(_mm512_castsi256_si512(h0), h1, 1);
}

bool varve_narrow_any_avx512(const struct varve_narrow_args *args) {
    __mmask32 bad = 0;
    int64_t i = 0;
    for (; i + 32 <= args->n; i += 32) {
        const __m512i h =
            narrow(_mm512_loadu_ps(args->x + i), _mm512_loadu_ps(args->x + i + VEC_LANES));
        _mm512_storeu_si512(args->h + i, h);
        bad |= find_bad(h);
    }
    const int32_t left = (int32_t)(args->n - i);
    if (left > 0) { /* masked stores take longer */
        const __mmask32 mask = (__mmask32)((UINT64_C(1) << left) - 1);
        const __m512i h =
            narrow(_mm512_maskz_loadu_ps((__mmask16)mask, args->x + i),
                   _mm512_maskz_loadu_ps((__mmask16)(mask >> VEC_LANES), args->x + i + VEC_LANES));
        _mm512_mask_storeu_epi16(args->h + i, mask, h);
        bad |= find_bad(h);
    }
    return bad == 0;
}
