/* The cache at its limits: memory as planned, memory that fails, unused cells, bad input. */
#include "unit/cache_world.h"

static struct varve_cache_params shape(enum varve_format k, enum varve_format v) {
    return (struct varve_cache_params){.struct_bytes = sizeof(struct varve_cache_params),
                                       .k_format = k,
                                       .v_format = v,
                                       .head_dim_k = 64,
                                       .head_dim_v = 32,
                                       .n_head_kv = 2,
                                       .n_row_max = 230,
                                       .n_step_max = MAX_STEP};
}

static void open_shape(struct world *w, const struct varve_cache_params *p, int window) {
    w->p = *p;
    w->tier.window = window;
    w->tier.n_sink = 4;
    open_caches(w, 1);
}

static struct varve_cache_node node_at_end(const struct model *m, int64_t n) {
    const int64_t end = varve_cache_end(m->cache);
    return (struct varve_cache_node){.n_query = n, .pos = end > n ? end - n : 0, .causal = true};
}

static struct varve_cache_bytes plan_of(struct world *w) {
    struct varve_cache_bytes bytes;
    assert_int_equal(varve_cache_plan(w->context, tier_of(w), &w->p, &bytes), VARVE_OK);
    assert_int_equal(bytes.total,
                     bytes.cold + bytes.hot + bytes.tables + bytes.staging + bytes.shared);
    return bytes;
}

/* ---- memory ------------------------------------------------------------------------------- */

/* Random steps; returns the most bytes that the host handed out beyond `before`. */
static size_t play_for_peak(struct world *w, size_t before) {
    struct model *const m = &w->model[0];
    size_t peak = 0;
    for (int step = 0; step < 60; step++) {
        int n = step == 30 ? MAX_STEP : 1 + (int)next(w, next(w, 3) ? 3 : MAX_STEP);
        if (n > w->p.n_row_max - m->n_row) remove_rows(m, next(w, 50), 100);
        if (n > w->p.n_row_max - m->n_row) n = (int)w->p.n_row_max - m->n_row;
        append_rows(w, m, n, varve_cache_end(m->cache), false);
        if (next(w, 4) == 0) remove_rows(m, m->row[next(w, (uint32_t)m->n_row)].pos, 1);
        const struct varve_cache_node node = node_at_end(m, 1 + next(w, MAX_STEP));
        look(w, m, &node);
        if (w->host.live_bytes - before > peak) peak = w->host.live_bytes - before;
    }
    return peak;
}

/* Pitfall 7: what a cache takes is what was planned, and no more at any time: for itself exactly,
 * for staging exactly once it was needed, for views at most. */
static void memory_is_as_planned(void **state) {
    (void)state;
    static struct world w;
    for (uint64_t seed = 0; seed < 81; seed++) {
        const struct varve_cache_params p =
            shape((enum varve_format)(seed % 9), (enum varve_format)(seed / 9));
        open_shape(&w, &p, seed % 5 ? (int)(1 + seed) : 0);
        w.random = seed;
        const struct varve_cache_bytes bytes = plan_of(&w);
        varve_cache_destroy(w.model[0].cache);
        const size_t with_tier = w.host.live_bytes;
        assert_int_equal(varve_cache_create(w.context, w.hot, &w.p, &w.model[0].cache), VARVE_OK);
        /* the tier's scratch is there already, and belongs to `shared` */
        assert_int_equal(w.host.live_bytes - with_tier, bytes.cold + bytes.hot + bytes.tables);
        const size_t fixed = w.host.live_bytes;
        const size_t peak = play_for_peak(&w, fixed);
        assert_true(peak <= bytes.staging + bytes.shared);
        const size_t cold = (size_t)p.n_row_max * (size_t)w.view.cold.k_row_stride;
        assert_true(bytes.cold >= cold + (size_t)p.n_row_max * (size_t)w.view.cold.v_row_stride);
        assert_int_equal(bytes.hot > 0, has_twins(&w, 0) || has_twins(&w, 1));
        if (w.hot != NULL) {
            const struct varve_hot_bytes tier = varve_hot_bytes(w.hot);
            assert_int_equal(tier.hot, bytes.hot);
            const size_t masks = w.view.hot.block_bytes[2];
            assert_int_equal(tier.staging, bytes.staging + masks);
        }
        close_caches(&w);
    }
}

/* Each allocation fails once, in creation and in a history. A cache that could not be made leaves
 * nothing behind; later failures cost a view, never a row. */
