/* Small nodes beside ours join our part of the graph, only there, and give stock's bits. */
#include "ggml/plugin_host.h"

enum { HEAD_DIM = 64, N_HEAD = 4, N_HEAD_KV = 2, N_CELL = 256 };
enum { WIDTH = HEAD_DIM * N_HEAD, WIDTH_KV = HEAD_DIM * N_HEAD_KV };

/* What outlives graphs: weights and the cache of one layer. */
struct model {
    struct ggml_context *ctx;
    ggml_backend_buffer_t weights, cache;
    struct ggml_tensor *w_q, *w_k, *w_v, *w_o, *k, *v;
};

static struct ggml_tensor *weight(struct model *model, int64_t n_in, int64_t n_out) {
    return ggml_new_tensor_2d(model->ctx, GGML_TYPE_F16, n_in, n_out);
}

static void model_create(struct model *model) {
    ggml_backend_buffer_type_t buft = ggml_backend_cpu_buffer_type();
    model->ctx = new_graph_context();
    model->w_q = weight(model, WIDTH, WIDTH);
    model->w_k = weight(model, WIDTH, WIDTH_KV);
    model->w_v = weight(model, WIDTH, WIDTH_KV);
    model->w_o = weight(model, WIDTH, WIDTH);
    model->weights = ggml_backend_alloc_ctx_tensors_from_buft(model->ctx, buft);
    ggml_backend_buffer_set_usage(model->weights, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    model->k = ggml_new_tensor_2d(model->ctx, GGML_TYPE_Q8_0, WIDTH_KV, N_CELL);
    model->v = ggml_new_tensor_2d(model->ctx, GGML_TYPE_Q8_0, WIDTH_KV, N_CELL);
    model->cache = ggml_backend_alloc_ctx_tensors_from_buft(model->ctx, buft);
    ggml_backend_buffer_clear(model->cache, 0);
    struct ggml_tensor *all[] = {model->w_q, model->w_k, model->w_v, model->w_o};
    for (int i = 0; i < 4; i++) {
        fill_random(all[i], 0.1f, 7 + (uint64_t)i);
    }
}

static void model_free(struct model *model) {
    ggml_backend_buffer_free(model->cache);
    ggml_backend_buffer_free(model->weights);
    ggml_free(model->ctx);
}

/* One layer's attention as llama.cpp builds it for quantized caches: Q and K are rotated by
 * position, Q, K and V by a matrix; rows are written; what comes out is rotated back. */
struct layer {
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    struct ggml_tensor *x, *pos, *cell, *matrix;                             /* inputs */
    struct ggml_tensor *rope_q, *rope_k, *turn_k, *turn_v, *turn_back, *out; /* nodes to look at */
};

static struct ggml_tensor *turn(struct layer *layer, struct ggml_tensor *t) {
    return ggml_mul_mat(layer->ctx, layer->matrix,
                        ggml_reshape_2d(layer->ctx, t, HEAD_DIM, ggml_nelements(t) / HEAD_DIM));
}

static struct ggml_tensor *heads_of(struct layer *layer, struct ggml_tensor *cache) {
    struct ggml_tensor *t = ggml_reshape_3d(layer->ctx, cache, HEAD_DIM, N_HEAD_KV, N_CELL);
    return ggml_permute(layer->ctx, t, 0, 2, 1, 3);
}

static void write(struct layer *layer, struct ggml_tensor *cache, struct ggml_tensor *rows,
                  int64_t n) {
    ggml_build_forward_expand(
        layer->graph, ggml_set_rows(layer->ctx, cache,
                                    ggml_reshape_2d(layer->ctx, rows, WIDTH_KV, n), layer->cell));
}

static void layer_build(struct layer *layer, const struct model *model, int64_t n) {
    struct ggml_context *ctx = layer->ctx = new_graph_context();
    layer->graph = ggml_new_graph(ctx);
    layer->x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, WIDTH, n);
    layer->pos = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n);
    layer->cell = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, n);
    layer->matrix = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, HEAD_DIM, HEAD_DIM);
    struct ggml_tensor *inputs[] = {layer->x, layer->pos, layer->cell, layer->matrix};
    for (int i = 0; i < 4; i++) {
        ggml_set_input(inputs[i]);
    }
    struct ggml_tensor *q = ggml_mul_mat(ctx, model->w_q, layer->x);
    layer->rope_q =
        ggml_rope(ctx, ggml_reshape_3d(ctx, q, HEAD_DIM, N_HEAD, n), layer->pos, HEAD_DIM, 0);
    struct ggml_tensor *turned = turn(layer, layer->rope_q);
    ggml_build_forward_expand(layer->graph, turned);
    layer->turn_v = turn(layer, ggml_mul_mat(ctx, model->w_v, layer->x));
    ggml_build_forward_expand(layer->graph, layer->turn_v);
    struct ggml_tensor *k = ggml_mul_mat(ctx, model->w_k, layer->x);
    layer->rope_k =
        ggml_rope(ctx, ggml_reshape_3d(ctx, k, HEAD_DIM, N_HEAD_KV, n), layer->pos, HEAD_DIM, 0);
    layer->turn_k = turn(layer, layer->rope_k);
    write(layer, model->k, layer->turn_k, n);
    write(layer, model->v, layer->turn_v, n);
    struct ggml_tensor *query =
        ggml_permute(ctx, ggml_reshape_3d(ctx, turned, HEAD_DIM, N_HEAD, n), 0, 2, 1, 3);
    struct ggml_tensor *attention = ggml_flash_attn_ext(
        ctx, query, heads_of(layer, model->k), heads_of(layer, model->v), NULL, 0.125f, 0.0f, 0.0f);
    layer->turn_back = turn(layer, attention);
    layer->out = ggml_mul_mat(ctx, model->w_o, ggml_reshape_2d(ctx, layer->turn_back, WIDTH, n));
    ggml_set_output(layer->out);
    struct ggml_tensor *shown[] = {layer->rope_k, layer->turn_k, layer->turn_v};
    for (int i = 0; i < 3; i++) {
        ggml_set_output(shown[i]); /* keeps its memory to the end */
    }
    ggml_build_forward_expand(layer->graph, layer->out);
}

