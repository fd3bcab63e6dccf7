/* What the benchmarks share: a clock, medians, rows of a cache, a plain read. */
#ifndef VARVE_BENCH_MEASURE_H
#define VARVE_BENCH_MEASURE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "varve/varve.h"

static inline double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

/* Rows of random bytes that decode to small finite values: scales are overwritten by the encoder.
 */
static inline char *make_rows(enum varve_format format, int32_t head_dim, int64_t n, size_t bytes) {
    char *const rows = aligned_alloc(64, ((size_t)n * bytes + 63) / 64 * 64);
    float *const x = malloc((size_t)head_dim * sizeof(float));
    uint32_t seed = 1;
    for (int64_t r = 0; r < n; r++) {
        if (r < 64) {
            for (int32_t d = 0; d < head_dim; d++) {
                seed = seed * 1664525u + 1013904223u;
                x[d] = (float)(seed >> 8) / 8388608.0f - 1.0f;
            }
            (void)varve_format_encode(format, x, head_dim, rows + (size_t)r * bytes);
        } else {
            memcpy(rows + (size_t)r * bytes, rows + (size_t)(r % 64) * bytes, bytes);
        }
    }
    free(x);
    return rows;
}

static volatile uint64_t sink;

/* Sums the bytes as 8-byte words: the fastest plain read the compiler makes. */
static inline void plain_read(const char *data, size_t bytes, int n_thread) {
    (void)n_thread; /* unused without OpenMP */
    uint64_t sum = 0;
    const uint64_t *words = (const uint64_t *)(const void *)data;
    const int64_t n = (int64_t)(bytes / 8);
#pragma omp parallel for num_threads(n_thread) reduction(+ : sum) schedule(static)
    for (int64_t i = 0; i < n; i++) sum += words[i];
    sink += sum;
}

#endif