static void failing_memory(void **state) {
    (void)state;
    static struct world w;
    const struct varve_cache_params p = shape(VARVE_FORMAT_Q5_1, VARVE_FORMAT_IQ4_NL);
    int n_failed = 0;
    for (int fail = 1;; fail++) {
        w.p = p;
        w.tier.window = 30;
        w.tier.n_sink = 4;
        open_caches(&w, 0);
        const size_t n_live = w.host.n_live, live_bytes = w.host.live_bytes;
        w.host.fail_at = w.host.n_allocate + fail;
        struct varve_cache *cache = (struct varve_cache *)&w;
        const enum varve_status status = varve_cache_create(w.context, w.hot, &w.p, &cache);
        const bool failed = w.host.n_allocate >= w.host.fail_at;
        w.host.fail_at = 0;
        assert_int_equal(status, failed ? VARVE_ERROR_MEMORY : VARVE_OK);
        if (failed) {
            n_failed++;
            assert_null(cache);
            assert_true(w.host.n_line >= 1);
            w.host.n_line = 0;
            assert_true(w.host.n_live <= n_live + 1); /* the tier's scratch stays with the tier */
            if (w.host.n_live == n_live) assert_int_equal(w.host.live_bytes, live_bytes);
            assert_int_equal(varve_cache_create(w.context, w.hot, &w.p, &cache), VARVE_OK);
        }
        varve_cache_destroy(cache);
        close_caches(&w);
        if (!failed) break;
    }
    assert_int_equal(n_failed, 13); /* tables, rows, scratch, 5 of K, 5 of V */
}

/* Rows with their values, without regard to which are hot. */
static void check_rows(struct world *w, const struct model *m,
                       const struct varve_cache_node *node) {
    int64_t n_seen = 0, n_visible = 0;
    for (int64_t i = 0; i < w->view.n_segment; i++) {
        const struct varve_segment *const s = &w->view.segments[i];
        for (int64_t r = 0; r < s->n_rows; r++) {
            const int at = row_at(w, m, VARVE_CACHE_K, s, r);
            assert_int_equal(at, row_at(w, m, VARVE_CACHE_V, s, r));
            for (int q = 0; q < node->n_query; q++) {
                n_seen += mask_at(s, q, r) != VARVE_F16_NEG_INF;
            }
        }
    }
    for (int q = 0; q < node->n_query; q++) {
        for (int r = 0; r < m->n_row; r++) n_visible += sees(node, q, &m->row[r]);
    }
    assert_int_equal(n_seen, n_visible);
}

static void failing_memory_later_costs_a_view(void **state) {
    (void)state;
    static struct world w;
    const struct varve_cache_params p = shape(VARVE_FORMAT_Q4_0, VARVE_FORMAT_Q8_0);
    int n_view = 0;
    for (int fail = 1; fail <= 12; fail++) {
        open_shape(&w, &p, 30);
        w.random = (uint64_t)fail;
        w.host.fail_at = w.host.n_allocate + fail;
        struct model *const m = &w.model[0];
        for (int step = 0; step < 6; step++) {
            append_rows(&w, m, 10 + 5 * step, varve_cache_end(m->cache), false);
            assert_int_equal(varve_cache_n_row(m->cache), m->n_row);
            const struct varve_cache_node node = node_at_end(m, 10 + 5 * step);
            const enum varve_status status = varve_cache_view(m->cache, &node, &w.view);
            if (status != VARVE_OK) {
                assert_int_equal(status, VARVE_ERROR_MEMORY);
                assert_true(w.view.n_segment == 0 && w.view.n_row == 0);
                n_view++;
                assert_int_equal(varve_cache_view(m->cache, &node, &w.view), VARVE_OK);
            }
            check_rows(&w, m, &node);
        }
        w.host.fail_at = w.host.n_line = 0;
        close_caches(&w);
    }
    assert_true(n_view > 0);
}

static bool grant(void *user, int64_t bytes) {
    int64_t *const have = user;
    if (bytes > *have) return false;
    *have -= bytes;
    return true;
}

