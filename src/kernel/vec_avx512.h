/* What the AVX-512 (F, BW, DQ, VL) kernels share: loads, half precision, transposes, sums, exp and
 * tanh. Included only by files compiled for that level. */
#ifndef VARVE_KERNEL_VEC_AVX512_H
#define VARVE_KERNEL_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernel/dispatch.h" /* the prototypes */

#define VEC_LANES 16
#include "kernel/vec.h"

/* For code that is the same for every width: kernel/quant_score.h. */
typedef __m512 vec_f32;
typedef __m512i vec_i32;
typedef __mmask16 vec_mask;

VEC_INLINE vec_f32 vec_zero(void) { return _mm512_setzero_ps(); }
VEC_INLINE vec_f32 vec_all(float x) { return _mm512_set1_ps(x); }
VEC_INLINE vec_f32 vec_mul(vec_f32 a, vec_f32 b) { return _mm512_mul_ps(a, b); }
VEC_INLINE vec_f32 vec_fma(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm512_fmadd_ps(a, b, c); }
VEC_INLINE vec_f32 vec_to_f32(vec_i32 i) { return _mm512_cvtepi32_ps(i); }
VEC_INLINE vec_i32 vec_all_i32(int32_t i) { return _mm512_set1_epi32(i); }
VEC_INLINE vec_i32 vec_add_i32(vec_i32 a, vec_i32 b) { return _mm512_add_epi32(a, b); }
VEC_INLINE vec_i32 vec_add_i8(vec_i32 a, vec_i32 b) { return _mm512_add_epi8(a, b); }
VEC_INLINE vec_f32 vec_load(const float *p) { return _mm512_load_ps(p); }
VEC_INLINE vec_i32 vec_load_i32(const uint32_t *p) { return _mm512_load_si512(p); }
VEC_INLINE void vec_store(float *p, vec_f32 x) { _mm512_store_ps(p, x); }
VEC_INLINE void vec_store_i32(uint32_t *p, vec_i32 i) { _mm512_store_si512(p, i); }
VEC_INLINE vec_f32 vec_load_some(vec_mask wanted, const float *p) {
    return _mm512_maskz_loadu_ps(wanted, p);
}
VEC_INLINE void vec_store_some(float *p, vec_mask wanted, vec_f32 x) {
    _mm512_mask_storeu_ps(p, wanted, x);
}

/* x in the lanes that are wanted, 0 in the others. */
VEC_INLINE vec_f32 vec_keep(vec_f32 x, vec_mask wanted) { return _mm512_maskz_mov_ps(wanted, x); }

/* The first n of 16 lanes; none for n <= 0, all of them for n > 16. */
VEC_INLINE __mmask16 vec_first(int32_t n) {
    return (__mmask16)((1u << vec_min_i32(n, VEC_LANES)) - 1u);
}

VEC_INLINE __m128i vec_load_16_bytes(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

VEC_INLINE __m512 vec_load_f16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* Lanes that are not wanted become 0 and their bytes are not read. */
VEC_INLINE __m512 vec_load_f16_part(const uint8_t *p, __mmask16 wanted) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(wanted, p));
}

/* One half float to every lane. */
VEC_INLINE __m512 vec_broadcast_f16(const uint8_t *p) {
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return _mm512_set1_ps(_cvtsh_ss(half));
}

/* Four bytes to every lane. */
VEC_INLINE __m512i vec_broadcast_4_bytes(const void *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

/* 16 halves, aligned. */
VEC_INLINE __m512 vec_load_halves(const uint16_t *half) {
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)half));
}

/* The half floats at `offset` of 16 rows. */
VEC_INLINE __m512 vec_gather_f16(const uint8_t *const *rows, int64_t offset) {
    uint16_t half[VEC_LANES] __attribute__((aligned(32)));
    vec_gather_halves(rows, VEC_LANES, offset, 0, 1, VEC_LANES, half);
    return vec_load_halves(half);
}

/* Transposes 16 bytes at `offset` of 16 rows by groups of four bytes: lane r of x[j] holds the
 * bytes 4j .. 4j+3 of row r. The loads do the transpose across 128-bit lanes. */
