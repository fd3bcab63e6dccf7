/* One FLASH_ATTN_EXT node over a cache laid out as llama.cpp does, and its result in double. */
#ifndef VARVE_TEST_ATTENTION_CASE_H
#define VARVE_TEST_ATTENTION_CASE_H

#include "plugin_host.h"

struct shape {
    enum ggml_type type_k, type_v;
    int64_t dk, dv, n_query, n_kv, n_head, n_head_kv, n_batch;
    int64_t mask_width;               /* columns of the mask; 0: no mask */
    int64_t mask_heads, mask_batches; /* 0 means 1 */
    bool sinks;
    bool v_in_k; /* V is a view of K's first values, as with MLA */
    float softcap, max_bias;
};

struct node {
    struct shape shape;
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    struct ggml_cgraph *graph;
    struct ggml_tensor *cache_k, *cache_v; /* [d * n_head_kv, cells, n_batch] */
    struct ggml_tensor *q, *k, *v, *mask, *sinks, *out;
};

enum { UNUSED_CELLS = 13 }; /* behind the rows that the node may look at */

static inline struct ggml_tensor *cache_view(struct ggml_context *ctx, struct ggml_tensor *cache,
                                             int64_t d, const struct shape *s) {
    struct ggml_tensor *rows =
        ggml_view_4d(ctx, cache, d, s->n_head_kv, s->n_kv, s->n_batch,
                     ggml_row_size(cache->type, d), cache->nb[1], cache->nb[2], 0);
    return ggml_permute(ctx, rows, 0, 2, 1, 3);
}

static inline void fill_mask(struct ggml_tensor *mask, uint64_t seed) {
    ggml_fp16_t *m = mask->data;
    for (int64_t i = 0; i < ggml_nelements(mask); i++) {
        const uint32_t r = random_u32(&seed);
        const bool keep = i % mask->ne[0] == 0; /* every query sees something */
        m[i] = ggml_fp32_to_fp16(r % 4 == 0 && !keep ? -INFINITY : (float)(r % 16) * -0.125f);
    }
}

static inline struct node build(struct shape s, uint64_t seed) {
    struct node n = {.shape = s, .ctx = new_graph_context()};
    const int64_t cells = s.n_kv + UNUSED_CELLS;
    n.q = ggml_permute(
        n.ctx, ggml_new_tensor_4d(n.ctx, GGML_TYPE_F32, s.dk, s.n_head, s.n_query, s.n_batch), 0, 2,
        1, 3);
    n.cache_k = ggml_new_tensor_3d(n.ctx, s.type_k, s.dk * s.n_head_kv, cells, s.n_batch);
    n.cache_v = s.v_in_k
                    ? n.cache_k
                    : ggml_new_tensor_3d(n.ctx, s.type_v, s.dv * s.n_head_kv, cells, s.n_batch);
    n.k = cache_view(n.ctx, n.cache_k, s.dk, &s);
    n.v = s.v_in_k ? ggml_view_4d(n.ctx, n.k, s.dv, s.n_kv, s.n_head_kv, s.n_batch, n.k->nb[1],
                                  n.k->nb[2], n.k->nb[3], 0)
                   : cache_view(n.ctx, n.cache_v, s.dv, &s);
    if (s.mask_width > 0) {
        n.mask = ggml_new_tensor_4d(n.ctx, GGML_TYPE_F16, s.mask_width, s.n_query,
                                    s.mask_heads > 0 ? s.mask_heads : 1,
                                    s.mask_batches > 0 ? s.mask_batches : 1);
    }
    n.out = ggml_flash_attn_ext(n.ctx, n.q, n.k, n.v, n.mask, 1.0f / sqrtf((float)s.dk), s.max_bias,
                                s.softcap);
    if (s.sinks) {
        n.sinks = ggml_new_tensor_1d(n.ctx, GGML_TYPE_F32, s.n_head);
        ggml_flash_attn_ext_add_sinks(n.out, n.sinks);
    }
    n.graph = graph_of(n.ctx, n.out);
    n.buffer = ggml_backend_alloc_ctx_tensors_from_buft(n.ctx, ggml_backend_cpu_buffer_type());
    assert_non_null(n.buffer);
    fill_random(n.q->view_src, 2.0f, seed + 1);
    fill_random(n.cache_k, 1.0f, seed + 2);
    if (!s.v_in_k) {
        fill_random(n.cache_v, 1.0f, seed + 3);
    }
    if (n.mask != NULL) {
        fill_mask(n.mask, seed + 4);
    }
    if (n.sinks != NULL) {
        fill_random(n.sinks, 3.0f, seed + 5);
    }
    return n;
}

static inline void discard(struct node *n) {
    ggml_backend_buffer_free(n->buffer);
    ggml_free(n->ctx);
}