static void fill_inputs(struct layer *layer) {
    fill_random(layer->x, 1.0f, 3);
    fill_random(layer->matrix, 0.2f, 4);
    for (int64_t i = 0; i < layer->x->ne[1]; i++) {
        ((int32_t *)layer->pos->data)[i] = (int32_t)i + 5;
        ((int64_t *)layer->cell->data)[i] = i + 9;
    }
}

static bool is_ours(ggml_backend_sched_t sched, struct ggml_tensor *node) {
    return ggml_backend_sched_get_tensor_backend(sched, node) ==
           ggml_backend_sched_get_backend(sched, 0);
}

/* Runs a step of n tokens and leaves what was written into the cache in `rows`. */
static void step(ggml_backend_sched_t sched, int64_t n, bool small, float *k_node, void *cache) {
    struct model model;
    struct layer layer;
    model_create(&model);
    layer_build(&layer, &model, n);
    assert_true(ggml_backend_sched_alloc_graph(sched, layer.graph));
    const bool with_us = ggml_backend_sched_get_n_backends(sched) == 2;
    assert_int_equal(is_ours(sched, layer.rope_k), !with_us || small);
    assert_int_equal(is_ours(sched, layer.turn_k), !with_us || small);
    assert_int_equal(is_ours(sched, layer.turn_back), !with_us || small);
    /* Nodes of the scheduler's CPU part stand between these and our part. */
    assert_int_equal(is_ours(sched, layer.rope_q), !with_us);
    assert_int_equal(is_ours(sched, layer.turn_v), !with_us);
    assert_int_equal(ggml_backend_sched_get_n_splits(sched), with_us ? 3 : 1);
    fill_inputs(&layer);
    assert_int_equal(ggml_backend_sched_graph_compute(sched, layer.graph), GGML_STATUS_SUCCESS);
    memcpy(k_node, layer.turn_k->data, ggml_nbytes(layer.turn_k));
    memcpy(cache, model.k->data, ggml_nbytes(model.k));
    ggml_backend_sched_reset(sched);
    ggml_free(layer.ctx);
    model_free(&model);
}

static void small_neighbours_join_and_give_the_same_bits(void **state) {
    (void)state;
    static const struct {
        int64_t n_token;
        bool small;
    } cases[] = {{1, true}, {4, true}, {200, false}};
    enum { k_bytes = 200 * WIDTH_KV * sizeof(float) };
    float *k_node[2] = {malloc(k_bytes), malloc(k_bytes)};
    const size_t cache_bytes = ggml_row_size(GGML_TYPE_Q8_0, WIDTH_KV) * N_CELL;
    char *cache[2] = {malloc(cache_bytes), malloc(cache_bytes)};
    ggml_backend_t both[2] = {new_backend(2), ggml_backend_cpu_init()};
    ggml_backend_t alone[1] = {ggml_backend_cpu_init()};
    ggml_backend_sched_t with = ggml_backend_sched_new(both, NULL, 2, 128, false, true);
    ggml_backend_sched_t without = ggml_backend_sched_new(alone, NULL, 1, 128, false, true);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const size_t bytes = (size_t)cases[i].n_token * WIDTH_KV * sizeof(float);
        step(with, cases[i].n_token, cases[i].small, k_node[0], cache[0]);
        step(without, cases[i].n_token, cases[i].small, k_node[1], cache[1]);
        assert_memory_equal(k_node[0], k_node[1], bytes);
        assert_memory_equal(cache[0], cache[1], cache_bytes);
    }
    ggml_backend_sched_free(with);
    ggml_backend_sched_free(without);
    ggml_backend_free(both[0]);
    ggml_backend_free(both[1]);
    ggml_backend_free(alone[0]);
    for (int i = 0; i < 2; i++) {
        free(k_node[i]);
        free(cache[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_neighbours_join_and_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
