/* What the tests of the cache share: a cache, and beside it a model that holds every row's values
 * and decides by the rule of docs/DESIGN.md 9 and 10, written out row by row, who reads what how.
 */
#ifndef VARVE_TESTS_UNIT_CACHE_WORLD_H
#define VARVE_TESTS_UNIT_CACHE_WORLD_H

#include "unit/watch.h"

#include <math.h>

#include "base/fp16.h"
#include "check/oracle.h"
#include "varve/cache.h"

enum { MAX_ROW = 260, MAX_STEP = 48, MAX_VALUE = 192, MAX_HEAD = 8, SLACK = 32 };

struct row {
    int64_t pos;
    float value[2][MAX_VALUE]; /* K and V, as the source holds them */
    bool twin[2], pinned[2];
    bool beyond[2]; /* F16 cannot hold it: stale from the start */
};

struct model {
    struct varve_cache *cache;
    struct row row[MAX_ROW]; /* in the order of writing */
    int n_row;
    bool hot[2][MAX_STEP][MAX_ROW];
};

struct world {
    struct host host;
    struct varve_context *context;
    struct varve_hot *hot;
    struct varve_hot_params tier; /* window 0: none */
    struct varve_cache_params p;
    struct varve_cache_view view;
    struct model model[2]; /* the second one for copies */
    uint64_t random;
};

static inline uint32_t next(struct world *w, uint32_t n) {
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->random >> 33) % n;
}

static inline float noise(struct world *w) {
    return (float)((int)next(w, 1 << 20) - (1 << 19)) * 0x1p-19f;
}

static inline int n_value_of(const struct world *w, int side) {
    return (side == VARVE_CACHE_K ? w->p.head_dim_k : w->p.head_dim_v) * w->p.n_head_kv;
}

static inline enum varve_format format_of(const struct world *w, int side) {
    return side == VARVE_CACHE_K ? w->p.k_format : w->p.v_format;
}

static inline bool has_twins(const struct world *w, int side) {
    return w->tier.window > 0 && varve_format_block_values(format_of(w, side)) > 1;
}

static inline const struct varve_hot_params *tier_of(const struct world *w) {
    return w->tier.window > 0 ? &w->tier : NULL;
}

/* w->p and w->tier are set. */
static inline void open_caches(struct world *w, int n_cache) {
    w->p.struct_bytes = sizeof w->p;
    w->tier.struct_bytes = sizeof w->tier;
    w->context = context_of(&w->host);
    if (w->tier.window > 0) {
        assert_int_equal(varve_hot_create(w->context, &w->tier, &w->hot), VARVE_OK);
    }
    for (int i = 0; i < n_cache; i++) {
        assert_int_equal(varve_cache_create(w->context, w->hot, &w->p, &w->model[i].cache),
                         VARVE_OK);
    }
}

static inline void close_caches(struct world *w) {
    varve_cache_view_release(&w->view);
    for (int i = 0; i < 2; i++) varve_cache_destroy(w->model[i].cache);
    varve_hot_destroy(w->hot);
    varve_context_destroy(w->context);
    assert_int_equal(w->host.n_live, 0);
    assert_int_equal(w->host.live_bytes, 0);
    assert_int_equal(w->host.n_line, 0);
    memset(w, 0, sizeof *w);
}

/* ---- writing ------------------------------------------------------------------------------ */

/* Twins of a side that are newer than row r. */
static inline int n_newer(const struct model *m, int side, int r) {
    int n = 0;
    for (int i = r + 1; i < m->n_row; i++) n += m->row[i].twin[side];
    return n;
}

/* What has left the window goes before the next rows come. */
static inline void prune(const struct world *w, struct model *m) {
    for (int side = 0; side < 2; side++) {
        bool left[MAX_ROW];
        for (int r = 0; r < m->n_row; r++) {
            left[r] = !m->row[r].pinned[side] && n_newer(m, side, r) >= w->tier.window + SLACK;
        }
        for (int r = 0; r < m->n_row; r++) m->row[r].twin[side] &= !left[r];
    }
}

/* Rows of one side in a source of this format, with gaps between rows and heads: what the floats
 * become goes into the model. */
static inline struct varve_cache_rows source_of(const struct world *w, int side,
                                                enum varve_format format, struct row *row, int n,
                                                unsigned char *bytes) {
    const int dim = side == VARVE_CACHE_K ? w->p.head_dim_k : w->p.head_dim_v;
    size_t head_bytes;
    assert_int_equal(varve_format_row_bytes(format, dim, &head_bytes), VARVE_OK);
    const int64_t head_stride = (int64_t)head_bytes + 3; /* no alignment is needed */
    const int64_t row_stride = head_stride * w->p.n_head_kv + 5;
    memset(bytes, 0xFF, (size_t)(row_stride * n));
    for (int i = 0; i < n; i++) {
        for (int h = 0; h < w->p.n_head_kv; h++) {
            unsigned char *const at = bytes + i * row_stride + h * head_stride;
            float *const value = row[i].value[side] + h * dim;
            assert_int_equal(varve_format_encode(format, value, dim, at), VARVE_OK);
            assert_int_equal(varve_format_decode(format, at, dim, value), VARVE_OK);
        }
    }
    return (struct varve_cache_rows){format, bytes, row_stride, head_stride};
}

