/* What the files of this folder share: prototypes of every format's functions, and the few steps
 * that several block formats have in common. Blocks are read and written byte by byte, so neither
 * alignment nor the byte order of the CPU matters.
 */
#ifndef VARVE_FORMAT_BLOCK_H
#define VARVE_FORMAT_BLOCK_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/fp16.h"
#include "format/format.h"

#define VARVE_FORMAT_FLOAT(suffix, name, values, bytes)               \
    void varve_encode_##name(const float *src, int64_t n, void *dst); \
    void varve_decode_##name(const void *src, int64_t n, float *dst);
#define VARVE_FORMAT_QUANT(suffix, name, bytes, has_min) \
    VARVE_FORMAT_FLOAT(suffix, name, VARVE_BLOCK, bytes) \
    void varve_split_##name(const void *src, int64_t n, int8_t *q, float *d, float *m);
#include "format/formats.inc"
#undef VARVE_FORMAT_FLOAT
#undef VARVE_FORMAT_QUANT

static inline uint16_t varve_load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | (uint32_t)p[1] << 8);
}

static inline void varve_store_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v & 0xFFu);
    p[1] = (uint8_t)(v >> 8);
}

static inline uint32_t varve_load_u32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void varve_store_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i) & 0xFFu);
}

static inline float varve_load_f16(const uint8_t *p) { return varve_f16_to_f32(varve_load_u16(p)); }

static inline void varve_store_f16(uint8_t *p, float f) { varve_store_u16(p, varve_f32_to_f16(f)); }

/* 16 bytes of nibbles: value j is in the low half of byte j, value j + 16 in the high half. */
static inline void varve_unpack_nibbles(const uint8_t *restrict p, int bias, int8_t *restrict q) {
    for (int j = 0; j < VARVE_BLOCK / 2; j++) {
        q[j] = (int8_t)((p[j] & 15) - bias);
        q[j + VARVE_BLOCK / 2] = (int8_t)((p[j] >> 4) - bias);
    }
}

/* 32 bits to 32 bytes, 16 for each set bit. Comparing with a mask per byte is what vector units can
 * do; shifting each byte by its own amount is not. */
static inline void varve_spread_bits(uint32_t bits, uint8_t *restrict p) {
    static const uint8_t masks[VARVE_BLOCK] = {
        1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
        1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
    };
    for (int j = 0; j < 4; j++) memset(p + 8 * j, (int)(bits >> (8 * j) & 0xFFu), 8);
    for (int j = 0; j < VARVE_BLOCK; j++) p[j] = (p[j] & masks[j]) == masks[j] ? 16 : 0;
}

/* Nibbles as above plus one high bit for each value, bit j of `high` for value j. */
static inline void varve_unpack_5bit(const uint8_t *restrict p, uint32_t high, int bias,
                                     int8_t *restrict q) {
    uint8_t sixteens[VARVE_BLOCK];
    varve_spread_bits(high, sixteens);
    varve_unpack_nibbles(p, 0, q);
    for (int j = 0; j < VARVE_BLOCK; j++) q[j] = (int8_t)(q[j] + sixteens[j] - bias);
}

static inline void varve_pack_nibbles(const uint8_t *restrict q, uint8_t *restrict p) {
    for (int j = 0; j < VARVE_BLOCK / 2; j++) {
        p[j] = (uint8_t)((q[j] & 15u) | (q[j + VARVE_BLOCK / 2] & 15u) << 4);
    }
}

static inline uint32_t varve_pack_high_bits(const uint8_t *q) {
    uint32_t high = 0;
    for (int j = 0; j < VARVE_BLOCK; j++) high |= (uint32_t)(q[j] >> 4 & 1u) << j;
    return high;
}

/* The value of a block that lies farthest from zero, sign included; the first one of several. */
static inline float varve_block_extreme(const float *x) {
    float amax = 0.0f;
    float extreme = 0.0f;
    for (int j = 0; j < VARVE_BLOCK; j++) {
        if (amax < fabsf(x[j])) {
            amax = fabsf(x[j]);
            extreme = x[j];
        }
    }
    return extreme;
}

static inline void varve_block_range(const float *x, float *min, float *max) {
    *min = FLT_MAX;
    *max = -FLT_MAX;
    for (int j = 0; j < VARVE_BLOCK; j++) {
        if (x[j] < *min) *min = x[j];
        if (x[j] > *max) *max = x[j];
    }
}

/* Reciprocal of a step; a block whose step is zero has all its integers zero. */
static inline float varve_block_inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

/* Truncates to an integer of 0..top. What is no such number (NaN, or an infinity because the
 * reciprocal of a subnormal step overflowed) becomes 0: the low byte that the x86 conversion gives
 * and that ggml therefore stores, but without C's undefined conversion. */
static inline uint8_t varve_truncate_to(float x, int top) {
    const float inside = x >= 0.0f && x < 256.0f ? x : 0.0f;
    const int i = (int)inside;
    return (uint8_t)(i < top ? i : top);
}

static inline void varve_expand(const int8_t *restrict q, float d, float *restrict dst) {
    for (int j = 0; j < VARVE_BLOCK; j++) dst[j] = (float)q[j] * d;
}

/* Two roundings, product and sum: this must not become a fused multiply-add. */
static inline void varve_expand_min(const int8_t *restrict q, float d, float m,
                                    float *restrict dst) {
    for (int j = 0; j < VARVE_BLOCK; j++) dst[j] = (float)q[j] * d + m;
}

#endif
