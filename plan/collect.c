/* What a reserved graph tells: cache tensors, who attends to them, masks. */
#include "back_ends.h"
#include "plan.h"

#include <stdlib.h>
#include <string.h>

/* Tensors that were counted. */
struct seen {
    const struct ggml_tensor **tensor;
    size_t n;
};

static const struct ggml_tensor *root_of(const struct ggml_tensor *tensor) {
    while (tensor->view_src != NULL) {
        tensor = tensor->view_src;
    }
    return tensor;
}

/* -1: no memory; 1: it was there before. */
static int see(struct seen *seen, const struct ggml_tensor *tensor) {
    for (size_t i = 0; i < seen->n; i++) {
        if (seen->tensor[i] == tensor) {
            return 1;
        }
    }
    const struct ggml_tensor **more = realloc(seen->tensor, (seen->n + 1) * sizeof(*more));
    if (more == NULL) {
        return -1;
    }
    seen->tensor = more;
    seen->tensor[seen->n++] = tensor;
    return 0;
}

static bool is_attention(const struct ggml_tensor *node) {
    return node->op == GGML_OP_FLASH_ATTN_EXT;
}

/* Attention nodes that read a tensor. */
static int readers(struct ggml_cgraph *graph, const struct ggml_tensor *root) {
    int n = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        n += is_attention(node) && (root_of(node->src[1]) == root || root_of(node->src[2]) == root);
    }
    return n;
}

/* llama.cpp gives layers with a window caches of their own, mostly smaller ones. Where all are
 * alike, as in a short context, any layer may be one of them. */
static int64_t window_of(struct ggml_cgraph *graph, const struct ggml_tensor *k, int64_t n_swa) {
    int64_t least = k->ne[1], most = k->ne[1];
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (is_attention(node)) {
            const int64_t n_cell = root_of(node->src[1])->ne[1];
            least = n_cell < least ? n_cell : least;
            most = n_cell > most ? n_cell : most;
        }
    }
    return k->ne[1] < most || least == most ? n_swa : 0;
}

/* Tensors that attention nodes read. */
static int64_t n_attended(struct ggml_cgraph *graph) {
    struct seen roots = {0};
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (is_attention(node)) {
            (void)see(&roots, root_of(node->src[1]));
            (void)see(&roots, root_of(node->src[2]));
        }
    }
    const int64_t n = (int64_t)roots.n;
    free(roots.tensor);
    return n;
}

/* The number at the end of "cache_k_l12" or "kqv_out-12". */
static int32_t number_of(const char *name) {
    const size_t length = strlen(name);
    size_t at = length;
    while (at > 0 && name[at - 1] >= '0' && name[at - 1] <= '9') {
        at--;
    }
    return at < length ? (int32_t)strtol(name + at, NULL, 10) : -1;
}

/* The layer of an attention node: queries carry its number ("Qcur-12 (view) (permuted)"), the cache
 * that of its owner. */
static int32_t layer_of(const struct ggml_tensor *node) {
    for (const struct ggml_tensor *q = node->src[0]; q != NULL;
         q = q->view_src != NULL ? q->view_src : q->src[0]) {
        if (strncmp(q->name, "Qcur-", 5) == 0) {
            return (int32_t)strtol(q->name + 5, NULL, 10);
        }
    }
    return number_of(root_of(node->src[1])->name);
}

static void ask(struct plan_layer *layer, const struct ggml_tensor *node,
                const struct varve_ggml_need_params *params) {
    varve_ggml_need_fn need = (varve_ggml_need_fn)back_ends_varve(VARVE_GGML_NEED);
    if (need == NULL || !need(node, params, &layer->need, sizeof(layer->need))) {
        layer->need.declined = "the plug-in does not answer";
    }
}

