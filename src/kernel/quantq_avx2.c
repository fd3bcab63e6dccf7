#include "kernel/vec_avx2.h"

#include <math.h>

VEC_INLINE __m128i reduce_halves(__m256i x, const bool max) {
    const __m128i low = _mm256_castsi256_si128(x);
    const __m128i high = _mm256_extracti128_si256(x, 1);
    return max ? _mm_max_epi32(low, high) : _mm_add_epi32(low, high);
}

VEC_INLINE int32_t vec_max_i32(__m256i x) {
    __m128i y = reduce_halves(x, true);
    y = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(y, _mm_shuffle_epi32(y, 0xB1)));
}

VEC_INLINE int32_t vec_sum_i32(__m256i x) {
    __m128i y = reduce_halves(x, false);
    y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 0xB1)));
}

void varve_quantq_any_avx2(const struct varve_quantq_args *args) {
    const float max_float = 0x1.fffffep+127f;
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
        const int32_t from = b * VARVE_BLOCK;
        __m256 x[4];
        __m256i i[4];
        /* as integers, magnitudes are in the same order, with infinity and NaN on top */
        __m256i bits = _mm256_setzero_si256();
        VEC_UNROLL
        for (int32_t j = 0; j < 4; j++) {
            x[j] = _mm256_loadu_ps(args->x + from + 8 * j);
            bits = _mm256_max_epi32(bits, _mm256_castps_si256(vec_abs(x[j])));
        }
        const float amax = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(vec_max_i32(bits))));
        const bool finite = amax <= max_float;
        float inverse = 127.0f / amax;
        float d = amax / 127.0f;
        if (!finite ||
            inverse > max_float) { /* not finite, all 0, or so small that it counts as 0 */
            d = finite ? 0.0f : NAN;
            inverse = 0.0f;
        }
        VEC_UNROLL
        for (int32_t j = 0; j < 4; j++) {
            i[j] = _mm256_cvtps_epi32(_mm256_mul_ps(x[j], _mm256_set1_ps(inverse)));
            if (!finite) i[j] = _mm256_setzero_si256();
            _mm256_store_ps(args->fi + from + 8 * j, _mm256_cvtepi32_ps(i[j]));
        }
        const __m256i sum =
            _mm256_add_epi32(_mm256_add_epi32(i[0], i[1]), _mm256_add_epi32(i[2], i[3]));
        const __m256i bytes =
            _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
        _mm256_storeu_si256((__m256i *)(void *)(args->i + from),
                            _mm256_permutevar8x32_epi32(bytes, in_order));
        args->d[b] = d;
        args->sum[b] = vec_sum_i32(sum);
    }
}
