/* Formats through the public functions: errors, sizes, bytes derived by hand, and the parts that
 * kernels work on. That all bytes are ggml's is tested in tests/ggml. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "format/format.h"
#include "varve/varve.h"

enum { N = VARVE_BLOCK, MOST_BYTES = 4 * VARVE_BLOCK };
#define NO_FORMAT ((enum varve_format)VARVE_FORMAT_COUNT)
#define BELOW_FORMAT ((enum varve_format) - 1)

static uint32_t random_u32(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static size_t bytes_of(enum varve_format format, int64_t n) {
    size_t bytes = 0;
    assert_int_equal(varve_format_row_bytes(format, n, &bytes), VARVE_OK);
    return bytes;
}

/* ---------------------------------------------------------------------------- names and sizes */

static void test_names(void **state) {
    static const char *const names[] = {"f32",  "f16",  "bf16", "q8_0",  "q4_0",
                                        "q4_1", "q5_0", "q5_1", "iq4_nl"};
    (void)state;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        enum varve_format format = NO_FORMAT;
        assert_string_equal(varve_format_name((enum varve_format)i), names[i]);
        assert_int_equal(varve_format_parse(names[i], &format), VARVE_OK);
        assert_int_equal(format, i);
    }
    enum varve_format format = NO_FORMAT;
    assert_int_equal(varve_format_parse("IQ4_nl", &format), VARVE_OK);
    assert_int_equal(format, VARVE_FORMAT_IQ4_NL);
    assert_null(varve_format_name(NO_FORMAT));
    assert_null(varve_format_name(BELOW_FORMAT));
    assert_null(varve_format_traits(NO_FORMAT));
    assert_null(varve_format_traits(BELOW_FORMAT));
}

static void test_parse_errors(void **state) {
    static const char *const wrong[] = {"", "q4", "q4_00", "q4_0 ", " q4_0", "q8-0", "f", "\xff"};
    enum varve_format format = VARVE_FORMAT_Q5_1;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(varve_format_parse(wrong[i], &format), VARVE_ERROR_ARGUMENT);
    }
    assert_int_equal(varve_format_parse(NULL, &format), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_format_parse("f16", NULL), VARVE_ERROR_ARGUMENT);
    assert_int_equal(format, VARVE_FORMAT_Q5_1); /* untouched */
}

static void test_sizes(void **state) {
    static const size_t bytes[] = {128, 64, 64, 34, 18, 20, 22, 24, 18}; /* of 32 values */
    (void)state;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        const enum varve_format format = (enum varve_format)i;
        const int32_t block = varve_format_block_values(format);
        size_t n_byte = 7;
        assert_int_equal(block, i < 3 ? 1 : N);
        assert_int_equal(bytes_of(format, N), bytes[i]);
        assert_int_equal(bytes_of(format, 18 * N), 18 * bytes[i]);
        assert_int_equal(varve_format_row_bytes(format, 0, &n_byte), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_row_bytes(format, -block, &n_byte), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_row_bytes(format, INT64_MIN, &n_byte), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_row_bytes(format, N, NULL), VARVE_ERROR_ARGUMENT);
        if (block > 1) {
            assert_int_equal(varve_format_row_bytes(format, 33, &n_byte), VARVE_ERROR_ARGUMENT);
            assert_int_equal(varve_format_row_bytes(format, 1, &n_byte), VARVE_ERROR_ARGUMENT);
        }
        assert_int_equal(n_byte, 7); /* untouched */
    }
    size_t n_byte = 7;
    assert_int_equal(varve_format_block_values(NO_FORMAT), 0);
    assert_int_equal(varve_format_row_bytes(NO_FORMAT, N, &n_byte), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_format_row_bytes(BELOW_FORMAT, N, &n_byte), VARVE_ERROR_ARGUMENT);
}

