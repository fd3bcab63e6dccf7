/* What is known of one configuration at the end, and how configurations compare. */
#ifndef VARVE_EVAL_RESULT_H
#define VARVE_EVAL_RESULT_H

#include "statistics.h"
#include "worker.h"

enum {
    n_part = 8,           /* of the positions that are scored */
    n_distance_most = 24, /* 1, 2-3, 4-7, ... positions before the end of the chunk */
};

struct eval_result {
    struct eval_config config;
    struct statistics all;
    struct statistics *by_text;                                             /* owned */
    struct statistics_figure by_part[n_part], by_distance[n_distance_most]; /* mean KL divergence */
    struct task_result tasks[n_task]; /* of those that were chosen */
    struct eval_chunk sum;            /* times and tokens of all chunks; bytes: the most of one */
    double bytes_per_token, cold_bytes_per_token, bits_per_value;
    int32_t same_bytes, next_uniform; /* of one with a window: numbers of results, -1: none */
    bool on_front; /* no other one has fewer bytes and no larger mean divergence */
};

/* Rows are compared as if they had the same bytes up to this difference; beyond, it is said. */
#define RESULT_SAME_BYTES 0.02

struct eval_cell result_cell(const struct eval_result *result);

/* From a file of points; chunks: of each text. False after a line; result_free is due in any case.
 */
bool result_load(struct eval_result *result, const struct eval_config *config, const char *path,
                 const int32_t *chunks, int32_t n_text, uint64_t seed);
void result_free(struct eval_result *result);

/* Numbers of the results that those with windows stand beside, and the front. */
void result_compare(struct eval_result *results, int32_t n);

/* Relative difference in bytes. */
double result_difference(const struct eval_result *a, const struct eval_result *b);

#endif
