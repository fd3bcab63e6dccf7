/* Calls of the op whose nodes are run by hand: the functions of GGML_OP_CUSTOM, for each thread,
 * as ggml's CPU back end does. Needs libggml-base alone. Memory of nodes is given by hand too. */
#ifndef VARVE_TEST_HAND_H
#define VARVE_TEST_HAND_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml.h"
#include "ggml-impl.h"
#include "varve/op.h"
#include "varve/varve.h"

enum { HAND_NODES_MAX = 128 };

struct hand {
    struct ggml_context *ctx; /* headers alone */
    void *blocks[HAND_NODES_MAX];
    int n_block;
    uint64_t random;
};

static inline void hand_begin(struct hand *hand) {
    *hand = (struct hand){.random = 12345};
    hand->ctx = ggml_init((struct ggml_init_params){.mem_size = 4 << 20, .no_alloc = true});
    if (hand->ctx == NULL) abort();
}

static inline void hand_end(struct hand *hand) {
    for (int i = 0; i < hand->n_block; i++) free(hand->blocks[i]);
    ggml_free(hand->ctx);
}

/* Memory that holds NaN; `offset` bytes behind a boundary of 64. */
static inline void *hand_memory(struct hand *hand, size_t bytes, size_t offset) {
    char *const block = aligned_alloc(64, (bytes + offset + 127) / 64 * 64);
    if (block == NULL || hand->n_block == HAND_NODES_MAX) abort();
    memset(block, 0xFF, (bytes + offset + 127) / 64 * 64);
    hand->blocks[hand->n_block++] = block;
    return block + offset;
}

static inline struct ggml_tensor *hand_tensor(struct hand *hand, enum ggml_type type, int64_t ne0,
                                              int64_t ne1, int64_t ne2, int64_t ne3,
                                              size_t offset) {
    struct ggml_tensor *const t = ggml_new_tensor_4d(hand->ctx, type, ne0, ne1, ne2, ne3);
    t->data = hand_memory(hand, ggml_nbytes(t), offset);
    return t;
}

static inline float hand_random(struct hand *hand) {
    hand->random = hand->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(hand->random >> 32) * 0x1p-31f;
}

/* Rows of random values in the tensor's format. */
static inline void hand_fill(struct hand *hand, const struct ggml_tensor *t) {
    enum varve_format format;
    float x[1024];
    char *row = t->data;
    if (t->ne[0] > 1024 || varve_format_parse(ggml_type_name(t->type), &format) != VARVE_OK)
        abort();
    for (int64_t r = 0; r < ggml_nrows(t); r++, row += t->nb[1]) {
        for (int64_t i = 0; i < t->ne[0]; i++) x[i] = hand_random(hand);
        if (varve_format_encode(format, x, t->ne[0], row) != VARVE_OK) abort();
    }
}

static inline struct ggml_tensor *hand_rows(struct hand *hand, enum ggml_type type, int64_t ne0,
                                            int64_t ne1, int64_t ne2, int64_t ne3) {
    struct ggml_tensor *const t = hand_tensor(hand, type, ne0, ne1, ne2, ne3, 0);
    hand_fill(hand, t);
    return t;
}

/* The custom nodes that a result needs, in the order in which ggml runs them. Nodes without memory
 * get some, `offset` behind a boundary. */
struct hand_nodes {
    int n;
    struct ggml_tensor *node[HAND_NODES_MAX];
};

static inline void hand_nodes_of(struct hand *hand, struct ggml_tensor *result, size_t offset,
                                 struct hand_nodes *nodes) {
    struct ggml_cgraph *const graph = ggml_new_graph(hand->ctx);
    ggml_build_forward_expand(graph, result);
    nodes->n = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        struct ggml_tensor *const t = ggml_graph_node(graph, i);
        if (t->data == NULL) t->data = hand_memory(hand, ggml_nbytes(t), offset);
        if (t->op == GGML_OP_CUSTOM && nodes->n < HAND_NODES_MAX) nodes->node[nodes->n++] = t;
    }
}

static inline void hand_run(struct ggml_tensor *node, int ith, int nth) {
    struct ggml_custom_op_params params;
    memcpy(&params, node->op_params, sizeof params);
    params.fun(node, ith, nth, params.userdata);
}

#endif
