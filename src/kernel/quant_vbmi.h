/* Codes of q8_0 and q4_0 with VBMI, eight rows and two blocks (a pair) to a vector: lanes 0-3 are
 * block 0 of rows 0-3, 4-7 block 1 of the same rows, 8-15 the same of rows 4-7. One permutation
 * takes what it wants from two rows, a whole level of the transpose, and the steps come with the
 * codes. */
#ifndef VARVE_KERNEL_QUANT_VBMI_H
#define VARVE_KERNEL_QUANT_VBMI_H

#include "kernel/quant_avx512.h"

enum { ROWS = 8, PAIR_VALUES = 2 * VARVE_BLOCK };

/* Lanes of block 1. */
#define BLOCK_1 ((__mmask16)0xF0F0)

/* Bytes of a pair of blocks: 16 codes of each, for q8_0 those from 16 i on. A masked load would do
 * for q4_0, but takes microseconds where the rest of the vector lies in a page that does not exist.
 */
VEC_INLINE __m512i load_row(const enum varve_format f, const uint8_t *p, const int32_t i) {
    if (f == VARVE_FORMAT_Q8_0) return _mm512_loadu_si512(p + 4 * i);
    const __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_inserti32x4(_mm512_castsi256_si512(first), vec_load_16_bytes(p + 20), 2);
}

/* Where load_row put code `byte` of its 16 of a block. */
VEC_INLINE int32_t byte_at(const enum varve_format f, const int32_t i, const int32_t block,
                           const int32_t byte) {
    if (f == VARVE_FORMAT_Q8_0) return 2 + 34 * block + 12 * i + byte;
    return block == 0 ? 2 + byte : 32 + byte;
}

/* The steps of eight rows, from what load_row gave for i = 0. */
VEC_INLINE __m512 take_steps(const enum varve_format f, const __m512i row[ROWS]) {
    uint16_t from[16] __attribute__((aligned(32)));
    VEC_UNROLL
    for (int32_t i = 0; i < 16; i++) { /* half floats: odd rows from the second operand */
        from[i] = (uint16_t)((i & 1 ? 32 : 0) + (i & 4 ? quant_bytes(f) / 2 : 0));
    }
    const __m512i at =
        _mm512_castsi256_si512(_mm256_load_si256((const __m256i *)(const void *)from));
    __m256i h[4];
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        h[i] = _mm512_castsi512_si256(_mm512_permutex2var_epi16(row[2 * i], at, row[2 * i + 1]));
    }
    const __m256i low = _mm256_mask_mov_epi16(h[0], 0x00CC, h[1]);
    const __m256i high = _mm256_mask_mov_epi16(h[2], 0xCC00, h[3]);
    return _mm512_cvtph_ps(_mm256_mask_mov_epi16(low, 0xFF00, high));
}

/* x[j] = bytes 4 j .. 4 j + 3 of the 16 codes that load_row gave. */
VEC_INLINE void transpose(const enum varve_format f, const __m512i row[ROWS], const int32_t i,
                          __m512i x[4]) {
    uint8_t from[64] __attribute__((aligned(64)));
    VEC_UNROLL
    for (int32_t k = 0; k < 16; k++) { /* quarter k / 4: groups k / 8 and k / 8 + 2 of a block */
        const int32_t group = k / 8 + (k & 2), block = k / 4 % 2, odd = k % 2;
        VEC_UNROLL
        for (int32_t n = 0; n < 4; n++) {
            from[4 * k + n] = (uint8_t)(64 * odd + byte_at(f, i, block, 4 * group + n));
        }
    }
    const __m512i at = _mm512_load_si512(from);
    __m512i y[4], z[4];
    VEC_UNROLL
    for (int32_t k = 0; k < 4; k++) {
        y[k] = _mm512_permutex2var_epi8(row[2 * k], at, row[2 * k + 1]);
    }
    VEC_UNROLL
    for (int32_t k = 0; k < 2; k++) {
        z[k] = _mm512_unpacklo_epi64(y[2 * k], y[2 * k + 1]);
        z[2 + k] = _mm512_unpackhi_epi64(y[2 * k], y[2 * k + 1]);
    }
    x[0] = _mm512_shuffle_i32x4(z[0], z[1], 0x44);
    x[1] = _mm512_shuffle_i32x4(z[0], z[1], 0xEE);
    x[2] = _mm512_shuffle_i32x4(z[2], z[3], 0x44);
    x[3] = _mm512_shuffle_i32x4(z[2], z[3], 0xEE);
}

VEC_INLINE void load_rows(const enum varve_format f, const uint8_t *const *rows, int64_t offset,
                          const int32_t i, __m512i row[ROWS]) {
    VEC_UNROLL
    for (int32_t r = 0; r < ROWS; r++) {
        row[r] = load_row(f, rows[r] + offset, i);
        __asm__("" : "+v"(row[r])); /* most loads cross a cache line: once only */
    }
}

/* Codes of pair p of eight rows, 4 j .. 4 j + 3 in x[j]; returns their steps. */
VEC_INLINE __m512 load_codes(const enum varve_format f, const uint8_t *const *rows, int32_t p,
                             __m512i x[8]) {
    const int64_t offset = (int64_t)p * 2 * quant_bytes(f);
    __m512i row[ROWS];
    load_rows(f, rows, offset, 0, row);
    transpose(f, row, 0, x);
    const __m512 d = take_steps(f, row);
    if (f == VARVE_FORMAT_Q8_0) {
        load_rows(f, rows, offset, 1, row);
        transpose(f, row, 1, x + 4);
    }
    const __m512i sign = _mm512_set1_epi8((char)0x80), nibble = _mm512_set1_epi8(15);
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        if (f == VARVE_FORMAT_Q8_0) {
            x[j] = _mm512_xor_si512(x[j], sign);
            x[4 + j] = _mm512_xor_si512(x[4 + j], sign);
        } else {
            x[4 + j] = _mm512_and_si512(_mm512_srli_epi16(x[j], 4), nibble);
            x[j] = _mm512_and_si512(x[j], nibble);
        }
    }
    return d;
}

#endif
