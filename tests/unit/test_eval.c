/* varve eval's figures: divergence from the k most likely tokens, quantiles, bootstrap. Each is
 * compared with a plain computation in double over everything. */
#include "statistics.h"
#include "topk.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { n_vocab = 3000, n_sample = 16 };

/* ---- divergence ----------------------------------------------------------------------------- */

static double normal(uint64_t *random) {
    double sum = -6;
    for (int i = 0; i < 12; i++) {
        sum += statistics_uniform(random);
    }
    return sum;
}

static void make_logits(uint64_t *random, float *p, float *q, double noise) {
    for (int j = 0; j < n_vocab; j++) {
        p[j] = (float)(3 * normal(random));
        q[j] = (float)(p[j] + noise * normal(random));
    }
}

static double log_sum(const float *logits) {
    double sum = 0;
    for (int j = 0; j < n_vocab; j++) {
        sum += exp(logits[j]);
    }
    return log(sum);
}

static double whole_divergence(const float *p, const float *q) {
    const double sum_p = log_sum(p), sum_q = log_sum(q);
    double kl = 0;
    for (int j = 0; j < n_vocab; j++) {
        kl += exp(p[j] - sum_p) * (p[j] - sum_p - q[j] + sum_q);
    }
    return kl;
}

static struct topk_point divergence(const float *p, const float *q, int32_t k, int32_t target,
                                    double uniform) {
    struct topk topk;
    struct topk_point point;
    assert_true(topk_init(&topk, n_vocab, k, n_sample));
    struct topk_row *row = malloc(topk_row_bytes(&topk));
    assert_non_null(row);
    assert_true(topk_store(&topk, p, target, uniform, row));
    for (int32_t i = 1; i < k; i++) {
        assert_true(row->entries[i - 1].logit >= row->entries[i].logit);
    }
    assert_true(topk_compare(&topk, row, q, target, &point));
    free(row);
    topk_free(&topk);
    return point;
}

static void test_whole_vocabulary(void **state) {
    (void)state;
    uint64_t random = 1;
    float p[n_vocab], q[n_vocab];
    for (int i = 0; i < 20; i++) {
        make_logits(&random, p, q, 0.3);
        const struct topk_point point = divergence(p, q, n_vocab, i, 0.5);
        assert_true(fabs(point.kl - whole_divergence(p, q)) < 1e-12);
        assert_true(point.loss == 0);
        assert_true(fabs(point.log_p - (p[i] - log_sum(p))) < 1e-12);
        assert_true(fabs(point.log_q - (q[i] - log_sum(q))) < 1e-12);
    }
}

/* The remainder as one token never adds, and the sample estimates what it hides. */
static void test_remainder(void **state) {
    (void)state;
    uint64_t random = 2;
    float p[n_vocab], q[n_vocab];
    for (int32_t k = 1; k < n_vocab; k = 3 * k + 1) {
        double missing = 0, loss = 0, loss2 = 0;
        enum { n = 400 };
        for (int i = 0; i < n; i++) {
            make_logits(&random, p, q, 0.3);
            const double whole = whole_divergence(p, q);
            const struct topk_point point = divergence(p, q, k, 0, statistics_uniform(&random));
            assert_true(point.kl <= whole + 1e-12);
            missing += (whole - point.kl) / n;
            loss += point.loss / n;
            loss2 += point.loss * point.loss / n;
        }
        const double error = sqrt((loss2 - loss * loss) / n);
        assert_true(fabs(missing - loss) <= 4 * error + 1e-12);
    }
}

static void test_equal_runs(void **state) {
    (void)state;
    uint64_t random = 3;
    float p[n_vocab], q[n_vocab];
    make_logits(&random, p, q, 0);
    p[7] = p[9] = 40; /* a tie: the first of both is the most likely one */
    const struct topk_point point = divergence(p, p, 5, 9, 0.1);
    assert_true(point.kl < 1e-15 && fabs(point.loss) < 1e-12);
    assert_true(point.same_top == 1 && point.log_p == point.log_q);
    memcpy(q, p, sizeof(q));
    q[7] = 39;
    assert_true(divergence(p, q, 5, 9, 0.1).same_top == 0);
}

/* All but one token have no probability at all: nothing remains to be sampled. */
static void test_certain(void **state) {
    (void)state;
    float p[n_vocab], q[n_vocab];
    for (int j = 0; j < n_vocab; j++) {
        p[j] = j == 5 ? 1000 : -1000;
        q[j] = j == 5 ? 0 : -5;
    }
    const struct topk_point point = divergence(p, q, 3, 5, 0.9);
    assert_true(fabs(point.kl - (log_sum(q) - q[5])) < 1e-12 && point.loss == 0);
}

static void test_not_finite(void **state) {
    (void)state;
    uint64_t random = 4;
    float p[n_vocab], q[n_vocab];
    struct topk topk;
    struct topk_point point;
    make_logits(&random, p, q, 0.1);
    assert_true(topk_init(&topk, n_vocab, 4, n_sample));
    struct topk_row *row = malloc(topk_row_bytes(&topk));
    assert_non_null(row);
    assert_true(topk_store(&topk, p, 0, 0.5, row));
    q[17] = NAN;
    assert_false(topk_compare(&topk, row, q, 0, &point));
    assert_false(topk_store(&topk, q, 0, 0.5, row));
    q[17] = INFINITY;
    assert_false(topk_compare(&topk, row, q, 0, &point));
    free(row);
    topk_free(&topk);
}

