/* The cache with cold rows of its own, through its public interface: random histories against a
 * model that holds every row's values (cache_world.h), and runs over its views against the oracle.
 */
#include "unit/cache_world.h"

/* ---- runs against the oracle -------------------------------------------------------------- */

/* One row in the format in which query q reads it, as a segment. */
static struct varve_segment exact_row(const struct world *w, const struct model *m, int q, int r,
                                      char *bytes) {
    struct varve_segment s = {.n_rows = 1};
    for (int side = 0; side < 2; side++, bytes += 4 * MAX_VALUE) {
        const bool hot = m->hot[side][q][r];
        const enum varve_format format = hot ? VARVE_FORMAT_F16 : format_of(w, side);
        size_t head_bytes;
        varve_format_row_bytes(format, n_value_of(w, side) / w->p.n_head_kv, &head_bytes);
        varve_format_encode(format, m->row[r].value[side], n_value_of(w, side), bytes);
        if (side == VARVE_CACHE_K) {
            s.k_format = format, s.k = bytes, s.k_head_stride = (int64_t)head_bytes;
        } else {
            s.v_format = format, s.v = bytes, s.v_head_stride = (int64_t)head_bytes;
        }
    }
    return s;
}

/* What query q must get, and how far F32 arithmetic may be from it. */
static void expect_query(const struct world *w, const struct model *m,
                         const struct varve_cache_node *node, const struct varve_attention *all,
                         int q, const float *query, double *out, double *bound) {
    static char bytes[MAX_ROW][2 * 4 * MAX_VALUE];
    static struct varve_segment segments[MAX_ROW];
    static uint16_t values[MAX_ROW];
    int n = 0;
    for (int r = 0; r < m->n_row; r++) {
        if (!sees(node, q, &m->row[r])) continue;
        const float distance = fabsf((float)(node->pos + q - m->row[r].pos));
        values[n] = node->bias ? varve_f32_to_f16(-distance) : 0;
        segments[n] = exact_row(w, m, q, r, bytes[n]);
        segments[n].mask_column = n;
        n++;
    }
    struct varve_attention a = *all;
    a.n_query = 1;
    const struct varve_mask mask = {values, n, 1, 1, 1, 2 * MAX_ROW, 0, 0};
    const struct varve_io io = {.query = {query, 0, a.head_dim_k * 4, 0},
                                .segments = segments,
                                .n_segment = n,
                                .mask = &mask};
    double rounding[MAX_HEAD]; /* of weights, for each head */
    oracle_attention_bounds(&a, &io, out, NULL, bound, NULL, rounding);
    for (int i = 0; i < a.n_head * a.head_dim_v; i++) bound[i] += rounding[i / a.head_dim_v];
}

static void check_run(struct world *w, const struct model *m, const struct varve_cache_node *node) {
    enum { N_VALUE = MAX_STEP * MAX_HEAD * MAX_VALUE };
    static float query[N_VALUE], out[N_VALUE];
    static double expected[N_VALUE], bound[N_VALUE];
    struct varve_attention a = attention_of(w, node->n_query);
    if (node->bias) a.max_bias = 8;
    const int q_values = a.n_head * a.head_dim_k, o_values = a.n_head * a.head_dim_v;
    for (int i = 0; i < q_values * node->n_query; i++) query[i] = 2 * noise(w);
    run_view(w, &a, query, out);
    for (int q = 0; q < node->n_query; q++) {
        expect_query(w, m, node, &a, q, query + q * q_values, expected + q * o_values,
                     bound + q * o_values);
    }
    for (int i = 0; i < o_values * node->n_query; i++) {
        const double error = fabs((double)out[i] - expected[i]);
        if (!(error <= bound[i])) fail_msg("value %d: off by %g, bound %g", i, error, bound[i]);
    }
}

/* ---- histories ---------------------------------------------------------------------------- */

static struct varve_cache_node draw_node(struct world *w, const struct model *m) {
    const int64_t end = varve_cache_end(m->cache);
    struct varve_cache_node node = {.n_query = 1};
    if (next(w, 2)) node.n_query = 1 + next(w, MAX_STEP);
    node.pos = end > node.n_query ? end - node.n_query : 0;
    if (next(w, 8) == 0) node.pos = next(w, (uint32_t)end + 3);
    node.causal = next(w, 4) > 0;
    if (next(w, 4) == 0) node.window = 1 + next(w, 60);
    node.bias = next(w, 5) == 0;
    return node;
}

