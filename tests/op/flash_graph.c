#include "flash_graph.h"

#include <stdlib.h>
#include <string.h>

#include "ggml-cpu.h"

enum { TENSORS_MAX = 1024, LEAVES_MAX = 96, NODES_MAX = 1024 };

/* ---- leaves --------------------------------------------------------------------------------- */

void flash_leaves_begin(struct flash_leaves *leaves, enum flash_alloc alloc, size_t bytes) {
    const bool with_memory = alloc == FLASH_ALLOC_CONTEXT;
    *leaves = (struct flash_leaves){.ctx = flash_context(with_memory, bytes, LEAVES_MAX)};
}

struct ggml_tensor *flash_leaf(struct flash_leaves *leaves, const int64_t ne[4], int64_t offset) {
    const int64_t n = ne[0] * ne[1] * ne[2] * ne[3];
    struct ggml_tensor *const all =
        ggml_new_tensor_1d(leaves->ctx, GGML_TYPE_F32, n + offset / (int64_t)sizeof(float));
    const size_t nb1 = (size_t)ne[0] * sizeof(float), nb2 = nb1 * (size_t)ne[1];
    return ggml_view_4d(leaves->ctx, all, ne[0], ne[1], ne[2], ne[3], nb1, nb2, nb2 * (size_t)ne[2],
                        (size_t)offset);
}

static void fill_with_nan(struct ggml_context *ctx) {
    for (struct ggml_tensor *t = ggml_get_first_tensor(ctx); t != NULL;
         t = ggml_get_next_tensor(ctx, t)) {
        if (t->view_src == NULL && t->data != NULL) memset(t->data, 0xFF, ggml_nbytes(t));
    }
}

void flash_leaves_end(struct flash_leaves *leaves) {
    if (ggml_get_no_alloc(leaves->ctx)) {
        leaves->buffer =
            ggml_backend_alloc_ctx_tensors_from_buft(leaves->ctx, ggml_backend_cpu_buffer_type());
    }
    fill_with_nan(leaves->ctx);
}

void flash_leaves_free(struct flash_leaves *leaves) {
    ggml_backend_buffer_free(leaves->buffer);
    ggml_free(leaves->ctx);
}

/* ---- graphs --------------------------------------------------------------------------------- */

void flash_graph_begin(struct flash_graph *graph, enum flash_alloc alloc, size_t bytes) {
    const bool with_memory = alloc == FLASH_ALLOC_CONTEXT;
    const size_t more = ggml_graph_overhead_custom(NODES_MAX, false);
    *graph = (struct flash_graph){.alloc = alloc};
    graph->ctx = flash_context(with_memory, bytes, TENSORS_MAX + more / ggml_tensor_overhead() + 1);
    graph->graph = ggml_new_graph_custom(graph->ctx, NODES_MAX, false);
}

void flash_graph_place(struct flash_graph *graph, struct ggml_tensor *result) {
    ggml_build_forward_expand(graph->graph, result);
    if (graph->alloc == FLASH_ALLOC_BUFFER) {
        graph->buffer =
            ggml_backend_alloc_ctx_tensors_from_buft(graph->ctx, ggml_backend_cpu_buffer_type());
    } else if (graph->alloc == FLASH_ALLOC_GRAPH) {
        ggml_set_output(result);
        graph->gallocr = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
        if (!ggml_gallocr_alloc_graph(graph->gallocr, graph->graph)) abort();
    }
}

static bool compute_plainly(struct ggml_cgraph *graph, int n_thread) {
    struct ggml_cplan plan = ggml_graph_plan(graph, n_thread, NULL);
    uint8_t *const work = malloc(plan.work_size + 1);
    plan.work_data = work;
    const bool ok = work != NULL && ggml_graph_compute(graph, &plan) == GGML_STATUS_SUCCESS;
    free(work);
    return ok;
}

bool flash_graph_run(struct flash_graph *graph, int n_thread) {
    if (graph->alloc == FLASH_ALLOC_CONTEXT) return compute_plainly(graph->graph, n_thread);
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, n_thread);
    const bool ok = ggml_backend_graph_compute(backend, graph->graph) == GGML_STATUS_SUCCESS;
    ggml_backend_free(backend);
    return ok;
}

bool flash_graph_compute(struct flash_graph *graph, int n_thread) {
    fill_with_nan(graph->ctx);
    return flash_graph_run(graph, n_thread);
}

void flash_graph_free(struct flash_graph *graph) {
    ggml_gallocr_free(graph->gallocr);
    ggml_backend_buffer_free(graph->buffer);
    ggml_free(graph->ctx);
}
