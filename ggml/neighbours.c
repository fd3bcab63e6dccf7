/* Small nodes beside ours.
 *
 * Our part of the graph costs two changes of the host's threads for each layer, and each barrier
 * between nodes costs about a microsecond where every thread has a core, but some 30 where threads
 * outnumber cores, since they sleep at it and are woken. So what stands directly before the write
 * of K (its RoPE, its rotation) and directly after attention (the rotation back) joins our part,
 * where it is small, and runs on the calling thread without a barrier: that pays for the changes.
 * ggml's own CPU back end computes it: the bits are stock's. */
#include "plugin.h"

#include "ggml-impl.h" /* struct ggml_cgraph */

/* Work of a few microseconds for one thread: values of a node, and products. */
enum { n_value_max = 1 << 13, n_product_max = 1 << 16 };

/* Questions about one graph come from one thread. */
enum { n_taken = 256 };
static _Thread_local struct {
    const struct ggml_tensor *asked;          /* the node that was asked about last, not ours */
    const struct ggml_tensor *taken[n_taken]; /* nodes before a write; the oldest is overwritten */
    unsigned next;
} graph;

/* The node that computes what a chain of views shows. */
static const struct ggml_tensor *behind_views(const struct ggml_tensor *node) {
    while (node != NULL && node->op != GGML_OP_NONE && node_only_renames(node)) {
        node = node->src[0];
    }
    return node;
}

static bool is_small(const struct ggml_tensor *node) {
    const int64_t n_value = ggml_nelements(node);
    if (n_value > n_value_max) {
        return false;
    }
    return node->op == GGML_OP_ROPE ||
           (node->op == GGML_OP_MUL_MAT && node->src[0]->type == GGML_TYPE_F32 &&
            n_value * node->src[0]->ne[0] <= n_product_max);
}

/* What a small node goes on from. */
static const struct ggml_tensor *origin(const struct ggml_tensor *node) {
    return behind_views(node->op == GGML_OP_MUL_MAT ? node->src[1] : node->src[0]);
}

void neighbours_asked(const struct ggml_tensor *op) { graph.asked = op; }

/* The scheduler asks in the order of the graph, about nodes with weights at least. If the last one
 * it asked about is where the written rows come from, nothing stands between the two but small
 * nodes; else (V, which is computed before K) taking them would cut the graph once more. */
void neighbours_written(const struct ggml_tensor *set_rows) {
    enum { n_most = 4 };
    const struct ggml_tensor *chain[n_most];
    const struct ggml_tensor *node = behind_views(set_rows->src[0]);
    int n = 0;
    for (; n < n_most && node != NULL && is_small(node); n++) {
        chain[n] = node;
        node = origin(node);
    }
    if (node == NULL || node != graph.asked) {
        return;
    }
    for (int i = 0; i < n; i++) {
        graph.taken[graph.next++ % n_taken] = chain[i];
    }
}

bool neighbours_take(const struct ggml_tensor *op) {
    if (!is_small(op)) {
        return false;
    }
    const struct ggml_tensor *from = origin(op);
    if (op->op == GGML_OP_MUL_MAT && from != NULL && from->op == GGML_OP_FLASH_ATTN_EXT) {
        return true;
    }
    for (int i = 0; i < n_taken; i++) {
        if (graph.taken[i] == op) {
            return true;
        }
    }
    return false;
}

bool neighbours_is_one(const struct ggml_tensor *node) {
    return node->op == GGML_OP_ROPE || node->op == GGML_OP_MUL_MAT;
}

enum ggml_status neighbours_compute(struct plugin_backend *backend, struct ggml_cgraph *cgraph,
                                    int first, int *end) {
    int last = first + 1;
    for (; last < ggml_graph_n_nodes(cgraph); last++) {
        const struct ggml_tensor *node = ggml_graph_node(cgraph, last);
        if (!neighbours_is_one(node) && !node_only_renames(node)) {
            break;
        }
    }
    *end = last;
    if (backend->neighbours == NULL) {
        backend->neighbours = host_cpu_backend();
    }
    if (backend->neighbours == NULL) {
        plugin_log(GGML_LOG_LEVEL_ERROR, "ggml's CPU back end could not be set up for '%s'",
                   ggml_graph_node(cgraph, first)->name);
        return GGML_STATUS_ALLOC_FAILED;
    }
    struct ggml_cgraph part = ggml_graph_view(cgraph, first, last);
    return ggml_backend_graph_compute(backend->neighbours, &part);
}
