/* The scalar codecs: their own bounds, their parts, and that they touch nothing else. That their
 * bytes are ggml's is tests/ggml's business. */
#include <math.h>
#include <string.h>

#include "check/check.h"
#include "check/rows.h"
#include "check/tol.h"

/* How far encode + decode may move value i of a block of values. */
static double encode_error(const struct varve_format_traits *format, const float *block, int i) {
    float min = block[0], max = block[0];
    for (int j = 1; j < format->block_values; j++) {
        min = fminf(min, block[j]);
        max = fmaxf(max, block[j]);
    }
    const double amax = fmax(fabs((double)min), fabs((double)max));
    const double range = (double)max - min;
    switch (format->format) {
    case VARVE_FORMAT_F32: return 0;
    case VARVE_FORMAT_F16: return tol_encode_f16(block[i]);
    case VARVE_FORMAT_BF16: return tol_encode_bf16(block[i]);
    case VARVE_FORMAT_Q8_0: return tol_encode_grid(amax / 127, 127, 0);
    case VARVE_FORMAT_Q4_0: return tol_encode_grid(amax / 8, 8, 0);
    case VARVE_FORMAT_Q4_1: return tol_encode_grid(range / 15, 15, amax);
    case VARVE_FORMAT_Q5_0: return tol_encode_grid(amax / 16, 16, 0);
    case VARVE_FORMAT_Q5_1: return tol_encode_grid(range / 31, 31, amax);
    case VARVE_FORMAT_IQ4_NL: return tol_encode_iq4_nl(amax);
    }
    return 0;
}

/* A row between forbidden pages, there and back. */
static void round_trip(struct check *check, const struct varve_format_traits *format) {
    const int32_t n = rows_head_dim(check, format);
    const enum check_place place = (enum check_place)check_range(check, 0, PLACE_COUNT - 1);
    const size_t n_byte = (size_t)(n / format->block_values * format->block_bytes);
    float *const x = check_aligned(BUFFER_X, (size_t)n * sizeof *x);
    float *const y = check_aligned(BUFFER_T, (size_t)n * sizeof *y);
    uint8_t *const bytes = check_place(check, BUFFER_ROW, n_byte, place);
    check_case(check, "round trip, n %d", n);
    const float scale = check_range(check, 0, 1) ? 1 : INPUT_HUGE;
    for (int i = 0; i < n; i++) x[i] = check_unit(check) * scale;
    format->encode(x, n, bytes);
    check_around(check, BUFFER_ROW, "the row");
    format->decode(bytes, n, y);
    check_around(check, BUFFER_T, "the decoded row");
    for (int i = 0; i < n; i++) {
        const int block = i / format->block_values * format->block_values;
        check_near(check, "value", 0, i, y[i], x[i], encode_error(format, x + block, i - block));
    }
}

/* decode is d * q (+ m), with one rounding per operation, for all bytes. */
static void parts(struct check *check, const struct varve_format_traits *format) {
    struct rows rows;
    const int32_t n = rows_head_dim(check, format);
    check_case(check, "parts, n %d", n);
    rows_create(&rows, check, format, ROWS_PATTERN, n, 1);
    for (int i = 0; i < n; i++) {
        const float product = (float)rows.q[i] * rows.d[i / VARVE_BLOCK];
        const float want = format->has_min ? product + rows.m[i / VARVE_BLOCK] : product;
        check_near(check, "value", 0, i, rows.value[i], want, 0);
    }
    rows_destroy(&rows);
}

/* No input may do more than give useless values. */
static void any_input(struct check *check, const struct varve_format_traits *format) {
    enum { N = 64 };
    float *const x = check_aligned(BUFFER_X, N * sizeof *x);
    float *const y = check_aligned(BUFFER_T, N * sizeof *y);
    const size_t n_byte = (size_t)(N / format->block_values * format->block_bytes);
    uint8_t *const bytes = check_place(check, BUFFER_ROW, n_byte, PLACE_END);
    check_case(check, "any bits");
    for (int i = 0; i < N; i++) {
        const uint32_t bits = check_random(check) | (check_range(check, 0, 4) ? 0 : 0x7F800000u);
        memcpy(&x[i], &bits, sizeof bits);
    }
    format->encode(x, N, bytes);
    format->decode(bytes, N, y);
    for (size_t i = 0; i < n_byte; i++) bytes[i] = (uint8_t)(check_random(check) >> 24);
    format->decode(bytes, N, y);
    check_around(check, BUFFER_T, "the decoded row");
}

void varve_check_codec(struct check *check, const struct varve_format_traits *format) {
    for (int i = 0; i < 50 * check->n_case; i++) {
        round_trip(check, format);
        any_input(check, format);
        if (format->quantized) parts(check, format);
    }
}