/* Appends n rows at a position, in cache and model. Some values are beyond F16 if `odd`. */
static inline void append_rows(struct world *w, struct model *m, int n, int64_t pos, bool odd) {
    static unsigned char bytes[2][MAX_STEP * (4 * MAX_VALUE + 3 * MAX_HEAD + 5)];
    static const enum varve_format formats[] = {VARVE_FORMAT_F32, VARVE_FORMAT_F16,
                                                VARVE_FORMAT_BF16};
    if (n > 0) prune(w, m);
    struct row *const row = m->row + m->n_row;
    for (int i = 0; i < n; i++) {
        row[i].pos = pos + i;
        for (int side = 0; side < 2; side++) {
            for (int d = 0; d < n_value_of(w, side); d++) row[i].value[side][d] = noise(w);
            row[i].beyond[side] = odd && next(w, 6) == 0;
            if (row[i].beyond[side]) row[i].value[side][next(w, 9) % 3] = 7e4f;
            row[i].twin[side] = has_twins(w, side);
            row[i].pinned[side] = row[i].twin[side] && m->n_row + i < w->tier.n_sink;
        }
    }
    struct varve_cache_rows rows[2];
    for (int side = 0; side < 2; side++) {
        const enum varve_format format = odd ? VARVE_FORMAT_F32 : formats[next(w, 3)];
        rows[side] = source_of(w, side, format, row, n, bytes[side]);
    }
    const int64_t end = varve_cache_end(m->cache);
    assert_int_equal(varve_cache_append(m->cache, &rows[0], &rows[1], n,
                                        pos == end && next(w, 2) ? VARVE_CACHE_END : pos),
                     VARVE_OK);
    m->n_row += n;
}

static inline void remove_rows(struct model *m, int64_t pos, int64_t n) {
    assert_int_equal(varve_cache_remove(m->cache, pos, n), VARVE_OK);
    int n_kept = 0;
    for (int r = 0; r < m->n_row; r++) {
        if (m->row[r].pos < pos || m->row[r].pos - pos >= n) m->row[n_kept++] = m->row[r];
    }
    m->n_row = n_kept;
}

static inline void copy_rows(const struct world *w, struct model *dst, const struct model *src) {
    assert_int_equal(varve_cache_copy(dst->cache, src->cache), VARVE_OK);
    memcpy(dst->row, src->row, sizeof dst->row);
    dst->n_row = src->n_row;
    prune(w, dst);
}

/* ---- who reads what how ------------------------------------------------------------------- */

static inline bool sees(const struct varve_cache_node *node, int q, const struct row *row) {
    const int64_t distance = node->pos + q - row->pos;
    return !(node->causal && distance < 0) && !(node->window > 0 && distance >= node->window);
}

/* A twin that is looked at ends if it is stale. */
static inline bool holds(struct row *row, int side) {
    if (row->twin[side] && row->beyond[side]) row->twin[side] = row->pinned[side] = false;
    return row->twin[side];
}

static inline void apply_rules(const struct world *w, struct model *m, int side,
                               const struct varve_cache_node *node) {
    memset(m->hot[side], 0, sizeof m->hot[side]);
    for (int q = 0; q < node->n_query; q++) { /* rules 3 and 5 */
        int n = 0;
        for (int r = m->n_row - 1; r >= 0; r--) {
            struct row *const row = &m->row[r];
            if (!sees(node, q, row) || (n >= w->tier.window && !row->pinned[side])) continue;
            if (!holds(row, side)) continue;
            m->hot[side][q][r] = true;
            n++;
        }
    }
}

/* ---- taking a view apart ------------------------------------------------------------------ */

/* The row of the model that stands in row r of a segment: a cold one by its place, a hot one by its
 * bytes. */
