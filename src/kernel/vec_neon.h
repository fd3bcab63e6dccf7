/* What the NEON kernels and those of the levels above share: loads, half precision, transposes,
 * sums, exp and tanh. 64-bit ARM alone; included only by files compiled for one of these levels. */
#ifndef VARVE_KERNEL_VEC_NEON_H
#define VARVE_KERNEL_VEC_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "kernel/dispatch.h" /* the prototypes */

#define VEC_LANES 4
#include "kernel/vec.h"

/* For code that is the same for every width: kernel/quant_score.h. There are no masked loads and
 * stores: a mask is the number of its lanes. */
typedef float32x4_t vec_f32;
typedef int32x4_t vec_i32;
typedef int32_t vec_mask;

VEC_INLINE vec_f32 vec_zero(void) { return vdupq_n_f32(0.0f); }
VEC_INLINE vec_f32 vec_all(float x) { return vdupq_n_f32(x); }
VEC_INLINE vec_f32 vec_mul(vec_f32 a, vec_f32 b) { return vmulq_f32(a, b); }
VEC_INLINE vec_f32 vec_fma(vec_f32 a, vec_f32 b, vec_f32 c) { return vfmaq_f32(c, a, b); }
VEC_INLINE vec_f32 vec_abs(vec_f32 x) { return vabsq_f32(x); }
VEC_INLINE vec_f32 vec_add(vec_f32 a, vec_f32 b) { return vaddq_f32(a, b); }
VEC_INLINE vec_f32 vec_sub(vec_f32 a, vec_f32 b) { return vsubq_f32(a, b); }
VEC_INLINE vec_f32 vec_min_f32(vec_f32 a, vec_f32 b) { return vminq_f32(a, b); }
VEC_INLINE vec_f32 vec_max_f32(vec_f32 a, vec_f32 b) { return vmaxq_f32(a, b); }
/* The larger of two that are not negative; a NaN is larger than all. */
VEC_INLINE vec_f32 vec_max_bits(vec_f32 a, vec_f32 b) {
    return vreinterpretq_f32_s32(vmaxq_s32(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b)));
}
VEC_INLINE vec_f32 vec_with_sign(float magnitude, vec_f32 x) {
    const uint32x4_t sign = vdupq_n_u32(UINT32_C(1) << 31);
    return vbslq_f32(sign, x, vdupq_n_f32(magnitude));
}
VEC_INLINE vec_i32 vec_truncate(vec_f32 x) { return vcvtq_s32_f32(x); }
VEC_INLINE vec_i32 vec_round_even(vec_f32 x) { return vcvtnq_s32_f32(x); }
VEC_INLINE vec_f32 vec_load_any(const float *p) { return vld1q_f32(p); }
VEC_INLINE vec_f32 vec_to_f32(vec_i32 i) { return vcvtq_f32_s32(i); }
VEC_INLINE vec_mask vec_first(int32_t n) { return n; }

VEC_INLINE vec_f32 vec_load_some(vec_mask n, const float *p) {
    float x[VEC_LANES] = {0};
    if (n >= VEC_LANES) return vld1q_f32(p);
    for (int32_t i = 0; i < n; i++) x[i] = p[i];
    return vld1q_f32(x);
}

VEC_INLINE void vec_store_some(float *p, vec_mask n, vec_f32 x) {
    if (n >= VEC_LANES) {
        vst1q_f32(p, x);
        return;
    }
    if (n > 0) vst1q_lane_f32(p, x, 0);
    if (n > 1) vst1q_lane_f32(p + 1, x, 1);
    if (n > 2) vst1q_lane_f32(p + 2, x, 2);
}

/* All bits set in the first n of 4 lanes; in none for n <= 0. */
VEC_INLINE uint32x4_t vec_lanes(int32_t n) {
    static const int32_t lanes[VEC_LANES] = {0, 1, 2, 3};
    return vcltq_s32(vld1q_s32(lanes), vdupq_n_s32(n));
}

VEC_INLINE float32x4_t vec_keep(float32x4_t x, uint32x4_t lanes) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), lanes));
}

/* 4 halves. */
VEC_INLINE float32x4_t vec_load_f16(const uint8_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

VEC_INLINE float32x4_t vec_load_halves(const uint16_t *half) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half)));
}

/* One half float to every lane. */
VEC_INLINE float32x4_t vec_broadcast_f16(const uint8_t *p) {
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half)));
}

