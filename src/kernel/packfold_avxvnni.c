#include "kernel/foldq_avxvnni.h"

/* nq queries from a0 on and half h of block b0 + b, whose weights are number b. */
VEC_INLINE void fold_tile(const struct varve_packfold_args *args, int32_t a0, int32_t b0, int32_t b,
                          const struct weights *weights, const int32_t h, const int32_t nq,
                          const bool has_min) {
    enum { HALF = VARVE_BLOCK / 2 };
    const int64_t block = b0 + b;
    const int16_t(*x)[2] = args->x + block * VARVE_TILE_ROWS / 2 * VARVE_BLOCK + h * HALF;
    const int16_t *w = weights->w[0][b];
    vec_i32 sum[2 * FOLDQ_QUERIES];
    VEC_UNROLL
    for (int32_t i = 0; i < 2 * nq; i++) sum[i] = vec_all_i32(0);
    for (int32_t r = 0; r < args->n_row; r += 2, w += 2, x += VARVE_BLOCK) {
        const vec_i32 y[2] = {_mm256_load_si256((const __m256i *)(const void *)x),
                              _mm256_load_si256((const __m256i *)(const void *)(x + VEC_LANES))};
        fold_vectors(y, w, FOLDQ_BLOCKS * VARVE_TILE_ROWS, nq, 2, sum);
    }
    VEC_UNROLL
    for (int32_t i = 0; i < 2 * nq; i++) {
        const int32_t a = i / 2;
        float *const o = args->o + (int64_t)(a0 + a) * args->ld + block * VARVE_BLOCK + h * HALF;
        store_sum(o + i % 2 * VEC_LANES, args->alpha[a0 + a], weights, a, b, has_min, sum[i]);
    }
}

VEC_INLINE void fold_queries(const struct varve_packfold_args *args, int32_t a0, const int32_t nq,
                             const bool has_min) {
    const int32_t n = args->head_dim / VARVE_BLOCK;
    struct units units;
    struct weights weights;
    load_units(args->p + (int64_t)a0 * VARVE_TILE_ROWS, nq, args->n_row, &units);
    for (int32_t b0 = 0; b0 < n; b0 += FOLDQ_BLOCKS) {
        const int64_t at = (int64_t)b0 * VARVE_TILE_ROWS;
        const struct scales scales = {args->dv + at, has_min ? args->mv + at : NULL,
                                      vec_min_i32(n - b0, FOLDQ_BLOCKS), 0};
        load_weights(&units, &scales, nq, args->sparse, &weights);
        for (int32_t b = 0; b < scales.n_block; b++) {
            fold_tile(args, a0, b0, b, &weights, 0, nq, has_min);
            fold_tile(args, a0, b0, b, &weights, 1, nq, has_min);
        }
    }
}

VEC_INLINE void packfold(const struct varve_packfold_args *args, const bool has_min) {
    int32_t a = 0;
    for (; a + FOLDQ_QUERIES <= args->n; a += FOLDQ_QUERIES) {
        fold_queries(args, a, FOLDQ_QUERIES, has_min);
    }
    switch (args->n - a) {
    case 3: fold_queries(args, a, 3, has_min); break;
    case 2: fold_queries(args, a, 2, has_min); break;
    case 1: fold_queries(args, a, 1, has_min); break;
    default: break;
    }
}

void varve_packfold_any_avxvnni(const struct varve_packfold_args *args) {
    if (args->mv != NULL) {
        packfold(args, true);
    } else {
        packfold(args, false);
    }
}
