#include "base/fp16.h"
#include "kernel/vec_avx2.h"

/* The largest exponent of halves so far: 0x7C00 with an infinity or a NaN among them. */
VEC_INLINE __m128i larger_exponent(__m128i a, __m128i h) {
    return _mm_max_epi16(a, _mm_and_si128(h, _mm_set1_epi16(0x7C00)));
}

bool varve_narrow_any_avx2(const struct varve_narrow_args *args) {
    __m128i largest = _mm_setzero_si128();
    int64_t i = 0;
    for (; i + 8 <= args->n; i += 8) {
        const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(args->x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(args->h + i), h);
        largest = larger_exponent(largest, h);
    }
    const __m128i bad = _mm_cmpeq_epi16(largest, _mm_set1_epi16(0x7C00));
    bool finite = _mm_movemask_epi8(bad) == 0;
    for (; i < args->n; i++) {
        args->h[i] = varve_f32_to_f16(args->x[i]);
        finite &= varve_f16_is_finite(args->h[i]);
    }
    return finite;
}