/* Computes the node; the result is a copy that the caller frees. */
static inline float *compute(struct node *n, ggml_backend_t backend) {
    assert_true(ggml_backend_supports_op(backend, n->out));
    memset(n->out->data, 0xff, ggml_nbytes(n->out)); /* whatever was there is not to be read */
    assert_int_equal(ggml_backend_graph_compute(backend, n->graph), GGML_STATUS_SUCCESS);
    float *copy = malloc(ggml_nbytes(n->out));
    assert_non_null(copy);
    memcpy(copy, n->out->data, ggml_nbytes(n->out));
    return copy;
}

static inline double alibi_slope(const struct shape *s, int64_t head) {
    if (s->max_bias <= 0.0f) {
        return 1.0;
    }
    const int64_t n_log2 = (int64_t)1 << (int)floor(log2((double)s->n_head));
    return head < n_log2 ? pow(2.0, -(double)s->max_bias * (double)(head + 1) / (double)n_log2)
                         : pow(2.0, -0.5 * (double)s->max_bias * (double)(2 * (head - n_log2) + 1) /
                                        (double)n_log2);
}

/* The additive mask of one score, in double. */
static inline double mask_at(const struct node *n, int64_t column, int64_t i, int64_t h,
                             int64_t b) {
    if (n->mask == NULL) {
        return 0.0;
    }
    const char *row = (const char *)n->mask->data + (size_t)i * n->mask->nb[1] +
                      (size_t)(h % n->mask->ne[2]) * n->mask->nb[2] +
                      (size_t)(b % n->mask->ne[3]) * n->mask->nb[3];
    ggml_fp16_t value;
    memcpy(&value, row + 2 * column, sizeof(value));
    return alibi_slope(&n->shape, h) * (double)ggml_fp16_to_fp32(value);
}

/* Attention of one query and head by definition: two passes, in double. */
static inline void oracle_row(const struct node *n, int64_t i, int64_t h, int64_t b, double *out) {
    const struct shape *s = &n->shape;
    const int64_t h_kv = h / (s->n_head / s->n_head_kv);
    float *row = malloc((size_t)(s->dk + s->dv) * sizeof(float));
    float *q = malloc((size_t)s->dk * sizeof(float));
    double *logit = malloc((size_t)(s->n_kv + 1) * sizeof(double));
    assert_true(row != NULL && q != NULL && logit != NULL);
    read_row(n->q, i, h, b, q);
    double max = n->sinks != NULL ? (double)((const float *)n->sinks->data)[h] : -INFINITY;
    for (int64_t r = 0; r < s->n_kv; r++) {
        const double m = mask_at(n, r, i, h, b);
        double dot = 0.0;
        read_row(n->k, r, h_kv, b, row);
        for (int64_t d = 0; d < s->dk; d++) {
            dot += (double)q[d] * (double)row[d];
        }
        dot /= sqrt((double)s->dk);
        dot = s->softcap != 0.0f ? (double)s->softcap * tanh(dot / (double)s->softcap) : dot;
        logit[r] = m == -INFINITY ? -INFINITY : dot + m;
        max = logit[r] > max ? logit[r] : max;
    }
    double sum = n->sinks != NULL ? exp((double)((const float *)n->sinks->data)[h] - max) : 0.0;
    memset(out, 0, (size_t)s->dv * sizeof(double));
    for (int64_t r = 0; r < s->n_kv; r++) {
        if (logit[r] > -INFINITY) {
            const double p = exp(logit[r] - max);
            sum += p;
            read_row(n->v, r, h_kv, b, row);
            for (int64_t d = 0; d < s->dv; d++) {
                out[d] += p * (double)row[d];
            }
        }
    }
    for (int64_t d = 0; d < s->dv; d++) {
        out[d] = sum > 0.0 ? out[d] / sum : 0.0;
    }
    free(logit);
    free(q);
    free(row);
}

/* Normalised squared error of a whole result against the oracle. */
static inline double error_of(const struct node *n, const float *result) {
    const struct shape *s = &n->shape;
    double *want = malloc((size_t)s->dv * sizeof(double));
    assert_non_null(want);
    double error = 0.0;
    double norm = 0.0;
    for (int64_t b = 0; b < s->n_batch; b++) {
        for (int64_t i = 0; i < s->n_query; i++) {
            for (int64_t h = 0; h < s->n_head; h++) {
                oracle_row(n, i, h, b, want);
                const float *got = result + ((b * s->n_query + i) * s->n_head + h) * s->dv;
                for (int64_t d = 0; d < s->dv; d++) {
                    error += ((double)got[d] - want[d]) * ((double)got[d] - want[d]);
                    norm += want[d] * want[d];
                }
            }
        }
    }
    free(want);
    return norm > 0.0 ? error / norm : error;
}

/* F32-accurate products leave rounding errors of a sum: 1e-5 relative, squared. Q in 8 bits per
 * block of 32 has steps of 1/127 of the block's maximum: a relative error of up to 3e-3 on each
 * product and, as K's errors are part of both sides, on nothing else. */
static inline double bound_of(const struct node *n) {
    return ggml_is_quantized(n->shape.type_k) ? 1e-4 : 1e-9;
}

#endif
