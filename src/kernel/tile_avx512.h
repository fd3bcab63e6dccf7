/* Matrix products of factors of four bytes with small, fixed tiles: 6 queries x 4 vectors leave 24
 * sums, 4 vectors and one broadcast in the 32 registers, and need 10 loads for 24 products. A file
 * that includes it defines the three functions that are declared first. */
#ifndef VARVE_KERNEL_TILE_AVX512_H
#define VARVE_KERNEL_TILE_AVX512_H

#include "kernel/vec_avx512.h"

enum { TILE_QUERIES = 6, TILE_VECTORS = 4, TILE_SUMS = TILE_QUERIES * TILE_VECTORS };

/* Which parts of y, the same in all lanes, are not zero. */
VEC_INLINE __mmask32 tile_nonzero(__m512i y);
/* sum + x y; if sparse, parts of x whose y is zero may be NaN. */
VEC_INLINE __m512 tile_add(__m512 sum, __m512i x, __m512i y, __mmask32 nonzero, const bool sparse);

/* Scores of nq queries from a0 on and nv vectors of rows. */
VEC_INLINE void tile_scores(const void *args, const int32_t product, int32_t a0, const int32_t nq,
                            const int32_t nv);

/* a [queries][lda] times b [n][ldb], both in units of four bytes; b in rows of whole vectors. */
struct tile_factors {
    const void *a;
    int64_t lda;
    const void *b;
    int64_t ldb;
    int32_t n;
};

/* sum[q][j] over i < n, for nq queries from a0 on and nv vectors of columns from column c on. */
VEC_INLINE void tile_multiply(const struct tile_factors *factors, int32_t a0, int32_t c,
                              const int32_t nq, const int32_t nv, const bool sparse,
                              __m512 sum[TILE_SUMS]) {
    const int64_t lda = factors->lda;
    const uint8_t *const a = (const uint8_t *)factors->a + 4 * a0 * lda;
    const uint8_t *b = (const uint8_t *)factors->b + 4 * (int64_t)c;
    VEC_UNROLL
    for (int32_t i = 0; i < nq * nv; i++) sum[i] = _mm512_setzero_ps();
    for (int32_t i = 0; i < factors->n; i++, b += 4 * factors->ldb) {
        __m512i x[TILE_VECTORS];
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) x[j] = _mm512_load_si512(b + 4 * VEC_LANES * j);
        VEC_UNROLL
        for (int32_t q = 0; q < nq; q++) {
            const __m512i y = vec_broadcast_4_bytes(a + 4 * (q * lda + i));
            const __mmask32 nonzero = sparse ? tile_nonzero(y) : 0;
            VEC_UNROLL
            for (int32_t j = 0; j < nv; j++) {
                sum[q * nv + j] = tile_add(sum[q * nv + j], x[j], y, nonzero, sparse);
            }
        }
    }
}

/* --------------------------------------------------------------------------------------- scores */

VEC_INLINE void tile_score(const struct tile_factors *factors, float *scores, int32_t a0,
                           const int32_t nq, const int32_t nv) {
    float *const s = scores + (int64_t)a0 * VARVE_TILE_ROWS;
    __m512 sum[TILE_SUMS];
    tile_multiply(factors, a0, 0, nq, nv, false, sum);
    VEC_UNROLL
    for (int32_t q = 0; q < nq; q++) {
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            _mm512_store_ps(s + q * VARVE_TILE_ROWS + VEC_LANES * j, sum[q * nv + j]);
        }
    }
}

VEC_INLINE void tile_score_queries(const void *args, const int32_t product, int32_t n,
                                   const int32_t nv) {
    int32_t a = 0;
    for (; a + 6 <= n; a += 6) tile_scores(args, product, a, 6, nv);
    for (; a + 3 <= n; a += 3) tile_scores(args, product, a, 3, nv);
    for (; a < n; a++) tile_scores(args, product, a, 1, nv);
}

/* All scores of n queries and n_row rows. */
VEC_INLINE void tile_score_rows(const void *args, const int32_t product, int32_t n, int32_t n_row) {
    switch ((n_row + VEC_LANES - 1) / VEC_LANES) {
    case 4: tile_score_queries(args, product, n, 4); break;
    case 3: tile_score_queries(args, product, n, 3); break;
    case 2: tile_score_queries(args, product, n, 2); break;
    default: tile_score_queries(args, product, n, 1); break;
    }
}

/* ---------------------------------------------------------------------------------------- folds */

/* o = alpha o + a b. */
struct tile_fold {
    struct tile_factors factors;
    const float *alpha;
    float *o;
    int32_t ld, n; /* of o */
};

VEC_INLINE void tile_fold_part(const struct tile_fold *fold, int32_t a0, int32_t c,
                               const int32_t nq, const int32_t nv, const bool sparse) {
    float *const o = fold->o + (int64_t)a0 * fold->ld + c;
    __m512 sum[TILE_SUMS];
    tile_multiply(&fold->factors, a0, c, nq, nv, sparse, sum);
    VEC_UNROLL
    for (int32_t q = 0; q < nq; q++) {
        const float alpha = fold->alpha[a0 + q];
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            float *const at = o + (int64_t)q * fold->ld + VEC_LANES * j;
            const __m512 part = sum[q * nv + j];
            if (alpha == 0.0f) {
                _mm512_store_ps(at, part);
            } else {
                _mm512_store_ps(at,
                                _mm512_fmadd_ps(_mm512_set1_ps(alpha), _mm512_load_ps(at), part));
            }
        }
    }
}

VEC_INLINE void tile_fold_columns(const struct tile_fold *fold, int32_t c, const int32_t nv,
                                  const bool sparse) {
    int32_t a = 0;
    for (; a + 6 <= fold->n; a += 6) tile_fold_part(fold, a, c, 6, nv, sparse);
    for (; a + 3 <= fold->n; a += 3) tile_fold_part(fold, a, c, 3, nv, sparse);
    for (; a < fold->n; a++) tile_fold_part(fold, a, c, 1, nv, sparse);
}

/* Columns outermost, so that the part of V that all queries share stays in L1. */
VEC_INLINE void tile_fold_values(const struct tile_fold *fold, int32_t head_dim,
                                 const bool sparse) {
    int32_t left = (head_dim + VEC_LANES - 1) / VEC_LANES;
    int32_t c = 0;
    while (left > 0) {
        /* 5 vectors as 3 + 2: a tile of one vector would wait for its own sums */
        const int32_t nv = left == 5 ? 3 : vec_min_i32(left, TILE_VECTORS);
        switch (nv) {
        case 4: tile_fold_columns(fold, c, 4, sparse); break;
        case 3: tile_fold_columns(fold, c, 3, sparse); break;
        case 2: tile_fold_columns(fold, c, 2, sparse); break;
        default: tile_fold_columns(fold, c, 1, sparse); break;
        }
        c += nv * VEC_LANES;
        left -= nv;
    }
}

#endif
