/* Tensors that stay from graph to graph, and graphs, in each way that ggml has to place them. */
#ifndef VARVE_TEST_FLASH_GRAPH_H
#define VARVE_TEST_FLASH_GRAPH_H

#include "flash_data.h"
#include "ggml-alloc.h"

/* Leaves: states and outputs. */
struct flash_leaves {
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
};

struct flash_graph {
    enum flash_alloc alloc;
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    ggml_backend_buffer_t buffer;
    ggml_gallocr_t gallocr;
};

/* `bytes`: of all tensors that will be made. */
void flash_leaves_begin(struct flash_leaves *leaves, enum flash_alloc alloc, size_t bytes);
/* A contiguous F32 tensor that begins `offset` bytes behind a boundary. */
struct ggml_tensor *flash_leaf(struct flash_leaves *leaves, const int64_t ne[4], int64_t offset);
/* Gives memory to the leaves and fills it with NaN. */
void flash_leaves_end(struct flash_leaves *leaves);
void flash_leaves_free(struct flash_leaves *leaves);

void flash_graph_begin(struct flash_graph *graph, enum flash_alloc alloc, size_t bytes);
/* Places the nodes that `result` needs. */
void flash_graph_place(struct flash_graph *graph, struct ggml_tensor *result);
/* Fills what the graph owns with NaN and computes it. False: it failed. */
bool flash_graph_compute(struct flash_graph *graph, int n_thread);
/* Computes it with what is there. */
bool flash_graph_run(struct flash_graph *graph, int n_thread);
void flash_graph_free(struct flash_graph *graph);

#endif
