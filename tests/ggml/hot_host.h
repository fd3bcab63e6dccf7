/* Back ends with a hot tier beside their model: caches as llama.cpp lays them out, rows written and
 * attended to through graphs, and every result and counter compared. */
#ifndef VARVE_TEST_HOT_HOST_H
#define VARVE_TEST_HOT_HOST_H

#include "hot_envelope.h"

/* Levels above this one round the weights of quantized V. The rule is the same at every level; the
 * model's bounds are tight enough to see one row in the wrong tier, and stay so. */
__attribute__((constructor)) static void without_rounded_weights(void) {
    (void)setenv("VARVE_ISA", "avx512", 0);
}

enum { HOT_MAX_ITEMS = 8, HOT_MAX_RIGS = 8 };

/* The caches of one layer. */
struct hot_shape {
    enum ggml_type type_k, type_v;
    int64_t dk, dv, n_head, n_head_kv, n_cell;
    int64_t n_stream;      /* 1: a tensor of two dimensions */
    bool v_in_k;           /* MLA: V is the first dv values of each row of K */
    enum ggml_type source; /* of SET_ROWS: F32 or F16 */
};

struct hot_layer {
    struct hot_shape shape;
    uint64_t id; /* layers with other ids get other rows for the same tokens */
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor *k, *v;
};

/* A back end and what it should know. */
struct hot_rig {
    ggml_backend_t backend; /* NULL: only the model; rows are encoded by ggml */
    struct hot_model model;
    bool any_tier;   /* a budget binds: each row may be read in either tier */
    uint64_t digest; /* of the bits of all results */
    char why[512];   /* of the last failure */
    /* If set, called for each stream of each node, when tiers are chosen; false fails the run. */
    bool (*watch)(struct hot_rig *rig, const struct hot_node *node, const uint64_t *token);
    void *user;
};

/* Rows for one node. A token has the same Q, K and V wherever and whenever it appears. */
struct hot_batch {
    int64_t stream0, n_stream; /* streams of the cache that take part */
    int64_t n_query, n_kv;     /* per stream */
    const uint64_t *token;     /* [n_stream][n_query] */
    const int64_t *cell;       /* [n_stream][n_query], within the stream */
    const bool *visible;       /* [n_stream][n_query][n_kv]; NULL: no mask */
    int64_t n_mask_head;       /* 0: one mask for all heads */
};

struct hot_item {
    struct hot_layer *layer;
    const struct hot_batch *batch;
    struct ggml_tensor *op, *op_v, *source_k, *source_v, *index; /* op_v NULL: attention */
    struct ggml_tensor *q, *mask;
};

struct hot_graph {
    struct hot_rig *rig;
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    struct ggml_cgraph *graph;
    struct hot_item items[HOT_MAX_ITEMS];
    int n_item;
};

/* ---- data ----------------------------------------------------------------------------------- */

/* In each block two values are so large that the others, all below one half, fall on one level of
 * the format: what they decode to has little to do with what was written, and a row read in the
 * wrong tier shows (pitfall 3). The large ones are random, or the cold rows would all be the same,
 * and no change of one would show. */
static inline float hot_peak(enum ggml_type type) {
    switch (type) {
    case GGML_TYPE_Q4_0: return 8.0f;
    case GGML_TYPE_Q4_1: return 31.0f;
    case GGML_TYPE_Q5_0: return 16.0f;
    case GGML_TYPE_Q5_1: return 62.0f;
    case GGML_TYPE_IQ4_NL: return 12.7f;
    default: return 127.0f;
    }
}

enum { HOT_LARGE_AT = 6 }; /* and the one behind it */

static inline void hot_fill(float *out, int64_t n, float peak, float scale, uint64_t seed) {
    random_u32(&seed);
    for (int64_t i = 0; i < n; i++) {
        const float u = random_unit(&seed);
        const int64_t at = i % 32 - HOT_LARGE_AT;
        out[i] = at == 0 ? peak * fabsf(u) : at == 1 ? peak * (1.25f + 0.25f * u) : scale * u;
    }
}

enum hot_role { HOT_ROLE_K = 1, HOT_ROLE_V, HOT_ROLE_Q };

