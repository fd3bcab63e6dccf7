/* Memory of a case: caches of several layers with the same content, queries, mask, results. */
#ifndef VARVE_BENCH_PROBLEM_H
#define VARVE_BENCH_PROBLEM_H

#include "case.h"

/* K and V of a layer; V also as llama.cpp keeps it without flash attention: [head][value][row]. */
struct bench_layer {
    char *k, *v;
    char *v_turned; /* NULL unless needed */
};

struct bench_problem {
    struct bench_case c;
    struct varve_context *context;
    struct varve_attention attention;
    struct varve_segment cold; /* of any layer, without pointers */
    struct bench_layer *layer; /* c.n_layer of them */
    int64_t k_bytes, v_bytes;  /* of a layer */
    float *query;              /* [query][head][DK]; rows to write: [row][KV head][DK or DV] */
    float *values_v;           /* write only: rows of V */
    float *output;             /* [query][head][DV] */
    uint16_t *mask;            /* [query][row] F16, causal: queries stand at the last rows */
    struct varve_mask varve_mask;
    double n_visible; /* pairs of query and row */
};

/* Fills everything. False after a line: the case cannot be, or there is not enough memory. */
bool problem_create(const struct bench_case *c, struct bench_problem *problem);
void problem_destroy(struct bench_problem *problem);

/* V is not quantized: attention can also be made of matrix products. */
bool problem_turns_v(const struct bench_case *c);

/* The same problem over the rows of a layer. */
struct varve_segment problem_segment(const struct bench_problem *problem, int64_t layer);
struct varve_io problem_io(const struct bench_problem *problem);

#endif
