/* The rule of the hot tier (docs/DESIGN.md 9), written down as plainly as possible: what a back end
 * with twins has to read for each query, and what comes out of it in double. No code is shared with
 * the plug-in; each function below is one sentence of the rule, and its comment has the number. */
#ifndef VARVE_TEST_HOT_MODEL_H
#define VARVE_TEST_HOT_MODEL_H

#include "check/tol.h"
#include "plugin_host.h"

enum { HOT_SLACK = 32, HOT_MAX_SIDES = 16 };

/* How a query reads a row. */
enum hot_tier { HOT_HIDDEN, HOT_COLD, HOT_RECENT, HOT_SINK };

struct hot_count {
    uint64_t recent, sink, cold, written, stale;
};

/* One cache tensor and its twins. */
struct hot_side {
    const struct ggml_tensor *cache;
    int64_t n_value, n_cell; /* of a row; of all streams */
    size_t row_bytes;
    unsigned char *bytes; /* the cold rows as they were when their twins were stored */
    float *twin;          /* values of F16; kept when the twin is dropped */
    int64_t *stamp;       /* 0: no twin */
    bool *pinned, *left;  /* left: the window, by the latest node that saw the row */
    bool is_v;
    struct hot_count count;
};

/* What one back end knows. */
struct hot_model {
    int64_t window, n_sink; /* window 0: no tiers */
    bool one_sequence;      /* in each stream: rule 6 is applied, not when room is needed only */
    int64_t clock;
    int n_side;
    struct hot_side side[HOT_MAX_SIDES];
};

static inline void *hot_alloc(int64_t n, size_t size) {
    void *p = calloc((size_t)n + 1, size);
    assert_non_null(p);
    return p;
}

static inline const struct ggml_tensor *hot_root(const struct ggml_tensor *t) {
    while (t->view_src != NULL) {
        t = t->view_src;
    }
    return t;
}

static inline struct hot_side *hot_side_of(struct hot_model *m, const struct ggml_tensor *t) {
    for (int i = 0; i < m->n_side; i++) {
        if (m->side[i].cache == hot_root(t)) {
            return &m->side[i];
        }
    }
    fail_msg("the model does not know this cache");
    return NULL;
}

static inline void hot_model_add(struct hot_model *m, const struct ggml_tensor *cache, bool is_v) {
    assert_true(m->n_side < HOT_MAX_SIDES);
    struct hot_side *s = &m->side[m->n_side++];
    *s = (struct hot_side){.cache = cache, .n_value = cache->ne[0], .is_v = is_v};
    s->n_cell = ggml_nrows(cache);
    s->row_bytes = ggml_row_size(cache->type, cache->ne[0]);
    s->bytes = hot_alloc(s->n_cell, s->row_bytes);
    s->twin = hot_alloc(s->n_cell * s->n_value, sizeof(float));
    s->stamp = hot_alloc(s->n_cell, sizeof(int64_t));
    s->pinned = hot_alloc(s->n_cell, sizeof(bool));
    s->left = hot_alloc(s->n_cell, sizeof(bool));
}

static inline void hot_model_free(struct hot_model *m) {
    for (int i = 0; i < m->n_side; i++) {
        free(m->side[i].bytes);
        free(m->side[i].twin);
        free(m->side[i].stamp);
        free(m->side[i].pinned);
        free(m->side[i].left);
    }
    m->n_side = 0;
}

static inline const unsigned char *hot_cold_row(const struct hot_side *s, int64_t cell) {
    return (const unsigned char *)s->cache->data + (size_t)cell * s->row_bytes;
}

static inline void hot_drop(struct hot_side *s, int64_t cell) {
    s->stamp[cell] = 0;
    s->pinned[cell] = false;
    s->left[cell] = false;
}

/* Rule 6, last part: before the next write, unless other sequences may want the rows. */
static inline void hot_leave(const struct hot_model *m, struct hot_side *s) {
    for (int64_t cell = 0; cell < s->n_cell && m->one_sequence; cell++) {
        if (s->left[cell] && !s->pinned[cell]) {
            hot_drop(s, cell);
        }
    }
}

