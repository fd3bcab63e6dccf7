/* What is planned: figures of one context, by layer and in total. */
#ifndef VARVE_PLAN_PLAN_H
#define VARVE_PLAN_PLAN_H

#include "options.h"

#include "varve/ggml.h"

#include "ggml-backend.h"
#include "llama.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One attention node, in the order of the graph. */
struct plan_layer {
    int32_t number; /* of the layer; -1: unknown */
    bool shares;    /* reads the cache of a layer before it: nothing of its own */
    bool is_latent; /* V is a part of K (MLA) */
    int64_t n_cell, n_stream;
    int64_t n_value_k, n_value_v; /* of a row, all KV heads */
    uint64_t cold_k, cold_v;      /* bytes */
    struct varve_ggml_need need;
};

struct plan_figures {
    int64_t n_ctx, n_ctx_seq; /* tokens, as llama.cpp rounds them */
    int64_t n_swa;            /* rows of the model's sliding window, 0: none */
    struct plan_layer *layers;
    size_t n_layer;
    /* bytes */
    uint64_t cold, hot, sinks, staging;
    uint64_t state;       /* recurrent layers and indexers: caches that no attention node reads */
    uint64_t cells;       /* llama.cpp's tables of what is in which cell */
    uint64_t graphs;      /* llama.cpp's graphs and scheduler */
    uint64_t mask;        /* inside of llama.cpp's compute buffer */
    uint64_t compute;     /* the rest of it */
    uint64_t scratch;     /* varve's: scratch and tables */
    uint64_t output;      /* logits */
    uint64_t total;       /* of these */
    const char *declined; /* why varve does not serve some layer, or NULL */
};

void plan_figures_free(struct plan_figures *figures);

/* ------------------------------------------------------------------------------------- capture */

/* Adds what a graph that llama.cpp reserves tells. False: no memory. */
bool collect_graph(struct plan_figures *figures, struct ggml_cgraph *graph,
                   const struct plan_options *options);

/* The figures that the next context fills in while it is created; NULL: none. */
void capture_into(struct plan_figures *figures, const struct plan_options *options);

/* --------------------------------------------------------------------------------------- probe */

/* The model, without weights. */
struct plan_model {
    const struct plan_options *options;
    struct llama_model *model;
    uint64_t weights;    /* bytes */
    int64_t n_ctx_train; /* tokens */
    bool is_random;      /* weights that no training has seen */
    char name[128];
};

/* False after a line. */
bool model_open(struct plan_model *model, const struct plan_options *options);

/* A header for a model that there is no file of. NULL: no memory. */
struct gguf_context *dimensions_header(const struct plan_dimensions *d);

/* The figures of a context of n_ctx tokens. False: llama.cpp refuses it, *reason says why. */
bool probe_context(const struct plan_model *model, const char *type_k, const char *type_v,
                   int64_t n_ctx, struct plan_figures *figures, const char **reason);

/* The longest context that takes at most `bytes`, in tokens of all slots, whole steps of 256 for
 * each slot, and at most what the model was trained for. 0: none; -1: refused, *reason says why. */
int64_t longest_context(const struct plan_model *model, const char *type_k, const char *type_v,
                        uint64_t bytes, const char **reason);
int64_t most_tokens(const struct plan_model *model); /* that it was trained for, in all slots */

/* --------------------------------------------------------------------------------------- table */

/* One line of the table of types. */
struct plan_row {
    const char *type_k, *type_v;
    bool chosen;
    char refused[160]; /* why, or empty */
    uint64_t cache;    /* cold, hot, sinks and staging at the context of the plan */
    uint64_t total;    /* with weights */
    int64_t longest;   /* tokens */
};

struct plan {
    const struct plan_model *model;
    uint64_t ram;
    bool ram_given;
    struct plan_figures figures;
    struct plan_row *rows;
    size_t n_row;
};

void show_plan(const struct plan *plan);

/* False after a line. */
bool write_plan(const struct plan *plan, int fd);

#endif