/* Without room for staging, rows go into the ring, and what has no place there is read cold. */
static void append_beyond_the_budget(struct world *w, struct model *m) {
    for (int step = 0; step < 3; step++) {
        append_rows(w, m, MAX_STEP, varve_cache_end(m->cache), false);
        const struct varve_cache_node node = node_at_end(m, 1);
        assert_int_equal(varve_cache_view(m->cache, &node, &w->view), VARVE_OK);
        check_rows(w, m, &node);
        const struct varve_twins_account a = varve_cache_account(m->cache, VARVE_CACHE_K);
        assert_int_equal(a.rows_hot, 16 * (step + 1));
        assert_int_equal(a.rows_missed, 0);
        assert_int_equal(a.twins_evicted > 0, step > 0);
    }
    varve_cache_view_release(&w->view);
}

/* A tier's budget covers twins and staging of its caches: what create took comes back. */
static void budget(void **state) {
    (void)state;
    static struct world w;
    w.p = shape(VARVE_FORMAT_Q8_0, VARVE_FORMAT_Q8_0);
    w.tier.window = 16;
    open_caches(&w, 0);
    const struct varve_cache_bytes bytes = plan_of(&w);
    int64_t have = (int64_t)bytes.hot - 1;
    struct varve_hot_params params = w.tier;
    params.reserve = grant;
    params.user = &have;
    struct varve_hot *hot;
    struct varve_cache *cache;
    assert_int_equal(varve_hot_create(w.context, &params, &hot), VARVE_OK);
    assert_int_equal(varve_cache_create(w.context, hot, &w.p, &cache), VARVE_ERROR_MEMORY);
    expect_line(&w.host, "budget");
    assert_int_equal(have, bytes.hot - 1);
    have++;
    assert_int_equal(varve_cache_create(w.context, hot, &w.p, &cache), VARVE_OK);
    assert_int_equal(have, 0);
    w.model[0].cache = cache;
    append_beyond_the_budget(&w, &w.model[0]);
    w.model[0].cache = NULL;
    varve_cache_destroy(cache);
    assert_int_equal(have, bytes.hot);
    varve_hot_destroy(hot);
    close_caches(&w);
}

/* Pitfall 18: whatever an unused cell holds changes no result. */
static void unused_cells_may_hold_nan(void **state) {
    (void)state;
    static struct world w;
    static float query[MAX_STEP * 4 * 64], out[2][MAX_STEP * 4 * 32];
    for (uint64_t seed = 0; seed < 9; seed++) {
        const struct varve_cache_params p = shape((enum varve_format)seed, VARVE_FORMAT_F16);
        for (int dirty = 0; dirty < 2; dirty++) {
            open_shape(&w, &p, 20);
            w.random = seed;
            struct model *const m = &w.model[0];
            append_rows(&w, m, 40, 0, false);
            append_rows(&w, m, 30, 40, false);
            remove_rows(m, 35, 10);
            remove_rows(m, 65, INT64_MAX);
            const struct varve_cache_node node = node_at_end(m, 7);
            assert_int_equal(varve_cache_view(m->cache, &node, &w.view), VARVE_OK);
            const struct varve_segment *const cold = &w.view.cold;
            const int64_t k = cold->k_row_stride * m->n_row, v = cold->v_row_stride * m->n_row;
            const int64_t n_free = p.n_row_max - m->n_row;
            if (dirty) { /* NaN in every format: scales and values of all ones */
                memset((char *)(uintptr_t)cold->k + k, 0xFF, (size_t)(cold->k_row_stride * n_free));
                memset((char *)(uintptr_t)cold->v + v, 0xFF, (size_t)(cold->v_row_stride * n_free));
            }
            const struct varve_attention a = attention_of(&w, node.n_query);
            for (int i = 0; i < node.n_query * 4 * 64; i++) query[i] = noise(&w);
            run_view(&w, &a, query, out[dirty]);
            close_caches(&w);
        }
        assert_memory_equal(out[0], out[1], 7 * 4 * 32 * sizeof out[0][0]);
        assert_true(isfinite(out[0][0]) && out[0][0] != 0);
    }
}

/* ---- bad input ---------------------------------------------------------------------------- */

