#include "base/fp16.h"
#include "kernel/scalar.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* One block of q8_0 by ggml's vectorised encoders. Adding 1.5 * 2^23 rounds to nearest even. */
static bool encode_block(const float *x, bool by_amax, uint8_t *block) {
    const float round_even = 12582912.0f;
    float amax = 0.0f;
    bool finite = true;
    for (int32_t j = 0; j < VARVE_BLOCK; j++) {
        const float a = fabsf(x[j]);
        finite &= a <= FLT_MAX;
        amax = amax > a ? amax : a;
    }
    const float d = amax / 127.0f;
    const float divisor = by_amax ? amax : d;
    const float inverse = divisor != 0.0f ? (by_amax ? 127.0f : 1.0f) / divisor : 0.0f;
    if (!finite || inverse > FLT_MAX) return false;
    const uint16_t half = varve_f32_to_f16(d);
    memcpy(block, &half, sizeof half);
    for (int32_t j = 0; j < VARVE_BLOCK; j++) {
        block[2 + j] = (uint8_t)(int8_t)(x[j] * inverse + round_even - round_even);
    }
    return true;
}

bool varve_encode_any_scalar(const struct varve_encode_args *args) {
    if (args->encoder == VARVE_ENCODER_REFERENCE || args->format->format != VARVE_FORMAT_Q8_0) {
        args->format->encode(args->x, args->n, args->row);
        return true;
    }
    const bool by_amax = args->encoder == VARVE_ENCODER_AVX;
    uint8_t *block = args->row;
    for (int64_t i = 0; i < args->n; i += VARVE_BLOCK, block += args->format->block_bytes) {
        if (!encode_block(args->x + i, by_amax, block)) return false;
    }
    return true;
}
