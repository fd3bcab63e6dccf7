/* Class fast: products in bfloat16 where queries are many; and the last level on problems with many
 * queries, since this test also runs with tile registers emulated (cmake/tests_amx.cmake). */
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check/problem.h"

static struct varve_context *context_of(const char *isa) {
    struct varve_context_params params = {.struct_bytes = sizeof params, .isa = isa};
    struct varve_context *context = NULL;
    assert_int_equal(varve_context_create(&params, &context), VARVE_OK);
    return context;
}

/* The last level that multiplies in bfloat16, of those that there are; else the test is skipped. */
static struct varve_context *context_of_pairs(void) {
    bool available = false;
    const char *name, *found = NULL;
    for (int i = 0; (name = varve_isa_name(i, &available)) != NULL; i++) {
        const bool pairs = strcmp(name, "bf16") == 0 || strcmp(name, "amx") == 0;
        if (pairs && available) found = name;
    }
    if (found != NULL) {
        print_message("exercised: %s\n", found);
        return context_of(found);
    }
    print_message("skipped: bf16 (not on this CPU)\n");
    skip();
    return NULL;
}

static struct varve_attention attention_of(int32_t head_dim, int64_t n_query) {
    return (struct varve_attention){.head_dim_k = head_dim,
                                    .head_dim_v = head_dim,
                                    .n_head = 4,
                                    .n_head_kv = 2,
                                    .n_query = n_query,
                                    .n_batch = 1,
                                    .scale = 1.0f / sqrtf((float)head_dim),
                                    .arithmetic = VARVE_ARITHMETIC_FAST};
}

static void fill(struct problem *problem, uint64_t seed, enum varve_format format, int64_t n_row,
                 int mask) {
    problem_fill(problem, &seed, 1, &n_row, &format, &format, mask, false);
}

/* Runs the problem in another class and tells whether all bits of the result are the same. */
static bool same_bits(const struct varve_context *context, struct problem *problem,
                      enum varve_arithmetic other) {
    const size_t bytes = (size_t)problem->n_output * sizeof(float);
    float *const before = malloc(bytes);
    assert_true(problem_run(context, problem, 2));
    memcpy(before, problem->output, bytes);
    problem->attention.arithmetic = other;
    assert_true(problem_run(context, problem, 2));
    const bool same = memcmp(before, problem->output, bytes) == 0;
    free(before);
    return same;
}

/* What is promised of few queries, of other levels, of quantized rows, and of all else. */
static void test_where_it_differs(void **unused) {
    (void)unused;
    const enum varve_format formats[] = {VARVE_FORMAT_F32, VARVE_FORMAT_F16, VARVE_FORMAT_BF16,
                                         VARVE_FORMAT_Q8_0, VARVE_FORMAT_Q5_1};
    struct varve_context *context = context_of_pairs(), *below = context_of("vbmi");
    for (int i = 0; i < 15; i++) {
        const bool few = i % 3 == 0, weak = i % 3 == 1;
        struct problem problem = {.attention = attention_of(64, few ? 4 : 40)};
        fill(&problem, 3 + (uint64_t)i, formats[i / 3], 300, 1);
        const bool quantized = varve_format_block_values(formats[i / 3]) > 1;
        assert_int_equal(same_bits(weak ? below : context, &problem, VARVE_ARITHMETIC_DEFAULT),
                         few || weak || quantized);
        problem_free(&problem);
    }
    varve_context_destroy(context);
    varve_context_destroy(below);
}