static void test_size_overflow(void **state) {
    (void)state;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        const enum varve_format format = (enum varve_format)i;
        const struct varve_format_traits *const traits = varve_format_traits(format);
        const int64_t most = INT64_MAX / traits->block_bytes;
        size_t n_byte = 7;
        if (traits->block_bytes > traits->block_values) {
            const int64_t values = (most + 1) * traits->block_values;
            assert_int_equal(varve_format_row_bytes(format, values, &n_byte), VARVE_ERROR_OVERFLOW);
            assert_int_equal(n_byte, 7);
            assert_int_equal(varve_format_encode(format, (const float[1]){0}, values, &n_byte),
                             VARVE_ERROR_OVERFLOW);
            assert_int_equal(bytes_of(format, most * traits->block_values),
                             (size_t)most * (size_t)traits->block_bytes);
        } else { /* fewer bytes than values: nothing can overflow */
            const int64_t values = INT64_MAX / N * N;
            assert_true(bytes_of(format, values) < (size_t)values);
        }
    }
}

static void test_codec_errors(void **state) {
    float x[N] = {0};
    uint8_t bytes[MOST_BYTES] = {0};
    (void)state;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        const enum varve_format format = (enum varve_format)i;
        assert_int_equal(varve_format_encode(format, NULL, N, bytes), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_encode(format, x, N, NULL), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_encode(format, x, 0, bytes), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_encode(format, x, -N, bytes), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_decode(format, NULL, N, x), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_decode(format, bytes, N, NULL), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_decode(format, bytes, 0, x), VARVE_ERROR_ARGUMENT);
        if (varve_format_block_values(format) == 1) continue;
        assert_int_equal(varve_format_encode(format, x, N - 1, bytes), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_decode(format, bytes, N + 1, x), VARVE_ERROR_ARGUMENT);
    }
    assert_int_equal(varve_format_encode(NO_FORMAT, x, N, bytes), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_format_decode(BELOW_FORMAT, bytes, N, x), VARVE_ERROR_ARGUMENT);
}

/* ------------------------------------------------------------------------------ bytes by hand */

static void test_f16_bytes(void **state) {
    static const struct {
        float value;
        uint16_t half;
    } cases[] = {
        {1.0f, 0x3C00},       {-2.0f, 0xC000},           {0.0f, 0x0000},
        {-0.0f, 0x8000},      {65504.0f, 0x7BFF},        {65519.0f, 0x7BFF},
        {65520.0f, 0x7C00},   {-INFINITY, 0xFC00},       {FLT_MAX, 0x7C00},
        {0x1p-14f, 0x0400},   {0x1p-24f, 0x0001},        {0x1p-25f, 0x0000},   /* tie: to even */
        {0x1.8p-24f, 0x0002}, {0x1.000002p-25f, 0x0001}, {0x1.002p0f, 0x3C00}, /* tie */
        {0x1.006p0f, 0x3C02}, {0x1.ffep-15f, 0x0400}, /* rounds up out of the subnormals */
        {NAN, 0x7E00},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint16_t half = 0;
        assert_int_equal(varve_format_encode(VARVE_FORMAT_F16, &cases[i].value, 1, &half), 0);
        assert_int_equal(half, cases[i].half);
    }
}

