#include "kernel/vec_avx512.h"

/* Both products are matrix products with small, fixed tiles: 6 queries x 4 vectors leave 24 sums,
 * 4 vectors of the tile and one broadcast in the 32 registers, and need 10 loads for 24
 * multiply-adds. */
enum { QUERIES = 6, VECTORS = 4, SUMS = QUERIES * VECTORS };

/* ------------------------------------------------------------------------------------ tilescore */

/* sum[a][j] = sum over d < n of f[a][d] * t[d][j] for nq queries and nv vectors of rows. */
VEC_INLINE void multiply(const float *f, int64_t ld, const float *t, int32_t n, const int32_t nq,
                         const int32_t nv, __m512 sum[SUMS]) {
    VEC_UNROLL
    for (int32_t i = 0; i < nq * nv; i++) sum[i] = _mm512_setzero_ps();
    for (int32_t d = 0; d < n; d++) {
        __m512 x[VECTORS];
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) x[j] = _mm512_load_ps(t + VEC_LANES * j);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const __m512 y = _mm512_set1_ps(f[a * ld + d]);
            VEC_UNROLL
            for (int32_t j = 0; j < nv; j++) {
                sum[a * nv + j] = _mm512_fmadd_ps(y, x[j], sum[a * nv + j]);
            }
        }
        t += VARVE_TILE_ROWS;
    }
}

VEC_INLINE void exact_tile(const struct varve_tilescore_args *args, int32_t a0, const int32_t nq,
                           const int32_t nv) {
    const struct varve_queries *const q = args->q;
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS;
    __m512 sum[SUMS];
    multiply(q->f + (int64_t)a0 * q->ld, q->ld, args->t, q->head_dim, nq, nv, sum);
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            _mm512_store_ps(s + a * VARVE_TILE_ROWS + VEC_LANES * j, sum[a * nv + j]);
        }
    }
}

/* One block after the other; the scores themselves hold the sums over blocks. */
VEC_INLINE void q8_tile(const struct varve_tilescore_args *args, int32_t a0, const int32_t nq,
                        const int32_t nv, const bool has_min) {
    const struct varve_queries *const q = args->q;
    const float *const fi = q->fi + (int64_t)a0 * q->ld;
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS;
    for (int32_t b = 0; b < q->n_block; b++) {
        __m512 sum[SUMS];
        const int64_t from = (int64_t)b * VARVE_BLOCK;
        multiply(fi + from, q->ld, args->t + from * VARVE_TILE_ROWS, VARVE_BLOCK, nq, nv, sum);
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + VEC_LANES * j;
            const __m512 dk = _mm512_load_ps(args->dk + at);
            const __m512 mk = has_min ? _mm512_load_ps(args->mk + at) : _mm512_setzero_ps();
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const int64_t block = (int64_t)(a0 + a) * q->n_block + b;
                float *const p = s + a * VARVE_TILE_ROWS + VEC_LANES * j;
                __m512 part = _mm512_mul_ps(dk, sum[a * nv + j]);
                if (has_min) {
                    part = _mm512_fmadd_ps(mk, _mm512_set1_ps((float)q->sum[block]), part);
                }
                const __m512 d = _mm512_set1_ps(q->d[block]);
                const __m512 old = b == 0 ? _mm512_setzero_ps() : _mm512_load_ps(p);
                _mm512_store_ps(p, _mm512_fmadd_ps(d, part, old));
            }
        }
    }
}

enum product { EXACT, Q8, Q8_MIN };

VEC_INLINE void score_tile(const struct varve_tilescore_args *args, const enum product product,
                           int32_t a0, const int32_t nq, const int32_t nv) {
    if (product == EXACT) {
        exact_tile(args, a0, nq, nv);
    } else {
        q8_tile(args, a0, nq, nv, product == Q8_MIN);
    }
}

VEC_INLINE void score_queries(const struct varve_tilescore_args *args, const enum product product,
                              const int32_t nv) {
    const int32_t n = args->q->n;
    int32_t a = 0;
    for (; a + 6 <= n; a += 6) score_tile(args, product, a, 6, nv);
    for (; a + 3 <= n; a += 3) score_tile(args, product, a, 3, nv);
    for (; a < n; a++) score_tile(args, product, a, 1, nv);
}