/* Rule 1. Call it when the rows are in the cache: n rows of F32 went to these cells, in order. */
static inline void hot_model_write(struct hot_model *m, const struct ggml_tensor *cache,
                                   const float *rows, const int64_t *cells, int64_t n) {
    struct hot_side *s = hot_side_of(m, cache);
    if (m->window == 0 || !ggml_is_quantized(cache->type)) {
        return;
    }
    hot_leave(m, s);
    const int64_t before = m->clock;
    for (int64_t i = 0; i < n; i++) {
        const int64_t cell = cells[i];
        s->count.written += s->stamp[cell] <= before; /* a row written twice has one twin */
        hot_drop(s, cell);
        s->stamp[cell] = ++m->clock;
        memcpy(s->bytes + (size_t)cell * s->row_bytes, hot_cold_row(s, cell), s->row_bytes);
        for (int64_t j = 0; j < s->n_value; j++) {
            s->twin[cell * s->n_value + j] =
                ggml_fp16_to_fp32(ggml_fp32_to_fp16(rows[i * s->n_value + j]));
        }
    }
}

/* ---- one stream of a node ------------------------------------------------------------------- */

/* K or V as one stream of a FLASH_ATTN_EXT node sees it. */
struct hot_view {
    struct hot_side *side;
    const struct ggml_tensor *t; /* [d, n_kv, n_head_kv, n_stream] */
    int64_t stream, n_query;
    unsigned char *tier; /* [n_query][n_kv] */
    int64_t *order;      /* rows with twins when the node began, newest first */
    int64_t n_order;
    float *cold; /* [n_kv][values of a row], decoded */
};

struct hot_node {
    const struct ggml_tensor *op;
    int64_t stream;
    struct hot_view k, v;
};

static inline int64_t hot_cell(const struct hot_view *w, int64_t r) {
    const size_t at = (size_t)((const char *)w->t->data - (const char *)w->side->cache->data) +
                      (size_t)r * w->t->nb[1] + (size_t)w->stream * w->t->nb[3];
    return (int64_t)(at / w->side->row_bytes);
}

/* Where the head begins within the values of a row. */
static inline int64_t hot_head_value(const struct hot_view *w, int64_t head) {
    const size_t at = (size_t)((const char *)w->t->data - (const char *)w->side->cache->data);
    return (int64_t)((at % w->side->row_bytes + (size_t)head * w->t->nb[2]) /
                     ggml_type_size(w->t->type)) *
           ggml_blck_size(w->t->type);
}

/* The additive mask of one score; heads share it. */
static inline double hot_bias(const struct ggml_tensor *op, int64_t stream, int64_t i, int64_t r) {
    const struct ggml_tensor *mask = op->src[3];
    if (mask == NULL) {
        return 0.0;
    }
    ggml_fp16_t value;
    memcpy(&value,
           (const char *)mask->data + (size_t)r * mask->nb[0] + (size_t)i * mask->nb[1] +
               (size_t)(stream % mask->ne[3]) * mask->nb[3],
           sizeof(value));
    return (double)ggml_fp16_to_fp32(value);
}

/* ---- the rule ------------------------------------------------------------------------------- */

/* Rules 2 and 5: whether a twin that is looked at is valid; a stale one goes. */
static inline bool hot_look(struct hot_side *s, int64_t cell) {
    if (memcmp(s->bytes + (size_t)cell * s->row_bytes, hot_cold_row(s, cell), s->row_bytes) == 0) {
        return true;
    }
    hot_drop(s, cell);
    s->count.stale++;
    return false;
}

/* Rule 4. Before any query of the node reads, so that the cut into ubatches does not matter. */
static inline void hot_pin(const struct hot_model *m, struct hot_view *w) {
    const int64_t n_kv = w->t->ne[1];
    for (int64_t i = 0; i < w->n_query; i++) {
        const unsigned char *tier = w->tier + i * n_kv;
        int64_t n_seen = 0;
        for (int64_t r = 0; r < n_kv; r++) {
            n_seen += tier[r] != HOT_HIDDEN;
        }
        for (int64_t r = 0; r < n_kv && n_seen <= m->n_sink; r++) {
            const int64_t cell = hot_cell(w, r);
            if (tier[r] != HOT_HIDDEN && w->side->stamp[cell] != 0 && hot_look(w->side, cell)) {
                w->side->pinned[cell] = true;
            }
        }
    }
}

