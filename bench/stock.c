#include "stock.h"

#include "args.h"
#include "measure.h"

#include "ggml-cpu.h"
#include "ggml.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct stock {
    const struct bench_problem *problem;
    enum stock_form form;
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    struct ggml_cplan plan;
    struct ggml_threadpool *pool;
    struct ggml_tensor *k, *v; /* point to the layer at hand */
    struct ggml_tensor *rows_k, *rows_v, *cells;
    struct ggml_tensor *out;
};

static enum ggml_type ggml_type_of(enum varve_format format) {
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        const char *const name = ggml_type_name((enum ggml_type)t);
        if (name != NULL && strcmp(name, varve_format_name(format)) == 0) return (enum ggml_type)t;
    }
    cli_say("bench: this ggml has no type %s", varve_format_name(format));
    exit(EXIT_FAILURE);
}

static void copy_f32(const float *values, void *row, int64_t n) {
    memcpy(row, values, (size_t)n * sizeof *values);
}

stock_from_float_fn stock_from_float(enum varve_format format) {
    const stock_from_float_fn found = ggml_get_type_traits_cpu(ggml_type_of(format))->from_float;
    return found != NULL ? found : copy_f32;
}

const char *stock_version(void) { return ggml_version(); }

/* ---- graphs --------------------------------------------------------------------------------- */

/* A tensor over memory of ours, with any strides. */
static struct ggml_tensor *leaf(struct ggml_context *ctx, enum ggml_type type, const int64_t ne[3],
                                int64_t stride1, int64_t stride2, void *data) {
    struct ggml_tensor *const t = ggml_new_tensor_3d(ctx, type, ne[0], ne[1], ne[2]);
    t->nb[1] = (size_t)stride1;
    t->nb[2] = (size_t)stride2;
    t->nb[3] = (size_t)(stride2 * ne[2]);
    t->data = data;
    return t;
}

static struct ggml_tensor *query_leaf(const struct stock *s) {
    const struct bench_case *const c = &s->problem->c;
    const int64_t ne[3] = {c->head_dim_k, c->n_query, c->n_head};
    const int64_t head = 4 * (int64_t)c->head_dim_k;
    return leaf(s->ctx, GGML_TYPE_F32, ne, head * c->n_head, head, s->problem->query);
}

static struct ggml_tensor *mask_leaf(const struct stock *s) {
    const int64_t n_row = s->problem->c.n_row, n_query = s->problem->c.n_query;
    const int64_t ne[3] = {n_row, n_query, 1};
    return leaf(s->ctx, GGML_TYPE_F16, ne, 2 * n_row, 2 * n_row * n_query, s->problem->mask);
}

static void build_flash(struct stock *s) {
    const struct bench_problem *const p = s->problem;
    const struct bench_case *const c = &p->c;
    const int64_t ne_v[3] = {c->head_dim_v, c->n_row, c->n_head_kv};
    s->v = leaf(s->ctx, ggml_type_of(c->type_v), ne_v, p->cold.v_row_stride, p->cold.v_head_stride,
                p->layer[0].v);
    s->out = ggml_flash_attn_ext(s->ctx, query_leaf(s), s->k, s->v, mask_leaf(s),
                                 p->attention.scale, 0.0f, 0.0f);
    ggml_prec_set_acc(s->out, GGML_PREC_F32);
    ggml_build_forward_expand(s->graph, s->out);
}

static void build_products(struct stock *s) {
    const struct bench_problem *const p = s->problem;
    const struct bench_case *const c = &p->c;
    const enum ggml_type type = ggml_type_of(c->type_v);
    const int64_t ne_v[3] = {c->n_row, c->head_dim_v, c->n_head_kv};
    const int64_t row = (int64_t)ggml_row_size(type, c->n_row);
    s->v = leaf(s->ctx, type, ne_v, row, row * c->head_dim_v, p->layer[0].v_turned);
    struct ggml_tensor *kq = ggml_mul_mat(s->ctx, s->k, query_leaf(s));
    ggml_prec_set_acc(kq, GGML_PREC_F32);
    kq = ggml_soft_max_ext_inplace(s->ctx, kq, mask_leaf(s), p->attention.scale, 0.0f);
    struct ggml_tensor *const kqv = ggml_mul_mat(s->ctx, s->v, kq);
    s->out = ggml_cont_2d(s->ctx, ggml_permute(s->ctx, kqv, 0, 2, 1, 3),
                          (int64_t)c->head_dim_v * c->n_head, c->n_query);
    ggml_build_forward_expand(s->graph, s->out);
}

