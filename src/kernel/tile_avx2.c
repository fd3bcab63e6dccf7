#include "kernel/vec_avx2.h"

/* Both products are matrix products with one fixed tile: 6 queries x 2 vectors leave 12 sums, 2
 * vectors of the tile and a broadcast in the 16 registers. Leading dimensions are multiples of 16
 * floats, so that there are always two vectors. */
enum { QUERIES = 6, VECTORS = 2, SUMS = QUERIES * VECTORS, COLUMNS = VECTORS * VEC_LANES };

/* ------------------------------------------------------------------------------------ tilescore */

/* sum[a][j] = sum over d < n of f[a][d] * t[d][j] for nq queries and 16 rows. */
VEC_INLINE void multiply(const float *f, int64_t ld, const float *t, int32_t n, const int32_t nq,
                         __m256 sum[SUMS]) {
    VEC_UNROLL
    for (int32_t i = 0; i < nq * VECTORS; i++) sum[i] = _mm256_setzero_ps();
    for (int32_t d = 0; d < n; d++, t += VARVE_TILE_ROWS) {
        const __m256 x0 = _mm256_load_ps(t);
        const __m256 x1 = _mm256_load_ps(t + VEC_LANES);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const __m256 y = _mm256_set1_ps(f[a * ld + d]);
            sum[2 * a] = _mm256_fmadd_ps(y, x0, sum[2 * a]);
            sum[2 * a + 1] = _mm256_fmadd_ps(y, x1, sum[2 * a + 1]);
        }
    }
}

VEC_INLINE void exact_tile(const struct varve_tilescore_args *args, int32_t a0, int32_t r,
                           const int32_t nq) {
    const struct varve_queries *const q = args->q;
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS + r;
    __m256 sum[SUMS];
    multiply(q->f + (int64_t)a0 * q->ld, q->ld, args->t + r, q->head_dim, nq, sum);
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        _mm256_store_ps(s + a * VARVE_TILE_ROWS, sum[2 * a]);
        _mm256_store_ps(s + a * VARVE_TILE_ROWS + VEC_LANES, sum[2 * a + 1]);
    }
}

/* One block after the other; the scores themselves hold the sums over blocks. */
VEC_INLINE void q8_tile(const struct varve_tilescore_args *args, int32_t a0, int32_t r,
                        const int32_t nq, const bool has_min) {
    const struct varve_queries *const q = args->q;
    const float *const fi = q->fi + (int64_t)a0 * q->ld;
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS + r;
    for (int32_t b = 0; b < q->n_block; b++) {
        __m256 sum[SUMS];
        const int64_t from = (int64_t)b * VARVE_BLOCK;
        multiply(fi + from, q->ld, args->t + from * VARVE_TILE_ROWS + r, VARVE_BLOCK, nq, sum);
        VEC_UNROLL
        for (int32_t j = 0; j < VECTORS; j++) {
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r + VEC_LANES * j;
            const __m256 dk = _mm256_load_ps(args->dk + at);
            const __m256 mk = has_min ? _mm256_load_ps(args->mk + at) : _mm256_setzero_ps();
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const int64_t block = (int64_t)(a0 + a) * q->n_block + b;
                float *const p = s + a * VARVE_TILE_ROWS + VEC_LANES * j;
                __m256 part = _mm256_mul_ps(dk, sum[2 * a + j]);
                if (has_min) {
                    part = _mm256_fmadd_ps(mk, _mm256_set1_ps((float)q->sum[block]), part);
                }
                const __m256 d = _mm256_set1_ps(q->d[block]);
                const __m256 old = b == 0 ? _mm256_setzero_ps() : _mm256_load_ps(p);
                _mm256_store_ps(p, _mm256_fmadd_ps(d, part, old));
            }
        }
    }
}

enum product { EXACT, Q8, Q8_MIN };

