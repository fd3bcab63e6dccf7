/* What the tests of fold and tilefold share: weights, factors, accumulators and their bounds. */
#ifndef CHECK_FOLD_H
#define CHECK_FOLD_H

#include "check/rows.h"

struct fold_case {
    struct rows rows;
    int32_t n, head_dim, ld, n_row;
    bool sparse;
    float *p, *alpha; /* as in struct varve_fold_args */
    float *before;    /* [n][ld], o before the call; NaN where alpha is 0 */
    float *scalar;    /* o for the scalar kernel */
    float *o;         /* o for the kernel under test */
};

/* Random rows. Some weights are 0; in sparse cases rows with weight 0 for all queries are poisoned
 * with NaN. */
void fold_create(struct fold_case *fold, struct check *check,
                 const struct varve_format_traits *format, int32_t n_row);
/* What is timed: a whole block, n queries. o stays bounded over many calls. */
void fold_bench(struct fold_case *fold, struct check *check,
                const struct varve_format_traits *format, int32_t n);
/* Compares o with the sum in double and with the scalar kernel's. `rounded`: the weights are those
 * of foldq. */
void fold_compare(const struct fold_case *fold, struct check *check, bool rounded);
void fold_destroy(struct fold_case *fold);

#endif
