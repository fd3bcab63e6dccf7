/* The tier at its limits: memory that fails, budgets, values that F16 does not hold, bad input. */
#include "unit/hot_world.h"

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

/* One query that sees rows 0 .. n - 1, hidden from what was written later. */
static struct varve_twins_account look(struct world *w, int n) {
    for (int c = 0; c < w->n_cell; c++) w->mask[0][c] = c < n ? 0 : VARVE_F16_NEG_INF;
    w->n_query = 1;
    const struct varve_mask mask = {w->mask, w->n_cell, 1, 1, 1, sizeof w->mask[0], 0, 0};
    const struct varve_hot_node node = node_of(w, &mask);
    const struct varve_twins_account before = varve_twins_account(w->k.twins);
    assert_int_equal(varve_hot_view(w->hot, &node, &w->view), VARVE_OK);
    struct varve_twins_account now = varve_twins_account(w->k.twins);
    now.rows_hot -= before.rows_hot;
    now.rows_sink -= before.rows_sink;
    now.rows_cold -= before.rows_cold;
    now.rows_missed -= before.rows_missed;
    return now;
}

/* After 60 rows one by one there are twins of the last 8 + SLACK, of the one that has left since
 * the last write, and of 2 sinks: rows 19 to 59, 0 and 1. A query that sees 24 rows finds 5 of the
 * former; the sinks fill two of the three places that are left. */
static void sinks_fill_the_window_after_a_rollback(void **state) {
    (void)state;
    struct world *w = open_world(100, 8, 2, 1); /* sequences share nothing */
    for (int64_t cell = 0; cell < 60; cell++) {
        write_side(w, &w->k, &cell, 1);
        write_side(w, &w->v, &cell, 1);
        w->clock++;
        (void)look(w, (int)cell + 1);
    }
    struct varve_twins_account a = look(w, 60);
    assert_true(a.rows_hot == 8 && a.rows_sink == 2 && a.rows_cold == 50 && a.rows_missed == 0);
    a = look(w, 24);
    assert_true(a.rows_hot == 5 + 2 && a.rows_sink == 0 && a.rows_cold == 17 && a.rows_missed == 1);
    assert_true(a.twins_written == 60 && a.twins_stale == 0 && a.twins_evicted == 0);
    close_world(w);
}

/* Rows that never got a place are evicted, but were not written. */
static void rows_without_a_place_count_as_evicted(void **state) {
    (void)state;
    struct purse purse = {0, 0};
    struct world *w = open_world(100, 8, 2, 1);
    varve_hot_destroy(w->hot);
    const struct varve_hot_params params = {
        .struct_bytes = sizeof params, .window = 8, .n_sink = 2, .reserve = spend, .user = &purse};
    assert_int_equal(varve_hot_create(w->context, &params, &w->hot), VARVE_OK);
    open_tensor(w, &w->k);
    const int64_t cells[] = {0, 1, 2, 3, 4};
    assert_int_equal(varve_twins_write(w->k.twins, cells, 5), VARVE_OK);
    const struct varve_twins_account a = varve_twins_account(w->k.twins);
    assert_true(a.twins_written == 0 && a.twins_evicted == 5);
    close_world(w);
}

static void bad_input_is_an_error(void **state) {
    (void)state;
    struct world *w = open_world(64, 8, 2, 1);
    struct varve_hot *hot;
    struct varve_hot_params params = {.struct_bytes = sizeof params, .window = 0};
    assert_int_equal(varve_hot_create(w->context, &params, &hot), VARVE_ERROR_ARGUMENT);
    expect_line(&w->host, "window");
    params.window = params.n_sink = VARVE_HOT_ROWS_MAX;
    assert_int_equal(varve_hot_create(w->context, &params, &hot), VARVE_OK);
    varve_hot_destroy(hot);
    params.n_sink++;
    assert_int_equal(varve_hot_create(w->context, &params, &hot), VARVE_ERROR_ARGUMENT);
    expect_line(&w->host, "at most 1073741824");
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
        cmocka_unit_test(failing_memory_reads_cold),
        cmocka_unit_test(a_budget_is_never_exceeded),
        cmocka_unit_test(layers_share_the_staging_buffer),
        cmocka_unit_test(values_beyond_f16_stay_cold),
        cmocka_unit_test(sinks_fill_the_window_after_a_rollback),
        cmocka_unit_test(rows_without_a_place_count_as_evicted),
        cmocka_unit_test(bad_input_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