static void test_bf16_bytes(void **state) {
    static const struct {
        float value;
        uint16_t half;
    } cases[] = {
        {1.0f, 0x3F80},      {-2.0f, 0xC000},     {-0.0f, 0x8000},
        {0x1.01p0f, 0x3F80}, {0x1.03p0f, 0x3F82}, {FLT_MAX, 0x7F80},
        {INFINITY, 0x7F80},  {0x1p-149f, 0x0000}, {NAN, 0x7FC0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint16_t half = 1;
        assert_int_equal(varve_format_encode(VARVE_FORMAT_BF16, &cases[i].value, 1, &half), 0);
        assert_int_equal(half, cases[i].half);
    }
}

/* Encodes 32 values to the bytes given and decodes these to the values given. */
static void check_block(enum varve_format format, const float *x, const uint8_t *bytes,
                        const float *back) {
    uint8_t got[MOST_BYTES];
    float y[N];
    assert_int_equal(varve_format_encode(format, x, N, got), VARVE_OK);
    assert_memory_equal(got, bytes, bytes_of(format, N));
    assert_int_equal(varve_format_decode(format, bytes, N, y), VARVE_OK);
    for (int i = 0; i < N; i++) assert_true(y[i] == back[i]);
}

static void test_q8_0_bytes(void **state) {
    /* amax 127: the step is 1; half-way values go away from zero */
    const float x[N] = {127, -127, 0.5f, -0.5f, 1.5f, 126.49f};
    const uint8_t bytes[34] = {0x00, 0x3C, 0x7F, 0x81, 0x01, 0xFF, 0x02, 0x7E};
    const float back[N] = {127, -127, 1, -1, 2, 126};
    (void)state;
    check_block(VARVE_FORMAT_Q8_0, x, bytes, back);
}

static void test_q4_0_bytes(void **state) {
    /* the first extreme value is -8: the step is 1, +8 is cut to +7; q = x + 8.5 truncated */
    float x[N] = {-8, 7, 0.5f, -0.5f};
    uint8_t bytes[18] = {0x00, 0x3C, 0x80, 0xFF, 0x89};
    float back[N] = {-8, 7, 1};
    (void)state;
    x[17] = 8;
    back[17] = 7;
    memset(bytes + 5, 0x88, 13);
    check_block(VARVE_FORMAT_Q4_0, x, bytes, back);
}

static void test_q4_1_bytes(void **state) {
    /* 2 .. 17: step 1, minimum 2 */
    float x[N], back[N];
    uint8_t bytes[20] = {0x00, 0x3C, 0x00, 0x40, 0x10, 0xEF};
    (void)state;
    for (int i = 0; i < N; i++) x[i] = back[i] = 2;
    x[1] = back[1] = 17;
    x[16] = 2.5f; /* half-way goes up */
    back[16] = 3;
    x[17] = 16.25f;
    back[17] = 16;
    check_block(VARVE_FORMAT_Q4_1, x, bytes, back);
}

static void test_q5_0_bytes(void **state) {
    /* -16 first: step 1; zeros are 16, that is low half 0 and the high bit */
    float x[N] = {-16, 15};
    float back[N] = {-16, 15};
    const uint8_t bytes[22] = {0x00, 0x3C, 0xFE, 0xFF, 0xFD, 0xFF, 0xF0, 0xDF};
    (void)state;
    x[16] = 16;
    back[16] = 15;
    x[17] = back[17] = -3; /* 13: no high bit */
    check_block(VARVE_FORMAT_Q5_0, x, bytes, back);
}

static void test_q5_1_bytes(void **state) {
    /* -4 .. 27: step 1, minimum -4; 31, 16 and 5 are left, the rest is 0 */
    float x[N], back[N];
    const uint8_t bytes[24] = {0x00, 0x3C, 0x00, 0xC4, 0x02, 0x00, 0x01, 0x00, 0x00, 0x5F};
    (void)state;
    for (int i = 0; i < N; i++) x[i] = back[i] = -4;
    x[1] = back[1] = 27;
    x[16] = back[16] = 12;
    x[17] = back[17] = 1;
    check_block(VARVE_FORMAT_Q5_1, x, bytes, back);
}

static void test_iq4_nl_bytes(void **state) {
    /* all values are levels, so the step is 1 and stays 1 under least squares */
    float x[N];
    uint8_t bytes[18] = {0x00, 0x3C, 0x70, 0xAF};
    (void)state;
    for (int i = 0; i < N; i++) x[i] = 1;
    x[0] = -127;
    x[1] = 113;
    x[16] = -10;
    x[17] = 25;
    memset(bytes + 4, 0x88, 14);
    check_block(VARVE_FORMAT_IQ4_NL, x, bytes, x);
}

/* Zero blocks: no step, and values that are zero. A block of zeros behind another keeps that one's
 * indices in iq4_nl, as in ggml. */
static void test_zero_blocks(void **state) {
    (void)state;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        const enum varve_format format = (enum varve_format)i;
        float x[2 * N] = {0}, y[2 * N];
        uint8_t bytes[2 * MOST_BYTES];
        assert_int_equal(varve_format_encode(format, x, 2 * N, bytes), VARVE_OK);
        assert_int_equal(varve_format_decode(format, bytes, 2 * N, y), VARVE_OK);
        for (int j = 0; j < 2 * N; j++) assert_true(y[j] == 0.0f);
    }
    float x[2 * N] = {0};
    uint8_t bytes[36];
    for (int j = 0; j < N; j++) x[j] = -127;
    assert_int_equal(varve_format_encode(VARVE_FORMAT_IQ4_NL, x, 2 * N, bytes), VARVE_OK);
    for (int j = 2; j < 18; j++) assert_int_equal(bytes[18 + j], bytes[j]);
    assert_int_equal(bytes[18] | bytes[19], 0);
    assert_int_equal(varve_format_encode(VARVE_FORMAT_IQ4_NL, x + N, N, bytes), VARVE_OK);
    for (int j = 2; j < 18; j++) assert_int_equal(bytes[j], 0x88); /* the level next to zero */
}