static void draw_append(struct world *w, struct model *m, bool odd) {
    int n = 1 + (int)next(w, next(w, 3) ? 4 : MAX_STEP);
    if (n > w->p.n_step_max) n = (int)w->p.n_step_max;
    if (n > w->p.n_row_max - m->n_row) n = (int)w->p.n_row_max - m->n_row;
    const int64_t end = varve_cache_end(m->cache);
    append_rows(w, m, n, next(w, 6) ? end : end + next(w, 5), odd);
}

/* Rollbacks, holes, and rows into the hole of a position. */
static void draw_remove(struct world *w, struct model *m) {
    const int64_t end = varve_cache_end(m->cache);
    if (end == 0) return;
    const int64_t pos =
        next(w, 2) ? end - 1 - next(w, (uint32_t)(end < 40 ? end : 40)) : next(w, (uint32_t)end);
    const bool rest = next(w, 2);
    remove_rows(m, pos, rest ? INT64_MAX : 1 + next(w, 9));
    if (!rest && next(w, 3) == 0 && m->n_row < w->p.n_row_max) append_rows(w, m, 1, pos, false);
}

static void play(struct world *w, int n_step, bool odd) {
    struct model *m = &w->model[0];
    for (int step = 0; step < n_step; step++) {
        draw_append(w, m, odd);
        if (next(w, 4) == 0 || m->n_row == w->p.n_row_max) draw_remove(w, m);
        assert_int_equal(varve_cache_n_row(m->cache), m->n_row);
        if (next(w, 4) == 0) continue; /* nobody looks */
        const struct varve_cache_node node = draw_node(w, m);
        look(w, m, &node);
        if (!odd && next(w, 4) == 0) check_run(w, m, &node);
        if (next(w, 12) > 0) continue;
        struct model *const other = m == &w->model[0] ? &w->model[1] : &w->model[0];
        copy_rows(w, other, m);
        look(w, other, &node);
        look(w, m, &node); /* is as it was */
        if (next(w, 2)) m = other;
    }
}

static struct varve_cache_params shape_of(uint64_t seed) {
    static const int32_t dims[] = {32, 64, 96};
    return (struct varve_cache_params){.k_format = (enum varve_format)(seed % VARVE_FORMAT_COUNT),
                                       .v_format =
                                           (enum varve_format)(seed / 9 % VARVE_FORMAT_COUNT),
                                       .head_dim_k = dims[seed % 3],
                                       .head_dim_v = dims[seed / 3 % 3],
                                       .n_head_kv = 1 + (int32_t)(seed % 2),
                                       .n_row_max = 1 + (int64_t)(seed * 37 % MAX_ROW),
                                       .n_step_max = MAX_STEP};
}

static void random_histories_follow_the_rule(void **state) {
    (void)state;
    static struct world w;
    for (uint64_t seed = 1; seed <= 324; seed++) { /* each pair of formats four times */
        w.p = shape_of(seed);
        w.tier.window = seed % 7 == 0 ? 0 : (int32_t)(seed * 13 % 60) + (seed % 7 != 0);
        w.tier.n_sink = seed % 2 ? 4 : 0;
        w.random = seed;
        open_caches(&w, 2);
        play(&w, 60, false);
        close_caches(&w);
    }
}

/* Rows that F16 cannot hold have no twin; others take their place in the window. */
static void values_beyond_f16_are_read_cold(void **state) {
    (void)state;
    static struct world w;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        w.p = shape_of(30 + seed); /* K or V is quantized in nearly all */
        w.tier.window = (int32_t)(1 + seed % 30);
        w.tier.n_sink = (int32_t)(seed % 5);
        w.random = seed;
        open_caches(&w, 2);
        play(&w, 30, true);
        close_caches(&w);
    }
}

