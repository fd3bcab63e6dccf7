/* q5_0: 22 bytes for 32 values: F16 d, 32 high bits, 16 bytes of nibbles;
 * value = (5-bit number - 16) * d. */
#include "format/block.h"

enum { BYTES = 22, D = 0, HIGH = 2, Q = 6, BIAS = 16 };

/* The extreme value becomes exactly -16, so that the step has its sign and +16 is cut to +15. */
static void encode_block(const float *restrict x, uint8_t *restrict block) {
    const float d = varve_block_extreme(x) / -16.0f;
    const float inverse = varve_block_inverse(d);
    uint8_t q[VARVE_BLOCK];
    varve_store_f16(block + D, d);
    for (int j = 0; j < VARVE_BLOCK; j++) q[j] = varve_truncate_to(x[j] * inverse + 16.5f, 31);
    varve_store_u32(block + HIGH, varve_pack_high_bits(q));
    varve_pack_nibbles(q, block + Q);
}

static inline void unpack(const uint8_t *block, int8_t *q) {
    varve_unpack_5bit(block + Q, varve_load_u32(block + HIGH), BIAS, q);
}

void varve_encode_q5_0(const float *src, int64_t n, void *dst) {
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) encode_block(src + i, block);
}

void varve_split_q5_0(const void *src, int64_t n, int8_t *q, float *d, float *m) {
    const uint8_t *block = src;
    (void)m;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        unpack(block, q + i);
        d[i / VARVE_BLOCK] = varve_load_f16(block + D);
    }
}

void varve_decode_q5_0(const void *src, int64_t n, float *dst) {
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        int8_t q[VARVE_BLOCK];
        unpack(block, q);
        varve_expand(q, varve_load_f16(block + D), dst + i);
    }
}
