/* The algebra of states: neutral element, order, split anywhere, export and import. Numbers after
 * "pitfall" are those of bugs that other engines had. */
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

static struct varve_attention small(int64_t n_query) {
    return (struct varve_attention){.head_dim_k = 64,
                                    .head_dim_v = 32,
                                    .n_head = 4,
                                    .n_head_kv = 2,
                                    .n_query = n_query,
                                    .n_batch = 2,
                                    .scale = 0.125f};
}

/* A state with memory of its own. */
static struct varve_state new_state(const struct varve_attention *a) {
    size_t n = 0;
    assert_int_equal(varve_state_floats(a, &n), VARVE_OK);
    struct varve_state state;
    float *const data = malloc(n * sizeof(float));
    memset(data, 0xFF, n * sizeof(float)); /* poison: only the initialiser may give it meaning */
    assert_int_equal(varve_state_init(a, data, n, &state), VARVE_OK);
    return state;
}

static size_t state_bytes(const struct varve_state *state) {
    return (size_t)(state->n_batch * state->n_query * state->n_head * (2 + state->head_dim_v)) *
           sizeof(float);
}

/* Accumulates rows [from, to) of segment 0 into a state. */
static void accumulate(struct problem *problem, int64_t from, int64_t to,
                       struct varve_state *state) {
    const struct varve_segment whole = problem->segments[0];
    const struct varve_io io = problem->io;
    struct varve_segment part = whole;
    part.k = (const char *)whole.k + from * whole.k_row_stride;
    part.v = (const char *)whole.v + from * whole.v_row_stride;
    part.n_rows = to - from;
    part.mask_column += from;
    part.pos += from;
    problem->io.segments = &part;
    problem->io.state = state;
    problem->io.sinks = NULL; /* they enter when the state is finished */
    problem->io.output = (struct varve_output){0};
    assert_true(problem_run(context, problem, 2));
    problem->io = io;
}

static void finish(struct problem *problem, const struct varve_state *state) {
    memset(problem->output, 0xFF, (size_t)problem->n_output * sizeof(float));
    assert_int_equal(varve_state_finish(state, problem->io.sinks, &problem->io.output), VARVE_OK);
}

/* pitfalls 14, 15: empty states are neutral, bit for bit, and finish to zeros and -inf. */
static void test_empty_is_neutral(void **unused) {
    (void)unused;
    const struct varve_attention a = small(3);
    struct problem problem = {.attention = a};
    uint64_t seed = 1;
    const int64_t n = 100;
    const enum varve_format format = VARVE_FORMAT_F16;
    problem_fill(&problem, &seed, 1, &n, &format, &format, -1, false);

    struct varve_state empty = new_state(&a), other = new_state(&a), full = new_state(&a);
    assert_int_equal(varve_state_merge(&empty, &other), VARVE_OK);
    finish(&problem, &empty);
    for (int64_t i = 0; i < problem.n_output; i++) assert_true(problem.output[i] == 0);
    for (int64_t i = 0; i < problem.n_lse; i++) assert_true(problem.lse[i] == -INFINITY);

    accumulate(&problem, 0, n, &full);
    float *const before = malloc(state_bytes(&full));
    memcpy(before, full.data, state_bytes(&full));
    /* the o of an empty record is never read: poison it */
    for (int64_t r = 0; r < problem.n_lse; r++) {
        memset(&empty.data[r * (2 + 32) + 2], 0xFF, 32 * sizeof(float));
    }
    assert_int_equal(varve_state_merge(&full, &empty), VARVE_OK);
    assert_memory_equal(before, full.data, state_bytes(&full));
    assert_int_equal(varve_state_merge(&empty, &full), VARVE_OK);
    assert_memory_equal(before, empty.data, state_bytes(&full));
    /* a segment without rows leaves a state as it was */
    accumulate(&problem, 50, 50, &full);
    assert_memory_equal(before, full.data, state_bytes(&full));
    free(before);
    free(empty.data);
    free(other.data);
    free(full.data);
    problem_free(&problem);
}