/* Rule 3 for one query. */
static inline void hot_choose(const struct hot_model *m, struct hot_view *w, int64_t i) {
    struct hot_side *s = w->side;
    unsigned char *tier = w->tier + i * w->t->ne[1];
    int64_t n_recent = 0;
    for (int64_t j = 0; j < w->n_order && n_recent < m->window; j++) {
        const int64_t r = w->order[j];
        const int64_t cell = hot_cell(w, r);
        if (tier[r] != HOT_HIDDEN && s->stamp[cell] != 0 && hot_look(s, cell)) {
            tier[r] = HOT_RECENT;
            n_recent++;
        }
    }
    for (int64_t r = 0; r < w->t->ne[1]; r++) {
        const int64_t cell = hot_cell(w, r);
        if (tier[r] == HOT_COLD && s->stamp[cell] != 0 && s->pinned[cell] && hot_look(s, cell)) {
            tier[r] = HOT_SINK;
        }
    }
}

static inline void hot_tally(struct hot_view *w) {
    for (int64_t j = 0; j < w->n_query * w->t->ne[1]; j++) {
        w->side->count.recent += w->tier[j] == HOT_RECENT;
        w->side->count.sink += w->tier[j] == HOT_SINK;
        w->side->count.cold += w->tier[j] == HOT_COLD;
    }
}

/* The row with query i's newest twin, or -1. */
static inline int64_t hot_newest(const struct hot_view *w, int64_t i) {
    for (int64_t j = 0; j < w->n_order; j++) {
        const int64_t r = w->order[j];
        if (w->tier[i * w->t->ne[1] + r] != HOT_HIDDEN && w->side->stamp[hot_cell(w, r)] != 0) {
            return r;
        }
    }
    return -1;
}

/* Rule 6, first sentence. */
static inline bool hot_is_end(const struct hot_view *w, int64_t i) {
    const int64_t newest = hot_newest(w, i);
    bool end = newest >= 0;
    for (int64_t later = i + 1; later < w->n_query && end; later++) {
        end = w->tier[later * w->t->ne[1] + newest] == HOT_HIDDEN;
    }
    return end;
}

/* Rule 6, second sentence. */
static inline void hot_mark_left(const struct hot_model *m, struct hot_view *w) {
    const int64_t n_kv = w->t->ne[1];
    bool *seen = hot_alloc(n_kv, sizeof(bool));
    bool *kept = hot_alloc(n_kv, sizeof(bool));
    for (int64_t i = 0; i < w->n_query; i++) {
        int64_t n_before = 0;
        const bool end = hot_is_end(w, i);
        for (int64_t j = 0; j < w->n_order && end; j++) {
            const int64_t r = w->order[j];
            if (w->tier[i * n_kv + r] != HOT_HIDDEN && w->side->stamp[hot_cell(w, r)] != 0) {
                seen[r] = true;
                kept[r] = kept[r] || n_before < m->window + HOT_SLACK;
                n_before++;
            }
        }
    }
    for (int64_t r = 0; r < n_kv; r++) {
        if (seen[r]) {
            w->side->left[hot_cell(w, r)] = !kept[r];
        }
    }
    free(seen);
    free(kept);
}

/* ---- nodes ---------------------------------------------------------------------------------- */

struct hot_age {
    int64_t stamp, row;
};

static inline int hot_newer_first(const void *a, const void *b) {
    const int64_t x = ((const struct hot_age *)a)->stamp, y = ((const struct hot_age *)b)->stamp;
    return (x < y) - (x > y);
}