static inline int row_at(const struct world *w, const struct model *m, int side,
                         const struct varve_segment *s, int64_t r) {
    const bool k = side == VARVE_CACHE_K;
    const char *const at =
        k ? (const char *)s->k + r * s->k_row_stride : (const char *)s->v + r * s->v_row_stride;
    const char *const cold = k ? w->view.cold.k : w->view.cold.v;
    const int64_t stride = k ? w->view.cold.k_row_stride : w->view.cold.v_row_stride;
    const int64_t offset = at - cold;
    if (offset >= 0 && offset < stride * m->n_row) {
        assert_int_equal(k ? s->k_format : s->v_format, format_of(w, side));
        unsigned char bytes[4 * MAX_VALUE];
        const int i = (int)(offset / stride);
        varve_format_encode(format_of(w, side), m->row[i].value[side], n_value_of(w, side), bytes);
        assert_memory_equal(at, bytes, (size_t)stride);
        return i;
    }
    assert_int_equal(k ? s->k_format : s->v_format, VARVE_FORMAT_F16);
    for (int i = 0; i < m->n_row; i++) {
        const uint16_t *const h = (const uint16_t *)(const void *)at;
        int d = 0;
        while (d < n_value_of(w, side) && h[d] == varve_f32_to_f16(m->row[i].value[side][d])) d++;
        if (d == n_value_of(w, side)) return i;
    }
    fail_msg("a row that is in no cache");
    return -1;
}

static inline uint16_t mask_at(const struct varve_segment *s, int q, int64_t r) {
    if (s->mask == NULL) return 0;
    const char *const row = (const char *)s->mask->data + q * s->mask->row_stride;
    return ((const uint16_t *)(const void *)row)[s->mask_column + r];
}

/* Every query finds every row that it sees exactly once, and as the rule says. */
static inline void check_segments(const struct world *w, const struct model *m,
                                  const struct varve_cache_node *node) {
    static int found[MAX_STEP][MAX_ROW];
    memset(found, 0, sizeof found);
    int64_t n_row = 0;
    for (int64_t i = 0; i < w->view.n_segment; i++) {
        const struct varve_segment *const s = &w->view.segments[i];
        for (int64_t r = 0; r < s->n_rows; r++) {
            const int at = row_at(w, m, VARVE_CACHE_K, s, r);
            assert_int_equal(at, row_at(w, m, VARVE_CACHE_V, s, r));
            const bool k_hot = has_twins(w, 0) && s->k_format == VARVE_FORMAT_F16;
            const bool v_hot = has_twins(w, 1) && s->v_format == VARVE_FORMAT_F16;
            for (int q = 0; q < node->n_query; q++) {
                const uint16_t value = mask_at(s, q, r);
                if (value == VARVE_F16_NEG_INF) continue;
                const float distance = fabsf((float)(node->pos + q - m->row[at].pos));
                assert_int_equal(value, node->bias ? varve_f32_to_f16(-distance) : 0);
                assert_int_equal(k_hot, m->hot[VARVE_CACHE_K][q][at]);
                assert_int_equal(v_hot, m->hot[VARVE_CACHE_V][q][at]);
                found[q][at]++;
            }
        }
        n_row += s->n_rows;
    }
    assert_int_equal(n_row, w->view.n_row);
    for (int q = 0; q < node->n_query; q++) {
        for (int r = 0; r < m->n_row; r++) assert_int_equal(found[q][r], sees(node, q, &m->row[r]));
    }
}

static inline void look(struct world *w, struct model *m, const struct varve_cache_node *node) {
    assert_int_equal(varve_cache_view(m->cache, node, &w->view), VARVE_OK);
    for (int side = 0; side < 2; side++) {
        apply_rules(w, m, side, node);
        assert_int_equal(varve_cache_account(m->cache, side).twins_evicted, 0);
    }
    check_segments(w, m, node);
}

/* ---- running ------------------------------------------------------------------------------ */

static inline struct varve_attention attention_of(const struct world *w, int64_t n_query) {
    return (struct varve_attention){.head_dim_k = w->p.head_dim_k,
                                    .head_dim_v = w->p.head_dim_v,
                                    .n_head = 2 * w->p.n_head_kv,
                                    .n_head_kv = w->p.n_head_kv,
                                    .n_query = n_query,
                                    .n_batch = 1,
                                    .scale = 1 / sqrtf((float)w->p.head_dim_k)};
}

/* Attention of the queries over the segments of the view. */
static inline void run_view(struct world *w, const struct varve_attention *a, const float *query,
                            float *out) {
    const int64_t q_head = a->head_dim_k * 4, o_head = a->head_dim_v * 4;
    const struct varve_io io = {.query = {query, q_head * a->n_head, q_head, 0},
                                .segments = w->view.segments,
                                .n_segment = w->view.n_segment,
                                .output = {out, o_head * a->n_head, o_head, 0, NULL}};
    struct varve_plan *plan;
    assert_int_equal(
        varve_plan_create(w->context, a, w->view.segments, w->view.n_segment, 1, &plan), VARVE_OK);
    const size_t bytes = varve_plan_scratch_bytes(plan);
    void *const scratch = aligned_alloc(64, bytes + 64 - bytes % 64);
    assert_int_equal(varve_run(plan, &io, scratch, 1), VARVE_OK);
    free(scratch);
    varve_plan_destroy(plan);
}

#endif
