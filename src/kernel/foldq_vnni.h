/* What the kernels that fold with weights in 16 bits share: rounding the weights of a query, and
 * the codes of two rows in pairs. Included only by files compiled for VNNI. */
#ifndef VARVE_KERNEL_FOLDQ_VNNI_H
#define VARVE_KERNEL_FOLDQ_VNNI_H

#include "kernel/quant_avx512.h"

enum { FOLDQ_VECTORS = VARVE_TILE_ROWS / VEC_LANES };

/* ---- weights ----------------------------------------------------------------------------
 *
 * A weight is the product of two fractions in 16 bits: p over the largest p of the query, the same
 * for all blocks, and d over the largest d of the block, the same for all queries (kernel.h). */

enum { FOLDQ_QUERIES = 16 };

struct units {
    int16_t p[FOLDQ_QUERIES][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float largest[FOLDQ_QUERIES] __attribute__((aligned(64)));
};

/* Which rows of a block there are. */
VEC_INLINE void valid_rows(int32_t n_row, __mmask16 valid[FOLDQ_VECTORS]) {
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        valid[v] = vec_first(n_row > v * VEC_LANES ? n_row - v * VEC_LANES : 0);
    }
}

/* Which rows form a term: in a sparse fold those whose p is not 0. */
VEC_INLINE void formed_rows(const float *p, int32_t n_row, const bool sparse,
                            __mmask16 formed[FOLDQ_VECTORS]) {
    valid_rows(n_row, formed);
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS && sparse; v++) {
        formed[v] = _mm512_mask_cmp_ps_mask(formed[v], _mm512_load_ps(p + v * VEC_LANES),
                                            _mm512_setzero_ps(), _CMP_NEQ_UQ);
    }
}

/* As integers, magnitudes are in order and a NaN is the largest. */
VEC_INLINE __m512i largest_lanes(const __m512 x[FOLDQ_VECTORS]) {
    __m512i y[FOLDQ_VECTORS];
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) y[v] = _mm512_castps_si512(_mm512_abs_ps(x[v]));
    return _mm512_max_epu32(_mm512_max_epu32(y[0], y[1]), _mm512_max_epu32(y[2], y[3]));
}

/* 64 values times `factor`, rounded to 16 bits. */
VEC_INLINE void round_units(const __m512 x[FOLDQ_VECTORS], __m512 factor, int16_t *unit) {
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7); /* undoes that of packs */
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v += 2) {
        const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(x[v], factor));
        const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(x[v + 1], factor));
        const __m512i both = _mm512_packs_epi32(low, high);
        _mm512_store_si512(unit + v * VEC_LANES, _mm512_permutexvar_epi64(order, both));
    }
}

/* The units of n queries, up to FOLDQ_QUERIES; 0 past the last row. */
VEC_INLINE void load_units(const float *p, int32_t n, int32_t n_row, struct units *units) {
    __mmask16 valid[FOLDQ_VECTORS];
    __m512i all[4];
    float inverse[FOLDQ_QUERIES] __attribute__((aligned(64)));
    valid_rows(n_row, valid);
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        __m512i x[4];
        for (int32_t k = 0; k < 4; k++) {
            __m512 y[FOLDQ_VECTORS];
            x[k] = _mm512_setzero_si512();
            if (4 * i + k >= n) continue;
            VEC_UNROLL
            for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
                y[v] = _mm512_maskz_load_ps(valid[v],
                                            p + (4 * i + k) * VARVE_TILE_ROWS + v * VEC_LANES);
            }
            x[k] = largest_lanes(y);
        }
        all[i] = 4 * i < n ? vec_reduce_4(x, VEC_MAX_U32) : _mm512_setzero_si512();
    }
    /* a NaN passes */
    const __m512 largest = _mm512_max_ps(
        _mm512_set1_ps(0x1p-100f), _mm512_castsi512_ps(vec_reduce_quarters(all, VEC_MAX_U32)));
    _mm512_store_ps(units->largest, largest);
    _mm512_store_ps(inverse, _mm512_div_ps(_mm512_set1_ps(32767.0f), largest));
    for (int32_t a = 0; a < n; a++) {
        __m512 y[FOLDQ_VECTORS];
        VEC_UNROLL
        for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
            const int32_t at = a * VARVE_TILE_ROWS + v * VEC_LANES;
            y[v] = _mm512_maskz_load_ps(valid[v], p + at);
        }
        round_units(y, _mm512_set1_ps(inverse[a]), units->p[a]);
    }
}

/* The units of a block, 0 in rows that are not formed; returns the step of a query whose largest p
 * is 1. */
VEC_INLINE float unit_steps(const float *d, const __mmask16 *formed, int16_t *unit) {
    __m512 x[FOLDQ_VECTORS];
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        x[v] = _mm512_maskz_load_ps(formed[v], d + v * VEC_LANES);
    }
    const uint32_t bits = _mm512_reduce_max_epu32(largest_lanes(x));
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    if (largest < 0x1p-100f) largest = 0x1p-100f; /* not a NaN */
    round_units(x, _mm512_set1_ps(32767.0f / largest), unit);
    return largest * FOLDQ_STEP;
}

