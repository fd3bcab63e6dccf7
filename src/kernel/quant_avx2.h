/* The formats as the AVX2 kernels see them. Every function is inlined with a constant format. */
#ifndef VARVE_KERNEL_QUANT_AVX2_H
#define VARVE_KERNEL_QUANT_AVX2_H

#include "kernel/vec_avx2.h" /* first: the width of the vectors */

#include "kernel/quant.h"

/* --------------------------------------------------------------------------- 8 values of one row
 */

VEC_INLINE __m256 vec_widen_bf16(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

/* Float formats: 8 values. */
VEC_INLINE __m256 vec_load_float(const enum varve_format f, const uint8_t *p) {
    if (f == VARVE_FORMAT_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    if (f == VARVE_FORMAT_F16) return vec_load_f16(p);
    return vec_widen_bf16(vec_load_16_bytes(p));
}

/* The first n < 8 values, zeros after them; the bytes of the others are not read. */
VEC_INLINE __m256 vec_load_float_part(const enum varve_format f, const uint8_t *p, int32_t n) {
    if (f == VARVE_FORMAT_F32) {
        return _mm256_maskload_ps((const float *)(const void *)p, vec_first(n));
    }
    const __m128i half = vec_load_16_bits_part(p, n);
    return f == VARVE_FORMAT_F16 ? _mm256_cvtph_ps(half) : vec_widen_bf16(half);
}

VEC_INLINE __m128i quant_iq4_nl_values(void) {
    return _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

/* What the fifth bits add to the codes of quarter j of a block, the bias of q5_0 included: 16 where
 * one is set or, for q5_0, -16 where it is clear. To be put in by `or`: a code below 16 minus 16 is
 * the code with all bits above it set. */
VEC_INLINE __m256i quant_load_fifth(const enum varve_format f, const uint8_t *block,
                                    const int32_t j) {
    const __m256i which = _mm256_slli_epi32(_mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), 8 * j);
    const __m256i bits =
        _mm256_and_si256(vec_broadcast_4_bytes(block + quant_codes_at(f) - 4), which);
    if (f == VARVE_FORMAT_Q5_0) {
        const __m256i clear = _mm256_cmpeq_epi32(bits, _mm256_setzero_si256());
        return _mm256_and_si256(clear, _mm256_set1_epi32(-16));
    }
    return _mm256_and_si256(_mm256_cmpeq_epi32(bits, which), _mm256_set1_epi32(16));
}

/* code - bias of a quarter of a block, j = 0 .. 3. */
VEC_INLINE __m256 quant_load_quarter(const enum varve_format f, const uint8_t *block,
                                     const int32_t j) {
    const uint8_t *const codes = block + quant_codes_at(f);
    if (f == VARVE_FORMAT_Q8_0) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(vec_load_8_bytes(codes + 8 * j)));
    }
    /* low nibbles of the 16 bytes, then high ones */
    const __m128i bytes = vec_load_8_bytes(codes + 8 * (j % 2));
    if (f == VARVE_FORMAT_IQ4_NL) {
        const __m128i code =
            _mm_and_si128(j >= 2 ? _mm_srli_epi16(bytes, 4) : bytes, _mm_set1_epi8(15));
        const __m128i value = _mm_shuffle_epi8(quant_iq4_nl_values(), code);
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(value));
    }
    const __m256i packed = _mm256_cvtepu8_epi32(bytes);
    __m256i code =
        j >= 2 ? _mm256_srli_epi32(packed, 4) : _mm256_and_si256(packed, _mm256_set1_epi32(15));
    if (quant_has_high(f)) {
        code = _mm256_or_si256(code, quant_load_fifth(f, block, j));
    } else if (quant_bias(f) != 0) {
        code = _mm256_sub_epi32(code, _mm256_set1_epi32(quant_bias(f)));
    }
    return _mm256_cvtepi32_ps(code);
}

/* ---------------------------------------------------------------------- one block of 8 rows
 *
 * A lane is a row: x[j] holds the codes 4j .. 4j + 3. Codes of four or five bits are unsigned, as
 * they are stored. Those of eight bits are signed bytes, without the bias: widened to 16 bits they
 * need no other sign. */

/* The fifth bits of 8 rows, a row to a lane. */
VEC_INLINE __m256i quant_load_high(const enum varve_format f, const uint8_t *const *rows,
                                   int64_t offset) {
    uint32_t high[VEC_LANES] __attribute__((aligned(32)));
    VEC_UNROLL
    for (int32_t r = 0; r < VEC_LANES; r++) {
        memcpy(&high[r], rows[r] + offset + quant_codes_at(f) - 4, sizeof *high);
        __asm__("" : "+m"(high[r]));
    }
    return _mm256_load_si256((const __m256i *)(const void *)high);
}

/* Adds 16 to the codes whose fifth bit is set: bits 8k .. 8k + 7 belong to x[2k] and x[2k + 1]. */
VEC_INLINE void quant_add_high(__m256i high, __m256i x[8]) {
    const __m256i first = _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0C0C0C0C, 0, 0x04040404,
                                            0x08080808, 0x0C0C0C0C);
    VEC_UNROLL
    for (int32_t k = 0; k < 4; k++) {
        const __m256i from = _mm256_add_epi8(first, _mm256_set1_epi8((char)k));
        const __m256i bits = _mm256_shuffle_epi8(high, from);
        VEC_UNROLL
        for (int32_t half = 0; half < 2; half++) {
            const __m256i which = _mm256_set1_epi32(half ? (int32_t)0x80402010 : 0x08040201);
            const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, which), which);
            x[2 * k + half] =
                _mm256_or_si256(x[2 * k + half], _mm256_and_si256(set, _mm256_set1_epi8(16)));
        }
    }
}

VEC_INLINE void quant_load_codes(const enum varve_format f, const uint8_t *const *rows,
                                 int64_t offset, __m256i x[8]) {
    if (f == VARVE_FORMAT_Q8_0) {
        vec_load_quads(rows, offset + 2, x);
        vec_load_quads(rows, offset + 18, x + 4);
        return;
    }
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i high = _mm256_setzero_si256();
    if (quant_has_high(f)) high = quant_load_high(f, rows, offset);
    vec_load_quads(rows, offset + quant_codes_at(f), x);
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        x[4 + j] = _mm256_and_si256(_mm256_srli_epi16(x[j], 4), nibble);
        x[j] = _mm256_and_si256(x[j], nibble);
    }
    if (quant_has_high(f)) quant_add_high(high, x);
    if (f == VARVE_FORMAT_IQ4_NL) {
        const __m256i value_of = _mm256_broadcastsi128_si256(quant_iq4_nl_values());
        VEC_UNROLL
        for (int32_t j = 0; j < 8; j++) x[j] = _mm256_shuffle_epi8(value_of, x[j]);
    }
}

#endif
