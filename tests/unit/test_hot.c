/* The tier through its public interface: random writes, changes behind its back and views, against
 * the rule of docs/DESIGN.md 9 written out row by row. Each view is taken apart: every query must
 * find every row that it sees exactly once, and hot or cold as the rule says, for K and V. */
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

static uint32_t next(struct world *w, uint32_t n) {
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->random >> 33) % n;
}

static void open_tensor(struct world *w, struct model *m) {
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

static struct world *open_world(int n_cell, int window, int n_sink, uint64_t seed) {
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

static void close_world(struct world *w) {
    varve_hot_view_release(&w->view);
    const struct varve_hot_bytes bytes = varve_hot_bytes(w->hot);
    assert_int_equal(bytes.staging + bytes.hot > 0, w->clock > 0);
    varve_hot_destroy(w->hot);
    varve_context_destroy(w->context);
    assert_int_equal(w->host.n_live, 0);
    free(w);
}

/* ---- operations --------------------------------------------------------------------------- */

static void forget(struct model *m, int cell) {
    m->stamp[cell] = 0;
    m->pinned[cell] = m->left[cell] = false;
}

/* Values that tell their cell and their age. */
static void write_side(struct world *w, struct model *m, const int64_t *cells, int n) {
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

/* Consecutive cells with gaps and, at times, the same one twice. */
static void write_rows(struct world *w, int n) {
    int64_t cells[MAX_CELL];
    int64_t at = next(w, (uint32_t)w->n_cell);
    for (int i = 0; i < n; i++) {
        if (next(w, 8) == 0) at = next(w, (uint32_t)w->n_cell);
        cells[i] = at++ % w->n_cell;
    }
    write_side(w, &w->k, cells, n);
    write_side(w, &w->v, cells, n);
    w->clock += n;
}

static void change_row(struct world *w) {
    struct model *m = next(w, 2) ? &w->k : &w->v;
    m->cold[next(w, (uint32_t)w->n_cell)][next(w, ROW_BYTES)] ^= 1u << next(w, 8);
}

/* Queries of up to three sequences, which own every third cell and see a growing part of it. */
static void draw_mask(struct world *w) {
    w->n_query = 1 + (int)next(w, MAX_QUERY);
    const uint32_t kind = next(w, 4);
    for (int q = 0; q < w->n_query; q++) {
        const int64_t newest = w->clock - (kind == 0 ? 0 : w->n_query - 1 - q);
        for (int c = 0; c < w->n_cell; c++) {
            const bool theirs = kind == 2 && c % 3 != q % 3;
            const bool later = w->k.stamp[c] > newest;
            const bool odd = kind == 3 && next(w, 5) == 0;
            w->mask[q][c] = theirs || later || odd ? VARVE_F16_NEG_INF : 0;
        }
    }
}

static bool sees(const struct world *w, int q, int cell) {
    return w->mask[q][cell] != VARVE_F16_NEG_INF;
}

/* ---- the rule ----------------------------------------------------------------------------- */

/* Whether the twin holds; a stale one is forgotten. */
static bool holds(struct model *m, int cell) {
    if (m->stamp[cell] == 0) return false;
    if (memcmp(m->cold[cell], m->written[cell], ROW_BYTES) == 0) return true;
    forget(m, cell);
    m->n_stale++;
    return false;
}

/* The newest twin older than `than` that query q sees; -1: none. */
static int newest_before(const struct world *w, const struct model *m, int q, int64_t than) {
    int found = -1;
    for (int c = 0; c < w->n_cell; c++) {
        if (sees(w, q, c) && m->stamp[c] != 0 && m->stamp[c] < than &&
            (found < 0 || m->stamp[c] > m->stamp[found])) {
            found = c;
        }
    }
    return found;
}

static void apply_rules_3_to_5(struct world *w, struct model *m) {
    for (int q = 0; q < w->n_query; q++) { /* 4 */
        int n = 0;
        for (int c = 0; c < w->n_cell; c++) n += sees(w, q, c);
        for (int c = 0; c < w->n_cell && n <= w->n_sink; c++) {
            if (sees(w, q, c) && holds(m, c)) m->pinned[c] = true, m->left[c] = false;
        }
    }
    memset(m->hot, 0, sizeof m->hot);
    for (int q = 0; q < w->n_query; q++) {
        int64_t than = INT64_MAX;
        for (int n = 0; n < w->window;) {
            const int c = newest_before(w, m, q, than);
            if (c < 0) break;
            than = m->stamp[c];
            if (holds(m, c)) m->hot[q][c] = true, n++;
        }
        for (int c = 0; c < w->n_cell; c++) {
            if (m->pinned[c] && sees(w, q, c) && holds(m, c)) m->hot[q][c] = true;
        }
    }
}

/* Twins that query q sees and that are newer than the one in this cell. */
static int rank_of(const struct world *w, const struct model *m, int q, int cell) {
    int n = 0;
    for (int c = 0; c < w->n_cell; c++) n += sees(w, q, c) && m->stamp[c] > m->stamp[cell];
    return n;
}

static bool is_end(const struct world *w, const struct model *m, int q) {
    const int c = newest_before(w, m, q, INT64_MAX);
    bool followed = c < 0;
    for (int later = q + 1; later < w->n_query && !followed; later++) followed = sees(w, later, c);
    return !followed;
}

static void apply_rule_6(struct world *w, struct model *m) {
    bool seen[MAX_CELL] = {false}, kept[MAX_CELL] = {false};
    for (int q = 0; q < w->n_query; q++) {
        if (!is_end(w, m, q)) continue;
        for (int c = 0; c < w->n_cell; c++) {
            if (!sees(w, q, c) || m->stamp[c] == 0) continue;
            seen[c] = true;
            kept[c] |= rank_of(w, m, q, c) < w->window + SLACK;
        }
    }
    for (int c = 0; c < w->n_cell; c++) {
        if (seen[c]) m->left[c] = !kept[c] && !m->pinned[c];
    }
}

/* ---- taking a view apart ------------------------------------------------------------------ */

static int side_row(const struct world *w, const struct model *m, enum varve_format format,
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

static void check_view(const struct world *w) {
    static int found[MAX_QUERY][MAX_CELL];
    memset(found, 0, sizeof found);
    int64_t n_row = 0;
    for (int64_t i = 0; i < w->view.n_segment; i++) {
        const struct varve_segment *s = &w->view.segments[i];
        for (int64_t r = 0; r < s->n_rows; r++) {
            const int cell = side_row(w, &w->k, s->k_format, s->k, s->k_row_stride, r);
            assert_int_equal(cell, side_row(w, &w->v, s->v_format, s->v, s->v_row_stride, r));
            for (int q = 0; q < w->n_query; q++) {
                const uint16_t *mask =
                    (const uint16_t *)(const void *)((const char *)s->mask->data +
                                                     q * s->mask->row_stride);
                if (mask[s->mask_column + r] == VARVE_F16_NEG_INF) continue;
                assert_true(sees(w, q, cell));
                assert_int_equal(s->k_format == VARVE_FORMAT_F16, w->k.hot[q][cell]);
                assert_int_equal(s->v_format == VARVE_FORMAT_F16, w->v.hot[q][cell]);
                found[q][cell]++;
            }
        }
        n_row += s->n_rows;
    }
    assert_int_equal(n_row, w->view.n_row);
    for (int q = 0; q < w->n_query; q++) {
        for (int c = 0; c < w->n_cell; c++) assert_int_equal(found[q][c], sees(w, q, c));
    }
}

static struct varve_hot_node node_of(const struct world *w, const struct varve_mask *mask) {
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

static uint64_t n_stale(const struct world *w) {
    return varve_twins_account(w->k.twins).twins_stale +
           varve_twins_account(w->v.twins).twins_stale;
}

/* Fingerprints beside the run. A comparison left out is as good as a stale twin. */
static void view_deferred(struct world *w, struct varve_hot_node *node) {
    node->defer = true;
    assert_int_equal(varve_hot_view(w->hot, node, &w->view), VARVE_OK);
    const uint64_t n_before = n_stale(w);
    for (int64_t i = w->view.n_check; i-- > 0;) varve_hot_check(&w->view, i);
    assert_int_equal(n_stale(w), n_before); /* other threads may be reading */
    const bool fresh = varve_hot_settle(&w->view);
    assert_int_equal(fresh, n_stale(w) == n_before);
    w->n_settled[fresh]++;
    assert_true(varve_hot_settle(&w->view)); /* and counts nothing twice */
    if (fresh) return;
    node->defer = false;
    assert_int_equal(varve_hot_view(w->hot, node, &w->view), VARVE_OK);
    assert_true(varve_hot_settle(&w->view));
}

static void attend(struct world *w) {
    draw_mask(w);
    const struct varve_mask mask = {w->mask, w->n_cell, w->n_query, 1, 1, sizeof w->mask[0], 0, 0};
    struct varve_hot_node node = node_of(w, &mask);
    struct model *const sides[] = {&w->k, &w->v};
    if (next(w, 2)) {
        view_deferred(w, &node);
    } else {
        assert_int_equal(varve_hot_view(w->hot, &node, &w->view), VARVE_OK);
    }
    for (int q = 0; q < w->n_query; q++) {
        for (int c = 0; c < w->n_cell; c++) w->n_read += sees(w, q, c);
    }
    for (int i = 0; i < 2; i++) {
        apply_rules_3_to_5(w, sides[i]);
        apply_rule_6(w, sides[i]);
        const struct varve_twins_account a = varve_twins_account(sides[i]->twins);
        assert_int_equal(a.twins_stale, sides[i]->n_stale);
        assert_int_equal(a.twins_evicted, 0);
        assert_int_equal(a.rows_hot + a.rows_sink + a.rows_cold, w->n_read);
    }
    check_view(w);
}

/* ---- tests -------------------------------------------------------------------------------- */

static void random_histories_follow_the_rule(void **state) {
    (void)state;
    uint64_t n_settled[2] = {0, 0};
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct world *w = open_world(20 + (int)(seed * 37 % 180), 1 + (int)(seed * 13 % 90),
                                     (int)(seed % 5), seed);
        for (int step = 0; step < 60; step++) {
            write_rows(w, 1 + (int)next(w, next(w, 3) ? 4 : 40));
            while (next(w, 3) == 0) change_row(w);
            attend(w);
            if (w->reread && next(w, 2)) attend(w);
        }
        n_settled[0] += w->n_settled[0];
        n_settled[1] += w->n_settled[1];
        close_world(w);
    }
    assert_true(n_settled[0] > 500 && n_settled[1] > 500);
}

/* The rows of a view in order, each with its format and the queries that see it, as one number. */
static int list_rows(const struct world *w, uint64_t *row) {
    int n = 0;
    for (int64_t i = 0; i < w->view.n_segment; i++) {
        const struct varve_segment *s = &w->view.segments[i];
        for (int64_t r = 0; r < s->n_rows; r++) {
            row[n] = (uint64_t)side_row(w, &w->k, s->k_format, s->k, s->k_row_stride, r);
            row[n] = row[n] << 1 | (s->k_format == VARVE_FORMAT_F16);
            row[n] = row[n] << 1 | (s->v_format == VARVE_FORMAT_F16);
            for (int q = 0; q < w->n_query; q++) {
                const char *mask = (const char *)s->mask->data + q * s->mask->row_stride;
                const uint16_t value = ((const uint16_t *)(const void *)mask)[s->mask_column + r];
                row[n] = row[n] << 1 | (value != VARVE_F16_NEG_INF);
            }
            n++;
        }
    }
    return n;
}

/* The same prompt gives the same rows in the same order, whatever the rings held before: sums over
 * them have the same bits. */
static void history_does_not_show(void **state) {
    (void)state;
    enum { N_ROW = 150, N_BATCH = 30 };
    static uint64_t rows[2][3 * N_ROW];
    for (int before = 0; before < 90; before += 7) {
        int n[2];
        for (int i = 0; i < 2; i++) {
            struct world *w = open_world(N_ROW, 50, 3, 7);
            int64_t cells[N_ROW];
            for (int c = 0; c < N_ROW; c++) cells[c] = c;
            if (i == 1) {
                write_side(w, &w->k, cells + 20, before);
                write_side(w, &w->v, cells + 20, before / 2);
            }
            w->n_query = N_BATCH;
            for (int first = 0; first < N_ROW; first += N_BATCH) {
                write_side(w, &w->k, cells + first, N_BATCH);
                write_side(w, &w->v, cells + first, N_BATCH);
                for (int q = 0; q < N_BATCH; q++) {
                    for (int c = 0; c < N_ROW; c++) {
                        w->mask[q][c] = c <= first + q ? 0 : VARVE_F16_NEG_INF;
                    }
                }
                const struct varve_mask mask = {w->mask,           N_ROW, N_BATCH, 1, 1,
                                                sizeof w->mask[0], 0,     0};
                const struct varve_hot_node node = node_of(w, &mask);
                assert_int_equal(varve_hot_view(w->hot, &node, &w->view), VARVE_OK);
            }
            n[i] = list_rows(w, rows[i]);
            w->clock = 1;
            close_world(w);
        }
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(rows[0], rows[1], (size_t)n[0] * sizeof rows[0][0]);
    }
}

/* A comparison that was left out counts as a stale twin; without memory for the list of them all
 * rows are read cold. */
static void deferred_checks_must_be_made(void **state) {
    (void)state;
    for (int fail = 0; fail < 6; fail++) {
        struct world *w = open_world(100, 80, 0, 5);
        int64_t cells[70];
        for (int i = 0; i < 70; i++) cells[i] = i;
        write_side(w, &w->k, cells, 70);
        write_side(w, &w->v, cells, 70);
        w->n_query = 1;
        w->clock = 1;
        struct varve_hot_node node = node_of(w, NULL);
        node.defer = true;
        w->host.fail_at = fail > 0 ? w->host.n_allocate + fail : 0;
        if (varve_hot_view(w->hot, &node, &w->view) != VARVE_OK) {
            assert_int_equal(w->view.n_segment, 0);
            assert_int_equal(w->view.n_check, 0);
        } else {
            assert_int_equal(w->view.n_check, 4); /* runs of at most 64 rows */
            for (int64_t i = 0; i < 3; i++) varve_hot_check(&w->view, i);
            assert_false(varve_hot_settle(&w->view));
            assert_int_equal(n_stale(w), 6);
            assert_int_equal(varve_twins_account(w->k.twins).rows_hot, 0);
            w->host.fail_at = 0;
            view_deferred(w, &node);
            assert_int_equal(w->n_settled[true], 1);
            assert_int_equal(varve_twins_account(w->k.twins).rows_hot, 70);
            assert_int_equal(varve_twins_account(w->v.twins).rows_hot, 64);
        }
        close_world(w);
    }
}

/* Memory that fails at any place costs twins, never a wrong row. */
static void failing_memory_reads_cold(void **state) {
    (void)state;
    for (int fail = 1; fail < 60; fail++) {
        struct world *w = open_world(120, 40, 2, (uint64_t)fail);
        for (int step = 0; step < 6; step++) {
            int64_t cells[30];
            for (int i = 0; i < 30; i++) cells[i] = (step * 30 + i) % 120;
            w->host.fail_at = step == 2 ? w->host.n_allocate + 1 + fail % 12 : 0;
            struct model *const sides[] = {&w->k, &w->v};
            for (int s = 0; s < 2; s++) {
                const enum varve_status status = varve_twins_write(sides[s]->twins, cells, 30);
                for (int i = 0; i < 30; i++) {
                    const float values[N_VALUE] = {(float)cells[i], (float)step};
                    varve_format_encode(VARVE_FORMAT_Q8_0, values, N_VALUE,
                                        sides[s]->cold[cells[i]]);
                    if (status == VARVE_OK) varve_twins_write_row(sides[s]->twins, i, values);
                    sides[s]->stamp[cells[i]] = step + 1;
                }
            }
            w->n_query = 1 + fail % 7;
            const struct varve_hot_node node = node_of(w, NULL);
            const enum varve_status status = varve_hot_view(w->hot, &node, &w->view);
            assert_true(status == VARVE_OK || status == VARVE_ERROR_MEMORY);
            for (int64_t i = 0; i < w->view.n_segment; i++) { /* stamps are checked inside */
                const struct varve_segment *s = &w->view.segments[i];
                for (int64_t r = 0; r < s->n_rows; r++) {
                    (void)side_row(w, &w->k, s->k_format, s->k, s->k_row_stride, r);
                    (void)side_row(w, &w->v, s->v_format, s->v, s->v_row_stride, r);
                }
            }
            w->clock++;
        }
        close_world(w);
    }
}

struct purse {
    int64_t have, most;
};

static bool spend(void *user, int64_t bytes) {
    struct purse *purse = user;
    if (bytes > purse->have) return false;
    purse->have -= bytes;
    return true;
}

/* Pitfall 7: the budget is never exceeded, whatever it is; what it costs is counted. */
static void a_budget_is_never_exceeded(void **state) {
    (void)state;
    for (int64_t budget = 0; budget < 60000; budget += 1777) {
        struct purse purse = {budget, 0};
        struct world *w = open_world(150, 60, 4, 5);
        varve_hot_destroy(w->hot);
        const struct varve_hot_params params = {.struct_bytes = sizeof params,
                                                .window = 60,
                                                .n_sink = 4,
                                                .reserve = spend,
                                                .user = &purse};
        assert_int_equal(varve_hot_create(w->context, &params, &w->hot), VARVE_OK);
        open_tensor(w, &w->k);
        open_tensor(w, &w->v);
        for (int step = 0; step < 12; step++) {
            int64_t cells[25];
            for (int i = 0; i < 25; i++) cells[i] = (step * 25 + i) % 150;
            const int n = step % 3 ? 25 : 3;
            write_side(w, &w->k, cells, n);
            write_side(w, &w->v, cells, n);
            w->n_query = 2;
            const struct varve_hot_node node = node_of(w, NULL);
            (void)varve_hot_view(w->hot, &node, &w->view);
            const struct varve_hot_bytes bytes = varve_hot_bytes(w->hot);
            assert_int_equal((int64_t)(bytes.hot + bytes.staging) + purse.have, budget);
            assert_true((int64_t)bytes.peak <= budget);
        }
        const uint64_t n_evicted = varve_twins_account(w->k.twins).twins_evicted;
        const int64_t one_ring = varve_hot_ring_rows(60, 4) * N_VALUE * 2;
        if (budget < one_ring) assert_true(n_evicted > 0);
        if (budget > 4 * one_ring) assert_int_equal(n_evicted, 0);
        w->clock = varve_hot_bytes(w->hot).peak > 0;
        varve_hot_view_release(&w->view);
        varve_hot_destroy(w->hot);
        assert_int_equal(purse.have, budget);
        w->hot = NULL;
        varve_context_destroy(w->context);
        assert_int_equal(w->host.n_live, 0);
        free(w);
    }
}

/* One staging buffer serves all layers: a layer is attended before the next one is written. */
static void layers_share_the_staging_buffer(void **state) {
    (void)state;
    enum { N_LAYER = 8, N_ROW = 50 };
    struct world *w = open_world(180, 20, 4, 1);
    w->n_query = 1;
    for (int step = 0; step < 3; step++) {
        int64_t cells[N_ROW];
        for (int i = 0; i < N_ROW; i++) cells[i] = step * N_ROW + i;
        for (int layer = 0; layer < N_LAYER; layer++) {
            static struct varve_twins *of_layer[N_LAYER][2];
            if (step == 0) {
                open_tensor(w, &w->k);
                open_tensor(w, &w->v);
                of_layer[layer][0] = w->k.twins;
                of_layer[layer][1] = w->v.twins;
            }
            w->k.twins = of_layer[layer][0];
            w->v.twins = of_layer[layer][1];
            write_side(w, &w->k, cells, N_ROW);
            write_side(w, &w->v, cells, N_ROW);
            const struct varve_hot_node node = node_of(w, NULL);
            assert_int_equal(varve_hot_view(w->hot, &node, &w->view), VARVE_OK);
        }
    }
    const size_t two_tensors = 2 * ((N_ROW * (2 * N_VALUE + 16) + 63) / 64 * 64);
    assert_in_range(varve_hot_bytes(w->hot).staging, two_tensors, two_tensors + 64);
    w->clock = 1;
    close_world(w);
}

/* Quantized formats hold values that F16 does not: such a row is read cold, not as infinity. */
static void values_beyond_f16_stay_cold(void **state) {
    (void)state;
    struct world *w = open_world(4, 4, 2, 1);
    float values[N_VALUE] = {0, 1};
    const int64_t cells[] = {0, 1, 2};
    w->n_query = 1;
    assert_int_equal(varve_twins_write(w->k.twins, cells, 3), VARVE_OK);
    for (int i = 0; i < 3; i++) {
        values[5] = i == 1 ? 7e4f : 65504;
        varve_format_encode(VARVE_FORMAT_Q8_0, values, N_VALUE, w->k.cold[i]);
        varve_twins_write_row(w->k.twins, i, values);
    }
    struct varve_hot_node node = node_of(w, NULL);
    node.v = NULL;
    assert_int_equal(varve_hot_view(w->hot, &node, &w->view), VARVE_OK);
    assert_int_equal(varve_twins_account(w->k.twins).rows_hot, 2);
    assert_int_equal(varve_twins_account(w->k.twins).twins_stale, 1);
    w->clock = 1;
    close_world(w);
}

static void bad_input_is_an_error(void **state) {
    (void)state;
    struct world *w = open_world(64, 8, 2, 1);
    struct varve_hot *hot;
    struct varve_hot_params params = {.struct_bytes = sizeof params, .window = 0};
    assert_int_equal(varve_hot_create(w->context, &params, &hot), VARVE_ERROR_ARGUMENT);
    expect_line(&w->host, "window");
    struct varve_twins *twins;
    struct varve_twins_params t = {.struct_bytes = sizeof t,
                                   .format = VARVE_FORMAT_Q4_0,
                                   .n_value = 33,
                                   .cold = w->k.cold,
                                   .cold_stride = 18,
                                   .n_cell = 4};
    assert_int_equal(varve_twins_create(w->hot, &t, &twins), VARVE_ERROR_ARGUMENT);
    expect_line(&w->host, "n_value");
    t.n_value = 64;
    assert_int_equal(varve_twins_create(w->hot, &t, &twins), VARVE_ERROR_ARGUMENT);
    expect_line(&w->host, "36 bytes");
    const int64_t outside[] = {3, 64};
    assert_int_equal(varve_twins_write(w->k.twins, outside, 2), VARVE_ERROR_ARGUMENT);
    expect_line(&w->host, "cells[1] is 64");
    w->n_query = 2;
    struct varve_mask mask = {w->mask, 63, 2, 1, 1, sizeof w->mask[0], 0, 0};
    struct varve_hot_node node = node_of(w, &mask);
    assert_int_equal(varve_hot_view(w->hot, &node, &w->view), VARVE_ERROR_ARGUMENT);
    expect_line(&w->host, "mask");
    node.mask = NULL;
    node.cold.k_row_stride = 68;
    assert_int_equal(varve_hot_view(w->hot, &node, &w->view), VARVE_ERROR_ARGUMENT);
    expect_line(&w->host, "cold");
    assert_int_equal(w->view.n_segment, 0);
    close_world(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_histories_follow_the_rule),
        cmocka_unit_test(history_does_not_show),
        cmocka_unit_test(deferred_checks_must_be_made),
        cmocka_unit_test(failing_memory_reads_cold),
        cmocka_unit_test(a_budget_is_never_exceeded),
        cmocka_unit_test(layers_share_the_staging_buffer),
        cmocka_unit_test(values_beyond_f16_stay_cold),
        cmocka_unit_test(bad_input_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