VEC_INLINE void score_tile(const struct varve_tilescore_args *args, const enum product product,
                           int32_t a0, int32_t r, const int32_t nq) {
    if (product == EXACT) {
        exact_tile(args, a0, r, nq);
    } else {
        q8_tile(args, a0, r, nq, product == Q8_MIN);
    }
}

/* Rows outermost, so that the part of K that all queries share stays in L1. */
VEC_INLINE void score_rows(const struct varve_tilescore_args *args, const enum product product) {
    const int32_t n = args->q->n;
    for (int32_t r = 0; r < args->n_row; r += COLUMNS) {
        int32_t a = 0;
        for (; a + 6 <= n; a += 6) score_tile(args, product, a, r, 6);
        for (; a + 3 <= n; a += 3) score_tile(args, product, a, r, 3);
        for (; a < n; a++) score_tile(args, product, a, r, 1);
    }
}

void varve_tilescore_exact_avx2(const struct varve_tilescore_args *args) {
    score_rows(args, EXACT);
}

void varve_tilescore_q8_avx2(const struct varve_tilescore_args *args) {
    if (args->mk == NULL) {
        score_rows(args, Q8);
    } else {
        score_rows(args, Q8_MIN);
    }
}

/* ------------------------------------------------------------------------------------- tilefold */

/* o of nq queries x 16 columns from c on, over all rows. */
VEC_INLINE void fold_tile(const struct varve_tilefold_args *args, int32_t a0, int32_t c,
                          const int32_t nq, const bool sparse) {
    const float *const p = args->p + (int64_t)a0 * VARVE_TILE_ROWS;
    const float *v = args->v + c;
    float *const o = args->o + (int64_t)a0 * args->ld + c;
    __m256 sum[SUMS];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * VECTORS; i++) sum[i] = _mm256_setzero_ps();
    for (int32_t r = 0; r < args->n_row; r++, v += args->ld) {
        const __m256 x0 = _mm256_load_ps(v);
        const __m256 x1 = _mm256_load_ps(v + VEC_LANES);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const __m256 y = _mm256_set1_ps(p[a * VARVE_TILE_ROWS + r]);
            if (sparse) {
                const __m256 formed = _mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_NEQ_UQ);
                sum[2 * a] = _mm256_fmadd_ps(y, _mm256_and_ps(x0, formed), sum[2 * a]);
                sum[2 * a + 1] = _mm256_fmadd_ps(y, _mm256_and_ps(x1, formed), sum[2 * a + 1]);
            } else {
                sum[2 * a] = _mm256_fmadd_ps(y, x0, sum[2 * a]);
                sum[2 * a + 1] = _mm256_fmadd_ps(y, x1, sum[2 * a + 1]);
            }
        }
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const float alpha = args->alpha[a0 + a];
        VEC_UNROLL
        for (int32_t j = 0; j < VECTORS; j++) {
            float *const at = o + (int64_t)a * args->ld + VEC_LANES * j;
            const __m256 part = sum[2 * a + j];
            if (alpha == 0.0f) {
                _mm256_store_ps(at, part);
            } else {
                _mm256_store_ps(at,
                                _mm256_fmadd_ps(_mm256_set1_ps(alpha), _mm256_load_ps(at), part));
            }
        }
    }
}

/* Columns outermost, so that the part of V that all queries share stays in L1. */
VEC_INLINE void fold_values(const struct varve_tilefold_args *args, const bool sparse) {
    for (int32_t c = 0; c < args->head_dim; c += COLUMNS) {
        int32_t a = 0;
        for (; a + 6 <= args->n; a += 6) fold_tile(args, a, c, 6, sparse);
        for (; a + 3 <= args->n; a += 3) fold_tile(args, a, c, 3, sparse);
        for (; a < args->n; a++) fold_tile(args, a, c, 1, sparse);
    }
}

void varve_tilefold_any_avx2(const struct varve_tilefold_args *args) {
    if (args->sparse) {
        fold_values(args, true);
    } else {
        fold_values(args, false);
    }
}