VEC_INLINE void vec_load_quads(const uint8_t *const *rows, int64_t offset, __m512i x[4]) {
    __m512i y[4];
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        y[i] = _mm512_castsi128_si512(vec_load_16_bytes(rows[i] + offset));
        y[i] = _mm512_inserti32x4(y[i], vec_load_16_bytes(rows[4 + i] + offset), 1);
        y[i] = _mm512_inserti32x4(y[i], vec_load_16_bytes(rows[8 + i] + offset), 2);
        y[i] = _mm512_inserti32x4(y[i], vec_load_16_bytes(rows[12 + i] + offset), 3);
    }
    const __m512i low01 = _mm512_unpacklo_epi32(y[0], y[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(y[2], y[3]);
    const __m512i high01 = _mm512_unpackhi_epi32(y[0], y[1]);
    const __m512i high23 = _mm512_unpackhi_epi32(y[2], y[3]);
    x[0] = _mm512_unpacklo_epi64(low01, low23);
    x[1] = _mm512_unpackhi_epi64(low01, low23);
    x[2] = _mm512_unpacklo_epi64(high01, high23);
    x[3] = _mm512_unpackhi_epi64(high01, high23);
}

/* Transposes 16 x 16 floats in place. */
VEC_INLINE void vec_transpose(__m512 x[16]) {
    __m512 y[16];
    VEC_UNROLL
    for (int32_t i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    /* now x[4g + j] = columns j, j + 4, j + 8, j + 12 of the rows 4g .. 4g + 3 */
    VEC_UNROLL
    for (int32_t i = 0; i < 16; i += 4) {
        x[i] = _mm512_shuffle_ps(y[i], y[i + 2], 0x44);
        x[i + 1] = _mm512_shuffle_ps(y[i], y[i + 2], 0xEE);
        x[i + 2] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0x44);
        x[i + 3] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0xEE);
    }
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        y[j] = _mm512_shuffle_f32x4(x[j], x[4 + j], 0x88);
        y[4 + j] = _mm512_shuffle_f32x4(x[j], x[4 + j], 0xDD);
        y[8 + j] = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0x88);
        y[12 + j] = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0xDD);
    }
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        x[j] = _mm512_shuffle_f32x4(y[j], y[8 + j], 0x88);
        x[4 + j] = _mm512_shuffle_f32x4(y[4 + j], y[12 + j], 0x88);
        x[8 + j] = _mm512_shuffle_f32x4(y[j], y[8 + j], 0xDD);
        x[12 + j] = _mm512_shuffle_f32x4(y[4 + j], y[12 + j], 0xDD);
    }
}

/* Halves of a and b added: a in the lower 256 bits, b in the upper. */
VEC_INLINE __m512 vec_add_halves(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, a, b), _mm512_shuffle_f32x4(a, b, 0x4E));
}

/* 128-bit quarters 0 + 1 and 2 + 3 of a and b: a in the lower 256 bits, b in the upper. */
VEC_INLINE __m512 vec_add_quarters(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}

/* In each quarter, lanes 0 + 2 and 1 + 3 of a, then those of b. */
VEC_INLINE __m512 vec_add_pairs(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_mask_blend_ps(0xCCCC, a, b), _mm512_shuffle_ps(a, b, 0x4E));
}

/* In each quarter, lanes 0 + 1 and 2 + 3 of a, then those of b. */
VEC_INLINE __m512 vec_add_neighbours(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
}

/* exp(x) = 2^n (1 + *part) for x <= 0 in steps of the range reduction by Cody and Waite:
 * n = nearest(x / ln 2), r = x - n ln 2 with ln 2 in two parts, |r| <= ln 2 / 2, and
 * *part = r + r^2 Q(r) = exp(r) - 1. Q is the minimax polynomial of degree 4 for the relative error
 * of exp(r) (Remez exchange in 120 bits, coefficients rounded to F32): 3.1e-9, a fortieth of an
 * ulp. Returns 2^n, for n > -127: adding 1.5 * 2^23 + 127 rounds and leaves n + 127, which is the
 * exponent, in the lowest bits. */
