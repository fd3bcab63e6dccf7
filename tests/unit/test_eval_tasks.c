/* varve eval's tasks: what is made from a seed, how answers are counted, intervals. */
#include "tasks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* A token for each character. */
static int32_t characters(void *data, const char *text, int32_t *tokens, int32_t capacity) {
    (void)data;
    const int32_t n = (int32_t)strlen(text);
    for (int32_t i = 0; i < n && i < capacity; i++) {
        tokens[i] = text[i];
    }
    return n <= capacity ? n : -n;
}

static const struct task_source source = {characters, NULL, 1, 2000, 7};

static char *text_of(const struct task_sequence *s) {
    char *text = calloc((size_t)s->n + 1, 1);
    assert_non_null(text);
    for (int32_t i = 0; i < s->n; i++) {
        text[i] = (char)s->tokens[i];
    }
    return text;
}

static void test_same_seed(void **state) {
    (void)state;
    for (int k = 0; k < n_task; k++) {
        struct task_sequence one, again, next, other;
        struct task_source reseeded = source;
        reseeded.seed = 8;
        assert_true(task_make((enum task_kind)k, 3, &source, &one));
        assert_true(task_make((enum task_kind)k, 4, &source, &next));
        assert_true(task_make((enum task_kind)k, 3, &source, &again));
        assert_true(task_make((enum task_kind)k, 3, &reseeded, &other));
        assert_int_equal(one.n, again.n);
        assert_memory_equal(one.tokens, again.tokens, (size_t)one.n * sizeof(*one.tokens));
        assert_memory_equal(one.items, again.items, (size_t)one.n * sizeof(*one.items));
        const int32_t n = one.n < next.n ? one.n : next.n, m = one.n < other.n ? one.n : other.n;
        assert_int_not_equal(memcmp(one.tokens, next.tokens, (size_t)n * sizeof(*one.tokens)), 0);
        assert_int_not_equal(memcmp(one.tokens, other.tokens, (size_t)m * sizeof(*one.tokens)), 0);
        task_free(&one);
        task_free(&again);
        task_free(&next);
        task_free(&other);
    }
}

/* Each key stands once in the filler, at its depth, and once as an answer. */
static void test_passkey(void **state) {
    (void)state;
    struct task_sequence s;
    assert_true(task_make(TASK_PASSKEY, 0, &source, &s));
    assert_true(s.n <= 2000 && s.n > 1950 && s.n_item == task_n_depth);
    assert_true(s.tokens[0] == 1 && s.items[0] == -1);
    char *text = text_of(&s);
    const double questions = (double)(strchr(text, '\n') - text);
    for (int32_t i = 0; i < s.n_item; i++) {
        char answer[8] = "";
        size_t n = 0;
        for (int32_t t = 0; t < s.n; t++) {
            if (s.items[t] == i) {
                answer[n++] = text[t];
            }
        }
        assert_true(n == 6 && answer[0] == ' ');
        const char *fact = strstr(text, answer), *again = strstr(fact + 1, answer);
        assert_true(again != NULL && strstr(again + 1, answer) == NULL);
        assert_true(again - text > (ptrdiff_t)questions);
        assert_true(fabs((double)(fact - text) / questions - task_depths[s.depths[i]]) < 0.06);
    }
    free(text);
    task_free(&s);
}

/* The second half repeats the first one, line for line. */
static void test_copy(void **state) {
    (void)state;
    struct task_sequence s;
    assert_true(task_make(TASK_COPY, 0, &source, &s));
    assert_true(s.n <= 2000 && s.n > 1900 && s.n_item > 50);
    char *text = text_of(&s);
    int32_t first = 0, last = 0;
    for (int32_t t = 0; t < s.n; t++) {
        assert_true(s.items[t] >= last || s.items[t] == -1);
        first = first == 0 && s.items[t] == 0 ? t : first;
        last = s.items[t] >= 0 ? s.items[t] : last;
    }
    assert_int_equal(last, s.n_item - 1);
    char *list = strchr(text, '\n');
    assert_non_null(list);
    assert_memory_equal(list, text + first, (size_t)(s.n - first));
    free(text);
    task_free(&s);
}

