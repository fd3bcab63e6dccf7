#include "peak.h"

float peak_run_scalar(int64_t n) {
    enum { N = PEAK_CHAINS * PEAK_LANES_SCALAR };
    float x[N];
    for (int i = 0; i < N; i++) x[i] = (float)i;
    for (int64_t r = 0; r < n; r++) {
        for (int i = 0; i < N; i++) x[i] = x[i] * 0.5f + 1.0f;
    }
    float sum = 0;
    for (int i = 0; i < N; i++) sum += x[i];
    return sum;
}