/* ----------------------------------------------------------------------------- round trips */

/* Every pattern of the 16-bit floats survives decode and encode, NaN as some NaN. */
static void test_float_round_trips(void **state) {
    static const enum varve_format formats[] = {VARVE_FORMAT_F16, VARVE_FORMAT_BF16};
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        for (uint32_t pattern = 0; pattern < 65536; pattern++) {
            const uint16_t half = (uint16_t)pattern;
            uint16_t back = 0;
            float value = 0, again = 0;
            assert_int_equal(varve_format_decode(formats[f], &half, 1, &value), VARVE_OK);
            assert_int_equal(varve_format_encode(formats[f], &value, 1, &back), VARVE_OK);
            assert_int_equal(varve_format_decode(formats[f], &back, 1, &again), VARVE_OK);
            if (isnan(value))
                assert_true(isnan(again));
            else
                assert_int_equal(back, half);
        }
    }
    uint32_t bits[3] = {0x7F800001u, 0x80000001u, 0x3F800000u}, same[3] = {0};
    float value[3];
    assert_int_equal(varve_format_decode(VARVE_FORMAT_F32, bits, 3, value), VARVE_OK);
    assert_int_equal(varve_format_encode(VARVE_FORMAT_F32, value, 3, same), VARVE_OK);
    assert_memory_equal(bits, same, sizeof bits);
}

/* Values on the grid of a power-of-two step come back exactly. */
static void test_grid_round_trips(void **state) {
    static const struct {
        enum varve_format format;
        int first, last;
    } grids[] = {
        {VARVE_FORMAT_Q8_0, -127, 127}, {VARVE_FORMAT_Q4_0, -8, 7},   {VARVE_FORMAT_Q4_1, -5, 10},
        {VARVE_FORMAT_Q5_0, -16, 15},   {VARVE_FORMAT_Q5_1, -20, 11},
    };
    uint64_t seed = 1;
    (void)state;
    for (size_t g = 0; g < sizeof grids / sizeof grids[0]; g++) {
        for (int round = 0; round < 1000; round++) {
            const int width = grids[g].last - grids[g].first + 1;
            const float step = ldexpf(1.0f, (int)(random_u32(&seed) % 12) - 8);
            float x[N], y[N];
            uint8_t bytes[MOST_BYTES + 1];
            for (int i = 0; i < N; i++) {
                const int q = grids[g].first + (int)(random_u32(&seed) % (uint32_t)width);
                x[i] = step * (float)q;
            }
            x[random_u32(&seed) % 16] = step * (float)grids[g].first;
            x[16 + random_u32(&seed) % 16] = step * (float)grids[g].last;
            /* rows need no alignment */
            assert_int_equal(varve_format_encode(grids[g].format, x, N, bytes + 1), VARVE_OK);
            assert_int_equal(varve_format_decode(grids[g].format, bytes + 1, N, y), VARVE_OK);
            for (int i = 0; i < N; i++) assert_true(x[i] == y[i]);
        }
    }
}

/* ------------------------------------------------------------------------ parts and bad input */