/* The half floats at `offset` of 4 rows. */
VEC_INLINE float32x4_t vec_gather_f16(const uint8_t *const *rows, int64_t offset) {
    uint16_t half[VEC_LANES] __attribute__((aligned(8)));
    vec_gather_halves(rows, VEC_LANES, offset, 0, 1, VEC_LANES, half);
    return vec_load_halves(half);
}

/* Transposes 4 x 4 floats in place. */
VEC_INLINE void vec_transpose(float32x4_t x[4]) {
    const float64x2_t even01 = vreinterpretq_f64_f32(vtrn1q_f32(x[0], x[1]));
    const float64x2_t odd01 = vreinterpretq_f64_f32(vtrn2q_f32(x[0], x[1]));
    const float64x2_t even23 = vreinterpretq_f64_f32(vtrn1q_f32(x[2], x[3]));
    const float64x2_t odd23 = vreinterpretq_f64_f32(vtrn2q_f32(x[2], x[3]));
    x[0] = vreinterpretq_f32_f64(vtrn1q_f64(even01, even23));
    x[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23));
    x[2] = vreinterpretq_f32_f64(vtrn2q_f64(even01, even23));
    x[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23));
}

/* Lane i is the sum of x[i]. */
VEC_INLINE float32x4_t vec_sums_4(const float32x4_t x[4]) {
    return vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3]));
}

/* 2^n for integers -126 <= n <= 127. */
VEC_INLINE float32x4_t vec_power_of_2(float32x4_t n) {
    const int32x4_t biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(biased, 23));
}

/* exp(x) - 1 = 2^n (1 + *part) - 1 for x <= 0, with the reduction and the polynomial that
 * kernel/vec_avx2.h explains. */
VEC_INLINE float32x4_t vec_exp_reduce(float32x4_t x, float32x4_t *part) {
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 0x1.715476p+0f));
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0x1.62e430p-1f));
    r = vfmsq_f32(r, n, vdupq_n_f32(-0x1.05c610p-29f));
    float32x4_t q = vdupq_n_f32(0x1.6a2434p-10f);
    q = vfmaq_f32(vdupq_n_f32(0x1.1239e2p-7f), q, r);
    q = vfmaq_f32(vdupq_n_f32(0x1.5558f2p-5f), q, r);
    q = vfmaq_f32(vdupq_n_f32(0x1.555492p-3f), q, r);
    q = vfmaq_f32(vdupq_n_f32(0x1.fffffcp-2f), q, r);
    *part = vfmaq_f32(r, vmulq_f32(r, r), q);
    return n;
}

/* exp(x) for x <= 0, within 1 ulp; exp(0) = 1, NaN stays. Below ln 2^-126 the result is 0, as at
 * the other levels. */
VEC_INLINE float32x4_t vec_exp(float32x4_t x) {
    float32x4_t part;
    const float32x4_t n = vec_exp_reduce(x, &part);
    const uint32x4_t is_small = vcltq_f32(x, vdupq_n_f32(-0x1.5d589ep+6f));
    const float32x4_t e = vaddq_f32(part, vdupq_n_f32(1.0f));
    return vec_keep(vmulq_f32(e, vec_power_of_2(n)), vmvnq_u32(is_small));
}

/* tanh(x) = -u / (u + 2) with u = exp(-2 |x|) - 1, formed without cancellation: u = 2^n part +
 * (2^n - 1), where 2^n - 1 is exact. Relative error below 4 ulp, also near 0; NaN stays. */
VEC_INLINE float32x4_t vec_tanh(float32x4_t x) {
    /* tanh(10) rounds to 1; the minimum lets NaN pass */
    const float32x4_t magnitude = vminq_f32(vabsq_f32(x), vdupq_n_f32(10.0f));
    float32x4_t part;
    const float32x4_t n = vec_exp_reduce(vmulq_n_f32(magnitude, -2.0f), &part);
    const float32x4_t power = vec_power_of_2(n);
    const float32x4_t u = vfmaq_f32(vsubq_f32(power, vdupq_n_f32(1.0f)), power, part);
    const float32x4_t t = vabsq_f32(vdivq_f32(u, vaddq_f32(u, vdupq_n_f32(2.0f))));
    return vbslq_f32(vdupq_n_u32(0x80000000u), x, t);
}

#endif
