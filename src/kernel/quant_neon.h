/* The formats as the NEON kernels see them. Every function is inlined with a constant format. Codes
 * are signed bytes here, the bias taken off. */
#ifndef VARVE_KERNEL_QUANT_NEON_H
#define VARVE_KERNEL_QUANT_NEON_H

#include "kernel/vec_neon.h" /* first: the width of the vectors */

#include "kernel/quant.h"

/* ------------------------------------------------------------------------------ values of one row
 */

/* Shifted up by 16 bits: zeros below each of the 8 values. */
VEC_INLINE float32x4_t vec_widen_bf16(uint16x8_t x, const bool high) {
    const uint16x8_t zero = vdupq_n_u16(0);
    return vreinterpretq_f32_u16(high ? vzip2q_u16(zero, x) : vzip1q_u16(zero, x));
}

/* Float formats: 8 values. */
VEC_INLINE void vec_load_float_8(const enum varve_format f, const uint8_t *p, float32x4_t x[2]) {
    const uint8x16_t bytes = vld1q_u8(p);
    if (f == VARVE_FORMAT_F32) {
        x[0] = vreinterpretq_f32_u8(bytes);
        x[1] = vreinterpretq_f32_u8(vld1q_u8(p + 16));
    } else if (f == VARVE_FORMAT_F16) {
        x[0] = vcvt_f32_f16(vget_low_f16(vreinterpretq_f16_u8(bytes)));
        x[1] = vcvt_high_f32_f16(vreinterpretq_f16_u8(bytes));
    } else {
        x[0] = vec_widen_bf16(vreinterpretq_u16_u8(bytes), false);
        x[1] = vec_widen_bf16(vreinterpretq_u16_u8(bytes), true);
    }
}

/* 4 values. */
VEC_INLINE float32x4_t vec_load_float(const enum varve_format f, const uint8_t *p) {
    if (f == VARVE_FORMAT_F32) return vreinterpretq_f32_u8(vld1q_u8(p));
    if (f == VARVE_FORMAT_F16) return vec_load_f16(p);
    const uint8x8_t bytes = vld1_u8(p);
    return vec_widen_bf16(vreinterpretq_u16_u8(vcombine_u8(bytes, bytes)), false);
}

/* The first n < 4 values, zeros after them; the bytes of the others are not read. */
VEC_INLINE float32x4_t vec_load_float_part(const enum varve_format f, const uint8_t *p, int32_t n) {
    const size_t bytes = f == VARVE_FORMAT_F32 ? 4 : 2;
    uint8_t value[16] __attribute__((aligned(16))) = {0};
    if (n > 0) memcpy(value, p, bytes * (size_t)n);
    return vec_load_float(f, value);
}

VEC_INLINE int8x16_t quant_iq4_nl_values(void) {
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
    return vld1q_s8(values);
}

/* Puts the fifth bits into codes of four: `bits` has 8 times the byte that holds those of 8 codes,
 * for each half of x. The bias of q5_0 goes with it: a code below 16 minus 16 is the code with all
 * bits above it set. */
VEC_INLINE uint8x16_t quant_put_fifth(const enum varve_format f, uint8x16_t x, uint8x16_t bits) {
    const uint8x16_t which = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    const uint8x16_t set = vtstq_u8(bits, which);
    if (f == VARVE_FORMAT_Q5_0) return vorrq_u8(x, vbicq_u8(vdupq_n_u8(0xF0), set));
    return vorrq_u8(x, vandq_u8(vdupq_n_u8(16), set));
}

/* Codes of four or five bits, the latter complete, to signed bytes. */
VEC_INLINE int8x16_t quant_signed(const enum varve_format f, uint8x16_t code) {
    if (f == VARVE_FORMAT_IQ4_NL) return vqtbl1q_s8(quant_iq4_nl_values(), code);
    const int8x16_t x = vreinterpretq_s8_u8(code);
    return f == VARVE_FORMAT_Q4_0 ? vsubq_s8(x, vdupq_n_s8(8)) : x;
}

