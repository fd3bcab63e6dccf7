#include "kernel/vec_avx512.h"

void varve_narrow_any_avx512(const struct varve_narrow_args *args) {
    for (int64_t i = 0; i < args->n; i += 16) {
        const int64_t left = args->n - i;
        const __mmask16 mask = left < 16 ? (__mmask16)((1u << left) - 1) : 0xFFFF;
        const __m512 x = _mm512_maskz_loadu_ps(mask, args->x + i);
        const __m256i h = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(args->h + i, mask, h);
    }
}
