/* What the kernels that fold with weights in 16 bits share: rounding the weights of a few queries,
 * and the codes of two rows in pairs. Included only by files compiled for AVX-VNNI. */
#ifndef VARVE_KERNEL_FOLDQ_AVXVNNI_H
#define VARVE_KERNEL_FOLDQ_AVXVNNI_H

#include "kernel/dot_avxvnni.h"

enum { FOLDQ_QUERIES = 4, FOLDQ_BLOCKS = 4, FOLDQ_VECTORS = VARVE_TILE_ROWS / VEC_LANES };

/* ---- weights ----------------------------------------------------------------------------
 *
 * A weight is the product of two fractions in 16 bits: p over the largest p of the query, the same
 * for all blocks, and d over the largest d of the block, the same for all queries (kernel.h). */

/* Of a few queries; 0 past the last row. */
struct units {
    float p[FOLDQ_QUERIES][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    int16_t unit[FOLDQ_QUERIES][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    float largest[FOLDQ_QUERIES] __attribute__((aligned(16)));
};

/* d and m of up to FOLDQ_BLOCKS blocks, 0 past the last row; m NULL without minimum. */
struct scales {
    const float *d, *m; /* [n_block][VARVE_TILE_ROWS] */
    int32_t n_block;
    int32_t bias; /* to be taken from the codes */
};

/* Weights of a few queries and blocks. */
struct weights {
    int16_t w[FOLDQ_QUERIES][FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    float step[FOLDQ_QUERIES][FOLDQ_BLOCKS] __attribute__((aligned(16)));
    float min[FOLDQ_QUERIES][FOLDQ_BLOCKS]; /* sum of p m */
    /* what the bias of the codes adds to each sum */
    int32_t bias[FOLDQ_QUERIES][FOLDQ_BLOCKS] __attribute__((aligned(16)));
};

VEC_INLINE vec_i32 reduce_step(vec_i32 a, vec_i32 b, const bool add) {
    return add ? _mm256_add_epi32(a, b) : _mm256_max_epi32(a, b);
}

/* Lane i is the maximum, or the sum, of x[i]. */
VEC_INLINE __m128i reduce_4(const vec_i32 x[4], const bool add) {
    vec_i32 y[2];
    VEC_UNROLL
    for (int32_t i = 0; i < 2; i++) {
        y[i] = reduce_step(_mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]),
                           _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]), add);
    }
    const vec_i32 z =
        reduce_step(_mm256_unpacklo_epi64(y[0], y[1]), _mm256_unpackhi_epi64(y[0], y[1]), add);
    const vec_i32 other = _mm256_permute2x128_si256(z, z, 1);
    return _mm256_castsi256_si128(reduce_step(z, other, add));
}

/* As integers, magnitudes are in order and a NaN is the largest. */
VEC_INLINE vec_i32 larger(vec_i32 most, vec_f32 x) {
    return _mm256_max_epi32(most, _mm256_castps_si256(vec_abs(x)));
}

/* 16 values, rounded to 16 bits. */
VEC_INLINE void store_unit(int16_t *unit, vec_f32 low, vec_f32 high) {
    const vec_i32 both = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
    _mm256_store_si256((__m256i *)(void *)unit,
                       _mm256_permute4x64_epi64(both, 0xD8)); /* undoes the order of packs */
}

/* The units of nq queries. */
VEC_INLINE void load_units(const float *p, int32_t nq, int32_t n_row, struct units *units) {
    float inverse[FOLDQ_QUERIES] __attribute__((aligned(16)));
    vec_i32 x[FOLDQ_QUERIES];
    VEC_UNROLL
    for (int32_t a = 0; a < FOLDQ_QUERIES; a++) {
        x[a] = vec_all_i32(0);
        if (a >= nq) continue;
        VEC_UNROLL
        for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
            const vec_mask valid = vec_first(n_row - v * VEC_LANES);
            const vec_f32 y = vec_keep(vec_load(p + a * VARVE_TILE_ROWS + v * VEC_LANES), valid);
            x[a] = larger(x[a], y);
            vec_store(units->p[a] + v * VEC_LANES, y);
        }
    }
    const __m128 largest = _mm_max_ps(_mm_set1_ps(0x1p-100f), /* a NaN passes */
                                      _mm_castsi128_ps(reduce_4(x, false)));
    _mm_store_ps(units->largest, largest);
    _mm_store_ps(inverse, _mm_div_ps(_mm_set1_ps(32767.0f), largest));
    for (int32_t a = 0; a < nq; a++) {
        VEC_UNROLL
        for (int32_t r = 0; r < VARVE_TILE_ROWS; r += 2 * VEC_LANES) {
            const float *const from = units->p[a] + r;
            store_unit(units->unit[a] + r, vec_mul(vec_load(from), vec_all(inverse[a])),
                       vec_mul(vec_load(from + VEC_LANES), vec_all(inverse[a])));
        }
    }
}

/* x of vector v in rows that form a term, else 0: in a sparse fold where p is not 0. */
VEC_INLINE vec_f32 load_formed(const float *x, const float *p, int32_t v, const bool sparse) {
    const vec_f32 y = vec_load(x + v * VEC_LANES);
    if (!sparse) return y;
    return _mm256_and_ps(y, _mm256_cmp_ps(vec_load(p + v * VEC_LANES), vec_zero(), _CMP_NEQ_UQ));
}

/* The units of the blocks and the step of each, of a query whose largest p is 1; p matters in a
 * sparse fold alone. */