static struct ggml_tensor *build_set_rows(struct stock *s, enum varve_format format, int64_t n,
                                          float *values, void *cache) {
    const struct bench_case *const c = &s->problem->c;
    const enum ggml_type type = ggml_type_of(format);
    struct ggml_tensor *const to = ggml_new_tensor_2d(s->ctx, type, n, c->n_row);
    struct ggml_tensor *const from = ggml_new_tensor_2d(s->ctx, GGML_TYPE_F32, n, c->n_query);
    to->data = cache;
    from->data = values;
    struct ggml_tensor *const rows = ggml_set_rows(s->ctx, to, from, s->cells);
    ggml_build_forward_expand(s->graph, rows);
    s->out = rows;
    return rows;
}

/* The last rows of the cache, as prefill writes them. */
static void build_write(struct stock *s) {
    const struct bench_problem *const p = s->problem;
    const struct bench_case *const c = &p->c;
    s->cells = ggml_new_tensor_1d(s->ctx, GGML_TYPE_I64, c->n_query);
    int64_t *const cells = measure_allocate((size_t)c->n_query * sizeof *cells);
    for (int64_t i = 0; i < c->n_query; i++) cells[i] = c->n_row - c->n_query + i;
    s->cells->data = cells;
    s->rows_k = build_set_rows(s, c->type_k, (int64_t)c->head_dim_k * c->n_head_kv, p->query,
                               p->layer[0].k);
    s->rows_v = build_set_rows(s, c->type_v, (int64_t)c->head_dim_v * c->n_head_kv, p->values_v,
                               p->layer[0].v);
}

/* Memory for what nodes compute; views look into others, which come before them. */
static void place_nodes(struct stock *s) {
    for (int i = 0; i < ggml_graph_n_nodes(s->graph); i++) {
        struct ggml_tensor *const t = ggml_graph_node(s->graph, i);
        t->data = t->view_src != NULL ? (char *)t->view_src->data + t->view_offs
                                      : measure_allocate(ggml_nbytes(t));
    }
}

struct stock *stock_create(const struct bench_problem *p, enum stock_form form) {
    struct stock *const s = measure_allocate(sizeof *s);
    const struct bench_case *const c = &p->c;
    const struct ggml_init_params params = {
        .mem_size = 64 * ggml_tensor_overhead() + ggml_graph_overhead(), .no_alloc = true};
    *s = (struct stock){.problem = p, .form = form, .ctx = ggml_init(params)};
    s->graph = ggml_new_graph(s->ctx);
    if (form == STOCK_WRITE) {
        build_write(s);
    } else {
        const int64_t ne_k[3] = {c->head_dim_k, c->n_row, c->n_head_kv};
        s->k = leaf(s->ctx, ggml_type_of(c->type_k), ne_k, p->cold.k_row_stride,
                    p->cold.k_head_stride, p->layer[0].k);
        form == STOCK_FLASH ? build_flash(s) : build_products(s);
    }
    place_nodes(s);
    struct ggml_threadpool_params threads = ggml_threadpool_params_default(c->n_thread);
    s->pool = ggml_threadpool_new(&threads);
    s->plan = ggml_graph_plan(s->graph, c->n_thread, s->pool);
    s->plan.work_data = measure_allocate(s->plan.work_size);
    ggml_threadpool_pause(s->pool);
    return s;
}

void stock_destroy(struct stock *s) {
    if (s == NULL) return;
    ggml_threadpool_free(s->pool);
    for (int i = 0; i < ggml_graph_n_nodes(s->graph); i++) {
        struct ggml_tensor *const t = ggml_graph_node(s->graph, i);
        if (t->view_src == NULL) free(t->data);
    }
    if (s->cells != NULL) free(s->cells->data);
    free(s->plan.work_data);
    ggml_free(s->ctx);
    free(s);
}

/* ---- runs ----------------------------------------------------------------------------------- */

static void set_layer(struct stock *s, const struct bench_layer *layer) {
    if (s->form == STOCK_WRITE) {
        s->rows_k->data = s->rows_k->view_src->data = layer->k;
        s->rows_v->data = s->rows_v->view_src->data = layer->v;
    } else {
        s->k->data = layer->k;
        s->v->data = s->form == STOCK_FLASH ? layer->v : layer->v_turned;
    }
}

double stock_walk(struct stock *s) {
    const int64_t n_layer = s->problem->c.n_layer;
    ggml_threadpool_resume(s->pool); /* threads of its own, if it has any, sleep between walks */
    const double start = measure_seconds();
    for (int64_t i = 0; i < n_layer; i++) {
        set_layer(s, &s->problem->layer[i]);
        if (ggml_graph_compute(s->graph, &s->plan) != GGML_STATUS_SUCCESS) {
            cli_say("bench: ggml could not compute its graph");
            exit(EXIT_FAILURE);
        }
    }
    const double end = measure_seconds();
    ggml_threadpool_pause(s->pool);
    return (end - start) / (double)n_layer;
}

const float *stock_output(const struct stock *s) { return s->out->data; }
