/* q4_0: 18 bytes for 32 values: F16 d, 16 bytes of nibbles; value = (nibble - 8) * d. */
#include "format/block.h"

enum { BYTES = 18, D = 0, Q = 2, BIAS = 8 };

/* The extreme value becomes exactly -8, so that the step has its sign and +8 is cut to +7. */
static void encode_block(const float *restrict x, uint8_t *restrict block) {
    const float d = varve_block_extreme(x) / -8.0f;
    const float inverse = varve_block_inverse(d);
    uint8_t q[VARVE_BLOCK];
    varve_store_f16(block + D, d);
    for (int j = 0; j < VARVE_BLOCK; j++) q[j] = varve_truncate_to(x[j] * inverse + 8.5f, 15);
    varve_pack_nibbles(q, block + Q);
}

static inline void unpack(const uint8_t *block, int8_t *q) {
    varve_unpack_nibbles(block + Q, BIAS, q);
}

void varve_encode_q4_0(const float *src, int64_t n, void *dst) {
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) encode_block(src + i, block);
}

void varve_split_q4_0(const void *src, int64_t n, int8_t *q, float *d, float *m) {
    const uint8_t *block = src;
    (void)m;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        unpack(block, q + i);
        d[i / VARVE_BLOCK] = varve_load_f16(block + D);
    }
}

void varve_decode_q4_0(const void *src, int64_t n, float *dst) {
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        int8_t q[VARVE_BLOCK];
        unpack(block, q);
        varve_expand(q, varve_load_f16(block + D), dst + i);
    }
}
