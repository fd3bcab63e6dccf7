/* iq4_nl: 18 bytes for 32 values: F16 d, 16 bytes of nibbles; value = level[nibble] * d with 16
 * levels that lie closer together around zero. */
#include "format/block.h"

#include <string.h>

enum { BYTES = 18, D = 0, Q = 2, N_LEVEL = 16 };

static const int8_t levels[N_LEVEL] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113};

/* Blocks all smaller than this are stored as zeros (d = 0). */
#define SMALLEST 1e-15f

/* Index of the level nearest to x; half-way goes to the upper one. NaN gives the last index. */
static uint8_t nearest_level(float x) {
    if (x <= (float)levels[0]) return 0;
    int upper = 1;
    while (upper < N_LEVEL - 1 && !(x < (float)levels[upper])) upper++;
    if (x >= (float)levels[N_LEVEL - 1]) return N_LEVEL - 1;
    const float above = (float)levels[upper] - x;
    const float below = x - (float)levels[upper - 1];
    return (uint8_t)(below < above ? upper - 1 : upper);
}

/* Chooses the levels with a step that maps the extreme value to -127, then replaces the step by the
 * weighted least-squares one for these levels, with weight x^2. */
static void encode_block(const float *restrict x, uint8_t *restrict q, uint8_t *restrict block) {
    const float extreme = varve_block_extreme(x);
    float d = 0.0f;
    if (fabsf(extreme) >= SMALLEST) {
        const float inverse = 1.0f / (extreme / (float)levels[0]);
        float xq = 0.0f; /* sum of w q x */
        float qq = 0.0f; /* sum of w q q */
        for (int j = 0; j < VARVE_BLOCK; j++) {
            q[j] = nearest_level(inverse * x[j]);
            const float level = (float)levels[q[j]];
            const float weighted = x[j] * x[j] * level;
            xq += weighted * x[j];
            qq += weighted * level;
        }
        d = qq > 0.0f ? xq / qq : 0.0f;
    }
    varve_store_f16(block + D, d);
    varve_pack_nibbles(q, block + Q);
}

/* A block of (near) zeros gets d = 0 and keeps the indices of the block before it, because that is
 * what ggml writes. For the first block ggml writes whatever was on its stack: here, the index of
 * the level nearest to zero. */
void varve_encode_iq4_nl(const float *src, int64_t n, void *dst) {
    uint8_t q[VARVE_BLOCK];
    memset(q, nearest_level(0.0f), sizeof q);
    uint8_t *block = dst;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) encode_block(src + i, q, block);
}

static inline void unpack(const uint8_t *restrict block, int8_t *restrict q) {
    for (int j = 0; j < VARVE_BLOCK / 2; j++) {
        q[j] = levels[block[Q + j] & 15];
        q[j + VARVE_BLOCK / 2] = levels[block[Q + j] >> 4];
    }
}

void varve_split_iq4_nl(const void *src, int64_t n, int8_t *q, float *d, float *m) {
    const uint8_t *block = src;
    (void)m;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        unpack(block, q + i);
        d[i / VARVE_BLOCK] = varve_load_f16(block + D);
    }
}

void varve_decode_iq4_nl(const void *src, int64_t n, float *dst) {
    const uint8_t *block = src;
    for (int64_t i = 0; i < n; i += VARVE_BLOCK, block += BYTES) {
        int8_t q[VARVE_BLOCK];
        unpack(block, q);
        varve_expand(q, varve_load_f16(block + D), dst + i);
    }
}
