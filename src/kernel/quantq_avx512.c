#include "kernel/vec_avx512.h"

#include <math.h>

void varve_quantq_any_avx512(const struct varve_quantq_args *args) {
    const float max_float = 0x1.fffffep+127f;
    for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
        const int32_t from = b * VARVE_BLOCK;
        const __m512 x0 = _mm512_loadu_ps(args->x + from);
        const __m512 x1 = _mm512_loadu_ps(args->x + from + 16);
        /* as integers, magnitudes are in the same order, with infinity and NaN on top */
        const __m512i bits = _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(x0)),
                                              _mm512_castps_si512(_mm512_abs_ps(x1)));
        const int32_t top = _mm512_reduce_max_epi32(bits);
        const float amax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(top)));
        const bool finite = amax <= max_float;
        const float inverse = 127.0f / amax;
        __m512i i0 = _mm512_setzero_si512();
        __m512i i1 = _mm512_setzero_si512();
        float d = finite ? 0.0f : NAN;
        if (finite && inverse <= max_float) { /* else all are 0, or so small that they count as 0 */
            d = amax / 127.0f;
            i0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, _mm512_set1_ps(inverse)));
            i1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, _mm512_set1_ps(inverse)));
        }
        _mm_store_si128((__m128i *)(void *)(args->i + from), _mm512_cvtepi32_epi8(i0));
        _mm_store_si128((__m128i *)(void *)(args->i + from + 16), _mm512_cvtepi32_epi8(i1));
        _mm512_store_ps(args->fi + from, _mm512_cvtepi32_ps(i0));
        _mm512_store_ps(args->fi + from + 16, _mm512_cvtepi32_ps(i1));
        args->d[b] = d;
        args->sum[b] = _mm512_reduce_add_epi32(_mm512_add_epi32(i0, i1));
    }
}
