/* Logits in the probes: sums in double, since divergences of 1e-6 matter. */
#ifndef TESTS_SYSTEM_LOGITS_H
#define TESTS_SYSTEM_LOGITS_H

#include <math.h>
#include <stddef.h>

static inline double log_of_sum(const float *logits, size_t n) {
    double max = logits[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++) {
        max = logits[i] > max ? logits[i] : max;
    }
    for (size_t i = 0; i < n; i++) {
        sum += exp(logits[i] - max);
    }
    return max + log(sum);
}

/* KL divergence of the distribution of `logits` from that of `expected`. */
static inline double divergence(const float *expected, const float *logits, size_t n) {
    const double expected_sum = log_of_sum(expected, n);
    const double sum = log_of_sum(logits, n);
    double kl = 0;
    for (size_t i = 0; i < n; i++) {
        const double log_p = expected[i] - expected_sum;
        kl += exp(log_p) * (log_p - (logits[i] - sum));
    }
    return kl;
}

#endif
