/* The codes of two quantized rows in pairs, and the scales of a block. Included only by files
 * compiled for AVX-VNNI. */
#ifndef VARVE_KERNEL_PAIRS_AVXVNNI_H
#define VARVE_KERNEL_PAIRS_AVXVNNI_H

#include "kernel/dot_avxvnni.h"

enum { PAIRS_BLOCKS = 4 }; /* blocks whose scales are loaded at once */

/* The halves at `offset` of each row as F32, a block further for each block; 0 past the last row.
 */
static void load_halves(const uint8_t *const *rows, int32_t n_row, int64_t offset, int64_t step,
                        int32_t n_block, float (*x)[VARVE_TILE_ROWS]) {
    uint16_t half[PAIRS_BLOCKS * VARVE_TILE_ROWS] __attribute__((aligned(32)));
    switch (n_block) {
    case 4: vec_gather_halves(rows, n_row, offset, step, 4, VARVE_TILE_ROWS, half); break;
    case 3: vec_gather_halves(rows, n_row, offset, step, 3, VARVE_TILE_ROWS, half); break;
    case 2: vec_gather_halves(rows, n_row, offset, step, 2, VARVE_TILE_ROWS, half); break;
    default: vec_gather_halves(rows, n_row, offset, step, 1, VARVE_TILE_ROWS, half); break;
    }
    for (int32_t b = 0; b < n_block; b++) {
        uint16_t *const from = half + b * VARVE_TILE_ROWS;
        for (int32_t r = n_row; r < VARVE_TILE_ROWS; r++) from[r] = 0;
        VEC_UNROLL
        for (int32_t v = 0; v < VARVE_TILE_ROWS / VEC_LANES; v++) {
            vec_store(x[b] + v * VEC_LANES, vec_load_halves(from + v * VEC_LANES));
        }
    }
}

/* Half `h` of a block is two vectors of eight columns. */
VEC_INLINE int32_t half_column(const enum varve_format f, int32_t h, int32_t v) {
    return f == VARVE_FORMAT_Q8_0 ? 16 * h + 8 * v : 8 * h + 16 * v;
}

/* The fifth bits of two rows, added to the pairs of eight columns. */
VEC_INLINE vec_i32 add_fifth(const enum varve_format f, const uint8_t *row0, const uint8_t *row1,
                             int32_t h, int32_t v, vec_i32 x) {
    uint16_t high[2];
    memcpy(&high[0], row0 + quant_codes_at(f) - 4 + 2 * v, sizeof *high);
    memcpy(&high[1], row1 + quant_codes_at(f) - 4 + 2 * v, sizeof *high);
    const vec_i32 bits = vec_all_i32((int32_t)(high[0] | (uint32_t)high[1] << 16));
    const vec_i32 one = _mm256_setr_epi32(0x10001, 0x20002, 0x40004, 0x80008, 0x100010, 0x200020,
                                          0x400040, 0x800080);
    const vec_i32 which = _mm256_slli_epi16(one, 8 * h);
    const vec_i32 set = _mm256_cmpeq_epi16(_mm256_and_si256(bits, which), which);
    return _mm256_or_si256(x, _mm256_and_si256(set, _mm256_set1_epi16(16)));
}

/* Half a block of two rows in pairs. */
VEC_INLINE void load_pairs(const enum varve_format f, const uint8_t *row0, const uint8_t *row1,
                           const int32_t h, vec_i32 x[2]) {
    const int32_t at = quant_codes_at(f) + (f == VARVE_FORMAT_Q8_0 ? 16 * h : 0);
    const __m128i y0 = vec_load_16_bytes(row0 + at), y1 = vec_load_16_bytes(row1 + at);
    if (f == VARVE_FORMAT_Q8_0) {
        x[0] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(y0, y1));
        x[1] = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(y0, y1));
        return;
    }
    const __m128i y = h == 0 ? _mm_unpacklo_epi8(y0, y1) : _mm_unpackhi_epi8(y0, y1);
    if (f == VARVE_FORMAT_IQ4_NL) {
        const __m128i nibble = _mm_set1_epi8(15);
        const __m128i low = _mm_and_si128(y, nibble);
        const __m128i high = _mm_and_si128(_mm_srli_epi16(y, 4), nibble);
        x[0] = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(quant_iq4_nl_values(), low));
        x[1] = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(quant_iq4_nl_values(), high));
        return;
    }
    const vec_i32 z = _mm256_cvtepu8_epi16(y);
    x[0] = _mm256_and_si256(z, _mm256_set1_epi16(15));
    x[1] = _mm256_srli_epi16(z, 4);
    if (quant_has_high(f)) {
        VEC_UNROLL
        for (int32_t v = 0; v < 2; v++) x[v] = add_fifth(f, row0, row1, h, v, x[v]);
    }
}

#endif
