/* One configuration over all chunks, in a process of its own. */
#ifndef VARVE_EVAL_WORKER_H
#define VARVE_EVAL_WORKER_H

#include "config.h"
#include "options.h"
#include "texts.h"

struct eval_job {
    const struct eval_options *options;
    const struct eval_text *texts;
    int32_t n_text;
    const struct eval_config *config; /* NULL: this is the reference */
    const char *plugin;               /* path, NULL: stock */
    const char *reference;            /* paths of the files */
    const char *points;
    const char *answers;   /* to the tasks */
    int32_t number, n_run; /* for progress */
    double spent;          /* seconds for n_token tokens of earlier ones */
    int64_t n_token;
};

/* What each chunk leaves beside its points. */
struct eval_chunk {
    double prefill_seconds, decode_seconds;
    int64_t n_prefill, n_decode; /* tokens; 0: not measured in this chunk */
    int64_t n_cell;
    uint64_t values_k, values_v; /* of the cache */
    uint64_t bytes_cold;
    uint64_t bytes_hot, bytes_staging, bytes_hot_peak; /* peak: both, when it was most */
    uint64_t attention_nodes;                          /* by varve */
    uint64_t rows_missed, twins_evicted;
};

/* A child_work; the job is a struct eval_job. The report has "chunks" (of each text), "positions",
 * "vocabulary", "random_weights", "refused" (llama.cpp has no such context; said already), "tokens"
 * (evaluated now), "seconds" and "stopped". */
int eval_worker(const void *job, int report);

#endif
