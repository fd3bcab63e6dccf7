/* varve_encode gives the bytes of the quantizers of the ggml-cpu that this is linked to, at every
 * ISA level, wherever it does not decline. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ggml-cpu.h"
#include "ggml.h"
#include "varve/varve.h"

enum { ROW = 1024, N_ROW = 6000, BLOCK = 32 };

static const enum varve_format formats[] = {VARVE_FORMAT_Q8_0, VARVE_FORMAT_Q4_0,
                                            VARVE_FORMAT_Q4_1, VARVE_FORMAT_Q5_0,
                                            VARVE_FORMAT_Q5_1, VARVE_FORMAT_IQ4_NL};
enum { N_FORMAT = sizeof formats / sizeof formats[0] };

static uint64_t random_state;

static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float bits_to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static varve_from_float_fn *stock_of(enum varve_format format) {
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        const char *const name = ggml_type_name((enum ggml_type)t);
        if (name == NULL || strcmp(name, varve_format_name(format)) != 0) continue;
        return ggml_get_type_traits_cpu((enum ggml_type)t)->from_float;
    }
    return NULL;
}

/* One of several kinds of values; `step` is that of the block. */
static float draw(int kind, float step) {
    const uint32_t bits = random_u32();
    const float u = (float)(int32_t)random_u32() * 0x1p-31f;
    const float half = 0.5f * step * (float)((int32_t)(bits % 509) - 254);
    uint32_t beside;
    memcpy(&beside, &half, sizeof beside);
    switch (kind) {
    case 0: return u;
    case 1: return half;                                           /* ties, for steps of 2^n */
    case 2: return bits_to_float(beside + (bits >> 9) % 7 - 3);    /* beside ties, NaN for 0 */
    case 3: return half < -8 * step || half > 8 * step ? 0 : half; /* for formats of four bits */
    case 4: return bits & 1 ? 0.0f : -0.0f;
    case 5: return u * 0x1p-126f; /* reciprocals overflow */
    case 6: return u * 3.4e38f;   /* and ranges */
    case 7: return bits_to_float(bits);
    case 8: return bits % 200 == 0 ? INFINITY : u;
    case 9: return bits % 200 == 0 ? NAN : u;
    default: return bits & 1 ? step : -step;
    }
}
enum { N_KIND = 11 };

static void fill_row(float *x, bool mixed) {
    int kind = (int)(random_u32() % N_KIND);
    for (int i = 0; i < ROW; i += BLOCK) {
        float step = random_u32() % 2 ? 1.0f : 1.0f + (float)(random_u32() >> 9) * 0x1p-23f;
        step = ldexpf(step, (int)(random_u32() % 60) - 40);
        if (mixed) kind = (int)(random_u32() % 5);
        for (int j = 0; j < BLOCK; j++) x[i + j] = draw(kind, step);
        if (kind == 1) x[i + random_u32() % BLOCK] = 127 * step;
        if (kind == 3) x[i + random_u32() % BLOCK] = -8 * step;
    }
}

struct tally {
    long n_encoded, n_declined, n_bad;
};

static void compare(const struct varve_context *context, enum varve_format format,
                    enum varve_encoder encoder, struct tally *tally) {
    static float x[ROW];
    uint8_t ours[ROW * 2], theirs[ROW * 2];
    size_t bytes = 0;
    assert_int_equal(varve_format_row_bytes(format, ROW, &bytes), VARVE_OK);
    for (int row = 0; row < N_ROW; row++) {
        fill_row(x, row % 2 == 0);
        const enum varve_status status = varve_encode(context, format, encoder, x, ROW, ours);
        if (status == VARVE_ERROR_UNSUPPORTED) {
            tally->n_declined++;
            continue;
        }
        assert_int_equal(status, VARVE_OK);
        stock_of(format)(x, theirs, ROW);
        tally->n_encoded++;
        tally->n_bad += memcmp(ours, theirs, bytes) != 0;
    }
}

/* The encoder that was found writes stock's bytes. */
static void test_level(const char *isa) {
    struct varve_context_params params = {.struct_bytes = sizeof params, .isa = isa};
    struct varve_context *context = NULL;
    assert_int_equal(varve_context_create(&params, &context), VARVE_OK);
    for (int f = 0; f < N_FORMAT; f++) {
        enum varve_encoder encoder;
        const char *const name = varve_format_name(formats[f]);
        struct tally tally = {0};
        if (varve_encoder_find(context, formats[f], stock_of(formats[f]), &encoder) != VARVE_OK) {
            print_message("%-8s %-6s left to ggml\n", isa, name);
            continue;
        }
        compare(context, formats[f], encoder, &tally);
        print_message("%-8s %-6s encoder %d: %ld rows, %ld declined, %ld with other bytes\n", isa,
                      name, (int)encoder, tally.n_encoded, tally.n_declined, tally.n_bad);
        assert_int_equal(tally.n_bad, 0);
        assert_true(tally.n_encoded > N_ROW / 2);
    }
    varve_context_destroy(context);
}

static void test_stock(void **state) {
    (void)state;
    const char *isa;
    bool available;
    for (int32_t i = 0; (isa = varve_isa_name(i, &available)) != NULL; i++) {
        if (available) test_level(isa);
    }
}

/* Functions that are nearly an encoder are told apart: 127 / amax from 1 / d, ties to even from
 * ties away, fused from rounded products. */
static void away_by_amax(const float *x, void *row, int64_t n) {
    stock_of(VARVE_FORMAT_Q8_0)(x, row, n);
    for (int64_t i = 0; i < n; i += BLOCK) {
        int8_t *const q = (int8_t *)row + i / BLOCK * 34 + 2;
        float amax = 0;
        for (int j = 0; j < BLOCK; j++) amax = fmaxf(amax, fabsf(x[i + j]));
        const float inverse = amax != 0 ? 127.0f / amax : 0;
        for (int j = 0; j < BLOCK; j++) q[j] = (int8_t)roundf(x[i + j] * inverse);
    }
}

static void fused(const float *x, void *row, int64_t n) {
    stock_of(VARVE_FORMAT_Q4_0)(x, row, n);
    for (int64_t i = 0; i < n; i += BLOCK) {
        uint8_t *const q = (uint8_t *)row + i / BLOCK * 18 + 2;
        float extreme = 0;
        for (int j = 0; j < BLOCK; j++) {
            if (fabsf(x[i + j]) > fabsf(extreme)) extreme = x[i + j];
        }
        const float d = extreme / -8;
        const float inverse = d != 0 ? 1 / d : 0;
        for (int j = 0; j < BLOCK; j++) {
            const int code = (int)fminf(15, floorf(fmaf(x[i + j], inverse, 8.5f)));
            const int shift = j < 16 ? 0 : 4;
            q[j % 16] = (uint8_t)((q[j % 16] & ~(15 << shift)) | code << shift);
        }
    }
}

static void test_strangers(void **state) {
    (void)state;
    struct varve_context *context = NULL;
    enum varve_encoder encoder;
    assert_int_equal(varve_context_create(NULL, &context), VARVE_OK);
    assert_int_equal(varve_encoder_find(context, VARVE_FORMAT_Q8_0, away_by_amax, &encoder),
                     VARVE_ERROR_UNSUPPORTED);
    assert_int_equal(varve_encoder_find(context, VARVE_FORMAT_Q4_0, fused, &encoder),
                     VARVE_ERROR_UNSUPPORTED);
    varve_context_destroy(context);
}

int main(int argc, char **argv) {
    random_state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    print_message("seed %llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stock),
        cmocka_unit_test(test_strangers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
