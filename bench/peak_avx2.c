#include "peak.h"

#include <immintrin.h>

float peak_run_avx2(int64_t n) {
    const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
    __m256 x[PEAK_CHAINS];
    for (int i = 0; i < PEAK_CHAINS; i++) x[i] = _mm256_set1_ps((float)i);
    for (int64_t r = 0; r < n; r++) {
        for (int i = 0; i < PEAK_CHAINS; i++) x[i] = _mm256_fmadd_ps(x[i], a, b);
    }
    for (int i = 1; i < PEAK_CHAINS; i++) x[0] = _mm256_add_ps(x[0], x[i]);
    return _mm256_cvtss_f32(x[0]);
}