VEC_INLINE void unit_steps(const struct scales *scales, const float *p, const bool sparse,
                           int16_t (*unit)[VARVE_TILE_ROWS], float step[FOLDQ_BLOCKS]) {
    float factor[FOLDQ_BLOCKS] __attribute__((aligned(16)));
    vec_i32 x[FOLDQ_BLOCKS];
    VEC_UNROLL
    for (int32_t b = 0; b < FOLDQ_BLOCKS; b++) {
        x[b] = vec_all_i32(0);
        if (b >= scales->n_block) continue;
        VEC_UNROLL
        for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
            x[b] = larger(x[b], load_formed(scales->d + b * VARVE_TILE_ROWS, p, v, sparse));
        }
    }
    const __m128 largest = _mm_max_ps(_mm_set1_ps(0x1p-100f), /* a NaN passes */
                                      _mm_castsi128_ps(reduce_4(x, false)));
    _mm_store_ps(step, _mm_mul_ps(largest, _mm_set1_ps(FOLDQ_STEP)));
    _mm_store_ps(factor, _mm_div_ps(_mm_set1_ps(32767.0f), largest));
    for (int32_t b = 0; b < scales->n_block; b++) {
        VEC_UNROLL
        for (int32_t v = 0; v < FOLDQ_VECTORS; v += 2) {
            const float *const d = scales->d + b * VARVE_TILE_ROWS;
            store_unit(unit[b] + v * VEC_LANES,
                       vec_mul(load_formed(d, p, v, sparse), vec_all(factor[b])),
                       vec_mul(load_formed(d, p, v + 1, sparse), vec_all(factor[b])));
        }
    }
}

VEC_INLINE float sum_of_minima(const float *p, const float *m, const bool sparse) {
    vec_f32 sum = vec_zero();
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        sum = vec_fma(vec_load(p + v * VEC_LANES), load_formed(m, p, v, sparse), sum);
    }
    return vec_sum(sum);
}

/* The weights of a query and a block, from the units of both; returns their sums in lanes. */
VEC_INLINE vec_i32 multiply_units(const int16_t *p, const int16_t *d, int16_t *w) {
    vec_i32 sum = vec_all_i32(0);
    VEC_UNROLL
    for (int32_t r = 0; r < VARVE_TILE_ROWS; r += 2 * VEC_LANES) {
        const vec_i32 x =
            _mm256_mulhrs_epi16(_mm256_load_si256((const __m256i *)(const void *)(p + r)),
                                _mm256_load_si256((const __m256i *)(const void *)(d + r)));
        _mm256_store_si256((__m256i *)(void *)(w + r), x);
        sum = vec_add_i32(sum, _mm256_madd_epi16(x, _mm256_set1_epi16(1)));
    }
    return sum;
}

VEC_INLINE void weigh(const struct units *units, const struct scales *scales, int32_t nq,
                      const bool sparse, struct weights *weights) {
    int16_t unit[FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    float step[FOLDQ_BLOCKS] __attribute__((aligned(16)));
    for (int32_t a = 0; a < nq; a++) {
        vec_i32 x[FOLDQ_BLOCKS];
        if (sparse || a == 0) unit_steps(scales, units->p[a], sparse, unit, step);
        VEC_UNROLL
        for (int32_t b = 0; b < FOLDQ_BLOCKS; b++) {
            x[b] = vec_all_i32(0);
            if (b >= scales->n_block) continue;
            x[b] = multiply_units(units->unit[a], unit[b], weights->w[a][b]);
            weights->min[a][b] =
                scales->m != NULL
                    ? sum_of_minima(units->p[a], scales->m + b * VARVE_TILE_ROWS, sparse)
                    : 0;
        }
        _mm_store_ps(weights->step[a],
                     _mm_mul_ps(_mm_set1_ps(units->largest[a]), _mm_load_ps(step)));
        _mm_store_si128((__m128i *)(void *)weights->bias[a],
                        _mm_mullo_epi32(reduce_4(x, true), _mm_set1_epi32(-scales->bias)));
    }
}

/* One function for all formats and shapes: it runs once for a few tiles. */
static void load_weights(const struct units *units, const struct scales *scales, int32_t nq,
                         bool sparse, struct weights *weights) {
    if (sparse) {
        weigh(units, scales, nq, true, weights);
    } else {
        weigh(units, scales, nq, false, weights);
    }
}

/* ---- tiles -------------------------------------------------------------------------------- */

/* Eight columns of o of query a of the weights, from their integer sums. */
VEC_INLINE void store_sum(float *o, float alpha, const struct weights *weights, int32_t a,
                          int32_t b, const bool has_min, vec_i32 sum) {
    const vec_i32 all = vec_add_i32(sum, vec_all_i32(weights->bias[a][b]));
    vec_f32 x = alpha == 0.0f ? vec_zero() : vec_mul(vec_all(alpha), vec_load(o));
    x = vec_fma(vec_to_f32(all), vec_all(weights->step[a][b]), x);
    if (has_min) x = _mm256_add_ps(x, vec_all(weights->min[a][b]));
    vec_store(o, x);
}

/* Two vectors of pairs times nq queries, whose weights lie `ld` apart. */
VEC_INLINE void fold_vectors(const vec_i32 x[2], const int16_t *w, int32_t ld, const int32_t nq,
                             const int32_t stride, vec_i32 *sum) {
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const vec_i32 y = vec_broadcast_4_bytes(w + a * ld);
        sum[a * stride] = dot_pairs(sum[a * stride], x[0], y);
        sum[a * stride + 1] = dot_pairs(sum[a * stride + 1], x[1], y);
    }
}

#endif
