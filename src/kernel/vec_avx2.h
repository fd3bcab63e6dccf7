/* What the AVX2 (with FMA and F16C) kernels share: loads, half precision, transposes, sums, exp and
 * tanh. Included only by files compiled for that level. */
#ifndef VARVE_KERNEL_VEC_AVX2_H
#define VARVE_KERNEL_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernel/dispatch.h" /* the prototypes */

#define VEC_LANES 8
#include "kernel/vec.h"

/* For code that is the same for every width: kernel/quant_score.h. */
typedef __m256 vec_f32;
typedef __m256i vec_i32;
typedef __m256i vec_mask;

VEC_INLINE vec_f32 vec_zero(void) { return _mm256_setzero_ps(); }
VEC_INLINE vec_f32 vec_all(float x) { return _mm256_set1_ps(x); }
VEC_INLINE vec_f32 vec_mul(vec_f32 a, vec_f32 b) { return _mm256_mul_ps(a, b); }
VEC_INLINE vec_f32 vec_fma(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm256_fmadd_ps(a, b, c); }
VEC_INLINE vec_f32 vec_to_f32(vec_i32 i) { return _mm256_cvtepi32_ps(i); }
VEC_INLINE vec_f32 vec_add(vec_f32 a, vec_f32 b) { return _mm256_add_ps(a, b); }
VEC_INLINE vec_f32 vec_sub(vec_f32 a, vec_f32 b) { return _mm256_sub_ps(a, b); }
VEC_INLINE vec_f32 vec_min_f32(vec_f32 a, vec_f32 b) { return _mm256_min_ps(a, b); }
VEC_INLINE vec_f32 vec_max_f32(vec_f32 a, vec_f32 b) { return _mm256_max_ps(a, b); }
/* The larger of two that are not negative; a NaN is larger than all. */
VEC_INLINE vec_f32 vec_max_bits(vec_f32 a, vec_f32 b) {
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
VEC_INLINE vec_f32 vec_with_sign(float magnitude, vec_f32 x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_set1_ps(magnitude), _mm256_and_ps(x, sign));
}
VEC_INLINE vec_i32 vec_truncate(vec_f32 x) { return _mm256_cvttps_epi32(x); }
VEC_INLINE vec_i32 vec_round_even(vec_f32 x) { return _mm256_cvtps_epi32(x); }
VEC_INLINE vec_f32 vec_load_any(const float *p) { return _mm256_loadu_ps(p); }
VEC_INLINE vec_i32 vec_all_i32(int32_t i) { return _mm256_set1_epi32(i); }
VEC_INLINE vec_i32 vec_add_i32(vec_i32 a, vec_i32 b) { return _mm256_add_epi32(a, b); }
VEC_INLINE vec_i32 vec_add_i8(vec_i32 a, vec_i32 b) { return _mm256_add_epi8(a, b); }
VEC_INLINE vec_f32 vec_load(const float *p) { return _mm256_load_ps(p); }
VEC_INLINE vec_i32 vec_load_i32(const uint32_t *p) {
    return _mm256_load_si256((const __m256i *)(const void *)p);
}
VEC_INLINE void vec_store(float *p, vec_f32 x) { _mm256_store_ps(p, x); }
VEC_INLINE void vec_store_i32(uint32_t *p, vec_i32 i) {
    _mm256_store_si256((__m256i *)(void *)p, i);
}
VEC_INLINE vec_f32 vec_load_some(vec_mask wanted, const float *p) {
    return _mm256_maskload_ps(p, wanted);
}
VEC_INLINE void vec_store_some(float *p, vec_mask wanted, vec_f32 x) {
    _mm256_maskstore_ps(p, wanted, x);
}

/* x in the lanes that are wanted, 0 in the others. */
VEC_INLINE vec_f32 vec_keep(vec_f32 x, vec_mask wanted) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(wanted));
}

/* All bits set in the first n of 8 lanes; in none for n <= 0. */
VEC_INLINE __m256i vec_first(int32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

VEC_INLINE __m128i vec_load_16_bytes(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

VEC_INLINE __m128i vec_load_8_bytes(const uint8_t *p) {
    return _mm_loadl_epi64((const __m128i *)(const void *)p);
}

VEC_INLINE __m256 vec_load_f16(const uint8_t *p) { return _mm256_cvtph_ps(vec_load_16_bytes(p)); }

/* The first n < 8 values of 16 bits, zeros after them; the bytes of the others are not read. */
VEC_INLINE __m128i vec_load_16_bits_part(const uint8_t *p, int32_t n) {
    uint16_t half[VEC_LANES] __attribute__((aligned(16))) = {0};
    for (int32_t i = 0; i < n; i++) memcpy(&half[i], p + 2 * i, sizeof half[i]);
    return _mm_load_si128((const __m128i *)(const void *)half);
}

/* One half float to every lane. */
VEC_INLINE __m256 vec_broadcast_f16(const uint8_t *p) {
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return _mm256_set1_ps(_cvtsh_ss(half));
}

/* Four bytes to every lane. */
VEC_INLINE __m256i vec_broadcast_4_bytes(const void *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

/* 8 halves, aligned. */
VEC_INLINE __m256 vec_load_halves(const uint16_t *half) {
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)half));
}

/* The half floats at `offset` of 8 rows. */
VEC_INLINE __m256 vec_gather_f16(const uint8_t *const *rows, int64_t offset) {
    uint16_t half[VEC_LANES] __attribute__((aligned(16)));
    vec_gather_halves(rows, VEC_LANES, offset, 0, 1, VEC_LANES, half);
    return vec_load_halves(half);
}