/* A layer by its attention node. False: no memory. */
static bool add_layer(struct plan_figures *f, struct ggml_cgraph *graph,
                      const struct ggml_tensor *node, const struct plan_options *options,
                      int64_t n_tensor, struct seen *roots) {
    const struct ggml_tensor *k = root_of(node->src[1]);
    const struct ggml_tensor *v = root_of(node->src[2]);
    struct plan_layer *more = realloc(f->layers, (f->n_layer + 1) * sizeof(*more));
    if (more == NULL) {
        return false;
    }
    f->layers = more;
    struct plan_layer *layer = &f->layers[f->n_layer++];
    const struct varve_ggml_need_params params = {.struct_bytes = sizeof(params),
                                                  .n_sequence = (int32_t)options->n_slot,
                                                  .n_thread = (int32_t)options->n_threads,
                                                  .n_tensor = n_tensor,
                                                  .window = window_of(graph, k, f->n_swa),
                                                  .reread_k = readers(graph, k) > 1,
                                                  .reread_v = readers(graph, v) > 1};
    *layer = (struct plan_layer){.number = layer_of(node),
                                 .is_latent = k == v,
                                 .n_cell = k->ne[1],
                                 .n_stream = k->ne[2],
                                 .n_value_k = k->ne[0],
                                 .n_value_v = v->ne[0]};
    ask(layer, node, &params);
    const int seen_k = see(roots, k);
    const int seen_v = k == v ? 1 : see(roots, v);
    layer->shares = seen_k > 0 && seen_v > 0;
    layer->cold_k = seen_k == 0 ? ggml_nbytes(k) : 0;
    layer->cold_v = seen_v == 0 ? ggml_nbytes(v) : 0;
    return seen_k >= 0 && seen_v >= 0;
}

/* Caches that no attention node reads, and masks. */
static bool add_tensor(struct plan_figures *f, const struct ggml_tensor *root, struct seen *roots) {
    const bool is_cache =
        root->op == GGML_OP_NONE && root->buffer != NULL && root->data == NULL &&
        ggml_backend_buffer_get_usage(root->buffer) != GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
    const int seen = is_cache ? see(roots, root) : 1;
    f->state += seen == 0 ? ggml_nbytes(root) : 0;
    return seen >= 0;
}

static bool add_others(struct plan_figures *f, struct ggml_cgraph *graph, struct seen *roots) {
    bool ok = true;
    struct seen masks = {0};
    for (int i = 0; i < ggml_graph_n_nodes(graph) && ok; i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        ok = add_tensor(f, root_of(node), roots);
        for (int s = 0; s < GGML_MAX_SRC && ok; s++) {
            ok = node->src[s] == NULL || add_tensor(f, root_of(node->src[s]), roots);
        }
        if (is_attention(node) && node->src[3] != NULL) {
            const struct ggml_tensor *mask = root_of(node->src[3]);
            f->mask += see(&masks, mask) == 0 ? ggml_nbytes(mask) : 0;
        }
    }
    free(masks.tensor);
    return ok;
}

/* The rest of what llama.cpp takes, measured to be 1.5 to 4 MiB with models and caches of all
 * kinds: tables of the scheduler, the buffer in which the CPU back end converts activations, pages
 * of code, holes in the heap. */
enum { REST_BYTES = 5 << 19 };

/* Three graphs are kept (llama-context.h: one that was reserved, two that ran), each with room for
 * all tensors, which is cleared; and where each node's memory lies (ggml-alloc.c: 32 bytes for it
 * and for each source). */
static uint64_t graphs_bytes(struct ggml_cgraph *graph) {
    const size_t n = (size_t)ggml_graph_size(graph);
    const size_t kept = 3 * (n * ggml_tensor_overhead() + ggml_graph_overhead_custom(n, false));
    return kept + (size_t)ggml_graph_n_nodes(graph) * (GGML_MAX_SRC + 1) * 32 + REST_BYTES;
}

bool collect_graph(struct plan_figures *f, struct ggml_cgraph *graph,
                   const struct plan_options *options) {
    struct seen roots = {0};
    const int64_t n_tensor = n_attended(graph);
    bool ok = true;
    f->graphs = graphs_bytes(graph);
    for (int i = 0; i < ggml_graph_n_nodes(graph) && ok; i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        ok = !is_attention(node) || add_layer(f, graph, node, options, n_tensor, &roots);
    }
    ok = ok && add_others(f, graph, &roots);
    free(roots.tensor);
    return ok;
}