/* Product and sum rounded one by one: volatile keeps the compiler from fusing them. */
static float of_parts(int8_t q, float d, float m, bool has_min) {
    volatile float product = (float)q * d;
    return has_min ? product + m : product;
}

static void check_parts(const struct varve_format_traits *traits, const uint8_t *block) {
    float y[N], d = 0, m = 0;
    int8_t q[N];
    traits->decode(block, N, y);
    traits->split(block, N, q, &d, &m);
    for (int i = 0; i < N; i++) {
        const float want = of_parts(q[i], d, m, traits->has_min);
        if (isnan(want))
            assert_true(isnan(y[i]));
        else
            assert_memory_equal(&want, &y[i], sizeof want);
    }
}

/* All steps with random integers, and all byte values at all places with a few steps. */
static void test_parts(void **state) {
    static const uint16_t steps[] = {0x3C00, 0xBC00, 0x0001, 0x7BFF, 0x0000, 0x8000, 0x7C00};
    uint64_t seed = 2;
    (void)state;
    for (int f = VARVE_FORMAT_Q8_0; f < VARVE_FORMAT_COUNT; f++) {
        const struct varve_format_traits *const traits = varve_format_traits((enum varve_format)f);
        uint8_t block[MOST_BYTES];
        for (uint32_t step = 0; step < 65536; step++) {
            for (int i = 0; i < traits->block_bytes; i++) {
                block[i] = (uint8_t)(random_u32(&seed) & 0xFFu);
            }
            memcpy(block, &(uint16_t){(uint16_t)step}, 2);
            check_parts(traits, block);
        }
        for (size_t s = 0; s < sizeof steps / sizeof steps[0]; s++) {
            for (int value = 0; value < 256; value++) {
                memset(block, value, sizeof block);
                memcpy(block, &steps[s], 2);
                check_parts(traits, block);
            }
        }
    }
}

/* Rows no encoder is made for: nothing may trap, and the same bytes come out each time. */
static void test_any_row(void **state) {
    static const float odd[] = {NAN,        INFINITY,  -INFINITY, FLT_MAX, -FLT_MAX, 0x1p-149f,
                                -0x1p-149f, 0x1p-126f, 0x1p-130f, 0.0f,    -0.0f,    1.0f};
    enum { N_ODD = sizeof odd / sizeof odd[0] };
    uint64_t seed = 3;
    (void)state;
    for (int f = 0; f < VARVE_FORMAT_COUNT; f++) {
        const enum varve_format format = (enum varve_format)f;
        for (int round = 0; round < 20000; round++) {
            float x[N], y[N];
            uint8_t bytes[MOST_BYTES] = {0}, again[MOST_BYTES] = {0};
            const uint32_t share = 1 + random_u32(&seed) % 8;
            const float fill = odd[random_u32(&seed) % N_ODD];
            for (int i = 0; i < N; i++) {
                x[i] = random_u32(&seed) % share == 0 ? odd[random_u32(&seed) % N_ODD] : fill;
            }
            assert_int_equal(varve_format_encode(format, x, N, bytes), VARVE_OK);
            assert_int_equal(varve_format_encode(format, x, N, again), VARVE_OK);
            assert_memory_equal(bytes, again, sizeof bytes);
            assert_int_equal(varve_format_decode(format, bytes, N, y), VARVE_OK);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_parse_errors),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_size_overflow),
        cmocka_unit_test(test_codec_errors),
        cmocka_unit_test(test_f16_bytes),
        cmocka_unit_test(test_bf16_bytes),
        cmocka_unit_test(test_q8_0_bytes),
        cmocka_unit_test(test_q4_0_bytes),
        cmocka_unit_test(test_q4_1_bytes),
        cmocka_unit_test(test_q5_0_bytes),
        cmocka_unit_test(test_q5_1_bytes),
        cmocka_unit_test(test_iq4_nl_bytes),
        cmocka_unit_test(test_zero_blocks),
        cmocka_unit_test(test_float_round_trips),
        cmocka_unit_test(test_grid_round_trips),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_any_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
