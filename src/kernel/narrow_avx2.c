#include "base/fp16.h"
#include "kernel/vec_avx2.h"

void varve_narrow_any_avx2(const struct varve_narrow_args *args) {
    int64_t i = 0;
    for (; i + 8 <= args->n; i += 8) {
        const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(args->x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(args->h + i), h);
    }
    for (; i < args->n; i++) args->h[i] = varve_f32_to_f16(args->x[i]);
}