VEC_INLINE __m512 vec_exp_reduce(__m512 x, __m512 *part) {
    const __m512 magic = _mm512_set1_ps(0x1.8p+23f + 127.0f);
    const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), magic);
    const __m512 n = _mm512_sub_ps(shifted, magic);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e430p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-0x1.05c610p-29f), r);
    __m512 q = _mm512_set1_ps(0x1.6a2434p-10f);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.1239e2p-7f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.5558f2p-5f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.555492p-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.fffffcp-2f));
    *part = _mm512_fmadd_ps(_mm512_mul_ps(r, r), q, r);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
}

/* exp(x) for x <= 0, within 1 ulp; exp(0) = 1, NaN stays. Below ln 2^-126 the result is 0: the
 * true one would be a denormal, which costs a microcode assist wherever it goes. */
VEC_INLINE __m512 vec_exp(__m512 x) {
    __m512 part;
    const __m512 power = vec_exp_reduce(x, &part);
    const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-0x1.5d589ep+6f), _CMP_NLT_UQ);
    return _mm512_maskz_fmadd_ps(normal, part, power, power);
}

/* tanh(x) = -u / (u + 2) with u = exp(-2 |x|) - 1, formed without cancellation: u = 2^n part +
 * (2^n - 1), where 2^n - 1 is exact. Relative error below 4 ulp, also near 0; NaN stays. */
VEC_INLINE __m512 vec_tanh(__m512 x) {
    const __m512 sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0f));
    /* tanh(10) rounds to 1; the operand order lets NaN pass */
    const __m512 magnitude = _mm512_min_ps(_mm512_set1_ps(10.0f), _mm512_abs_ps(x));
    __m512 part;
    const __m512 power = vec_exp_reduce(_mm512_mul_ps(magnitude, _mm512_set1_ps(-2.0f)), &part);
    const __m512 u = _mm512_fmadd_ps(power, part, _mm512_sub_ps(power, _mm512_set1_ps(1.0f)));
    const __m512 t = _mm512_div_ps(u, _mm512_add_ps(u, _mm512_set1_ps(2.0f)));
    return _mm512_or_ps(_mm512_abs_ps(t), sign);
}

/* ---- reductions of several vectors, of floats or integers -------------------------------------
 */

enum vec_reduction { VEC_MAX_F32, VEC_ADD_F32, VEC_MAX_U32, VEC_ADD_I32 };

VEC_INLINE __m512i vec_reduce_step(__m512i a, __m512i b, const enum vec_reduction how) {
    const __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    switch (how) {
    case VEC_MAX_F32: return _mm512_castps_si512(_mm512_max_ps(x, y));
    case VEC_ADD_F32: return _mm512_castps_si512(_mm512_add_ps(x, y));
    case VEC_MAX_U32: return _mm512_max_epu32(a, b);
    default: return _mm512_add_epi32(a, b);
    }
}

/* In each quarter, lane i is what reduces that quarter of x[i]. */
VEC_INLINE __m512i vec_reduce_4(const __m512i x[4], const enum vec_reduction how) {
    __m512i y[2];
    VEC_UNROLL
    for (int32_t i = 0; i < 2; i++) {
        y[i] = vec_reduce_step(_mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]),
                               _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]), how);
    }
    return vec_reduce_step(_mm512_unpacklo_epi64(y[0], y[1]), _mm512_unpackhi_epi64(y[0], y[1]),
                           how);
}

/* Quarter i is what reduces the quarters of x[i]. */
VEC_INLINE __m512i vec_reduce_quarters(const __m512i x[4], const enum vec_reduction how) {
    __m512i y[2];
    VEC_UNROLL
    for (int32_t i = 0; i < 2; i++) {
        y[i] = vec_reduce_step(_mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0x88),
                               _mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0xDD), how);
    }
    return vec_reduce_step(_mm512_shuffle_i32x4(y[0], y[1], 0x88),
                           _mm512_shuffle_i32x4(y[0], y[1], 0xDD), how);
}

#endif