VEC_INLINE void score_rows(const struct varve_tilescore_args *args, const enum product product) {
    switch ((args->n_row + VEC_LANES - 1) / VEC_LANES) {
    case 4: score_queries(args, product, 4); break;
    case 3: score_queries(args, product, 3); break;
    case 2: score_queries(args, product, 2); break;
    default: score_queries(args, product, 1); break;
    }
}

void varve_tilescore_exact_avx512(const struct varve_tilescore_args *args) {
    score_rows(args, EXACT);
}

void varve_tilescore_q8_avx512(const struct varve_tilescore_args *args) {
    if (args->mk == NULL) {
        score_rows(args, Q8);
    } else {
        score_rows(args, Q8_MIN);
    }
}

/* ------------------------------------------------------------------------------------- tilefold */

/* o of nq queries x nv vectors from column c on, over all rows. */
VEC_INLINE void fold_tile(const struct varve_tilefold_args *args, int32_t a0, int32_t c,
                          const int32_t nq, const int32_t nv, const bool sparse) {
    const float *const p = args->p + (int64_t)a0 * VARVE_TILE_ROWS;
    const float *v = args->v + c;
    float *const o = args->o + (int64_t)a0 * args->ld + c;
    __m512 sum[SUMS];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * nv; i++) sum[i] = _mm512_setzero_ps();
    for (int32_t r = 0; r < args->n_row; r++, v += args->ld) {
        __m512 x[VECTORS];
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) x[j] = _mm512_load_ps(v + VEC_LANES * j);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const __m512 y = _mm512_set1_ps(p[a * VARVE_TILE_ROWS + r]);
            const __mmask16 formed =
                sparse ? _mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_NEQ_UQ) : 0xFFFF;
            VEC_UNROLL
            for (int32_t j = 0; j < nv; j++) {
                const int32_t i = a * nv + j;
                sum[i] = sparse ? _mm512_mask3_fmadd_ps(y, x[j], sum[i], formed)
                                : _mm512_fmadd_ps(y, x[j], sum[i]);
            }
        }
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const float alpha = args->alpha[a0 + a];
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            float *const at = o + (int64_t)a * args->ld + VEC_LANES * j;
            const __m512 part = sum[a * nv + j];
            if (alpha == 0.0f) {
                _mm512_store_ps(at, part);
            } else {
                _mm512_store_ps(at,
                                _mm512_fmadd_ps(_mm512_set1_ps(alpha), _mm512_load_ps(at), part));
            }
        }
    }
}

VEC_INLINE void fold_columns(const struct varve_tilefold_args *args, int32_t c, const int32_t nv,
                             const bool sparse) {
    int32_t a = 0;
    for (; a + 6 <= args->n; a += 6) fold_tile(args, a, c, 6, nv, sparse);
    for (; a + 3 <= args->n; a += 3) fold_tile(args, a, c, 3, nv, sparse);
    for (; a < args->n; a++) fold_tile(args, a, c, 1, nv, sparse);
}

/* Columns outermost, so that the part of V that all queries share stays in L1. */
VEC_INLINE void fold_values(const struct varve_tilefold_args *args, const bool sparse) {
    int32_t left = (args->head_dim + VEC_LANES - 1) / VEC_LANES;
    int32_t c = 0;
    while (left > 0) {
        /* 5 vectors as 3 + 2: a tile of one vector would wait for its own sums */
        const int32_t nv = left == 5 ? 3 : vec_min_i32(left, VECTORS);
        switch (nv) {
        case 4: fold_columns(args, c, 4, sparse); break;
        case 3: fold_columns(args, c, 3, sparse); break;
        case 2: fold_columns(args, c, 2, sparse); break;
        default: fold_columns(args, c, 1, sparse); break;
        }
        c += nv * VEC_LANES;
        left -= nv;
    }
}

void varve_tilefold_any_avx512(const struct varve_tilefold_args *args) {
    if (args->sparse) {
        fold_values(args, true);
    } else {
        fold_values(args, false);
    }
}