/* Float formats take heads of any size. */
static void odd_heads(void **state) {
    (void)state;
    static struct world w;
    static const int32_t dims[] = {1, 5, 17, 33};
    for (uint64_t seed = 0; seed < 12; seed++) {
        w.p = shape_of(100);
        w.p.k_format = (enum varve_format)(seed % 3);
        w.p.v_format = seed % 4 ? (enum varve_format)(seed / 4) : VARVE_FORMAT_Q5_1;
        w.p.head_dim_k = dims[seed % 4];
        w.p.head_dim_v = seed % 4 ? dims[3 - seed % 4] : 32;
        w.p.n_head_kv = 3;
        w.tier.window = 9;
        w.random = seed;
        open_caches(&w, 2);
        play(&w, 25, false);
        close_caches(&w);
    }
}

/* ---- equal bits --------------------------------------------------------------------------- */

enum { N_PROMPT = 150 };

static void open_plain(struct world *w, int64_t n_row_max) {
    w->p = (struct varve_cache_params){.k_format = VARVE_FORMAT_Q8_0,
                                       .v_format = VARVE_FORMAT_Q4_0,
                                       .head_dim_k = 64,
                                       .head_dim_v = 64,
                                       .n_head_kv = 2,
                                       .n_row_max = n_row_max,
                                       .n_step_max = MAX_STEP};
    w->tier.window = 40;
    w->tier.n_sink = 4;
    open_caches(w, 1);
}

/* Appends rows whose values depend on the position alone. */
static void append_numbered(struct world *w, int64_t n) {
    enum { N_VALUE = 128 };
    static float values[2][MAX_STEP][N_VALUE];
    const int64_t pos = varve_cache_end(w->model[0].cache);
    for (int64_t i = 0; i < n; i++) {
        w->random = (uint64_t)(pos + i) * 977 + 5;
        for (int d = 0; d < N_VALUE; d++) {
            values[VARVE_CACHE_K][i][d] = noise(w);
            values[VARVE_CACHE_V][i][d] = noise(w);
        }
    }
    const struct varve_cache_rows k = {VARVE_FORMAT_F32, values[0], sizeof values[0][0], 256};
    const struct varve_cache_rows v = {VARVE_FORMAT_F32, values[1], sizeof values[1][0], 256};
    assert_int_equal(varve_cache_append(w->model[0].cache, &k, &v, n, VARVE_CACHE_END), VARVE_OK);
}

/* The n queries that stand where the last n rows do. */
static void attend_last(struct world *w, int64_t n, float *out) {
    static float query[MAX_STEP * 4 * 64];
    struct varve_cache *const cache = w->model[0].cache;
    const struct varve_cache_node node = {
        .n_query = n, .pos = varve_cache_end(cache) - n, .causal = true};
    assert_int_equal(varve_cache_view(cache, &node, &w->view), VARVE_OK);
    if (out == NULL) return;
    const struct varve_attention a = attention_of(w, n);
    w->random = 3;
    for (int i = 0; i < n * 4 * 64; i++) query[i] = 2 * noise(w);
    run_view(w, &a, query, out);
}

/* A prompt in steps of some length, of which the last `n_rejected` rows are taken back each time.
 */
static void read_prompt(struct world *w, int64_t n_step, int64_t n_rejected, float *out) {
    struct varve_cache *const cache = w->model[0].cache;
    while (varve_cache_end(cache) < N_PROMPT) {
        const int64_t rest = N_PROMPT - varve_cache_end(cache);
        const int64_t n = n_step < rest ? n_step : rest;
        append_numbered(w, n);
        if (n_rejected > 0) {
            append_numbered(w, n_rejected);
            attend_last(w, n_rejected, NULL);
            const int64_t end = varve_cache_end(cache) - n_rejected;
            assert_int_equal(varve_cache_remove(cache, end, INT64_MAX), VARVE_OK);
        }
        if (n % 3 != 0) attend_last(w, n, NULL); /* whoever looked does not show */
    }
    attend_last(w, 1, out);
    const struct varve_twins_account a = varve_cache_account(cache, VARVE_CACHE_K);
    assert_int_equal(a.twins_evicted, 0);
    assert_int_equal(a.rows_missed, 0);
    /* sinks, the rest, and a window that is cut where the ring ends: rejected rows leave no gaps */
    assert_true(w->view.n_segment <= 6);
}

