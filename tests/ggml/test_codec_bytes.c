/* The bytes and values of every format are ggml's: compared with the reference quantizers and
 * dequantizers of the libggml-base that this is linked to. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ggml.h"
#include "varve/varve.h"

enum { ROW = 256, N_ROW = 4096, BLOCK = 32 };

static const enum ggml_type ggml_types[VARVE_FORMAT_COUNT] = {
    [VARVE_FORMAT_F32] = GGML_TYPE_F32,       [VARVE_FORMAT_F16] = GGML_TYPE_F16,
    [VARVE_FORMAT_BF16] = GGML_TYPE_BF16,     [VARVE_FORMAT_Q8_0] = GGML_TYPE_Q8_0,
    [VARVE_FORMAT_Q4_0] = GGML_TYPE_Q4_0,     [VARVE_FORMAT_Q4_1] = GGML_TYPE_Q4_1,
    [VARVE_FORMAT_Q5_0] = GGML_TYPE_Q5_0,     [VARVE_FORMAT_Q5_1] = GGML_TYPE_Q5_1,
    [VARVE_FORMAT_IQ4_NL] = GGML_TYPE_IQ4_NL,
};

static uint64_t random_state;

static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float random_unit(void) { return (float)(int32_t)random_u32() * 0x1p-31f; }

/* The kinds of rows: each is filled with finite values only. */
static void fill_row(float *x, int kind) {
    for (int i = 0; i < ROW; i++) {
        const float u = random_unit();
        uint32_t bits = random_u32();
        switch (kind) {
        case 0: x[i] = u; break;
        case 1: x[i] = u * u * u * 40.0f; break;
        case 2: x[i] = (float)((int32_t)(bits % 509) - 254) * 0.5f; break; /* ties, see below */
        case 3: x[i] = (float)((int32_t)(bits % 65) - 32) * 0.25f; break;
        case 4: x[i] = bits & 1 ? 0.0f : -0.0f; break;
        case 5: x[i] = (i / BLOCK) % 2 == 1 ? 0.0f : u; break; /* zero blocks between others */
        case 6: x[i] = u * 0x1p-130f; break;                   /* subnormal values */
        case 7: x[i] = u * 0x1p-147f; break;                   /* reciprocal steps overflow */
        case 8: x[i] = u * 0x1p-20f; break;                    /* subnormal steps in F16 */
        case 9: x[i] = u * 1e7f; break;                        /* infinite steps in F16 */
        case 10: x[i] = u * 3.4e38f; break;                    /* ranges and squares overflow */
        case 11: x[i] = u < 0 ? -1.0f : 1.0f; break;           /* several extremes */
        case 12: x[i] = 7.0f + u * 0.01f; break;               /* all on one side */
        case 13: x[i] = u * 1e-15f; break;                     /* around iq4_nl's zero */
        default:                                               /* any finite bit pattern */
            if ((bits & 0x7F800000u) == 0x7F800000u) bits &= ~0x00800000u;
            memcpy(&x[i], &bits, sizeof bits);
        }
    }
    /* With such a value in each block the step is a power of two and the others lie on the steps or
     * half-way between them. */
    for (int i = 0; i < ROW; i += BLOCK) {
        if (kind == 2) x[i] = 127.0f;
        if (kind == 3) x[i] = -8.0f;
    }
    for (int i = 0; kind == 3 && i < ROW / 2; i++) { /* for formats with a minimum: 0 .. 15 */
        x[i] = i % BLOCK == 1 ? 15.0f : fminf(fabsf(x[i]) * 2.0f, 15.0f);
        if (i % BLOCK == 2) x[i] = 0.0f;
    }
    if (kind == 5) x[0] = 1.0f; /* a first block of zeros has no defined bytes, see below */
}
enum { N_KIND = 15 };

/* iq4_nl leaves a block without a scale as it finds its stack in ggml's code; rows whose first
 * block is such one have no defined bytes there. */
static bool bytes_are_defined(enum varve_format format, const float *x) {
    if (format != VARVE_FORMAT_IQ4_NL) return true;
    float amax = 0.0f;
    for (int i = 0; i < BLOCK; i++) amax = fmaxf(amax, fabsf(x[i]));
    return amax >= 1e-15f;
}

