/* Plans: cut by shape alone, exact scratch, sizes that overflow, what is printed. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attend/plan.h"

static struct varve_context *context;
static char log_line[512];

static void keep_line(void *user, enum varve_log_level level, const char *line) {
    (void)user;
    (void)level;
    strncpy(log_line, line, sizeof log_line - 1);
}

static int setup(void **unused) {
    (void)unused;
    struct varve_context_params params = {.struct_bytes = sizeof params, .log = keep_line};
    return varve_context_create(&params, &context) == VARVE_OK ? 0 : -1;
}

static int teardown(void **unused) {
    (void)unused;
    varve_context_destroy(context);
    return 0;
}

static struct varve_plan *plan_of(int32_t group, int64_t n_query, int64_t n_row, int32_t n_worker) {
    const struct varve_attention a = {.head_dim_k = 128,
                                      .head_dim_v = 96,
                                      .n_head = 4 * group,
                                      .n_head_kv = 4,
                                      .n_query = n_query,
                                      .n_batch = 2,
                                      .scale = 1};
    const struct varve_segment segment = {
        .k_format = VARVE_FORMAT_Q8_0, .v_format = VARVE_FORMAT_F16, .n_rows = n_row};
    struct varve_plan *plan = NULL;
    assert_int_equal(varve_plan_create(context, &a, &segment, 1, n_worker, &plan), VARVE_OK);
    return plan;
}

/* Tiles cover the queries and chunks the rows, without an empty one, whatever the shape. */
static void test_tiles_and_chunks_cover_the_problem(void **unused) {
    (void)unused;
    const int64_t queries[] = {1, 2, 5, 8, 9, 31, 32, 33, 512, 2048};
    const int64_t rows[] = {0, 1, 255, 256, 257, 4096, 8192, 16385, 131072, 1048576};
    const int32_t groups[] = {1, 3, 4, 8, 16, 33};
    for (int g = 0; g < 6; g++) {
        for (int q = 0; q < 10; q++) {
            for (int r = 0; r < 10; r++) {
                struct varve_plan *plan = plan_of(groups[g], queries[q], rows[r], 1);
                assert_true(plan->n_tile * plan->tile_query >= queries[q]);
                assert_true((plan->n_tile - 1) * plan->tile_query < queries[q]);
                assert_true(plan->n_chunk * plan->chunk_rows >= rows[r]);
                assert_true(rows[r] == 0 || (plan->n_chunk - 1) * plan->chunk_rows < rows[r]);
                assert_int_equal(plan->chunk_rows % VARVE_TILE_ROWS, 0);
                varve_plan_destroy(plan);
            }
        }
    }
}

/* Promise 3: no sum depends on the number of workers. It sizes scratch, and KV heads are shared out
 * until there is work for all. */
static void test_workers_do_not_cut_sums(void **unused) {
    (void)unused;
    const int64_t queries[] = {1, 100};
    for (int q = 0; q < 2; q++) {
        struct varve_plan *one = plan_of(4, queries[q], 5000, 1);
        for (int32_t n_worker = 2; n_worker <= 64; n_worker *= 2) {
            struct varve_plan *many = plan_of(4, queries[q], 5000, n_worker);
            assert_int_equal(many->tile_query, one->tile_query);
            assert_int_equal(many->chunk_rows, one->chunk_rows);
            assert_int_equal(many->n_task[1], one->n_task[1]);
            assert_int_equal(many->n_task[0] * many->n_head_task,
                             one->n_task[0] * one->n_head_task);
            assert_true(many->n_head_task == 1 || many->n_task[0] >= 2 * n_worker);
            assert_int_equal(many->scratch_bytes - (size_t)n_worker * many->layout.bytes,
                             one->scratch_bytes - one->layout.bytes);
            varve_plan_destroy(many);
        }
        varve_plan_destroy(one);
    }
}

