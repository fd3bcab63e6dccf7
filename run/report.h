/* What a child has measured, and the same as JSON for the parent, the summary and --json. */
#ifndef VARVE_RUN_REPORT_H
#define VARVE_RUN_REPORT_H

#include "divergence.h"
#include "job.h"

#include "varve/ggml.h"

#include <jansson.h>

struct run_result {
    int32_t n_prompt, n_read; /* tokens; fewer are read when the run is stopped */
    double prompt_seconds;
    int32_t n_token; /* generated */
    int32_t n_step;  /* tokens evaluated for that: the first one comes from the prompt */
    double step_seconds;
    struct run_text text;
    uint32_t n_ctx; /* cells */
    uint64_t bytes_cold, bytes_f16;
    struct varve_ggml_account account; /* zeros when the back end has none */
    struct varve_ggml_counters counters;
    bool has_account;
    bool random_weights; /* model_file_is_random */
    struct divergence divergence;
    const char *stopped; /* reason, or NULL */
};

/* Owned by the caller; NULL when memory is out. */
json_t *report_json(const struct run_job *job, const struct run_result *result);

#endif
