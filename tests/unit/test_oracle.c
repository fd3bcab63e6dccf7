/* The oracle against closed forms: what everything else is compared with must itself be right. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/fp16.h"
#include "check/oracle.h"

enum { D = 2, N_ROW = 6, N_HEAD_KV = 2, N_BATCH = 2 };
#define NEAR 1e-12 /* double arithmetic with numbers around 1 */

/* Rows of D floats, heads of a row side by side, batch entries behind one another. */
struct setting {
    struct varve_attention attention;
    struct varve_io io;
    struct varve_segment segment;
    float q[N_BATCH * 8 * D];
    float k[N_BATCH * N_ROW * N_HEAD_KV * D];
    float v[N_BATCH * N_ROW * N_HEAD_KV * D];
};

/* One query, all of q and k 0, all of v 1. */
static void set_up(struct setting *s, int32_t n_head, int32_t n_head_kv, int64_t n_batch) {
    memset(s, 0, sizeof *s);
    s->attention = (struct varve_attention){.head_dim_k = D,
                                            .head_dim_v = D,
                                            .n_head = n_head,
                                            .n_head_kv = n_head_kv,
                                            .n_query = 1,
                                            .n_batch = n_batch,
                                            .scale = 1};
    for (int i = 0; i < N_BATCH * N_ROW * N_HEAD_KV * D; i++) s->v[i] = 1;
    const int64_t head = D * (int64_t)sizeof(float), row = n_head_kv * head;
    s->segment = (struct varve_segment){.k = s->k,
                                        .v = s->v,
                                        .n_rows = N_ROW,
                                        .k_row_stride = row,
                                        .k_head_stride = head,
                                        .k_batch_stride = N_ROW * row,
                                        .v_row_stride = row,
                                        .v_head_stride = head,
                                        .v_batch_stride = N_ROW * row};
    s->io.query = (struct varve_query){s->q, n_head * head, head, n_head * head};
    s->io.segments = &s->segment;
    s->io.n_segment = 1;
}

static void test_uniform_and_sink(void **state) {
    struct setting s;
    double output[2 * D], lse[2];
    const float sinks[2] = {0, 1};
    (void)state;
    set_up(&s, 2, 2, 1);
    oracle_attention(&s.attention, &s.io, output, lse);
    assert_true(output[0] == 1 && fabs(lse[0] - log(N_ROW)) < NEAR);
    s.io.sinks = sinks;
    oracle_attention(&s.attention, &s.io, output, lse);
    assert_true(fabs(output[0] - N_ROW / (N_ROW + 1.0)) < NEAR);
    assert_true(fabs(output[D] - N_ROW / (N_ROW + exp(1))) < NEAR);
    assert_true(fabs(lse[1] - log(N_ROW + exp(1))) < NEAR);
}

static void test_nothing_seen(void **state) {
    struct setting s;
    double output[D] = {7, 7}, lse = 7, bound[D], lse_bound;
    const float sink = 3;
    (void)state;
    set_up(&s, 1, 1, 1);
    s.segment.n_rows = 0;
    s.segment.k = s.segment.v = NULL;
    oracle_attention_bounds(&s.attention, &s.io, output, &lse, bound, &lse_bound, NULL);
    assert_true(output[0] == 0 && output[1] == 0 && lse == -INFINITY);
    assert_true(bound[0] == 0 && lse_bound == 0);
    s.io.sinks = &sink;
    oracle_attention(&s.attention, &s.io, output, &lse);
    assert_true(output[0] == 0 && fabs(lse - 3) < NEAR);
}

/* Logits by hand: softcap first, then slope times mask. */
static void test_softcap_and_mask(void **state) {
    struct setting s;
    double output[D], lse;
    uint16_t mask[2] = {0, 0};
    const struct varve_mask view = {mask, 2, 1, 1, 1, 4, 4, 4};
    (void)state;
    set_up(&s, 1, 1, 1);
    s.segment.n_rows = 2;
    s.q[0] = 3;
    s.k[0] = 5;
    s.v[0] = 10;
    s.attention.scale = 0.5f;
    s.attention.softcap = 4;
    s.attention.max_bias = 1; /* one head: slope 2^-1 */
    s.io.mask = &view;
    mask[1] = varve_f32_to_f16(2);
    oracle_attention(&s.attention, &s.io, output, &lse);
    const double a = exp(4 * tanh(0.5 * 15 / 4)), b = exp(0.5 * 2);
    assert_true(fabs(lse - log(a + b)) < NEAR);
    assert_true(fabs(output[0] - (10 * a + b) / (a + b)) < 10 * NEAR);
}

/* Hidden rows are NaN in K and V; of six rows, those at positions 3 and 4 are seen by position 4.
 */
