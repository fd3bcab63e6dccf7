/* q4_1: 20 bytes for 32 values: F16 d, F16 m, 16 bytes of nibbles; value = nibble * d + m. */
#include "format/block.h"

enum { BYTES = 20, D = 0, M = 2, Q = 4 };

static void encode_block(const float *restrict x, uint8_t *restrict block) {
    float min, max;
    varve_block_range(x, &min, &max);
    const float d = (max - min) / 15.0f;
    const float inverse = varve_block_inverse(d);
    uint8_t q[VARVE_BLOCK];
    varve_store_f16(block + D, d);
    varve_store_f16(block + M, min);
    for (int j = 0; j < VARVE_BLOCK; j++) {
        q[j] = varve_truncate_to((x[j] - min) * inverse + 0.5f, 15);
    }
    varve_pack_nibbles(q, block + Q);
}

static inline void unpack(const uint8_t *block, int8_t *q) {
    varve_unpack_nibbles(block + Q, 0, q);
}

void varve_encode_q4_1(const float *src, int64_t n, void *dst) {
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) encode_block(src + i, block);
}

void varve_split_q4_1(const void *src, int64_t n, int8_t *q, float *d, float *m) {
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        unpack(block, q + i);
        d[i / VARVE_BLOCK] = varve_load_f16(block + D);
        m[i / VARVE_BLOCK] = varve_load_f16(block + M);
    }
}

void varve_decode_q4_1(const void *src, int64_t n, float *dst) {
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        int8_t q[VARVE_BLOCK];
        unpack(block, q);
        varve_expand_min(q, varve_load_f16(block + D), varve_load_f16(block + M), dst + i);
    }
}