/* All formats, odd sizes, hidden rows: within the bound of the class. */
static void test_random_problems(void **unused) {
    (void)unused;
    static const int32_t dims[] = {32, 64, 96, 128, 192, 256};
    struct varve_context *context = context_of_pairs();
    for (uint64_t i = 0; i < 60; i++) {
        uint64_t seed = 100 + i;
        struct problem problem = {.attention = attention_of(dims[problem_random(&seed, 6)],
                                                            5 + problem_random(&seed, 60))};
        problem.attention.head_dim_v = dims[problem_random(&seed, 6)];
        problem.attention.causal = problem_random(&seed, 2);
        problem.attention.query_pos = 200;
        if (i % 3 == 0) problem.attention.arithmetic = VARVE_ARITHMETIC_DEFAULT;
        int64_t rows[2];
        enum varve_format k[2], v[2];
        for (int s = 0; s < 2; s++) {
            rows[s] = problem_random(&seed, 200);
            k[s] = (enum varve_format)problem_random(&seed, VARVE_FORMAT_COUNT);
            v[s] = (enum varve_format)problem_random(&seed, VARVE_FORMAT_COUNT);
        }
        problem_fill(&problem, &seed, 2, rows, k, v, (int)(i % 4) - 1, i % 2);
        assert_true(problem_run(context, &problem, 2));
        assert_true(problem_error(&problem) <= 1);
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

/* Random roundings: far within the bound, and really those of bfloat16. */
static void test_error_of_random_rows(void **unused) {
    (void)unused;
    struct varve_context *context = context_of_pairs();
    const enum varve_format formats[] = {VARVE_FORMAT_F16, VARVE_FORMAT_BF16};
    for (int f = 0; f < 2; f++) {
        struct problem problem = {.attention = attention_of(128, 64)};
        fill(&problem, 21, formats[f], 1000, 0);
        assert_true(problem_run(context, &problem, 2));
        const double error = problem_error(&problem);
        print_message("%s: %.3f of the bound\n", varve_format_name(formats[f]), error);
        assert_true(error <= 1 && error >= 1e-3);
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

/* The worst case: x rounds down by nearly 2^-8, y up. Rows of K alternate, so logits move apart,
 * and V has the sign that shows it. */
static void test_bound_is_met(void **unused) {
    (void)unused;
    struct varve_context *context = context_of_pairs();
    const float x = 1.00390613f, y = 1.00390637f; /* next to 1 + 2^-8, where it turns */
    struct problem problem = {.attention = attention_of(64, 16)};
    fill(&problem, 1, VARVE_FORMAT_F32, 64, 0);
    const struct varve_segment *const segment = &problem.segments[0];
    for (int64_t r = 0; r < segment->n_rows; r++) {
        const float key = r % 2 ? x : -x, value = r % 2 ? y : -y;
        float *const k = (float *)(uintptr_t)segment->k + r * 128;
        float *const v = (float *)(uintptr_t)segment->v + r * 128;
        for (int i = 0; i < 128; i++) {
            k[i] = key;
            v[i] = value;
        }
    }
    float *const q = (float *)(uintptr_t)problem.io.query.data;
    for (int64_t i = 0; i < problem.n_lse * 64; i++) q[i] = x / 16;
    assert_true(problem_run(context, &problem, 2));
    const double error = problem_error(&problem);
    print_message("worst case: %.3f of the bound\n", error);
    assert_true(error <= 1 && error >= 0.125);
    problem_free(&problem);
    varve_context_destroy(context);
}

/* Promise 4 where weights and values come in pairs: rows that one query sees and the other does not
 * may hold NaN, next to rows that both see. */
static void test_hidden_rows_in_pairs(void **unused) {
    (void)unused;
    struct varve_context *context = context_of_pairs();
    for (int odd = 0; odd < 2; odd++) {
        struct problem problem = {.attention = attention_of(80, 32)};
        fill(&problem, 9, VARVE_FORMAT_F16, 70, 0);
        const int64_t bad = 40 + odd, n_column = problem.mask.n_column;
        uint16_t *const mask = (uint16_t *)(uintptr_t)problem.mask.data;
        for (int64_t i = 0; i < 31; i++) mask[i * n_column + bad] = 0xFC00;
        memset((char *)(uintptr_t)problem.segments[0].v + bad * 320, 0xFF, 320);
        assert_true(problem_run(context, &problem, 1));
        for (int64_t i = 0; i < 31 * 4 * 80; i++) assert_true(isfinite(problem.output[i]));
        for (int64_t i = 31 * 4 * 80; i < 32 * 4 * 80; i++) assert_true(isnan(problem.output[i]));
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

/* Promise 3. */
static void test_threads(void **unused) {
    (void)unused;
    struct varve_context *context = context_of_pairs();
    struct problem problem = {.attention = attention_of(128, 100)};
    fill(&problem, 4, VARVE_FORMAT_BF16, 2000, 1);
    assert_true(problem_run(context, &problem, 1));
    const size_t bytes = (size_t)problem.n_output * sizeof(float);
    float *const first = malloc(bytes);
    memcpy(first, problem.output, bytes);
    for (int n = 2; n <= 8; n *= 2) {
        assert_true(problem_run(context, &problem, n));
        assert_memory_equal(first, problem.output, bytes);
    }
    free(first);
    problem_free(&problem);
    varve_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_problems),      cmocka_unit_test(test_where_it_differs),
        cmocka_unit_test(test_error_of_random_rows), cmocka_unit_test(test_bound_is_met),
        cmocka_unit_test(test_hidden_rows_in_pairs), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