/* Pitfalls 2, 4 and 6: neither ubatches, nor rejected rows, nor capacity show in the bits. */
static void history_does_not_show(void **state) {
    (void)state;
    static const struct {
        int64_t n_step, n_rejected, n_row_max;
    } cases[] = {{1, 0, N_PROMPT}, {48, 0, N_PROMPT}, {7, 0, 1600}, {9, 0, 200},
                 {1, 3, 160},      {5, 32, 200},      {30, 2, 200}, {2, 9, 170}};
    static float out[2][4 * 64];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct world w;
        open_plain(&w, cases[i].n_row_max);
        read_prompt(&w, cases[i].n_step, cases[i].n_rejected, out[i > 0]);
        close_caches(&w);
        assert_memory_equal(out[0], out[i > 0], sizeof out[0]);
    }
}

/* Layers share tier, staging and view: each is attended before the next one is written. */
static void layers_share_a_tier(void **state) {
    (void)state;
    static struct world w;
    w.p = shape_of(4);
    w.p.k_format = w.p.v_format = VARVE_FORMAT_Q5_0;
    w.p.n_row_max = MAX_ROW;
    w.tier.window = 20;
    w.tier.n_sink = 3;
    open_caches(&w, 2);
    for (int step = 0; step < 12; step++) {
        const int n = step % 3 ? 1 + step : 30;
        for (int layer = 0; layer < 2; layer++) {
            struct model *const m = &w.model[layer];
            append_rows(&w, m, n, varve_cache_end(m->cache), false);
            const struct varve_cache_node node = {
                .n_query = n, .pos = varve_cache_end(m->cache) - n, .causal = true};
            look(&w, m, &node);
            check_run(&w, m, &node);
        }
    }
    /* the staged rows of one that goes do not outlive it */
    struct model *const m = &w.model[1];
    append_rows(&w, m, 9, varve_cache_end(m->cache), false);
    varve_cache_destroy(w.model[0].cache);
    w.model[0].cache = NULL;
    append_rows(&w, m, 12, varve_cache_end(m->cache), false);
    varve_cache_destroy(m->cache);
    assert_int_equal(varve_cache_create(w.context, w.hot, &w.p, &m->cache), VARVE_OK);
    m->n_row = 0;
    append_rows(&w, m, 30, 0, false);
    const struct varve_cache_node node = {.n_query = 30, .causal = true};
    look(&w, m, &node);
    append_rows(&w, m, 10, 30, false);
    look(&w, m, &node);
    close_caches(&w);
}

/* Pitfall 2: for every length and every cut of a prompt, each query reads the last W rows that it
 * sees and the first S in F16, and no other; also after a rollback within the slack. */
static void the_window_is_exact(void **state) {
    (void)state;
    static struct world w;
    for (int n_step = 1; n_step <= MAX_STEP; n_step++) {
        w.p = shape_of(4);
        w.p.k_format = w.p.v_format = VARVE_FORMAT_Q4_0;
        w.p.n_row_max = MAX_ROW;
        w.tier.window = 1 + n_step % 20;
        w.tier.n_sink = n_step % 5;
        w.random = (uint64_t)n_step;
        open_caches(&w, 1);
        struct model *const m = &w.model[0];
        while (m->n_row + n_step + 5 <= MAX_ROW && m->n_row < 4 * w.tier.window + 80) {
            const int n_rejected = n_step % 3 == 0 && n_step <= SLACK ? 5 : 0;
            append_rows(&w, m, n_step, m->n_row, false);
            if (n_rejected > 0) append_rows(&w, m, n_rejected, m->n_row, false);
            remove_rows(m, m->n_row - n_rejected, n_rejected);
            const struct varve_cache_node node = {
                .n_query = n_step, .pos = m->n_row - n_step, .causal = true};
            look(&w, m, &node);
            for (int q = 0; q < n_step; q++) {
                for (int r = 0; r < m->n_row; r++) {
                    const int64_t behind = node.pos + q - r;
                    const bool hot = behind < w.tier.window || r < w.tier.n_sink;
                    assert_int_equal(m->hot[0][q][r], behind >= 0 && hot);
                }
            }
        }
        close_caches(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_histories_follow_the_rule),
        cmocka_unit_test(values_beyond_f16_are_read_cold),
        cmocka_unit_test(odd_heads),
        cmocka_unit_test(history_does_not_show),
        cmocka_unit_test(layers_share_a_tier),
        cmocka_unit_test(the_window_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
