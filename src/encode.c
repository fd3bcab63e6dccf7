/* Rows written with the kernels of a context, by any of ggml's encoders. */
#include <string.h>

#include "kernel/context.h"

enum varve_status varve_encode(const struct varve_context *context, enum varve_format format,
                               enum varve_encoder encoder, const float *src, int64_t n_values,
                               void *dst) {
    size_t bytes;
    const enum varve_status status = varve_format_row_bytes(format, n_values, &bytes);
    if (context == NULL || src == NULL || dst == NULL || (unsigned)encoder >= VARVE_ENCODER_COUNT) {
        return VARVE_ERROR_ARGUMENT;
    }
    if (status != VARVE_OK) return status;
    const struct varve_format_traits *const traits = varve_format_traits(format);
    const struct varve_encode_args args = {traits, encoder, n_values, src, dst};
    if (traits->quantized && context->kernels.encode[format].run(&args)) return VARVE_OK;
    if (traits->quantized && encoder != VARVE_ENCODER_REFERENCE) return VARVE_ERROR_UNSUPPORTED;
    traits->encode(src, n_values, dst);
    return VARVE_OK;
}

/* ---- finding the encoder of a function ------------------------------------------------------ */

enum { PROBE_BLOCKS = 8, PROBE_VALUES = PROBE_BLOCKS * VARVE_BLOCK, PROBE_ROWS = 192 };

static uint32_t random_bits(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

/* x, up to two units in the last place further. */
static float beside(float x, uint32_t bits) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u += bits % 5 - (u >= 2 && (u & 0x7FFFFFFFu) >= 2 ? 2 : 0);
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Encoders differ where a value lies half-way between two integers, or nearly so: most values here
 * are multiples of half a step of the format, about as many steps from zero or from the smallest
 * value as its integers go. Powers of two as steps give exact ties. */
static void fill_block(enum varve_format format, uint64_t *state, float *x) {
    static const int32_t halves[VARVE_FORMAT_COUNT] = {
        [VARVE_FORMAT_Q8_0] = 254, [VARVE_FORMAT_Q4_0] = 16, [VARVE_FORMAT_Q4_1] = 30,
        [VARVE_FORMAT_Q5_0] = 32,  [VARVE_FORMAT_Q5_1] = 62, [VARVE_FORMAT_IQ4_NL] = 254};
    const uint32_t kind = random_bits(state);
    const int32_t n = halves[format];
    float step = 1.0f + (float)(random_bits(state) >> 9) * 0x1p-23f;
    if (kind % 4 == 0) step = 1.0f;
    const uint32_t scale = random_bits(state) % 40;
    for (uint32_t i = 0; i < scale; i++) step *= kind & 16 ? 0.5f : 2.0f;
    const float base = kind & 32 ? 0.0f : -step * (float)(random_bits(state) % 64);
    for (int32_t j = 0; j < VARVE_BLOCK; j++) {
        const int32_t half = (int32_t)(random_bits(state) % (uint32_t)(n + 1));
        const uint32_t bits = random_bits(state);
        const bool whole = varve_format_traits(format)->has_min;
        x[j] = 0.5f * step * (float)(whole || (bits & 64) ? half : -half) + (whole ? base : 0.0f);
        if (kind % 4 == 1) x[j] = step * (float)(int32_t)random_bits(state) * 0x1p-31f;
        if (kind % 4 >= 2) x[j] = beside(x[j], bits);
        if (kind % 61 == 0) x[j] = bits & 64 ? 0.0f : -0.0f;
    }
    if (kind & 64) x[kind % VARVE_BLOCK] = 0.5f * step * (float)(kind & 128 ? n : -n);
}

/* Bits: NaN, infinities and numbers of any size among them. */
static void fill_with_anything(uint64_t *state, float *x) {
    for (int32_t j = 0; j < VARVE_BLOCK; j++) {
        const uint32_t bits = random_bits(state);
        memcpy(&x[j], &bits, sizeof bits);
    }
}

static bool same_bytes(const struct varve_context *context, enum varve_format format,
                       varve_from_float_fn *theirs, enum varve_encoder encoder) {
    uint8_t ours[PROBE_VALUES * 4], other[PROBE_VALUES * 4];
    float x[PROBE_VALUES];
    uint64_t state = 1;
    size_t bytes = 0;
    varve_format_row_bytes(format, PROBE_VALUES, &bytes);
    for (int i = 0; i < PROBE_ROWS; i++) {
        const bool ordinary = i % 16 != 15;
        for (int b = 0; b < PROBE_BLOCKS; b++) fill_block(format, &state, x + b * VARVE_BLOCK);
        if (!ordinary) fill_with_anything(&state, x + i / 16 % PROBE_BLOCKS * VARVE_BLOCK);
        const enum varve_status status =
            varve_encode(context, format, encoder, x, PROBE_VALUES, ours);
        if (status == VARVE_ERROR_UNSUPPORTED && !ordinary) continue; /* they will be asked */
        theirs(x, other, PROBE_VALUES);
        if (status != VARVE_OK || memcmp(ours, other, bytes) != 0) return false;
    }
    return true;
}

enum varve_status varve_encoder_find(const struct varve_context *context, enum varve_format format,
                                     varve_from_float_fn *theirs, enum varve_encoder *encoder) {
    const struct varve_format_traits *const traits = varve_format_traits(format);
    if (context == NULL || traits == NULL || theirs == NULL || encoder == NULL) {
        return VARVE_ERROR_ARGUMENT;
    }
    if (!traits->quantized || context->kernels.encode[format].isa == VARVE_ISA_SCALAR) {
        return VARVE_ERROR_UNSUPPORTED;
    }
    for (int i = 0; i < VARVE_ENCODER_COUNT; i++) {
        *encoder = (enum varve_encoder)i;
        if (same_bytes(context, format, theirs, *encoder)) return VARVE_OK;
    }
    return VARVE_ERROR_UNSUPPORTED;
}
