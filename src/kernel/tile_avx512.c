#include "kernel/tile_avx512.h"

VEC_INLINE __mmask32 tile_nonzero(__m512i y) {
    return _mm512_cmp_ps_mask(_mm512_castsi512_ps(y), _mm512_setzero_ps(), _CMP_NEQ_UQ);
}

VEC_INLINE __m512 tile_add(__m512 sum, __m512i x, __m512i y, __mmask32 nonzero, const bool sparse) {
    const __m512 value = _mm512_castsi512_ps(x), weight = _mm512_castsi512_ps(y);
    return sparse ? _mm512_mask3_fmadd_ps(weight, value, sum, (__mmask16)nonzero)
                  : _mm512_fmadd_ps(weight, value, sum);
}

/* ------------------------------------------------------------------------------------ tilescore */

VEC_INLINE void exact_tile(const struct varve_tilescore_args *args, int32_t a0, const int32_t nq,
                           const int32_t nv) {
    const struct varve_queries *const q = args->q;
    const struct tile_factors factors = {q->f, q->ld, args->t, VARVE_TILE_ROWS, q->head_dim};
    tile_score(&factors, args->s, a0, nq, nv);
}

/* One block after the other; the scores themselves hold the sums over blocks. */
VEC_INLINE void q8_tile(const struct varve_tilescore_args *args, int32_t a0, const int32_t nq,
                        const int32_t nv, const bool has_min) {
    const struct varve_queries *const q = args->q;
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS;
    for (int32_t b = 0; b < q->n_block; b++) {
        __m512 sum[TILE_SUMS];
        const int64_t from = (int64_t)b * VARVE_BLOCK;
        const struct tile_factors factors = {q->fi + from, q->ld, args->t + from * VARVE_TILE_ROWS,
                                             VARVE_TILE_ROWS, VARVE_BLOCK};
        tile_multiply(&factors, a0, 0, nq, nv, false, sum);
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

VEC_INLINE void tile_scores(const void *args, const int32_t product, int32_t a0, const int32_t nq,
                            const int32_t nv) {
    if (product == EXACT) {
        exact_tile(args, a0, nq, nv);
    } else {
        q8_tile(args, a0, nq, nv, product == Q8_MIN);
    }
}

void varve_tilescore_exact_avx512(const struct varve_tilescore_args *args) {
    tile_score_rows(args, EXACT, args->q->n, args->n_row);
}

void varve_tilescore_q8_avx512(const struct varve_tilescore_args *args) {
    if (args->mk == NULL) {
        tile_score_rows(args, Q8, args->q->n, args->n_row);
    } else {
        tile_score_rows(args, Q8_MIN, args->q->n, args->n_row);
    }
}

/* ------------------------------------------------------------------------------------- tilefold */

void varve_tilefold_any_avx512(const struct varve_tilefold_args *args) {
    const struct tile_fold fold = {
        {args->p, VARVE_TILE_ROWS, args->v, args->ld, args->n_row},
        args->alpha,
        args->o,
        args->ld,
        args->n,
    };
    if (args->sparse) {
        tile_fold_values(&fold, args->head_dim, true);
    } else {
        tile_fold_values(&fold, args->head_dim, false);
    }
}