static void test_overflow_is_an_error(void **unused) {
    (void)unused;
    struct varve_attention a = {.head_dim_k = 128,
                                .head_dim_v = 128,
                                .n_head = 32,
                                .n_head_kv = 8,
                                .n_query = INT64_MAX / 16,
                                .n_batch = 1,
                                .scale = 1};
    struct varve_plan *plan = (void *)1;
    assert_int_equal(varve_plan_create(context, &a, NULL, 0, 1, &plan), VARVE_ERROR_OVERFLOW);
    assert_null(plan);
    a.n_query = 1 << 20;
    a.n_batch = INT64_C(1) << 38;
    const struct varve_segment segment = {.n_rows = 1 << 20};
    const enum varve_status status = varve_plan_create(context, &a, &segment, 1, 1, &plan);
    assert_true(status == VARVE_ERROR_OVERFLOW || status == VARVE_OK);
    varve_plan_destroy(plan);
    const struct varve_segment halves[] = {{.n_rows = INT64_MAX}, {.n_rows = 1}};
    a.n_query = a.n_batch = 1;
    assert_int_equal(varve_plan_create(context, &a, halves, 2, 1, &plan), VARVE_ERROR_OVERFLOW);
    assert_non_null(strstr(log_line, "segment 0"));
}

/* An io that does not fit the plan is refused, and the line says what. */
static void test_io_must_fit(void **unused) {
    (void)unused;
    struct varve_plan *plan = plan_of(1, 1, 10, 1);
    static float query[2 * 4 * 128], output[2 * 4 * 96];
    static char rows[8 * 1024];
    struct varve_segment segment = {.k_format = VARVE_FORMAT_Q8_0,
                                    .v_format = VARVE_FORMAT_F16,
                                    .k = rows,
                                    .v = rows,
                                    .n_rows = 10};
    struct varve_io io = {.query = {query, 0, 512, 2048},
                          .segments = &segment,
                          .n_segment = 1,
                          .output = {output, 0, 384, 1536, NULL}};
    assert_int_equal(varve_io_check(plan, &io), VARVE_OK);
    segment.n_rows = 9;
    assert_int_equal(varve_io_check(plan, &io), VARVE_ERROR_ARGUMENT);
    assert_non_null(strstr(log_line, "9 rows, the plan 10"));
    segment.n_rows = 10;
    segment.k_format = VARVE_FORMAT_F16;
    assert_int_equal(varve_io_check(plan, &io), VARVE_ERROR_ARGUMENT);
    segment.k_format = VARVE_FORMAT_Q8_0;
    uint16_t mask_data[12] = {0};
    struct varve_mask mask = {mask_data, 9, 1, 1, 1, 24, 0, 0};
    io.mask = &mask;
    assert_int_equal(varve_io_check(plan, &io), VARVE_ERROR_ARGUMENT); /* pitfall 19: narrower */
    mask.n_column = 10;
    assert_int_equal(varve_io_check(plan, &io), VARVE_OK);
    mask.n_head = 3;
    assert_int_equal(varve_io_check(plan, &io), VARVE_ERROR_ARGUMENT);
    varve_plan_destroy(plan);
}

static void test_print(void **unused) {
    (void)unused;
    struct varve_plan *plan = plan_of(3, 1, 8192, 2);
    char text[1024], short_text[20];
    const int length = varve_plan_print(plan, text, sizeof text);
    assert_int_equal(length, (int)strlen(text));
    assert_non_null(strstr(text, "direct"));
    assert_non_null(strstr(text, "K q8_0:varve_score_q8"));
    assert_non_null(strstr(text, "V f16:varve_fold_"));
    assert_int_equal(varve_plan_print(plan, short_text, sizeof short_text), length);
    assert_memory_equal(short_text, text, sizeof short_text - 1);
    assert_int_equal(varve_plan_print(plan, NULL, 0), length);
    varve_plan_destroy(plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiles_and_chunks_cover_the_problem),
        cmocka_unit_test(test_workers_do_not_cut_sums),
        cmocka_unit_test(test_overflow_is_an_error),
        cmocka_unit_test(test_io_must_fit),
        cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests_name("plan", tests, setup, teardown);
}
