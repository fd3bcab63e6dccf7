/* Plans that leave partial states in scratch: the merged records are those of a run into a state,
 * bit for bit, and a reader changes nothing. */
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check/problem.h"

static struct varve_context *context;

static int setup(void **unused) {
    (void)unused;
    return varve_context_create(NULL, &context) == VARVE_OK ? 0 : -1;
}

static int teardown(void **unused) {
    (void)unused;
    varve_context_destroy(context);
    return 0;
}

enum { DV = 32, N_HEAD = 4, N_BATCH = 2, RECORD = 2 + DV, N_THREAD = 3 };

static struct varve_attention shape(int64_t n_query) {
    return (struct varve_attention){.head_dim_k = 64,
                                    .head_dim_v = DV,
                                    .n_head = N_HEAD,
                                    .n_head_kv = 2,
                                    .n_query = n_query,
                                    .n_batch = N_BATCH,
                                    .scale = 0.125f};
}

static float *new_records(const struct varve_attention *a, struct varve_state *state) {
    size_t n = 0;
    assert_int_equal(varve_state_floats(a, &n), VARVE_OK);
    float *const data = malloc(n * sizeof(float));
    assert_int_equal(varve_state_init(a, data, n, state), VARVE_OK);
    return data;
}

/* What a run without partials accumulates into an empty state. */
static void run_into_state(struct problem *problem, struct varve_state *state) {
    const struct varve_io io = problem->io;
    problem->io.state = state;
    problem->io.sinks = NULL;
    problem->io.output = (struct varve_output){0};
    assert_true(problem_run(context, problem, N_THREAD));
    problem->io = io;
}

/* The same records by varve_partial_read, twice, from scratch that was poisoned before. */
static void run_partials(const struct problem *problem, float *records) {
    struct varve_attention a = problem->attention;
    struct varve_io io = problem->io;
    a.partials = true;
    io.sinks = NULL;
    io.output = (struct varve_output){0};
    struct varve_plan *plan;
    assert_int_equal(varve_plan_create(context, &a, io.segments, io.n_segment, N_THREAD, &plan),
                     VARVE_OK);
    assert_int_equal(varve_plan_n_task(plan, 1), 0);
    const size_t bytes = (varve_plan_scratch_bytes(plan) + 63) / 64 * 64;
    char *const scratch = aligned_alloc(64, bytes), *const before = malloc(bytes);
    memset(scratch, 0xFF, bytes);
    assert_int_equal(varve_run(plan, &io, scratch, N_THREAD), VARVE_OK);
    memcpy(before, scratch, bytes);
    for (int pass = 0; pass < 2; pass++) {
        float *record = records;
        for (int64_t b = 0; b < a.n_batch; b++) {
            for (int64_t i = 0; i < a.n_query; i++) {
                for (int32_t h = 0; h < a.n_head; h++, record += RECORD) {
                    assert_int_equal(varve_partial_read(plan, scratch, b, i, h, record), VARVE_OK);
                }
            }
        }
    }
    assert_memory_equal(before, scratch, bytes);
    free(before);
    free(scratch);
    varve_plan_destroy(plan);
}

/* One chunk and many, few queries and tiles, several formats, masks that hide most or all. */
static void test_equal_to_a_state(void **unused) {
    (void)unused;
    for (int c = 0; c < 24; c++) {
        static const int64_t rows[][3] = {{0, 0, 0}, {1, 0, 63}, {300, 1, 700}, {64, 4000, 130}};
        const int64_t n_query = c / 4 % 3 == 0 ? 1 : c / 4 % 3 == 1 ? 4 : 70;
        const enum varve_format k[] = {VARVE_FORMAT_F16, VARVE_FORMAT_Q8_0, VARVE_FORMAT_Q4_1};
        const enum varve_format v[] = {VARVE_FORMAT_F16, VARVE_FORMAT_Q4_0, VARVE_FORMAT_F32};
        struct problem problem = {.attention = shape(n_query)};
        uint64_t seed = 700 + (uint64_t)c;
        problem_fill(&problem, &seed, 3, rows[c % 4], k, v, c % 3 ? c % 4 : -1, c % 2 == 0);
        struct varve_state state, parts;
        float *const expected = new_records(&problem.attention, &state);
        float *const read = new_records(&problem.attention, &parts);
        run_into_state(&problem, &state);
        run_partials(&problem, read);
        for (int64_t r = 0; r < problem.n_lse; r++) {
            const bool empty = expected[r * RECORD] == -INFINITY;
            assert_memory_equal(&expected[r * RECORD], &read[r * RECORD], 2 * sizeof(float));
            for (int d = 0; d < DV; d++) {
                assert_true(read[r * RECORD + 2 + d] == (empty ? 0 : expected[r * RECORD + 2 + d]));
            }
        }
        assert_int_equal(varve_state_finish(&parts, problem.io.sinks, &problem.io.output),
                         VARVE_OK);
        assert_true(problem_error(&problem) <= 1);
        free(expected);
        free(read);
        problem_free(&problem);
    }
}

