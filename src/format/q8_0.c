/* q8_0: 34 bytes for 32 values: F16 d, 32 signed bytes q; value = q * d. */
#include "format/block.h"

#include <string.h>

enum { BYTES = 34, D = 0, Q = 2 };

/* Half away from zero, as roundf; the difference to the truncated value is exact. Out of range or
 * NaN gives 0, see varve_truncate_to. */
static inline int8_t round_away(float x) {
    const float inside = fabsf(x) < 256.0f ? x : 0.0f;
    const int i = (int)inside;
    const float rest = inside - (float)i;
    return (int8_t)(i + (rest >= 0.5f) - (rest <= -0.5f));
}

static void encode_block(const float *restrict x, uint8_t *restrict block) {
    float amax = 0.0f;
    for (int j = 0; j < VARVE_BLOCK; j++) {
        const float a = fabsf(x[j]);
        amax = amax > a ? amax : a;
    }
    const float d = amax / 127.0f;
    const float inverse = varve_block_inverse(d);
    varve_store_f16(block + D, d);
    for (int j = 0; j < VARVE_BLOCK; j++) {
        block[Q + j] = (uint8_t)round_away(x[j] * inverse);
    }
}

void varve_encode_q8_0(const float *src, int64_t n, void *dst) {
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) encode_block(src + i, block);
}

void varve_split_q8_0(const void *src, int64_t n, int8_t *q, float *d, float *m) {
    (void)m;
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        memcpy(q + i, block + Q, VARVE_BLOCK);
        d[i / VARVE_BLOCK] = varve_load_f16(block + D);
    }
}

void varve_decode_q8_0(const void *src, int64_t n, float *dst) {
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        int8_t q[VARVE_BLOCK];
        memcpy(q, block + Q, sizeof q);
        varve_expand(q, varve_load_f16(block + D), dst + i);
    }
}