static void test_too_short(void **state) {
    (void)state;
    for (int k = 0; k < n_task; k++) {
        struct task_source small = source;
        struct task_sequence s;
        small.n_ctx = 60;
        assert_false(task_make((enum task_kind)k, 0, &small, &s));
        assert_true(s.n <= 60);
        task_free(&s);
    }
}

static void test_names(void **state) {
    (void)state;
    bool chosen[n_task];
    assert_true(task_parse_list("copy,passkey", chosen) && chosen[0] && chosen[1]);
    assert_true(task_parse_list("copy", chosen) && !chosen[TASK_PASSKEY] && chosen[TASK_COPY]);
    assert_false(task_parse_list("", chosen) || task_parse_list("copy,", chosen) ||
                 task_parse_list("cop", chosen) || task_parse_list("copy;passkey", chosen));
}

/* ---- scores --------------------------------------------------------------------------------- */

static void near(double a, double b) { assert_true(fabs(a - b) < 1e-4); }

/* Wilson (1927) as tables have it: 8 of 10, 0 of 10, 81 of 263 (Newcombe 1998, method 3). */
static void test_intervals(void **state) {
    (void)state;
    struct statistics_figure f = task_rate(8, 10);
    near(f.low, 0.4902);
    near(f.high, 0.9433);
    f = task_rate(0, 10);
    near(f.low, 0);
    near(f.high, 0.2775);
    f = task_rate(10, 10);
    near(f.low, 0.7225);
    near(f.high, 1);
    f = task_rate(81, 263);
    near(f.low, 0.2553);
    near(f.high, 0.3662);
    assert_true(isnan(task_rate(0, 0).value));
    near(task_mcnemar(0, 0), 1);
    near(task_mcnemar(5, 0), 0.0625);
    near(task_mcnemar(1, 9), 0.0215);
    near(task_mcnemar(9, 1), 0.0215);
    near(task_mcnemar(4, 4), 1);
}

static void test_counts(void **state) {
    (void)state;
    const struct task_answer reference[] = {{6, 6, TASK_PASSKEY, 0}, {6, 6, TASK_PASSKEY, 1},
                                            {6, 5, TASK_PASSKEY, 1}, {0, 0, TASK_PASSKEY, -1},
                                            {10, 10, TASK_COPY, -1}, {10, 10, TASK_COPY, -1},
                                            {10, 10, TASK_COPY, -1}};
    const struct task_answer run[] = {{6, 6, TASK_PASSKEY, 0}, {6, 1, TASK_PASSKEY, 1},
                                      {6, 6, TASK_PASSKEY, 1}, {0, 0, TASK_PASSKEY, -1},
                                      {10, 10, TASK_COPY, -1}, {10, 0, TASK_COPY, -1},
                                      {10, 0, TASK_COPY, -1}};
    struct task_result r = task_count_answers(TASK_PASSKEY, run, reference, 7);
    assert_true(r.items.right == 2 && r.items.of == 3 && r.lost == 1 && r.won == 1);
    assert_true(r.by_depth[0].count.right == 1 && r.by_depth[0].count.of == 1);
    assert_true(r.by_depth[1].count.right == 1 && r.by_depth[1].count.of == 2);
    assert_true(r.by_depth[2].count.of == 0 && r.tokens.right == 13 && r.tokens.of == 18);
    r = task_count_answers(TASK_COPY, run, reference, 7);
    assert_true(r.items.right == 1 && r.items.of == 3 && r.lost == 2 && r.won == 0);
    assert_true(r.tokens.right == 10 && r.tokens.of == 30);
    /* tokens that fail together are worth no more than items */
    assert_true(r.tokens.rate.low <= r.items.rate.low + 1e-9 &&
                r.tokens.rate.high >= r.items.rate.high - 1e-9);
    r = task_count_answers(TASK_COPY, reference, reference, 7);
    assert_true(r.items.rate.value == 1 && r.lost == 0 && r.p == 1 && r.tokens.rate.low < 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed), cmocka_unit_test(test_passkey),
        cmocka_unit_test(test_copy),      cmocka_unit_test(test_too_short),
        cmocka_unit_test(test_names),     cmocka_unit_test(test_intervals),
        cmocka_unit_test(test_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