/* Transposes 16 bytes at `offset` of 8 rows by groups of four bytes: lane r of x[j] holds the bytes
 * 4j .. 4j+3 of row r. The loads do the transpose across 128-bit lanes. */
VEC_INLINE void vec_load_quads(const uint8_t *const *rows, int64_t offset, __m256i x[4]) {
    __m256i y[4];
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        y[i] = _mm256_castsi128_si256(vec_load_16_bytes(rows[i] + offset));
        y[i] = _mm256_inserti128_si256(y[i], vec_load_16_bytes(rows[4 + i] + offset), 1);
    }
    const __m256i low01 = _mm256_unpacklo_epi32(y[0], y[1]);
    const __m256i low23 = _mm256_unpacklo_epi32(y[2], y[3]);
    const __m256i high01 = _mm256_unpackhi_epi32(y[0], y[1]);
    const __m256i high23 = _mm256_unpackhi_epi32(y[2], y[3]);
    x[0] = _mm256_unpacklo_epi64(low01, low23);
    x[1] = _mm256_unpackhi_epi64(low01, low23);
    x[2] = _mm256_unpacklo_epi64(high01, high23);
    x[3] = _mm256_unpackhi_epi64(high01, high23);
}

/* Transposes 8 x 8 floats in place. */
VEC_INLINE void vec_transpose(__m256 x[8]) {
    __m256 y[8];
    VEC_UNROLL
    for (int32_t i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    /* now x[4g + j] = columns j and j + 4 of the rows 4g .. 4g + 3 */
    VEC_UNROLL
    for (int32_t i = 0; i < 8; i += 4) {
        x[i] = _mm256_shuffle_ps(y[i], y[i + 2], 0x44);
        x[i + 1] = _mm256_shuffle_ps(y[i], y[i + 2], 0xEE);
        x[i + 2] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0x44);
        x[i + 3] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0xEE);
    }
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        const __m256 low = _mm256_permute2f128_ps(x[j], x[4 + j], 0x20);
        x[4 + j] = _mm256_permute2f128_ps(x[j], x[4 + j], 0x31);
        x[j] = low;
    }
}

/* Lane i is the sum of x[i]. */
VEC_INLINE __m128 vec_sums_4(const __m256 x[4]) {
    const __m256 y = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    return _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
}

VEC_INLINE float vec_sum(__m256 x) {
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

VEC_INLINE float vec_max(__m256 x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

/* 2^n for integers -126 <= n <= 127. */
VEC_INLINE __m256 vec_power_of_2(__m256 n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}

/* exp(x) - 1 = 2^n (1 + *part) - 1 for x <= 0 in steps of the range reduction by Cody and Waite:
 * n = nearest(x / ln 2), r = x - n ln 2 with ln 2 in two parts, |r| <= ln 2 / 2, and
 * *part = r + r^2 Q(r) = exp(r) - 1. Q is the minimax polynomial of degree 4 for the relative error
 * of exp(r) (Remez exchange in 120 bits, coefficients rounded to F32): 3.1e-9, a fortieth of an
 * ulp.
 */
VEC_INLINE __m256 vec_exp_reduce(__m256 x, __m256 *part) {
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e430p-1f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-0x1.05c610p-29f), r);
    __m256 q = _mm256_set1_ps(0x1.6a2434p-10f);
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.1239e2p-7f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.5558f2p-5f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.555492p-3f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.fffffcp-2f));
    *part = _mm256_fmadd_ps(_mm256_mul_ps(r, r), q, r);
    return n;
}

/* exp(x) for x <= 0, within 1 ulp; exp(0) = 1, NaN stays. Below ln 2^-126 the result is 0: the
 * true one would be a denormal, which costs a microcode assist wherever it goes. */
VEC_INLINE __m256 vec_exp(__m256 x) {
    __m256 part;
    const __m256 n = vec_exp_reduce(x, &part);
    const __m256 normal = _mm256_cmp_ps(x, _mm256_set1_ps(-0x1.5d589ep+6f), _CMP_NLT_UQ);
    const __m256 e = _mm256_add_ps(part, _mm256_set1_ps(1.0f));
    return _mm256_and_ps(normal, _mm256_mul_ps(e, vec_power_of_2(n)));
}

VEC_INLINE __m256 vec_abs(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

/* tanh(x) = -u / (u + 2) with u = exp(-2 |x|) - 1, formed without cancellation: u = 2^n part +
 * (2^n - 1), where 2^n - 1 is exact. Relative error below 4 ulp, also near 0; NaN stays. */
VEC_INLINE __m256 vec_tanh(__m256 x) {
    const __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    /* tanh(10) rounds to 1; the operand order lets NaN pass */
    const __m256 magnitude = _mm256_min_ps(_mm256_set1_ps(10.0f), vec_abs(x));
    __m256 part;
    const __m256 n = vec_exp_reduce(_mm256_mul_ps(magnitude, _mm256_set1_ps(-2.0f)), &part);
    const __m256 power = vec_power_of_2(n);
    const __m256 u = _mm256_fmadd_ps(power, part, _mm256_sub_ps(power, _mm256_set1_ps(1.0f)));
    const __m256 t = _mm256_div_ps(u, _mm256_add_ps(u, _mm256_set1_ps(2.0f)));
    return _mm256_or_ps(vec_abs(t), sign);
}

#endif
