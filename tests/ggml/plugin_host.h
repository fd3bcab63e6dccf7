/* A small host for the plug-in: loads it, builds graphs of one node, fills tensors. */
#ifndef VARVE_TEST_PLUGIN_HOST_H
#define VARVE_TEST_PLUGIN_HOST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "varve/ggml.h"

enum { N_TYPE = 9 };
static const enum ggml_type all_types[N_TYPE] = {
    GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,   GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL,
};

static inline const char *plugin_path(void) {
    static char path[4096];
    const char *build = getenv("VARVE_BUILD");
    snprintf(path, sizeof(path), "%s/lib/libggml-varve.so", build != NULL ? build : "build");
    return path;
}

static inline ggml_backend_reg_t load_plugin(void) {
    static ggml_backend_reg_t reg; /* before any threads are started */
    if (reg == NULL) {
        reg = ggml_backend_load(plugin_path());
    }
    assert_non_null(reg);
    return reg;
}

static inline ggml_backend_t new_backend(int n_thread) {
    ggml_backend_reg_t reg = load_plugin();
    ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), NULL);
    assert_non_null(backend);
    ggml_backend_set_n_threads_t set_n_threads = NULL;
    *(void **)&set_n_threads = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    assert_non_null(set_n_threads);
    set_n_threads(backend, n_thread);
    return backend;
}

static inline struct varve_ggml_counters read_counters(void) {
    struct varve_ggml_counters counters = {0};
    varve_ggml_counters_fn read = NULL;
    *(void **)&read = ggml_backend_reg_get_proc_address(load_plugin(), VARVE_GGML_COUNTERS);
    assert_non_null(read);
    read(&counters, sizeof(counters));
    return counters;
}

/* ---- random numbers ------------------------------------------------------------------------- */

static inline uint32_t random_u32(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static inline float random_unit(uint64_t *state) {
    return (float)(int32_t)random_u32(state) * 0x1p-31f;
}

/* ---- graphs --------------------------------------------------------------------------------- */

static inline struct ggml_context *new_graph_context(void) {
    struct ggml_init_params params = {
        .mem_size = 64 * ggml_tensor_overhead() + ggml_graph_overhead(), .no_alloc = true};
    struct ggml_context *ctx = ggml_init(params);
    assert_non_null(ctx);
    return ctx;
}

static inline struct ggml_cgraph *graph_of(struct ggml_context *ctx, struct ggml_tensor *node) {
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, node);
    return graph;
}

/* Fills a contiguous tensor of any of the nine types with random values. */
static inline void fill_random(struct ggml_tensor *t, float scale, uint64_t seed) {
    const int64_t n = ggml_nelements(t);
    float *values = malloc((size_t)n * sizeof(float));
    assert_non_null(values);
    for (int64_t i = 0; i < n; i++) {
        values[i] = scale * random_unit(&seed);
    }
    ggml_quantize_chunk(t->type, values, t->data, 0, n / t->ne[0], t->ne[0], NULL);
    free(values);
}

/* The values of one row of any of the nine types. */
static inline void read_row(const struct ggml_tensor *t, int64_t i1, int64_t i2, int64_t i3,
                            float *out) {
    const char *row = (const char *)t->data + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2] +
                      (size_t)i3 * t->nb[3];
    if (t->type == GGML_TYPE_F32) {
        memcpy(out, row, (size_t)t->ne[0] * sizeof(float));
    } else {
        ggml_get_type_traits(t->type)->to_float(row, out, t->ne[0]);
    }
}

/* Bytes of 0xff are NaN in each of the nine types: as value, or as scale of the block. */
static inline void poison_row(struct ggml_tensor *t, int64_t i1, int64_t i2, int64_t i3) {
    memset((char *)t->data + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2] + (size_t)i3 * t->nb[3],
           0xff, ggml_row_size(t->type, t->ne[0]));
}

#endif
