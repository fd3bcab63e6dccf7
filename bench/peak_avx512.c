#include "peak.h"

#include <immintrin.h>

float peak_run_avx512(int64_t n) {
    const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
    __m512 x[PEAK_CHAINS];
    for (int i = 0; i < PEAK_CHAINS; i++) x[i] = _mm512_set1_ps((float)i);
    for (int64_t r = 0; r < n; r++) {
        for (int i = 0; i < PEAK_CHAINS; i++) x[i] = _mm512_fmadd_ps(x[i], a, b);
    }
    for (int i = 1; i < PEAK_CHAINS; i++) x[0] = _mm512_add_ps(x[0], x[i]);
    return _mm512_cvtss_f32(x[0]);
}