static inline void hot_sort(struct hot_view *w) {
    struct hot_age *age = hot_alloc(w->t->ne[1], sizeof(*age));
    for (int64_t r = 0; r < w->t->ne[1]; r++) {
        const int64_t stamp = w->side->stamp[hot_cell(w, r)];
        if (stamp != 0) {
            age[w->n_order++] = (struct hot_age){stamp, r};
        }
    }
    qsort(age, (size_t)w->n_order, sizeof(*age), hot_newer_first);
    for (int64_t j = 0; j < w->n_order; j++) {
        w->order[j] = age[j].row;
    }
    free(age);
}

static inline void hot_decode(struct hot_view *w) {
    for (int64_t r = 0; r < w->t->ne[1]; r++) {
        const void *row = hot_cold_row(w->side, hot_cell(w, r));
        float *to = w->cold + r * w->side->n_value;
        if (w->t->type == GGML_TYPE_F32) {
            memcpy(to, row, w->side->row_bytes);
        } else {
            ggml_get_type_traits(w->t->type)->to_float(row, to, w->side->n_value);
        }
    }
}

static inline struct hot_view hot_view_new(struct hot_model *m, const struct ggml_tensor *op,
                                           const struct ggml_tensor *t, int64_t stream) {
    struct hot_view w = {.side = hot_side_of(m, t), .t = t, .stream = stream};
    w.n_query = op->src[0]->ne[1];
    w.tier = hot_alloc(w.n_query * t->ne[1], 1);
    w.order = hot_alloc(t->ne[1], sizeof(int64_t));
    w.cold = hot_alloc(t->ne[1] * w.side->n_value, sizeof(float));
    for (int64_t j = 0; j < w.n_query * t->ne[1]; j++) {
        const bool hidden = hot_bias(op, stream, j / t->ne[1], j % t->ne[1]) == (double)-INFINITY;
        w.tier[j] = hidden ? HOT_HIDDEN : HOT_COLD;
    }
    hot_sort(&w);
    hot_decode(&w);
    return w;
}

/* What each query of one stream of a FLASH_ATTN_EXT node reads, and how. */
static inline struct hot_node hot_node_begin(struct hot_model *m, const struct ggml_tensor *op,
                                             int64_t stream) {
    struct hot_node n = {.op = op, .stream = stream};
    n.k = hot_view_new(m, op, op->src[1], stream);
    n.v = hot_view_new(m, op, op->src[2], stream);
    const bool same = n.k.side == n.v.side; /* one cache, one rule: V is a part of K */
    const bool by_head = op->src[3] != NULL && op->src[3]->ne[2] > 1; /* all cold */
    for (int side = 0; side < (same ? 1 : 2); side++) {
        struct hot_view *w = side == 0 ? &n.k : &n.v;
        if (by_head) {
            hot_tally(w);
            continue;
        }
        hot_pin(m, w);
        for (int64_t i = 0; i < w->n_query; i++) {
            hot_choose(m, w, i);
        }
        hot_mark_left(m, w);
        hot_tally(w);
    }
    if (same) {
        memcpy(n.v.tier, n.k.tier, (size_t)(n.k.n_query * n.k.t->ne[1]));
    }
    return n;
}

static inline void hot_node_free(struct hot_node *n) {
    struct hot_view *views[] = {&n->k, &n->v};
    for (int side = 0; side < 2; side++) {
        free(views[side]->tier);
        free(views[side]->order);
        free(views[side]->cold);
    }
}

/* ---- results -------------------------------------------------------------------------------- */

static inline const float *hot_row(const struct hot_view *w, int64_t i, int64_t head, int64_t r) {
    const bool cold = w->tier[i * w->t->ne[1] + r] == HOT_COLD;
    const float *row =
        cold ? w->cold + r * w->side->n_value : w->side->twin + hot_cell(w, r) * w->side->n_value;
    return row + hot_head_value(w, head);
}

/* Class q8 rounds a query to 8 bits per block for quantized rows (docs/NUMERICS.md 6). */
static inline void hot_round_query(const float *q, int64_t n, double *coarse) {
    for (int64_t from = 0; from < n; from += 32) {
        float amax = 0.0f;
        for (int64_t d = from; d < from + 32; d++) {
            amax = fmaxf(amax, fabsf(q[d]));
        }
        const float inverse = 127.0f / amax;
        const float step = amax / 127.0f;
        for (int64_t d = from; d < from + 32; d++) {
            coarse[d] = amax == 0.0f ? 0.0 : (double)step * (double)nearbyintf(q[d] * inverse);
        }
    }
}