static inline uint64_t hot_seed(uint64_t token, uint64_t layer, enum hot_role role) {
    uint64_t seed = token * UINT64_C(0x9e3779b97f4a7c15) + layer * 131 + (uint64_t)role;
    for (int i = 0; i < 3; i++) { /* neighbours are to have nothing in common */
        seed = (seed ^ seed >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    }
    return seed;
}

static inline void hot_token_row(const struct hot_layer *l, uint64_t token, enum hot_role role,
                                 float *out) {
    const struct ggml_tensor *cache = role == HOT_ROLE_K ? l->k : l->v;
    hot_fill(out, cache->ne[0], hot_peak(cache->type), 0.499f, hot_seed(token, l->id, role));
    for (int64_t i = 0; i < cache->ne[0] && l->shape.source == GGML_TYPE_F16; i++) {
        out[i] = ggml_fp16_to_fp32(ggml_fp32_to_fp16(out[i]));
    }
}

/* Neighbours cancel, and the large values meet zeros: what is common to the decoded values of all
 * rows adds nothing to a logit, so no tier outweighs the other. */
static inline void hot_token_query(const struct hot_layer *l, uint64_t token, float *out) {
    const int64_t n = l->shape.dk * l->shape.n_head;
    hot_fill(out, n, 0.0f, 8.0f, hot_seed(token, l->id, HOT_ROLE_Q));
    for (int64_t i = 0; i < n; i += 2) {
        out[i] = -out[i + 1];
    }
}

/* ---- back ends and layers ------------------------------------------------------------------- */

/* All that are alive, oldest first: the order of the plug-in's accounts. */
static struct {
    const struct hot_rig *rig;
    ggml_backend_t backend;
} hot_alive[HOT_MAX_RIGS];

/* A test that fails leaves its back ends behind; the next one is to begin without them. */
static inline int hot_free_left(void **state) {
    (void)state;
    for (int i = 0; i < HOT_MAX_RIGS && hot_alive[i].rig != NULL; i++) {
        ggml_backend_free(hot_alive[i].backend);
    }
    memset(hot_alive, 0, sizeof(hot_alive));
    return 0;
}

#define HOT_TEST(test) cmocka_unit_test_teardown(test, hot_free_left)

static inline void hot_set_tiers(int64_t window, int64_t n_sink, int64_t hot_max) {
    char text[32];
    varve_ggml_set_tiers_fn set = NULL;
    *(void **)&set = ggml_backend_reg_get_proc_address(load_plugin(), VARVE_GGML_SET_TIERS);
    assert_non_null(set);
    snprintf(text, sizeof(text), "f16:%lld", (long long)window);
    assert_true(set(window > 0 ? text : "none", (int32_t)n_sink, hot_max));
}

static inline void hot_rig_open(struct hot_rig *rig, int64_t window, int64_t n_sink,
                                int64_t hot_max, int n_thread) {
    memset(rig, 0, sizeof(*rig));
    rig->model.window = window;
    rig->model.n_sink = n_sink;
    if (n_thread == 0) {
        return; /* the model alone */
    }
    hot_set_tiers(window, n_sink, hot_max);
    rig->backend = new_backend(n_thread);
    int at = 0;
    while (hot_alive[at].rig != NULL) {
        at++;
    }
    assert_true(at < HOT_MAX_RIGS - 1);
    hot_alive[at].rig = rig;
    hot_alive[at].backend = rig->backend;
}

static inline void hot_rig_close(struct hot_rig *rig) {
    hot_model_free(&rig->model);
    if (rig->backend == NULL) {
        return;
    }
    ggml_backend_free(rig->backend);
    int at = 0;
    while (hot_alive[at].rig != rig) {
        at++;
    }
    for (; at + 1 < HOT_MAX_RIGS; at++) {
        hot_alive[at] = hot_alive[at + 1];
    }
}

static inline bool hot_read_account(int32_t context, struct varve_ggml_account *account) {
    varve_ggml_account_fn read = NULL;
    *(void **)&read = ggml_backend_reg_get_proc_address(load_plugin(), VARVE_GGML_ACCOUNT);
    memset(account, 0, sizeof(*account));
    return read != NULL && read(context, account, sizeof(*account));
}

static inline struct varve_ggml_account hot_account(const struct hot_rig *rig) {
    struct varve_ggml_account account;
    int32_t context = 0;
    while (hot_alive[context].rig != rig) {
        context++;
    }
    assert_true(hot_read_account(context, &account));
    return account;
}

static inline struct hot_layer hot_layer_new(struct hot_shape s, uint64_t id) {
    struct hot_layer l = {.shape = s, .id = id, .ctx = new_graph_context()};
    l.k = ggml_new_tensor_3d(l.ctx, s.type_k, s.dk * s.n_head_kv, s.n_cell, s.n_stream);
    l.v = s.v_in_k ? l.k
                   : ggml_new_tensor_3d(l.ctx, s.type_v, s.dv * s.n_head_kv, s.n_cell, s.n_stream);
    l.buffer = ggml_backend_alloc_ctx_tensors_from_buft(l.ctx, ggml_backend_cpu_buffer_type());
    assert_non_null(l.buffer);
    memset(l.k->data, 0xff, ggml_nbytes(l.k)); /* NaN in every format: what nobody wrote */
    memset(l.v->data, 0xff, ggml_nbytes(l.v));
    return l;
}

static inline void hot_layer_free(struct hot_layer *l) {
    ggml_backend_buffer_free(l->buffer);
    ggml_free(l->ctx);
}

/* ---- graphs --------------------------------------------------------------------------------- */

static inline struct hot_graph hot_graph_new(struct hot_rig *rig) {
    struct hot_graph g = {.rig = rig};
    struct ggml_init_params params = {.mem_size = 128 * ggml_tensor_overhead() +
                                                  ggml_graph_overhead_custom(64, false),
                                      .no_alloc = true};
    g.ctx = ggml_init(params);
    assert_non_null(g.ctx);
    g.graph = ggml_new_graph_custom(g.ctx, 64, false);
    return g;
}

static inline struct hot_item *hot_item_new(struct hot_graph *g, struct hot_layer *l,
                                            const struct hot_batch *b) {
    assert_true(g->n_item < HOT_MAX_ITEMS);
    struct hot_item *item = &g->items[g->n_item++];
    item->layer = l;
    item->batch = b;
    return item;
}

/* The cache as SET_ROWS gets it: cells of all streams are numbered in one go. */
static inline struct ggml_tensor *hot_flat(struct ggml_context *ctx, struct ggml_tensor *cache) {
    return ggml_reshape_2d(ctx, cache, cache->ne[0], cache->ne[1] * cache->ne[2]);
}

static inline void hot_add_write(struct hot_graph *g, struct hot_layer *l,
                                 const struct hot_batch *b) {
    struct hot_item *item = hot_item_new(g, l, b);
    const int64_t n = b->n_stream * b->n_query;
    item->index = ggml_new_tensor_1d(g->ctx, GGML_TYPE_I64, n);
    item->source_k = ggml_new_tensor_2d(g->ctx, l->shape.source, l->k->ne[0], n);
    item->op = ggml_set_rows(g->ctx, hot_flat(g->ctx, l->k), item->source_k, item->index);
    ggml_build_forward_expand(g->graph, item->op);
    item->op_v = item->op;
    if (!l->shape.v_in_k) {
        item->source_v = ggml_new_tensor_2d(g->ctx, l->shape.source, l->v->ne[0], n);
        item->op_v = ggml_set_rows(g->ctx, hot_flat(g->ctx, l->v), item->source_v, item->index);
        ggml_build_forward_expand(g->graph, item->op_v);
    }
}

static inline struct ggml_tensor *hot_cache_view(struct ggml_context *ctx,
                                                 struct ggml_tensor *cache, int64_t d,
                                                 const struct hot_layer *l,
                                                 const struct hot_batch *b) {
    struct ggml_tensor *rows =
        ggml_view_4d(ctx, cache, d, l->shape.n_head_kv, b->n_kv, b->n_stream,
                     ggml_row_size(cache->type, cache->ne[0] / l->shape.n_head_kv), cache->nb[1],
                     cache->nb[2], (size_t)b->stream0 * cache->nb[2]);
    return ggml_permute(ctx, rows, 0, 2, 1, 3);
}

static inline void hot_add_attention(struct hot_graph *g, struct hot_layer *l,
                                     const struct hot_batch *b) {
    struct hot_item *item = hot_item_new(g, l, b);
    const struct hot_shape *s = &l->shape;
    item->q = ggml_new_tensor_4d(g->ctx, GGML_TYPE_F32, s->dk, s->n_head, b->n_query, b->n_stream);
    if (b->visible != NULL) {
        item->mask = ggml_new_tensor_4d(g->ctx, GGML_TYPE_F16, b->n_kv, b->n_query,
                                        b->n_mask_head > 0 ? b->n_mask_head : 1, b->n_stream);
    }
    item->op = ggml_flash_attn_ext(g->ctx, ggml_permute(g->ctx, item->q, 0, 2, 1, 3),
                                   hot_cache_view(g->ctx, l->k, s->dk, l, b),
                                   hot_cache_view(g->ctx, l->v, s->dv, l, b), item->mask,
                                   1.0f / sqrtf((float)s->dk), 0, 0);
    ggml_build_forward_expand(g->graph, item->op);
}

static inline void hot_fill_source(const struct hot_item *item, struct ggml_tensor *source,
                                   enum hot_role role) {
    float *row = hot_alloc(source->ne[0], sizeof(float));
    for (int64_t i = 0; i < source->ne[1]; i++) {
        char *to = (char *)source->data + (size_t)i * source->nb[1];
        hot_token_row(item->layer, item->batch->token[i], role, row);
        if (source->type == GGML_TYPE_F16) {
            ggml_fp32_to_fp16_row(row, (ggml_fp16_t *)(void *)to, source->ne[0]);
        } else {
            memcpy(to, row, source->nb[1]);
        }
    }
    free(row);
}

static inline int64_t hot_global_cell(const struct hot_item *item, int64_t i) {
    const struct hot_batch *b = item->batch;
    return (b->stream0 + i / b->n_query) * item->layer->shape.n_cell + b->cell[i];
}

/* The same for all heads, also where each has a mask of its own. */
static inline void hot_fill_mask(const struct hot_batch *b, struct ggml_tensor *mask) {
    const int64_t n_column = b->n_query * b->n_kv;
    for (int64_t i = 0; i < ggml_nelements(mask); i++) {
        const int64_t stream = i / (n_column * mask->ne[2]);
        ((ggml_fp16_t *)mask->data)[i] =
            ggml_fp32_to_fp16(b->visible[stream * n_column + i % n_column] ? 0.0f : -INFINITY);
    }
}

static inline void hot_fill_item(const struct hot_item *item) {
    const struct hot_batch *b = item->batch;
    const int64_t n = b->n_stream * b->n_query;
    if (item->op_v != NULL) {
        hot_fill_source(item, item->source_k, HOT_ROLE_K);
        for (int64_t i = 0; i < n; i++) {
            ((int64_t *)item->index->data)[i] = hot_global_cell(item, i);
        }
        if (item->source_v != NULL) {
            hot_fill_source(item, item->source_v, HOT_ROLE_V);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        hot_token_query(item->layer, b->token[i],
                        (float *)item->q->data + i * item->q->ne[0] * item->q->ne[1]);
    }
    if (item->mask != NULL) {
        hot_fill_mask(b, item->mask);
    }
    memset(item->op->data, 0xff, ggml_nbytes(item->op));
}

/* ---- comparing ------------------------------------------------------------------------------ */

static inline void hot_model_side(const struct hot_item *item, struct hot_rig *rig,
                                  const struct ggml_tensor *cache, enum hot_role role) {
    const int64_t n = item->batch->n_stream * item->batch->n_query;
    int64_t *cells = hot_alloc(n, sizeof(int64_t));
    float *rows = hot_alloc(n * cache->ne[0], sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        cells[i] = hot_global_cell(item, i);
        hot_token_row(item->layer, item->batch->token[i], role, rows + i * cache->ne[0]);
    }
    for (int64_t i = 0; i < n && rig->backend == NULL; i++) {
        ggml_quantize_chunk(cache->type, rows + i * cache->ne[0],
                            (char *)cache->data + (size_t)cells[i] * cache->nb[1], 0, 1,
                            cache->ne[0], NULL);
    }
    hot_model_write(&rig->model, cache, rows, cells, n);
    free(rows);
    free(cells);
}

static inline bool hot_same(struct hot_rig *rig, const char *what, uint64_t got, uint64_t want) {
    if (got != want) {
        snprintf(rig->why, sizeof(rig->why), "%s: %llu, by the rule %llu", what,
                 (unsigned long long)got, (unsigned long long)want);
    }
    return got == want;
}

static inline struct hot_count hot_counts(const struct hot_model *m, bool is_v) {
    struct hot_count sum = {0};
    for (int i = 0; i < m->n_side; i++) {
        const struct hot_count *c = &m->side[i].count;
        if (m->side[i].is_v != is_v) {
            continue;
        }
        sum.recent += c->recent;
        sum.sink += c->sink;
        sum.cold += c->cold;
        sum.written += c->written;
        sum.stale += c->stale;
    }
    return sum;
}

static inline bool hot_check_side(struct hot_rig *rig, const char *name,
                                  const struct varve_ggml_side *got, struct hot_count want) {
    const bool same = hot_same(rig, "rows_hot", got->rows_hot, want.recent) &&
                      hot_same(rig, "rows_sink", got->rows_sink, want.sink) &&
                      hot_same(rig, "rows_cold", got->rows_cold, want.cold) &&
                      hot_same(rig, "twins_written", got->twins_written, want.written) &&
                      hot_same(rig, "twins_stale", got->twins_stale, want.stale) &&
                      hot_same(rig, "twins_evicted", got->twins_evicted, 0);
    if (!same) {
        const size_t n = strlen(rig->why);
        snprintf(rig->why + n, sizeof(rig->why) - n, " (%s)", name);
    }
    return same;
}

static inline bool hot_check_sum(struct hot_rig *rig, const struct varve_ggml_side *got,
                                 struct hot_count want) {
    return hot_same(rig, "rows of all tiers", got->rows_hot + got->rows_sink + got->rows_cold,
                    want.recent + want.sink + want.cold);
}

/* A side that is not quantized has no twins and nothing to account for. */
static inline bool hot_check_account(struct hot_rig *rig, const struct hot_shape *s) {
    if (rig->model.window == 0 || rig->backend == NULL) {
        return true;
    }
    const struct varve_ggml_account got = hot_account(rig);
    const struct hot_count k = hot_counts(&rig->model, false), v = hot_counts(&rig->model, true);
    if (rig->any_tier) {
        return hot_check_sum(rig, &got.k, k) && hot_check_sum(rig, &got.v, v);
    }
    return (!ggml_is_quantized(s->type_k) || hot_check_side(rig, "K", &got.k, k)) &&
           (s->v_in_k || !ggml_is_quantized(s->type_v) || hot_check_side(rig, "V", &got.v, v));
}

static inline bool hot_check_row(struct hot_rig *rig, struct hot_node *n, int64_t i, int64_t h) {
    const int64_t dv = n->op->ne[0];
    const float *got =
        (const float *)n->op->data + ((n->stream * n->op->ne[2] + i) * n->op->ne[1] + h) * dv;
    if (rig->any_tier) {
        snprintf(rig->why, sizeof(rig->why), "query %d, head %d: no choice of tiers gives this",
                 (int)i, (int)h);
        return hot_in_envelope(n, i, h, got);
    }
    double *want = hot_alloc(2 * dv, sizeof(double));
    bool good = true;
    hot_result(n, i, h, want, want + dv);
    for (int64_t d = 0; d < dv && good; d++) {
        good = fabs((double)got[d] - want[d]) <= want[dv + d];
        if (!good) {
            snprintf(rig->why, sizeof(rig->why),
                     "stream %d, query %d, head %d, value %d: %.9g, by the rule %.9g +- %.2g",
                     (int)n->stream, (int)i, (int)h, (int)d, (double)got[d], want[d], want[dv + d]);
        }
    }
    free(want);
    return good;
}

static inline bool hot_check_attention(struct hot_rig *rig, const struct hot_item *item) {
    bool good = true;
    for (int64_t stream = 0; stream < item->batch->n_stream; stream++) {
        struct hot_node n = hot_node_begin(&rig->model, item->op, stream);
        for (int64_t j = 0; rig->backend != NULL && j < n.op->ne[1] * n.op->ne[2] && good; j++) {
            good = hot_check_row(rig, &n, j / n.op->ne[1], j % n.op->ne[1]);
        }
        if (rig->watch != NULL && good) {
            good = rig->watch(rig, &n, item->batch->token + stream * item->batch->n_query);
        }
        hot_node_free(&n);
    }
    for (size_t i = 0; i < ggml_nbytes(item->op); i++) {
        rig->digest = (rig->digest ^ ((unsigned char *)item->op->data)[i]) * 1099511628211u;
    }
    return good;
}

static inline void hot_alloc_graph(struct hot_graph *g) {
    g->buffer = ggml_backend_alloc_ctx_tensors_from_buft(g->ctx, ggml_backend_cpu_buffer_type());
    assert_non_null(g->buffer);
    for (int i = 0; i < g->n_item; i++) {
        hot_fill_item(&g->items[i]);
    }
}

static inline void hot_graph_free(struct hot_graph *g) {
    ggml_backend_buffer_free(g->buffer);
    ggml_free(g->ctx);
}

/* Computes the graph, lets the model do the same and compares. False: see rig->why. */
static inline bool hot_graph_run(struct hot_graph *g) {
    struct hot_rig *rig = g->rig;
    bool good = true;
    hot_alloc_graph(g);
    if (rig->backend != NULL) {
        assert_int_equal(ggml_backend_graph_compute(rig->backend, g->graph), GGML_STATUS_SUCCESS);
    }
    for (int i = 0; i < g->n_item; i++) {
        const struct hot_item *item = &g->items[i];
        if (item->op_v == NULL) {
            good = good && hot_check_attention(rig, item);
            continue;
        }
        hot_model_side(item, rig, item->layer->k, HOT_ROLE_K);
        if (!item->layer->shape.v_in_k) {
            hot_model_side(item, rig, item->layer->v, HOT_ROLE_V);
        }
    }
    good = good && hot_check_account(rig, &g->items[0].layer->shape);
    hot_graph_free(g);
    return good;
}

/* ---- steps ---------------------------------------------------------------------------------- */

/* Shows a layer to back end and model as ggml's scheduler does when llama.cpp reserves its graphs:
 * the write first, then attention of one query for each sequence. */
static inline void hot_rig_add(struct hot_rig *rig, struct hot_layer *l, int64_t n_seq) {
    hot_model_add(&rig->model, l->k, false);
    if (!l->shape.v_in_k) {
        hot_model_add(&rig->model, l->v, true);
    }
    rig->model.one_sequence = n_seq <= l->shape.n_stream; /* streams share no rows */
    if (rig->backend == NULL) {
        return;
    }
    const uint64_t token[64] = {0};
    const int64_t cell[64] = {0};
    assert_true(n_seq <= 64);
    const int64_t n_stream = l->shape.n_stream;
    const struct hot_batch b = {.n_stream = n_stream,
                                .n_query = n_stream > 1 ? 1 : n_seq,
                                .n_kv = l->shape.n_cell,
                                .token = token,
                                .cell = cell};
    struct hot_graph g = hot_graph_new(rig);
    hot_add_write(&g, l, &b);
    hot_add_attention(&g, l, &b);
    hot_alloc_graph(&g);
    ggml_backend_dev_t dev = ggml_backend_get_device(rig->backend);
    assert_true(ggml_backend_dev_supports_op(dev, g.items[0].op));
    assert_true(ggml_backend_dev_supports_op(dev, g.items[0].op_v));
    assert_true(ggml_backend_dev_supports_op(dev, g.items[1].op));
    hot_graph_free(&g);
}

/* As llama.cpp has it: writing and reading in one graph. */
static inline bool hot_step(struct hot_rig *rig, struct hot_layer *l, const struct hot_batch *b) {
    struct hot_graph g = hot_graph_new(rig);
    hot_add_write(&g, l, b);
    hot_add_attention(&g, l, b);
    return hot_graph_run(&g);
}

#endif
