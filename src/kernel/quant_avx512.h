/* The formats as the AVX-512 kernels see them. Every function is inlined with a constant format. */
#ifndef VARVE_KERNEL_QUANT_AVX512_H
#define VARVE_KERNEL_QUANT_AVX512_H

#include "kernel/vec_avx512.h" /* first: the width of the vectors */

#include "kernel/quant.h"

/* -------------------------------------------------------------------------- 16 values of one row
 */

/* Float formats: 16 values, or the wanted ones and zeros, whose bytes are not read. */
VEC_INLINE __m512 vec_load_float(const enum varve_format f, const uint8_t *p, __mmask16 wanted) {
    if (f == VARVE_FORMAT_F32) return _mm512_maskz_loadu_ps(wanted, p);
    if (f == VARVE_FORMAT_F16) {
        return wanted == 0xFFFF ? vec_load_f16(p) : vec_load_f16_part(p, wanted);
    }
    const __m256i half = _mm256_maskz_loadu_epi16(wanted, p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* code - bias of half a block, j = 0 or 1. Tables of floats do it for four bits: a permutation
 * looks at the lowest four bits of a lane only. */
VEC_INLINE __m512 quant_load_half(const enum varve_format f, const uint8_t *block,
                                  const int32_t j) {
    const __m128i bytes =
        vec_load_16_bytes(block + quant_codes_at(f) + (f == VARVE_FORMAT_Q8_0 ? 16 * j : 0));
    if (f == VARVE_FORMAT_Q8_0) return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    __m512 value_of;
    if (f == VARVE_FORMAT_IQ4_NL) {
        value_of = _mm512_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69,
                                  89, 113);
    } else {
        value_of = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        value_of = _mm512_sub_ps(value_of, _mm512_set1_ps((float)quant_bias(f)));
    }
    const __m512i packed = _mm512_cvtepu8_epi32(bytes);
    const __m512 low =
        _mm512_permutexvar_ps(j != 0 ? _mm512_srli_epi32(packed, 4) : packed, value_of);
    if (!quant_has_high(f)) return low;
    uint16_t high;
    memcpy(&high, block + quant_codes_at(f) - 4 + 2 * j, sizeof high);
    return _mm512_mask_add_ps(low, high, low, _mm512_set1_ps(16));
}

/* --------------------------------------------------------------------- one block of 16 rows
 *
 * A lane is a row: x[j] holds the codes 4j .. 4j + 3. */

/* The fifth bits of 16 rows, a row to a lane. */
VEC_INLINE __m512i quant_load_high(const enum varve_format f, const uint8_t *const *rows,
                                   int64_t offset) {
    uint32_t high[VEC_LANES] __attribute__((aligned(64)));
    VEC_UNROLL
    for (int32_t r = 0; r < VEC_LANES; r++) {
        memcpy(&high[r], rows[r] + offset + quant_codes_at(f) - 4, sizeof *high);
        __asm__("" : "+m"(high[r]));
    }
    return _mm512_load_si512(high);
}

/* Adds 16 to the codes whose fifth bit is set: bits 8k .. 8k + 7 belong to x[2k] and x[2k + 1]. */
VEC_INLINE void quant_add_high(__m512i high, __m512i x[8]) {
    const __m512i first = _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0);
    VEC_UNROLL
    for (int32_t k = 0; k < 4; k++) {
        const __m512i from = _mm512_add_epi8(first, _mm512_set1_epi8((char)k));
        const __m512i bits = _mm512_shuffle_epi8(high, from);
        VEC_UNROLL
        for (int32_t half = 0; half < 2; half++) {
            const __m512i which = _mm512_set1_epi32(half ? (int32_t)0x80402010 : 0x08040201);
            const __mmask64 set = _mm512_test_epi8_mask(bits, which);
            x[2 * k + half] =
                _mm512_mask_add_epi8(x[2 * k + half], set, x[2 * k + half], _mm512_set1_epi8(16));
        }
    }
}

VEC_INLINE void quant_load_codes(const enum varve_format f, const uint8_t *const *rows,
                                 int64_t offset, __m512i x[8]) {
    if (f == VARVE_FORMAT_Q8_0) {
        vec_load_quads(rows, offset + 2, x);
        vec_load_quads(rows, offset + 18, x + 4);
        VEC_UNROLL
        for (int32_t j = 0; j < 8; j++) {
            x[j] = _mm512_xor_si512(x[j], _mm512_set1_epi8((char)0x80));
        }
        return;
    }
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i high = _mm512_setzero_si512();
    if (quant_has_high(f)) high = quant_load_high(f, rows, offset);
    vec_load_quads(rows, offset + quant_codes_at(f), x);
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        x[4 + j] = _mm512_and_si512(_mm512_srli_epi16(x[j], 4), nibble);
        x[j] = _mm512_and_si512(x[j], nibble);
    }
    if (quant_has_high(f)) quant_add_high(high, x);
    if (f == VARVE_FORMAT_IQ4_NL) { /* the values + 128 */
        const __m512i table =
            _mm512_set4_epi32((int32_t)0xF1D9C5B5, (int32_t)0xA6998D81, 0x766A5D4F, 0x3F2D1801);
        VEC_UNROLL
        for (int32_t j = 0; j < 8; j++) x[j] = _mm512_shuffle_epi8(table, x[j]);
    }
}

#endif
