/* What is right, and how far a result is from it. */
#ifndef VARVE_TEST_FLASH_CHECK_H
#define VARVE_TEST_FLASH_CHECK_H

#include "flash_run.h"

/* The oracle's result and what F32 arithmetic may add to it (docs/NUMERICS.md 5). */
struct flash_truth {
    int64_t n_output, n_record;
    int64_t head_dim_v;
    double *output, *bound;  /* [n_record][head_dim_v] */
    double *lse, *lse_bound; /* [n_record] */
    double *rounding;        /* [n_record], of each value of the record, on top of the bound */
    double largest;          /* |output| */
};

/* Over the first n_rows rows of each part, no sinks. */
void flash_truth_of(const struct flash_data *data, const int64_t n_rows[FLASH_PARTS],
                    struct flash_truth *truth);
/* The same with learned sinks: exp(sink) more in each sum. */
void flash_truth_with_sinks(const struct flash_truth *truth, const float *sinks, int32_t n_head,
                            struct flash_truth *result);
/* Room for what n_call states add that are stored divided, with their LSE as the maximum. */
void flash_truth_allow_normalised(struct flash_truth *truth, int32_t n_call);
void flash_truth_free(struct flash_truth *truth);

struct flash_difference {
    double absolute; /* largest; infinite where a value is not finite */
    double relative; /* to the largest value of the truth */
    double ratio;    /* to what is allowed: at most 1 */
    double squared;  /* normalised: sum of squared differences, by that of squares */
    bool all_zero;   /* although the truth is not */
};
struct flash_difference flash_compare(const struct flash_truth *truth, const float *output);
/* Of logarithms, in units of what is allowed. */
double flash_compare_lse(const struct flash_truth *truth, const float *lse);
/* Largest |a - b|. */
double flash_distance(const float *a, const float *b, int64_t n);

#endif