/* ---- figures -------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct topk_point *make_points(uint64_t random, int32_t n) {
    struct topk_point *points = malloc((size_t)n * sizeof(*points));
    assert_non_null(points);
    for (int32_t i = 0; i < n; i++) {
        const double log_p = log(0.05 + 0.9 * statistics_uniform(&random));
        points[i] = (struct topk_point){.kl = exp(normal(&random) - 4),
                                        .log_p = log_p,
                                        .log_q = log_p + 0.04 * normal(&random),
                                        .same_top = statistics_uniform(&random) < 0.9};
    }
    return points;
}

static void test_figures(void **state) {
    (void)state;
    enum { n_chunk = 3, n_position = 301, n = n_chunk * n_position };
    const int32_t texts[n_chunk] = {0, 0, 1};
    struct topk_point *points = make_points(5, n);
    struct statistics s, again;
    const struct statistics_layout layout = {n_chunk, n_position, texts, 32, 500, 9};
    assert_true(statistics_compute(points, &layout, &s));
    assert_true(statistics_compute(points, &layout, &again));
    assert_memory_equal(&s, &again, sizeof(s));
    double sorted[n], sum = 0, top = 0, ratio = 0, dp2 = 0;
    for (int i = 0; i < n; i++) {
        sorted[i] = points[i].kl;
        sum += points[i].kl;
        top += (double)points[i].same_top;
        ratio += points[i].log_p - points[i].log_q;
        dp2 += pow(exp(points[i].log_p) - exp(points[i].log_q), 2);
    }
    qsort(sorted, n, sizeof(*sorted), by_value);
    assert_true(fabs(s.mean.value - sum / n) < 1e-12 && s.max == sorted[n - 1] && s.n == n);
    assert_true(s.median.value == sorted[n / 2]);
    assert_true(fabs(s.p99.value - (sorted[892] + 0.98 * (sorted[893] - sorted[892]))) < 1e-12);
    assert_true(fabs(s.p999.value - statistics_quantile(sorted, n, 0.999)) < 1e-12);
    assert_true(fabs(s.same_top.value - top / n) < 1e-12);
    assert_true(fabs(s.ppl_ratio.value - exp(ratio / n)) < 1e-12);
    assert_true(fabs(s.rms_dp.value - sqrt(dp2 / n)) < 1e-12);
    const struct statistics_figure *const figures[] = {&s.mean,     &s.median,    &s.p99,   &s.p999,
                                                       &s.same_top, &s.ppl_ratio, &s.rms_dp};
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
        assert_true(figures[i]->low <= figures[i]->value && figures[i]->value <= figures[i]->high);
        assert_true(figures[i]->low < figures[i]->high);
    }
    free(points);
}

/* The interval of the mean holds the true mean about as often as it says, also where neighbours
 * are alike; with blocks of one it would not. */
static void test_coverage(void **state) {
    (void)state;
    enum { n_chunk = 2, n_position = 1024, n_trial = 200 };
    const int32_t texts[n_chunk] = {0, 1};
    int inside[2] = {0, 0};
    for (int trial = 0; trial < n_trial; trial++) {
        struct topk_point *points = make_points(100 + (uint64_t)trial, n_chunk * n_position);
        uint64_t random = (uint64_t)trial;
        double level = 0;
        for (int i = 0; i < n_chunk * n_position; i++) {
            level = 0.7 * level + normal(&random);
            points[i].kl = 10 + level; /* mean 10 */
        }
        for (int b = 0; b < 2; b++) {
            struct statistics s;
            const struct statistics_layout layout = {n_chunk,    n_position, texts,
                                                     b ? 32 : 1, 200,        (uint64_t)trial};
            assert_true(statistics_compute(points, &layout, &s));
            inside[b] += s.mean.low <= 10 && 10 <= s.mean.high;
        }
        free(points);
    }
    assert_true(inside[1] >= 0.88 * n_trial);
    assert_true(inside[0] < 0.75 * n_trial);
}

static void test_few_blocks(void **state) {
    (void)state;
    const int32_t texts[1] = {0};
    struct topk_point *points = make_points(6, 100);
    struct statistics s;
    const struct statistics_layout layout = {1, 100, texts, 32, 100, 1};
    assert_true(statistics_compute(points, &layout, &s));
    assert_true(s.mean.value > 0 && isnan(s.mean.low) && isnan(s.rms_dp.high));
    const struct statistics_layout one = {1, 1, texts, 32, 100, 1};
    assert_true(statistics_compute(points, &one, &s));
    assert_true(s.median.value == points[0].kl && s.p999.value == points[0].kl);
    free(points);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_vocabulary), cmocka_unit_test(test_remainder),
        cmocka_unit_test(test_equal_runs),       cmocka_unit_test(test_certain),
        cmocka_unit_test(test_not_finite),       cmocka_unit_test(test_figures),
        cmocka_unit_test(test_coverage),         cmocka_unit_test(test_few_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