/* Promise 1 through states: cut anywhere, one state carried on. */
static void test_carried_state_equals_one_pass(void **unused) {
    (void)unused;
    for (int i = 0; i < 40; i++) {
        const struct varve_attention a = small(i % 2 ? 1 : 12);
        struct problem problem = {.attention = a};
        uint64_t seed = 50 + (uint64_t)i;
        const int64_t n = 900;
        const enum varve_format format = (enum varve_format)(i % VARVE_FORMAT_COUNT);
        const float sinks[] = {0.25f, -2, 1, 0};
        problem_fill(&problem, &seed, 1, &n, &format, &format, i % 4 - 1, i % 3 == 0);
        if (i % 2) problem.io.sinks = sinks;
        struct varve_state state = new_state(&a);
        for (int64_t at = 0; at < n;) {
            int64_t to = at + problem_random(&seed, 300);
            if (to > n) to = n;
            accumulate(&problem, at, to, &state);
            at = to;
        }
        finish(&problem, &state);
        assert_true(problem_error(&problem) <= 1);
        free(state.data);
        problem_free(&problem);
    }
}

/* Partial states merged in random order. pitfall 16: a 64-row suffix on a 3,072-row prefix. */
static void test_merge_in_any_order(void **unused) {
    (void)unused;
    const int64_t cuts[] = {0, 1, 3072, 3073, 3100, 3136};
    for (int i = 0; i < 12; i++) {
        const struct varve_attention a = small(2);
        struct problem problem = {.attention = a};
        uint64_t seed = 90 + (uint64_t)i;
        const enum varve_format format = i % 2 ? VARVE_FORMAT_Q8_0 : VARVE_FORMAT_F16;
        problem_fill(&problem, &seed, 1, &cuts[5], &format, &format, -1, false);
        struct varve_state parts[5];
        int order[5] = {0, 1, 2, 3, 4};
        for (int p = 0; p < 5; p++) {
            parts[p] = new_state(&a);
            accumulate(&problem, cuts[p], cuts[p + 1], &parts[p]);
            const int other = (int)problem_random(&seed, (uint32_t)p + 1);
            order[p] = order[other];
            order[other] = p;
        }
        struct varve_state sum = new_state(&a);
        for (int p = 0; p < 5; p++) {
            assert_int_equal(varve_state_merge(&sum, &parts[order[p]]), VARVE_OK);
        }
        finish(&problem, &sum);
        assert_true(problem_error(&problem) <= 1);
        for (int p = 0; p < 5; p++) free(parts[p].data);
        free(sum.data);
        problem_free(&problem);
    }
}

/* pitfall 16: LSE is in natural-log units: of one row, it is that row's logit. */
static void test_lse_is_natural(void **unused) {
    (void)unused;
    struct problem problem = {.attention = small(1)};
    uint64_t seed = 3;
    const int64_t n = 1;
    const enum varve_format format = VARVE_FORMAT_F32;
    problem_fill(&problem, &seed, 1, &n, &format, &format, -1, false);
    problem.io.output.data = NULL; /* LSE only */
    assert_true(problem_run(context, &problem, 1));
    const float *const k = problem.segments[0].k;
    double logit = 0;
    for (int d = 0; d < 64; d++) logit += (double)problem.io.query.data[d] * (double)k[d];
    assert_true(fabs((double)problem.lse[0] - logit * 0.125) < 1e-5);
    problem_free(&problem);
}

/* Exported as (output, LSE) and imported, states still merge to the whole; pitfall 15: an empty
 * part is exported with LSE -inf and stays neutral. */
static void test_export_import(void **unused) {
    (void)unused;
    const struct varve_attention a = small(4);
    struct problem problem = {.attention = a};
    uint64_t seed = 14;
    const int64_t cuts[] = {0, 400, 400, 777};
    const enum varve_format format = VARVE_FORMAT_Q4_0;
    problem_fill(&problem, &seed, 1, &cuts[3], &format, &format, 1, false);
    struct varve_state sum = new_state(&a);
    for (int p = 0; p < 3; p++) {
        struct varve_state part = new_state(&a), copy = new_state(&a);
        accumulate(&problem, cuts[p], cuts[p + 1], &part);
        finish(&problem, &part);
        assert_int_equal(varve_state_import(&copy, &problem.io.output), VARVE_OK);
        assert_int_equal(varve_state_merge(&sum, &copy), VARVE_OK);
        free(part.data);
        free(copy.data);
    }
    finish(&problem, &sum);
    assert_true(problem_error(&problem) <= 1);
    free(sum.data);
    problem_free(&problem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_is_neutral),
        cmocka_unit_test(test_carried_state_equals_one_pass),
        cmocka_unit_test(test_merge_in_any_order),
        cmocka_unit_test(test_lse_is_natural),
        cmocka_unit_test(test_export_import),
    };
    return cmocka_run_group_tests_name("state", tests, setup, teardown);
}
