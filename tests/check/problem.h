/* Random attention problems for tests of the library: shapes, encoded rows, masks, an io ready to
 * run. Everything is drawn from a seed, so that a failure can be repeated. */
#ifndef VARVE_TESTS_PROBLEM_H
#define VARVE_TESTS_PROBLEM_H

#include "varve/varve.h"

#define PROBLEM_SEGMENTS_MAX 32

struct problem {
    struct varve_attention attention;
    struct varve_segment segments[PROBLEM_SEGMENTS_MAX];
    struct varve_mask mask;
    struct varve_io io; /* output and lse point to the two arrays below */
    float *output;      /* [n_batch][n_query][n_head][head_dim_v] */
    float *lse;         /* [n_batch][n_query][n_head] */
    int64_t n_output, n_lse;
    void *blocks[2 * PROBLEM_SEGMENTS_MAX + 8]; /* owned memory */
    int n_block;
};

/* A random number below n, advancing the seed. */
uint32_t problem_random(uint64_t *seed, uint32_t n);
/* A float of a bell-shaped distribution with variance about 1. */
float problem_normal(uint64_t *seed);

/* Fills query, mask (when mask_kind >= 0), segments of the given lengths and the output arrays for
 * problem->attention, which the caller has set. K rows are contiguous per batch entry, heads
 * interleaved as in llama.cpp. mask_kind 0: all visible; 1: a third hidden; 2: most hidden; 3:
 * random values; per_head: a mask row for each head. */
void problem_fill(struct problem *problem, uint64_t *seed, int n_segment, const int64_t *n_rows,
                  const enum varve_format *k_formats, const enum varve_format *v_formats,
                  int mask_kind, bool per_head);
void problem_free(struct problem *problem);

/* Plans and runs with n_thread, asserting success by return value (true). */
bool problem_run(const struct varve_context *context, struct problem *problem, int32_t n_thread);

/* Largest difference of an output or an LSE from the oracle's, in units of what is allowed: the
 * bound derived in docs/NUMERICS.md 5, or 1e-5 of the largest value if that is less and the class
 * is not fast. At most 1 when all is well; infinite when a value is not finite. */
double problem_error(const struct problem *problem);

/* What the oracle says, for a problem that is run several times: on levels, cut into segments. */
struct problem_truth {
    double *expected, *bound; /* [n_output], then [n_lse] */
    double *rounding;         /* [n_lse] */
};
struct problem_truth problem_truth_of(const struct problem *problem);
void problem_truth_free(struct problem_truth *truth);
double problem_error_from(const struct problem *problem, const struct problem_truth *truth);

/* The same for n values of which n_each share one figure in `rounding`, which is allowed on top of
 * the bound. Equal values and equal infinities differ by nothing. */
double problem_ratio(const float *value, const double *expected, const double *bound,
                     const double *rounding, int64_t n_each, int64_t n);

#endif