static void bad_parameters(void **state) {
    (void)state;
    static struct world w;
    const struct varve_cache_params good = shape(VARVE_FORMAT_Q8_0, VARVE_FORMAT_F16);
    w.p = good;
    w.tier.window = 16;
    open_caches(&w, 0);
    struct {
        struct varve_cache_params p;
        enum varve_status status;
        const char *word;
    } cases[9];
    for (int i = 0; i < 9; i++) cases[i].p = good, cases[i].status = VARVE_ERROR_ARGUMENT;
    cases[0].p.k_format = (enum varve_format)VARVE_FORMAT_COUNT, cases[0].word = "head_dim_k";
    cases[1].p.head_dim_k = 33, cases[1].word = "head_dim_k is 33";
    cases[2].p.head_dim_v = 0, cases[2].word = "head_dim_v is 0";
    cases[3].p.n_head_kv = 0, cases[3].word = "n_head_kv is 0";
    cases[4].p.n_row_max = 0, cases[4].word = "n_row_max 0";
    cases[5].p.n_row_max = (INT64_C(1) << 48) + 1, cases[5].word = "2^48";
    cases[6].p.n_step_max = 0, cases[6].word = "n_step_max 0";
    cases[7].p.n_step_max = INT64_C(1) << 31, cases[7].word = "2^31";
    cases[8].p.n_row_max = INT64_C(1) << 48, cases[8].word = "too large";
    cases[8].p.head_dim_v = 1 << 20, cases[8].status = VARVE_ERROR_OVERFLOW;
    for (int i = 0; i < 9; i++) {
        struct varve_cache_bytes bytes = {.total = 7};
        struct varve_cache *cache = (struct varve_cache *)&w;
        assert_int_equal(varve_cache_plan(w.context, &w.tier, &cases[i].p, &bytes),
                         cases[i].status);
        expect_line(&w.host, cases[i].word);
        assert_int_equal(bytes.total, 7);
        assert_int_equal(varve_cache_create(w.context, w.hot, &cases[i].p, &cache),
                         cases[i].status);
        expect_line(&w.host, cases[i].word);
        assert_null(cache);
    }
    struct varve_cache_bytes bytes;
    const struct varve_hot_params none = {.struct_bytes = sizeof none};
    assert_int_equal(varve_cache_plan(w.context, &none, &good, &bytes), VARVE_ERROR_ARGUMENT);
    expect_line(&w.host, "window is 0");
    assert_int_equal(varve_cache_plan(NULL, NULL, &good, &bytes), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_cache_plan(w.context, NULL, NULL, &bytes), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_cache_plan(w.context, NULL, &good, NULL), VARVE_ERROR_ARGUMENT);
    struct host other = {0};
    struct varve_context *context = context_of(&other);
    struct varve_cache *cache;
    assert_int_equal(varve_cache_create(context, w.hot, &good, &cache), VARVE_ERROR_ARGUMENT);
    expect_line(&other, "another context");
    assert_int_equal(varve_cache_create(NULL, NULL, &good, &cache), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_cache_create(w.context, NULL, &good, NULL), VARVE_ERROR_ARGUMENT);
    varve_context_destroy(context);
    varve_cache_destroy(NULL);
    close_caches(&w);
}

