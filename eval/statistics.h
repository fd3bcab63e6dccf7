/* Figures of one configuration from its points, with confidence intervals by a block bootstrap
 * (docs/EVAL.md 4). */
#ifndef VARVE_EVAL_STATISTICS_H
#define VARVE_EVAL_STATISTICS_H

#include "topk.h"

/* Points lie chunk by chunk, n_position in each. Chunks of one text follow each other. */
struct statistics_layout {
    int32_t n_chunk, n_position;
    const int32_t *text_of_chunk; /* numbers that do not fall */
    int32_t block;                /* neighbouring positions that are drawn together */
    int32_t n_replicate;
    uint64_t seed;
};

/* 95 % of the replicates lie between low and high; NaN where there are too few blocks. */
struct statistics_figure {
    double value, low, high;
};

struct statistics {
    int64_t n;
    struct statistics_figure mean, median, p99, p999; /* KL divergence, nats */
    struct statistics_figure same_top;                /* share */
    struct statistics_figure ppl_ratio;               /* of the run to the reference */
    struct statistics_figure rms_dp; /* change of the probability of the token that followed */
    double max;
    double ppl_reference;
    double loss; /* the mean is at most so much below the true one: estimate and 3 errors of it */
};

/* Replicates need at least so many blocks. */
enum { statistics_least_blocks = 8 };

/* False when memory is out. */
bool statistics_compute(const struct topk_point *points, const struct statistics_layout *layout,
                        struct statistics *out);

/* By linear interpolation between order statistics, as llama-perplexity and numpy have it; values
 * are sorted. */
double statistics_quantile(const double *sorted, int64_t n, double part);

/* The next number of a sequence (splitmix64), and one in [0, 1). */
uint64_t statistics_random(uint64_t *state);
double statistics_uniform(uint64_t *state);

#endif
