/* Command line of `varve plan`. */
#ifndef VARVE_PLAN_OPTIONS_H
#define VARVE_PLAN_OPTIONS_H

#include "launch.h"

#include <stdbool.h>
#include <stdint.h>

/* A model without a file. */
struct plan_dimensions {
    int64_t n_layer, n_head, n_head_kv, n_head_dim; /* 0: not given, or as many as KV heads */
    int64_t n_embd, n_ff, n_vocab, n_ctx_train;
    int64_t window; /* rows of a sliding window in three layers of four; 0: none */
};

struct plan_options {
    const char *model; /* path; NULL: the dimensions */
    const char *json;  /* path, or NULL */
    const char *type_k, *type_v;
    struct launch_tiers tiers;
    int64_t ram; /* bytes; 0: what this machine has available */
    int64_t n_ctx;
    int64_t n_slot;
    int64_t n_ubatch;
    int64_t n_threads;
    bool unified;
    struct plan_dimensions dimensions;
};

/* Fills in what the command line says and defaults for the rest; strings are those of argv or
 * static. False after a line that says what is wrong. */
bool options_parse(int argc, char **argv, struct plan_options *options);

#endif
