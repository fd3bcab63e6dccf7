/* What the library says that twins will take is what it takes. */
#include "unit/hot_world.h"

#include "base/host.h"

static struct varve_twins_bytes plan_of(const struct world *w, int n_cell, int64_t n_row_max,
                                        bool shared, int64_t n_sequence, int64_t n_step) {
    const struct varve_hot_params tier = {
        .struct_bytes = sizeof tier, .window = w->window, .n_sink = w->n_sink};
    const struct varve_twins_params params = {.struct_bytes = sizeof params,
                                              .format = VARVE_FORMAT_Q8_0,
                                              .n_value = N_VALUE,
                                              .cold_stride = ROW_BYTES,
                                              .n_cell = n_cell,
                                              .n_row_max = n_row_max,
                                              .shared = shared};
    struct varve_twins_bytes bytes;
    assert_int_equal(varve_twins_plan(w->context, &tier, &params, n_sequence, n_step, &bytes),
                     VARVE_OK);
    return bytes;
}

/* One sequence, written in steps of n rows and attended after each. */
static void fill(struct world *w, int n) {
    struct varve_mask mask = {.data = w->mask,
                              .n_column = MAX_CELL,
                              .n_query = MAX_QUERY,
                              .n_head = 1,
                              .n_batch = 1,
                              .row_stride = sizeof w->mask[0]};
    for (int at = 0; at + n <= w->n_cell; at += n) {
        int64_t cells[MAX_QUERY];
        for (int i = 0; i < n; i++) {
            cells[i] = at + i;
            for (int c = 0; c < MAX_CELL; c++) w->mask[i][c] = c <= at + i ? 0 : VARVE_F16_NEG_INF;
        }
        write_side(w, &w->k, cells, n);
        write_side(w, &w->v, cells, n);
        w->n_query = n;
        const struct varve_hot_node node = node_of(w, &mask);
        assert_int_equal(varve_hot_view(w->hot, &node, &w->view), VARVE_OK);
        w->clock += n;
    }
}

static void as_taken(void **state) {
    (void)state;
    static const struct {
        int window, n_sink, n_step;
    } cases[] = {{20, 4, 1}, {20, 0, 8}, {20, 4, 40}, {10, 1, 33}, {100, 4, 25}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int n_step = cases[i].n_step;
        struct world *w = open_world(MAX_CELL, cases[i].window, cases[i].n_sink, 1);
        fill(w, n_step);
        const struct varve_twins_bytes side = plan_of(w, w->n_cell, w->n_cell, false, 1, n_step);
        struct varve_hot_view_bytes view;
        assert_int_equal(varve_hot_view_plan(n_step, w->window + n_step, &view), VARVE_OK);
        const struct varve_hot_bytes taken = varve_hot_bytes(w->hot);
        assert_int_equal(taken.hot, 2 * side.hot);
        const size_t header = side.staging > 0 ? VARVE_ALIGN : 0;
        assert_int_equal(taken.staging, 2 * side.staging + header + view.staging);
        close_world(w);
    }
}

/* Sequences that share rows fill what there is; others take a ring each; no more than cells. */
static void rings(void **state) {
    (void)state;
    struct world *w = open_world(MAX_CELL, 20, 4, 1);
    const int64_t ring = varve_hot_ring_rows(20, 4);
    const size_t one = plan_of(w, 10000, 0, false, 1, 1).hot;
    assert_int_equal(plan_of(w, 10000, 0, false, 3, 1).hot, 3 * one);
    assert_int_equal(plan_of(w, 10000, 0, false, 9, 1).hot, 4 * one);
    assert_int_equal(plan_of(w, 10000, 9 * ring, false, 9, 1).hot, 9 * one);
    assert_int_equal(plan_of(w, 10000, 0, true, 2, 1).hot, 4 * one);
    assert_true(plan_of(w, 30, 0, true, 2, 1).hot < one);
    assert_int_equal(plan_of(w, 10000, 0, false, 3, 1).sinks, 3 * 4 * (64 + 16));
    assert_int_equal(plan_of(w, 10000, 0, false, 1, 8).staging, 0);
    assert_true(plan_of(w, 10000, 0, false, 1, 9).staging > 0);
    close_world(w);
}

static void refused(void **state) {
    (void)state;
    struct world *w = open_world(MAX_CELL, 20, 4, 1);
    const struct varve_hot_params tier = {.struct_bytes = sizeof tier, .window = 20};
    struct varve_twins_params p = {.struct_bytes = sizeof p,
                                   .format = VARVE_FORMAT_Q8_0,
                                   .n_value = 33,
                                   .cold_stride = ROW_BYTES,
                                   .n_cell = 10};
    struct varve_twins_bytes bytes = {.hot = 7};
    struct varve_hot_view_bytes view = {.staging = 7};
    assert_int_not_equal(varve_twins_plan(w->context, &tier, &p, 1, 1, &bytes), VARVE_OK);
    p.n_value = N_VALUE;
    p.n_cell = 0;
    assert_int_not_equal(varve_twins_plan(w->context, &tier, &p, 1, 1, &bytes), VARVE_OK);
    p.n_cell = 10;
    assert_int_not_equal(varve_twins_plan(w->context, &tier, &p, 0, 1, &bytes), VARVE_OK);
    assert_int_not_equal(varve_twins_plan(w->context, &tier, &p, 1, -1, &bytes), VARVE_OK);
    assert_int_not_equal(varve_twins_plan(w->context, NULL, &p, 1, 1, &bytes), VARVE_OK);
    assert_int_not_equal(varve_twins_plan(NULL, &tier, &p, 1, 1, &bytes), VARVE_OK);
    assert_int_not_equal(varve_hot_view_plan(-1, 1, &view), VARVE_OK);
    assert_int_not_equal(varve_hot_view_plan(INT64_MAX / 4, 1, &view), VARVE_OK);
    assert_int_equal(bytes.hot, 7);
    assert_int_equal(view.staging, 7);
    close_world(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_taken), cmocka_unit_test(rings),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