/* Of n blocks; in a sparse fold each query has its own. */
VEC_INLINE void load_steps(const float *d, int32_t n_row, int32_t n,
                           int16_t (*unit)[VARVE_TILE_ROWS], float *step) {
    __mmask16 valid[FOLDQ_VECTORS];
    valid_rows(n_row, valid);
    for (int32_t b = 0; b < n; b++) {
        step[b] = unit_steps(d + (int64_t)b * VARVE_TILE_ROWS, valid, unit[b]);
    }
}

VEC_INLINE float sum_of_minima(const float *p, const float *m, const __mmask16 *formed) {
    __m512 sum = _mm512_setzero_ps();
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        sum = _mm512_mask3_fmadd_ps(_mm512_load_ps(p + v * VEC_LANES),
                                    _mm512_load_ps(m + v * VEC_LANES), sum, formed[v]);
    }
    return _mm512_reduce_add_ps(sum);
}

VEC_INLINE void load_unit(const int16_t *unit, __m512i d[2]) {
    d[0] = _mm512_load_si512(unit);
    d[1] = _mm512_load_si512(unit + 2 * VEC_LANES);
}

/* The weights of a query and a block, from the units of both; returns their sums in lanes. */
VEC_INLINE __m512i multiply_units(const int16_t *p, const __m512i d[2], int16_t *w) {
    const __m512i one = _mm512_set1_epi16(1);
    __m512i sum = _mm512_setzero_si512();
    VEC_UNROLL
    for (int32_t v = 0; v < 2; v++) {
        const __m512i x = _mm512_mulhrs_epi16(_mm512_load_si512(p + 2 * VEC_LANES * v), d[v]);
        _mm512_store_si512(w + 2 * VEC_LANES * v, x);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(x, one));
    }
    return sum;
}

/* ---- codes -------------------------------------------------------------------------------- */

/* The fifth bits of two rows, added to 16 pairs. */
VEC_INLINE __m512i add_high(__m512i x, uint16_t high0, uint16_t high1) {
    x = _mm512_mask_or_epi32(x, high0, x, _mm512_set1_epi32(16));
    return _mm512_mask_or_epi32(x, high1, x, _mm512_set1_epi32(16 << 16));
}

/* One block of two rows in pairs. q8_0: columns 0-3, 8-11, 16-19, 24-27 in x[0], the others in
 * x[1]; else columns 0-15 and 16-31. */
VEC_INLINE void load_pairs(const enum varve_format f, const uint8_t *row0, const uint8_t *row1,
                           __m512i x[2]) {
    if (f == VARVE_FORMAT_Q8_0) {
        const __m256i y0 = _mm256_loadu_si256((const __m256i *)(const void *)(row0 + 2));
        const __m256i y1 = _mm256_loadu_si256((const __m256i *)(const void *)(row1 + 2));
        const __m512i z0 = _mm512_cvtepi8_epi16(y0), z1 = _mm512_cvtepi8_epi16(y1);
        x[0] = _mm512_unpacklo_epi16(z0, z1);
        x[1] = _mm512_unpackhi_epi16(z0, z1);
        return;
    }
    const __m128i y0 = vec_load_16_bytes(row0 + quant_codes_at(f));
    const __m128i y1 = vec_load_16_bytes(row1 + quant_codes_at(f));
    const __m256i y = _mm256_set_m128i(_mm_unpackhi_epi8(y0, y1), _mm_unpacklo_epi8(y0, y1));
    if (f == VARVE_FORMAT_IQ4_NL) {
        const __m256i value_of = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
        const __m256i nibble = _mm256_set1_epi8(15);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(y, 4), nibble);
        x[0] = _mm512_cvtepi8_epi16(_mm256_shuffle_epi8(value_of, _mm256_and_si256(y, nibble)));
        x[1] = _mm512_cvtepi8_epi16(_mm256_shuffle_epi8(value_of, high));
        return;
    }
    const __m512i z = _mm512_cvtepu8_epi16(y);
    x[0] = _mm512_and_si512(z, _mm512_set1_epi16(15));
    x[1] = _mm512_srli_epi16(z, 4);
    if (quant_has_high(f)) {
        uint16_t high0[2], high1[2];
        memcpy(high0, row0 + quant_codes_at(f) - 4, sizeof high0);
        memcpy(high1, row1 + quant_codes_at(f) - 4, sizeof high1);
        x[0] = add_high(x[0], high0[0], high1[0]);
        x[1] = add_high(x[1], high0[1], high1[1]);
    }
}

/* Rows of o that alpha leaves nothing of, 0 to begin with: so that tiles can read o always. */
VEC_INLINE void clear_unread(float *o, int64_t ld, const float *alpha, int32_t n,
                             int32_t head_dim) {
    for (int32_t a = 0; a < n; a++) {
        for (int32_t c = 0; c < head_dim && alpha[a] == 0.0f; c += VEC_LANES) {
            _mm512_store_ps(o + a * ld + c, _mm512_setzero_ps());
        }
    }
}

/* 16 columns of o, from their integer sums. */
VEC_INLINE void store_sum(float *o, __m512 alpha, __m512 step, __m512i sum, const bool has_min,
                          __m512 min) {
    __m512 x = _mm512_mul_ps(alpha, _mm512_load_ps(o));
    x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), step, x);
    if (has_min) x = _mm512_add_ps(x, min);
    _mm512_store_ps(o, x);
}

#endif
