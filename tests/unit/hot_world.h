/* What the tests of the tier share: one K and one V tensor of q8_0 rows with twins, and what a rule
 * knows of them. */
#ifndef VARVE_TESTS_UNIT_HOT_WORLD_H
#define VARVE_TESTS_UNIT_HOT_WORLD_H

#include "unit/watch.h"

#include "base/fp16.h"
#include "varve/hot.h"

enum { N_VALUE = 32, ROW_BYTES = 34, MAX_CELL = 200, MAX_QUERY = 40, SLACK = 32 };

/* One tensor as the rule sees it. */
struct model {
    unsigned char cold[MAX_CELL][ROW_BYTES], written[MAX_CELL][ROW_BYTES];
    int64_t stamp[MAX_CELL]; /* 0: no twin */
    bool pinned[MAX_CELL], left[MAX_CELL];
    bool hot[MAX_QUERY][MAX_CELL];
    uint64_t n_stale;
    struct varve_twins *twins;
};

struct world {
    struct host host;
    struct varve_context *context;
    struct varve_hot *hot;
    struct varve_hot_view view;
    struct model k, v;
    int n_cell, window, n_sink;
    bool shared, reread; /* as struct varve_twins_params has them */
    int64_t clock;
    uint64_t n_read;       /* rows of all queries so far */
    uint64_t n_settled[2]; /* deferred views that were wrong, and right */
    uint64_t random;
    int n_query;
    uint16_t mask[MAX_QUERY][MAX_CELL];
};

static inline uint32_t next(struct world *w, uint32_t n) {
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->random >> 33) % n;
}

static inline void open_tensor(struct world *w, struct model *m) {
    const struct varve_twins_params params = {.struct_bytes = sizeof params,
                                              .format = VARVE_FORMAT_Q8_0,
                                              .n_value = N_VALUE,
                                              .cold = m->cold,
                                              .cold_stride = ROW_BYTES,
                                              .n_cell = w->n_cell,
                                              .n_row_max = w->n_cell,
                                              .shared = w->shared,
                                              .reread = w->reread};
    assert_int_equal(varve_twins_create(w->hot, &params, &m->twins), VARVE_OK);
}

static inline struct world *open_world(int n_cell, int window, int n_sink, uint64_t seed) {
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->n_cell = n_cell;
    w->window = window;
    w->n_sink = n_sink;
    w->random = seed;
    w->reread = seed % 2 == 0;
    w->shared = seed % 3 == 0;
    w->context = context_of(&w->host);
    const struct varve_hot_params params = {
        .struct_bytes = sizeof params, .window = window, .n_sink = n_sink};
    assert_int_equal(varve_hot_create(w->context, &params, &w->hot), VARVE_OK);
    open_tensor(w, &w->k);
    open_tensor(w, &w->v);
    return w;
}

static inline void close_world(struct world *w) {
    varve_hot_view_release(&w->view);
    const struct varve_hot_bytes bytes = varve_hot_bytes(w->hot);
    assert_int_equal(bytes.staging + bytes.hot > 0, w->clock > 0);
    varve_hot_destroy(w->hot);
    varve_context_destroy(w->context);
    assert_int_equal(w->host.n_live, 0);
    free(w);
}

static inline void forget(struct model *m, int cell) {
    m->stamp[cell] = 0;
    m->pinned[cell] = m->left[cell] = false;
}

/* Values that tell their cell and their age. */
static inline void write_side(struct world *w, struct model *m, const int64_t *cells, int n) {
    for (int cell = 0; cell < w->n_cell; cell++) {
        if (m->left[cell] && !w->shared) forget(m, cell);
    }
    assert_int_equal(varve_twins_write(m->twins, cells, n), VARVE_OK);
    for (int i = 0; i < n; i++) {
        const int cell = (int)cells[i];
        float values[N_VALUE] = {(float)cell, (float)((w->clock + i) % 2048)};
        for (int d = 2; d < N_VALUE; d++) values[d] = (float)next(w, 100);
        varve_format_encode(VARVE_FORMAT_Q8_0, values, N_VALUE, m->cold[cell]);
        varve_twins_write_row(m->twins, i, values);
        memcpy(m->written[cell], m->cold[cell], ROW_BYTES);
        forget(m, cell);
        m->stamp[cell] = w->clock + i + 1;
    }
}

static inline int side_row(const struct world *w, const struct model *m, enum varve_format format,
                           const void *data, int64_t stride, int64_t row) {
    const unsigned char *at = (const unsigned char *)data + row * stride;
    if (format == VARVE_FORMAT_Q8_0) return (int)((at - m->cold[0]) / ROW_BYTES);
    assert_int_equal(format, VARVE_FORMAT_F16);
    const uint16_t *values = (const uint16_t *)(const void *)at;
    const int cell = (int)varve_f16_to_f32(values[0]);
    assert_in_range(cell, 0, w->n_cell - 1);
    assert_int_equal((int)varve_f16_to_f32(values[1]), (m->stamp[cell] - 1) % 2048);
    return cell;
}

static inline struct varve_hot_node node_of(const struct world *w, const struct varve_mask *mask) {
    return (struct varve_hot_node){.cold = {.k_format = VARVE_FORMAT_Q8_0,
                                            .v_format = VARVE_FORMAT_Q8_0,
                                            .k = w->k.cold,
                                            .v = w->v.cold,
                                            .n_rows = w->n_cell,
                                            .k_row_stride = ROW_BYTES,
                                            .v_row_stride = ROW_BYTES,
                                            .k_head_stride = ROW_BYTES,
                                            .v_head_stride = ROW_BYTES},
                                   .n_query = w->n_query,
                                   .mask = mask,
                                   .k = w->k.twins,
                                   .v = w->v.twins};
}

#endif