struct hot_query {
    const float *exact;
    double *coarse, *logit, max, error; /* error: the largest bound of a logit's */
    int64_t n_seen;
};

static inline void hot_logit(const struct hot_node *n, struct hot_query *q, int64_t i, int64_t h_kv,
                             int64_t r) {
    const struct hot_view *w = &n->k;
    const float *k = hot_row(w, i, h_kv, r);
    const bool q8 =
        w->tier[i * w->t->ne[1] + r] == HOT_COLD && ggml_is_quantized(w->side->cache->type);
    float scale;
    memcpy(&scale, n->op->op_params, sizeof(scale));
    double score = 0.0;
    double score_abs = 0.0;
    for (int64_t d = 0; d < w->t->ne[0]; d++) {
        const double term = (q8 ? q->coarse[d] : (double)q->exact[d]) * (double)k[d];
        score += term;
        score_abs += fabs(term);
    }
    const double bias = hot_bias(n->op, n->stream, i, r);
    q->logit[r] = score * (double)scale + bias;
    q->max = fmax(q->max, q->logit[r]);
    /* decoding rounds twice, as in tests/check/oracle.c */
    q->error = fmax(q->error, (double)fabsf(scale) * tol_dot(w->t->ne[0] + 10, score_abs) +
                                  tol_logit(fabs(score * (double)scale), 0.0, fabs(bias)));
    q->n_seen++;
}

/* Query heads that share a KV head. */
static inline int64_t hot_group(const struct hot_node *n) {
    return n->op->src[0]->ne[2] / n->k.t->ne[2];
}

static inline struct hot_query hot_query_new(const struct hot_node *n, int64_t i, int64_t h) {
    const struct ggml_tensor *t = n->op->src[0];
    struct hot_query q = {.max = -INFINITY};
    q.exact = (const float *)(const void *)((const char *)t->data + (size_t)i * t->nb[1] +
                                            (size_t)h * t->nb[2] + (size_t)n->stream * t->nb[3]);
    q.coarse = hot_alloc(t->ne[0], sizeof(double));
    q.logit = hot_alloc(n->k.t->ne[1], sizeof(double));
    hot_round_query(q.exact, t->ne[0], q.coarse);
    return q;
}

static inline void hot_query_free(const struct hot_query *q) {
    free(q->coarse);
    free(q->logit);
}

/* Result of query i and head h, and how far F32 arithmetic may be from it (docs/NUMERICS.md 5). */
static inline void hot_result(const struct hot_node *n, int64_t i, int64_t h, double *out,
                              double *bound) {
    const int64_t n_kv = n->k.t->ne[1], dv = n->v.t->ne[0], h_kv = h / hot_group(n);
    struct hot_query q = hot_query_new(n, i, h);
    for (int64_t r = 0; r < n_kv; r++) {
        if (n->k.tier[i * n_kv + r] != HOT_HIDDEN) {
            hot_logit(n, &q, i, h_kv, r);
        }
    }
    double sum = 0.0;
    memset(out, 0, (size_t)dv * sizeof(double));
    memset(bound, 0, (size_t)dv * sizeof(double));
    for (int64_t r = 0; r < n_kv; r++) {
        if (n->v.tier[i * n_kv + r] != HOT_HIDDEN) {
            const float *v = hot_row(&n->v, i, h_kv, r);
            const double p = exp(q.logit[r] - q.max);
            sum += p;
            for (int64_t d = 0; d < dv; d++) {
                out[d] += p * (double)v[d];
                bound[d] += p * fabs((double)v[d]);
            }
        }
    }
    for (int64_t d = 0; d < dv && sum > 0.0; d++) {
        out[d] /= sum;
        bound[d] = tol_output(q.n_seen, q.error, bound[d] / sum);
    }
    hot_query_free(&q);
}

#endif
