/* Interleaved rounds: A B C A B C, a warm-up round that is thrown away, ratios round by round. */
#ifndef VARVE_BENCH_ROUNDS_H
#define VARVE_BENCH_ROUNDS_H

#include <stdbool.h>

enum {
    ROUNDS_STOCK_LEAST = 3, /* rounds in which the slow ones take part */
    ROUNDS_LEAST = 5,
    ROUNDS_MOST = 200,
    VARIANTS_MOST = 8,
};

struct variant {
    double (*sample)(void *user); /* returns what was measured: seconds, or a speed */
    void *user;
    bool slow;                         /* stock: takes at most half of the time */
    double sample_values[ROUNDS_MOST]; /* NaN: not in this round */
    double wall;                       /* seconds of one sample, from the last one */
};

struct rounds {
    struct variant *variants[VARIANTS_MOST]; /* in their order within a round */
    int n_variant;
    int n_round, n_slow_round;
    double seconds;            /* wanted */
    void (*begin)(void *user); /* before each round, not timed; NULL: nothing */
    void *user;
};

void rounds_run(struct rounds *rounds, const char *title);

/* Median of a / b over the rounds that have both. */
double rounds_ratio(const struct rounds *rounds, const struct variant *a, const struct variant *b);
double rounds_median(const struct rounds *rounds, const struct variant *v);

#endif