static void reference_encode(enum varve_format format, const float *x, void *bytes) {
    const enum ggml_type type = ggml_types[format];
    if (format == VARVE_FORMAT_IQ4_NL) { /* ggml_quantize_chunk searches for a better step */
        ggml_get_type_traits(type)->from_float_ref(x, bytes, ROW);
    } else {
        ggml_quantize_chunk(type, x, bytes, 0, 1, ROW, NULL);
    }
}

static void reference_decode(enum varve_format format, const void *bytes, float *x) {
    if (format == VARVE_FORMAT_F32)
        memcpy(x, bytes, ROW * sizeof *x);
    else
        ggml_get_type_traits(ggml_types[format])->to_float(bytes, x, ROW);
}

/* Bit equal, but any NaN equals any NaN: which payload survives an addition is the compiler's. */
static int count_different(const float *a, const float *b) {
    int n = 0;
    for (int i = 0; i < ROW; i++) {
        n += memcmp(&a[i], &b[i], sizeof a[i]) != 0 && !(isnan(a[i]) && isnan(b[i]));
    }
    return n;
}

static void test_names_and_sizes(void **state) {
    (void)state;
    for (int f = 0; f < VARVE_FORMAT_COUNT; f++) {
        const enum varve_format format = (enum varve_format)f;
        size_t bytes = 0;
        assert_int_equal(varve_format_row_bytes(format, ROW, &bytes), VARVE_OK);
        assert_int_equal(bytes, ggml_row_size(ggml_types[f], ROW));
        assert_int_equal(varve_format_block_values(format), ggml_blck_size(ggml_types[f]));
        assert_string_equal(varve_format_name(format), ggml_type_name(ggml_types[f]));
    }
}

static void check_format(enum varve_format format) {
    float x[ROW], ours[ROW], theirs[ROW];
    uint8_t our_bytes[ROW * 4], their_bytes[ROW * 4];
    size_t n_byte = 0;
    long n_compared = 0, n_bad_rows = 0, n_bad_values = 0;
    assert_int_equal(varve_format_row_bytes(format, ROW, &n_byte), VARVE_OK);
    for (int row = 0; row < N_ROW; row++) {
        fill_row(x, row % N_KIND);
        if (!bytes_are_defined(format, x)) continue;
        assert_int_equal(varve_format_encode(format, x, ROW, our_bytes), VARVE_OK);
        reference_encode(format, x, their_bytes);
        if (memcmp(our_bytes, their_bytes, n_byte) != 0) {
            if (n_bad_rows++ == 0) print_error("first bad row: kind %d\n", row % N_KIND);
        }
        assert_int_equal(varve_format_decode(format, their_bytes, ROW, ours), VARVE_OK);
        reference_decode(format, their_bytes, theirs);
        n_bad_values += count_different(ours, theirs);
        /* and bytes that no quantizer writes */
        for (size_t i = 0; i < n_byte; i++) their_bytes[i] = (uint8_t)(random_u32() >> 24);
        assert_int_equal(varve_format_decode(format, their_bytes, ROW, ours), VARVE_OK);
        reference_decode(format, their_bytes, theirs);
        n_bad_values += count_different(ours, theirs);
        n_compared += ROW;
    }
    print_message("%-6s %ld values, %ld rows with other bytes, %ld other values\n",
                  varve_format_name(format), n_compared, n_bad_rows, n_bad_values);
    assert_int_equal(n_bad_rows, 0);
    assert_int_equal(n_bad_values, 0);
    assert_true(n_compared > 500000);
}

static void test_bytes_and_values(void **state) {
    (void)state;
    for (int f = 0; f < VARVE_FORMAT_COUNT; f++) check_format((enum varve_format)f);
}

/* Every F16 pattern in both directions. */
static void test_all_halves(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const uint16_t half = (uint16_t)h;
        float ours;
        const float theirs = ggml_fp16_to_fp32(half);
        uint16_t back;
        assert_int_equal(varve_format_decode(VARVE_FORMAT_F16, &half, 1, &ours), VARVE_OK);
        assert_memory_equal(&ours, &theirs, sizeof ours);
        assert_int_equal(varve_format_encode(VARVE_FORMAT_F16, &ours, 1, &back), VARVE_OK);
        assert_int_equal(back, ggml_fp32_to_fp16(theirs));
    }
}

int main(int argc, char **argv) {
    random_state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    print_message("seed %llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_sizes),
        cmocka_unit_test(test_bytes_and_values),
        cmocka_unit_test(test_all_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