static void test_refusals(void **unused) {
    (void)unused;
    struct problem problem = {.attention = shape(1)};
    uint64_t seed = 5;
    const int64_t n = 10;
    const enum varve_format format = VARVE_FORMAT_F16;
    problem_fill(&problem, &seed, 1, &n, &format, &format, -1, false);
    struct varve_plan *whole, *partial;
    struct varve_attention a = problem.attention;
    assert_int_equal(varve_plan_create(context, &a, problem.segments, 1, 1, &whole), VARVE_OK);
    a.partials = true;
    assert_int_equal(varve_plan_create(context, &a, problem.segments, 1, 1, &partial), VARVE_OK);
    /* a result has nowhere to go */
    assert_int_equal(varve_io_check(partial, &problem.io), VARVE_ERROR_ARGUMENT);
    struct varve_io io = problem.io;
    io.output = (struct varve_output){0};
    assert_int_equal(varve_io_check(partial, &io), VARVE_OK);
    io.sinks = problem.output;
    assert_int_equal(varve_io_check(partial, &io), VARVE_ERROR_ARGUMENT);

    float record[RECORD] = {7};
    static const int32_t bad[][3] = {{-1, 0, 0}, {N_BATCH, 0, 0}, {0, -1, 0},
                                     {0, 1, 0},  {0, 0, -1},      {0, 0, N_HEAD}};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(
            varve_partial_read(partial, record, bad[i][0], bad[i][1], bad[i][2], record),
            VARVE_ERROR_ARGUMENT);
    }
    assert_int_equal(varve_partial_read(whole, record, 0, 0, 0, record), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_partial_read(NULL, record, 0, 0, 0, record), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_partial_read(partial, NULL, 0, 0, 0, record), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_partial_read(partial, record, 0, 0, 0, NULL), VARVE_ERROR_ARGUMENT);
    assert_true(record[0] == 7);
    varve_plan_destroy(whole);
    varve_plan_destroy(partial);
    problem_free(&problem);
}

/* ALiBi without a mask: by position, or with alibi_by_mask not at all. */
static void test_alibi_by_mask(void **unused) {
    (void)unused;
    struct problem problem = {.attention = shape(3)};
    uint64_t seed = 6;
    const int64_t n = 500;
    const enum varve_format format = VARVE_FORMAT_F16;
    problem_fill(&problem, &seed, 1, &n, &format, &format, -1, false);
    assert_true(problem_run(context, &problem, 1)); /* without ALiBi */
    const size_t bytes = (size_t)problem.n_output * sizeof(float);
    float *const plain = malloc(bytes);
    memcpy(plain, problem.output, bytes);
    problem.attention.max_bias = 8;
    assert_true(problem_run(context, &problem, 1));
    assert_true(memcmp(plain, problem.output, bytes) != 0);
    problem.attention.alibi_by_mask = true;
    assert_true(problem_run(context, &problem, 1));
    assert_memory_equal(plain, problem.output, bytes);
    free(plain);
    problem_free(&problem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_to_a_state),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_alibi_by_mask),
    };
    return cmocka_run_group_tests_name("partials", tests, setup, teardown);
}
