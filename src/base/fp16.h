/* Scalar conversion between F32 and the 16-bit floats, without reliance on compiler extensions. */
#ifndef VARVE_BASE_FP16_H
#define VARVE_BASE_FP16_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define VARVE_F16_NEG_INF 0xFC00u

static inline float varve_bits_to_f32(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t varve_f32_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* IEEE binary16 -> F32, exact; NaN payloads are kept and made quiet as the hardware does. All three
 * cases are computed and one is chosen by masks: with ?: compilers make branches, which keep loops
 * over this from being vectorised. */
static inline float varve_f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t magnitude = h & 0x7FFFu;
    const uint32_t is_small = 0u - (uint32_t)(magnitude < 0x400u); /* zero or subnormal */
    const uint32_t is_special = 0u - (uint32_t)(magnitude >= 0x7C00u);
    const uint32_t is_nan = 0u - (uint32_t)(magnitude > 0x7C00u);
    /* exponent bias 127 - 15 = 112; infinity and NaN, 31, become 255: 112 more */
    const uint32_t large =
        ((magnitude << 13) + (112u << 23) + (is_special & 112u << 23)) | (is_nan & 0x400000u);
    /* magnitude * 2^-24, exact in F32 (the int cast is a cheap conversion on x86) */
    const uint32_t subnormal = varve_f32_to_bits((float)(int32_t)magnitude * 0x1p-24f);
    return varve_bits_to_f32(sign | (subnormal & is_small) | (large & ~is_small));
}

/* F32 -> IEEE binary16, round to nearest even, overflow to infinity, as F16C does, but each NaN
 * becomes the one quiet NaN of its sign, as in ggml's reference (F16C would keep payload bits). */
static inline uint16_t varve_f32_to_f16(float f) {
    const uint32_t bits = varve_f32_to_bits(f);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u);
    if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7C00u); /* >= 2^16, and infinity */
    if (magnitude < 0x38800000u) { /* below 2^-14: subnormal; adding 0.5 rounds to 2^-24 steps */
        const float rounded = varve_bits_to_f32(magnitude) + 0.5f;
        return (uint16_t)(sign | (varve_f32_to_bits(rounded) - 0x3F000000u));
    }
    const uint32_t even = (magnitude >> 13) & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xFFFu + even) >> 13));
}

static inline bool varve_f16_is_finite(uint16_t h) { return (h & 0x7C00u) != 0x7C00u; }

static inline float varve_bf16_to_f32(uint16_t h) { return varve_bits_to_f32((uint32_t)h << 16); }

/* F32 -> bfloat16, round to nearest even; NaN stays NaN (made quiet). */
static inline uint16_t varve_f32_to_bf16(float f) {
    const uint32_t bits = varve_f32_to_bits(f);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((bits >> 16) | 64u);
    return (uint16_t)((bits + (0x7FFFu + ((bits >> 16) & 1u))) >> 16);
}

/* The same, but denormals become zero, as in the instructions for bfloat16. */
static inline uint16_t varve_f32_to_normal_bf16(float f) {
    const uint32_t bits = varve_f32_to_bits(f);
    return (bits & 0x7F800000u) == 0 ? (uint16_t)(bits >> 16 & 0x8000u) : varve_f32_to_bf16(f);
}

/* Two of them in one word, the first in the lower half. */
static inline uint32_t varve_bf16_pair(float first, float second) {
    return varve_f32_to_normal_bf16(first) | (uint32_t)varve_f32_to_normal_bf16(second) << 16;
}

static inline float varve_pair_first(uint32_t pair) { return varve_bits_to_f32(pair << 16); }

static inline float varve_pair_second(uint32_t pair) {
    return varve_bits_to_f32(pair & 0xFFFF0000u);
}

#endif