static void test_visibility(void **state) {
    struct setting s;
    double output[D], lse;
    uint16_t mask[N_ROW] = {0};
    const struct varve_mask view = {mask, N_ROW, 1, 1, 1, 2 * N_ROW, 2 * N_ROW, 2 * N_ROW};
    (void)state;
    set_up(&s, 1, 1, 1);
    s.attention.causal = true;
    s.attention.window = 2;
    s.attention.query_pos = 14;
    s.segment.pos = 10;
    for (int r = 0; r < N_ROW; r++) {
        if (r != 3 && r != 4) s.k[r * D] = s.v[r * D] = s.v[r * D + 1] = NAN;
    }
    oracle_attention(&s.attention, &s.io, output, &lse);
    assert_true(output[0] == 1 && fabs(lse - log(2)) < NEAR);
    mask[3] = VARVE_F16_NEG_INF;
    s.v[3 * D] = NAN;
    s.io.mask = &view;
    oracle_attention(&s.attention, &s.io, output, &lse);
    assert_true(output[0] == 1 && fabs(lse) < NEAR);
    s.attention.max_bias = 8; /* a mask tensor replaces the distance, whose bias would show */
    oracle_attention(&s.attention, &s.io, output, &lse);
    assert_true(fabs(lse) < NEAR);
    s.io.mask = NULL;
    s.attention.query_pos = 15; /* sees rows 4 and 5 */
    s.attention.window = 12;
    s.attention.max_bias = 1;
    s.segment = (struct varve_segment){.k = s.k, .v = s.v, .n_rows = 1, .pos = 13};
    s.k[0] = s.v[0] = s.v[1] = 0;
    oracle_attention(&s.attention, &s.io, output, &lse);
    assert_true(fabs(lse + 0.5 * 2) < NEAR); /* slope 2^-1, distance 2 */
}

/* Slopes of 12 heads: eight of 2^-1 .. 2^-8, then 2^-0.5, 2^-1.5 ... */
static void test_slopes(void **state) {
    const struct varve_attention attention = {.n_head = 12, .max_bias = 8};
    (void)state;
    for (int h = 0; h < 8; h++) {
        assert_true(fabs(oracle_slope(&attention, h) - pow(2, -(h + 1))) < NEAR);
    }
    for (int h = 8; h < 12; h++) {
        assert_true(fabs(oracle_slope(&attention, h) - pow(2, -(h - 8) - 0.5)) < NEAR);
    }
    assert_true(oracle_slope(&(struct varve_attention){.n_head = 12}, 3) == 1);
}

/* Which K and V head, and which batch entry, a query head reads. */
static void test_heads_and_batches(void **state) {
    struct setting s;
    double output[N_BATCH * 4 * D];
    (void)state;
    set_up(&s, 4, N_HEAD_KV, N_BATCH);
    for (int b = 0; b < N_BATCH; b++) {
        for (int i = 0; i < N_ROW * N_HEAD_KV; i++) {
            s.v[(b * N_ROW * N_HEAD_KV + i) * D] = (float)(10 * b + i % N_HEAD_KV);
        }
    }
    oracle_attention(&s.attention, &s.io, output, NULL);
    for (int b = 0; b < N_BATCH; b++) {
        for (int h = 0; h < 4; h++) {
            assert_true(fabs(output[(b * 4 + h) * D] - (10 * b + h / 2)) < 20 * NEAR);
        }
    }
}

/* A context in two segments is the context. */
static void test_segments(void **state) {
    struct setting s;
    double whole[D], parts[D], lse, lse_parts;
    (void)state;
    set_up(&s, 1, 1, 1);
    s.q[0] = 1;
    for (int i = 0; i < N_ROW * D; i++) {
        s.k[i] = (float)(i % 5) - 2;
        s.v[i] = (float)(i % 7);
    }
    oracle_attention(&s.attention, &s.io, whole, &lse);
    struct varve_segment segments[2] = {s.segment, s.segment};
    segments[0].n_rows = 2;
    segments[1].n_rows = N_ROW - 2;
    segments[1].k = s.k + 2 * D;
    segments[1].v = s.v + 2 * D;
    s.io.segments = segments;
    s.io.n_segment = 2;
    oracle_attention(&s.attention, &s.io, parts, &lse_parts);
    assert_true(fabs(lse - lse_parts) < NEAR && fabs(whole[0] - parts[0]) < 10 * NEAR);
}

/* Quantized rows meet the query in 8 bits: 0.7 becomes 1, unless exact arithmetic is asked for. */
static void test_arithmetic(void **state) {
    enum { N = 32 };
    float q[N] = {127, 0.7f}, k[N] = {0, 127};
    uint8_t row[34];
    float v[D] = {1, 1};
    double lse;
    (void)state;
    assert_int_equal(varve_format_encode(VARVE_FORMAT_Q8_0, k, N, row), VARVE_OK);
    const struct varve_attention attention = {.head_dim_k = N,
                                              .head_dim_v = D,
                                              .n_head = 1,
                                              .n_head_kv = 1,
                                              .n_query = 1,
                                              .n_batch = 1,
                                              .scale = 1};
    const struct varve_segment segment = {
        .k_format = VARVE_FORMAT_Q8_0, .k = row, .v = v, .n_rows = 1};
    const struct varve_io io = {.query = {.data = q}, .segments = &segment, .n_segment = 1};
    oracle_attention(&attention, &io, NULL, &lse);
    assert_true(fabs(lse - 127) < NEAR);
    struct varve_attention exact = attention;
    exact.arithmetic = VARVE_ARITHMETIC_EXACT;
    oracle_attention(&exact, &io, NULL, &lse);
    assert_true(fabs(lse - 127 * (double)0.7f) < 100 * NEAR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform_and_sink), cmocka_unit_test(test_nothing_seen),
        cmocka_unit_test(test_softcap_and_mask), cmocka_unit_test(test_visibility),
        cmocka_unit_test(test_slopes),           cmocka_unit_test(test_heads_and_batches),
        cmocka_unit_test(test_segments),         cmocka_unit_test(test_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