/* The codes of half a block, 0 or 1. */
VEC_INLINE int8x16_t quant_load_half(const enum varve_format f, const uint8_t *block,
                                     const int32_t half) {
    const uint8_t *const codes = block + quant_codes_at(f);
    if (f == VARVE_FORMAT_Q8_0) return vreinterpretq_s8_u8(vld1q_u8(codes + 16 * half));
    const uint8x16_t packed = vld1q_u8(codes);
    uint8x16_t x = half == 0 ? vandq_u8(packed, vdupq_n_u8(15)) : vshrq_n_u8(packed, 4);
    if (quant_has_high(f)) {
        const uint8_t *const high = codes - 4 + 2 * half;
        x = quant_put_fifth(f, x, vcombine_u8(vdup_n_u8(high[0]), vdup_n_u8(high[1])));
    }
    return quant_signed(f, x);
}

/* 16 codes as floats. */
VEC_INLINE void quant_widen(int8x16_t code, float32x4_t x[4]) {
    const int16x8_t low = vmovl_s8(vget_low_s8(code));
    const int16x8_t high = vmovl_high_s8(code);
    x[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    x[1] = vcvtq_f32_s32(vmovl_high_s16(low));
    x[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    x[3] = vcvtq_f32_s32(vmovl_high_s16(high));
}

/* ------------------------------------------------------------------------- one block of 4 rows
 *
 * Two rows to a vector, 8 codes of each: x[j] holds the codes 8j .. 8j + 7 of rows 0 and 1, x[4 +
 * j] those of rows 2 and 3. It is what the matrix product of i8mm takes, and dot products of one
 * query need one addition across lanes for four rows. */

VEC_INLINE void quant_pair(uint8x16_t a, uint8x16_t b, uint8x16_t x[2]) {
    const uint64x2_t c = vreinterpretq_u64_u8(a);
    const uint64x2_t d = vreinterpretq_u64_u8(b);
    x[0] = vreinterpretq_u8_u64(vtrn1q_u64(c, d));
    x[1] = vreinterpretq_u8_u64(vtrn2q_u64(c, d));
}

/* The fifth bits of two rows, byte j of either 8 times. */
VEC_INLINE uint8x16_t quant_spread_high(const enum varve_format f, const uint8_t *a,
                                        const uint8_t *b, const int32_t j) {
    const int32_t at = quant_codes_at(f) - 4 + j;
    return vcombine_u8(vdup_n_u8(a[at]), vdup_n_u8(b[at]));
}

/* The codes of two rows. */
VEC_INLINE void quant_load_pair(const enum varve_format f, const uint8_t *a, const uint8_t *b,
                                int32x4_t x[4]) {
    const int32_t at = quant_codes_at(f);
    uint8x16_t y[4];
    quant_pair(vld1q_u8(a + at), vld1q_u8(b + at), y);
    if (f == VARVE_FORMAT_Q8_0) {
        quant_pair(vld1q_u8(a + at + 16), vld1q_u8(b + at + 16), y + 2);
        VEC_UNROLL
        for (int32_t j = 0; j < 4; j++) x[j] = vreinterpretq_s32_u8(y[j]);
        return;
    }
    VEC_UNROLL
    for (int32_t j = 0; j < 2; j++) {
        y[2 + j] = vshrq_n_u8(y[j], 4);
        y[j] = vandq_u8(y[j], vdupq_n_u8(15));
    }
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        if (quant_has_high(f)) y[j] = quant_put_fifth(f, y[j], quant_spread_high(f, a, b, j));
        x[j] = vreinterpretq_s32_s8(quant_signed(f, y[j]));
    }
}

VEC_INLINE void quant_load_codes(const enum varve_format f, const uint8_t *const *rows,
                                 int64_t offset, int32x4_t x[8]) {
    quant_load_pair(f, rows[0] + offset, rows[1] + offset, x);
    quant_load_pair(f, rows[2] + offset, rows[3] + offset, x + 4);
}

#endif