/* What is refused leaves rows and twins as they are. */
static void bad_rows(void **state) {
    (void)state;
    static struct world w;
    const struct varve_cache_params p = shape(VARVE_FORMAT_Q8_0, VARVE_FORMAT_Q4_1);
    open_shape(&w, &p, 16);
    struct model *const m = &w.model[0];
    struct varve_cache *const cache = m->cache;
    append_rows(&w, m, 40, 10, false);
    static const float values[MAX_STEP][128];
    const struct varve_cache_rows rows = {VARVE_FORMAT_F32, values, sizeof values[0], 256};
    struct varve_cache_rows bad = rows;
    static const struct {
        int64_t n, pos;
        const char *word;
    } cases[] = {{-1, -1, "n is -1"},         {MAX_STEP + 1, -1, "n is 49"},
                 {1, -2, "pos is -2"},        {1, INT64_C(1) << 48, "2^48"},
                 {5, 6, "position 10 is"},    {1, 49, "position 49 is"},
                 {MAX_STEP, 0, "position 10"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(varve_cache_append(cache, &rows, &rows, cases[i].n, cases[i].pos),
                         VARVE_ERROR_ARGUMENT);
        expect_line(&w.host, cases[i].word);
    }
    assert_int_equal(varve_cache_append(cache, NULL, &rows, 1, -1), VARVE_ERROR_ARGUMENT);
    expect_line(&w.host, "k is NULL");
    bad.data = NULL;
    assert_int_equal(varve_cache_append(cache, &rows, &bad, 1, -1), VARVE_ERROR_ARGUMENT);
    expect_line(&w.host, "v is NULL");
    bad.data = values;
    bad.format = VARVE_FORMAT_Q8_0;
    assert_int_equal(varve_cache_append(cache, &rows, &bad, 1, -1), VARVE_ERROR_ARGUMENT);
    expect_line(&w.host, "v.format is 3");
    assert_int_equal(varve_cache_append(NULL, &rows, &rows, 1, -1), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_cache_append(cache, NULL, NULL, 0, -1), VARVE_OK);
    assert_int_equal(varve_cache_remove(cache, -1, 3), VARVE_ERROR_ARGUMENT);
    expect_line(&w.host, "pos is -1");
    assert_int_equal(varve_cache_remove(cache, 1, -3), VARVE_ERROR_ARGUMENT);
    expect_line(&w.host, "n -3");
    assert_int_equal(varve_cache_remove(NULL, 1, 3), VARVE_ERROR_ARGUMENT);
    while (m->n_row < 220) append_rows(&w, m, 20, varve_cache_end(cache), false);
    assert_int_equal(varve_cache_append(cache, &rows, &rows, 11, -1), VARVE_ERROR_MEMORY);
    expect_line(&w.host, "full: 220 of 230 rows in use, 11 to come");
    const struct varve_cache_node node = node_at_end(m, 20);
    look(&w, m, &node);
    append_rows(&w, m, 10, varve_cache_end(cache), false);
    close_caches(&w);
}

static void bad_nodes_and_copies(void **state) {
    (void)state;
    static struct world w;
    const struct varve_cache_params p = shape(VARVE_FORMAT_Q8_0, VARVE_FORMAT_Q4_1);
    open_shape(&w, &p, 16);
    struct model *const m = &w.model[0];
    append_rows(&w, m, 40, 0, false);
    static const struct {
        struct varve_cache_node node;
        const char *word;
    } cases[] = {{{.n_query = -1}, "n_query is -1"},
                 {{.n_query = MAX_STEP + 1}, "n_query is 49"},
                 {{.n_query = 1, .pos = -1}, "pos is -1"},
                 {{.n_query = 1, .pos = INT64_MAX}, "2^48"},
                 {{.n_query = 1, .window = -5}, "window is -5"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(varve_cache_view(m->cache, &cases[i].node, &w.view), VARVE_ERROR_ARGUMENT);
        expect_line(&w.host, cases[i].word);
        assert_int_equal(w.view.n_segment, 0);
    }
    assert_int_equal(varve_cache_view(NULL, &cases[0].node, &w.view), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_cache_view(m->cache, NULL, &w.view), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_cache_view(m->cache, &cases[0].node, NULL), VARVE_ERROR_ARGUMENT);
    struct varve_cache *other;
    struct varve_cache_params q = p;
    q.n_row_max = 39;
    assert_int_equal(varve_cache_create(w.context, w.hot, &q, &other), VARVE_OK);
    assert_int_equal(varve_cache_copy(other, m->cache), VARVE_ERROR_MEMORY);
    expect_line(&w.host, "dst holds 39 rows, src has 40");
    varve_cache_destroy(other);
    q.n_row_max = 40;
    q.v_format = VARVE_FORMAT_Q4_0;
    assert_int_equal(varve_cache_create(w.context, NULL, &q, &other), VARVE_OK);
    assert_int_equal(varve_cache_copy(other, m->cache), VARVE_ERROR_ARGUMENT);
    expect_line(&w.host, "differ in formats");
    assert_int_equal(varve_cache_n_row(other), 0);
    assert_int_equal(varve_cache_copy(m->cache, m->cache), VARVE_ERROR_ARGUMENT);
    expect_line(&w.host, "same cache");
    assert_int_equal(varve_cache_copy(NULL, m->cache), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_cache_copy(m->cache, NULL), VARVE_ERROR_ARGUMENT);
    varve_cache_destroy(other);
    assert_int_equal(varve_cache_account(m->cache, (enum varve_cache_side)2).twins_written, 0);
    const struct varve_cache_node node = node_at_end(m, 20);
    look(&w, m, &node);
    close_caches(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_as_planned),
        cmocka_unit_test(failing_memory),
        cmocka_unit_test(failing_memory_later_costs_a_view),
        cmocka_unit_test(budget),
        cmocka_unit_test(unused_cells_may_hold_nan),
        cmocka_unit_test(bad_parameters),
        cmocka_unit_test(bad_rows),
        cmocka_unit_test(bad_nodes_and_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
