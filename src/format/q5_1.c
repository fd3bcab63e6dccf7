/* q5_1: 24 bytes for 32 values: F16 d, F16 m, 32 high bits, 16 bytes of nibbles;
 * value = 5-bit number * d + m. */
#include "format/block.h"

enum { BYTES = 24, D = 0, M = 2, HIGH = 4, Q = 8 };

static void encode_block(const float *restrict x, uint8_t *restrict block) {
    float min, max;
    varve_block_range(x, &min, &max);
    const float d = (max - min) / 31.0f;
    const float inverse = varve_block_inverse(d);
    uint8_t q[VARVE_BLOCK];
    varve_store_f16(block + D, d);
    varve_store_f16(block + M, min);
    for (int j = 0; j < VARVE_BLOCK; j++) {
        q[j] = varve_truncate_to((x[j] - min) * inverse + 0.5f, 31);
    }
    varve_store_u32(block + HIGH, varve_pack_high_bits(q));
    varve_pack_nibbles(q, block + Q);
}

static inline void unpack(const uint8_t *block, int8_t *q) {
    varve_unpack_5bit(block + Q, varve_load_u32(block + HIGH), 0, q);
}

void varve_encode_q5_1(const float *src, int64_t n, void *dst) {
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) encode_block(src + i, block);
}

void varve_split_q5_1(const void *src, int64_t n, int8_t *q, float *d, float *m) {
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        unpack(block, q + i);
        d[i / VARVE_BLOCK] = varve_load_f16(block + D);
        m[i / VARVE_BLOCK] = varve_load_f16(block + M);
    }
}

void varve_decode_q5_1(const void *src, int64_t n, float *dst) {
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        int8_t q[VARVE_BLOCK];
        unpack(block, q);
        varve_expand_min(q, varve_load_f16(block + D), varve_load_f16(block + M), dst + i);
    }
}
