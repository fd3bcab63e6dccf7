#include "kernel/packfold_vnni.h"

/* Half a group makes a tile: two sums for each query, two vectors of codes and a pair of weights in
 * registers. */
enum { TILE = GROUP / 2 };

/* nq queries, from a of the weights on, and the columns of block b. */
VEC_INLINE void fold_tile(const struct varve_packfold_args *args, int32_t a0, int32_t a, int32_t b,
                          const struct weights *weights, const int32_t nq, const bool has_min) {
    const int16_t(*x)[2] = args->x + (int64_t)b * VARVE_TILE_ROWS / 2 * VARVE_BLOCK;
    const int16_t *w = weights->w[a];
    __m512i sum[2 * TILE];
    VEC_UNROLL
    for (int32_t i = 0; i < 2 * nq; i++) sum[i] = _mm512_setzero_si512();
    for (int32_t r = 0; r < args->n_row; r += 2) {
        const __m512i x0 = _mm512_load_si512(x), x1 = _mm512_load_si512(x + VEC_LANES);
        VEC_UNROLL
        for (int32_t i = 0; i < nq; i++) {
            const __m512i pair = vec_broadcast_4_bytes(w + i * VARVE_TILE_ROWS);
            /* an intrinsic would copy the sum */
            __asm__("vpdpwssd %2, %1, %0" : "+v"(sum[2 * i]) : "v"(x0), "v"(pair));
            __asm__("vpdpwssd %2, %1, %0" : "+v"(sum[2 * i + 1]) : "v"(x1), "v"(pair));
        }
        x += VARVE_BLOCK;
        w += 2;
    }
    const float *const alpha = args->alpha + a0 + a, *const step = weights->step + a;
    const int64_t ld = args->ld;
    float *o = args->o + (a0 + a) * ld + b * VARVE_BLOCK;
    VEC_UNROLL
    for (int32_t i = 0; i < nq; i++, o += ld) {
        const __m512 kept = _mm512_set1_ps(alpha[i]), unit = _mm512_set1_ps(step[i]);
        const __m512 min = has_min ? _mm512_set1_ps(weights->min[a + i]) : unit;
        store_sum(o, kept, unit, sum[2 * i], has_min, min);
        store_sum(o + VEC_LANES, kept, unit, sum[2 * i + 1], has_min, min);
    }
}

/* n queries, 1 to TILE. */
VEC_INLINE void fold_queries(const struct varve_packfold_args *args, int32_t a0, int32_t a,
                             int32_t n, int32_t b, const struct weights *weights,
                             const bool has_min) {
    switch (n) {
    case 8: fold_tile(args, a0, a, b, weights, 8, has_min); break;
    case 7: fold_tile(args, a0, a, b, weights, 7, has_min); break;
    case 6: fold_tile(args, a0, a, b, weights, 6, has_min); break;
    case 5: fold_tile(args, a0, a, b, weights, 5, has_min); break;
    case 4: fold_tile(args, a0, a, b, weights, 4, has_min); break;
    case 3: fold_tile(args, a0, a, b, weights, 3, has_min); break;
    case 2: fold_tile(args, a0, a, b, weights, 2, has_min); break;
    default: fold_tile(args, a0, a, b, weights, 1, has_min); break;
    }
}

/* Queries outermost: their weights, p and o stay in L1 beside the blocks. */
VEC_INLINE void packfold(const struct varve_packfold_args *args, const bool sparse,
                         const bool has_min) {
    const int32_t n_block = args->head_dim / VARVE_BLOCK;
    struct weights weights;
    struct units units;
    struct steps steps;
    clear_unread(args->o, args->ld, args->alpha, args->n, args->head_dim);
    for (int32_t b0 = 0; b0 < n_block; b0 += PACKFOLD_BLOCKS) {
        const int32_t n_here = vec_min_i32(n_block - b0, PACKFOLD_BLOCKS);
        if (!sparse) steps_of(args, b0, n_here, &steps);
        for (int32_t a0 = 0; a0 < args->n; a0 += GROUP) {
            const int32_t n = vec_min_i32(args->n - a0, GROUP);
            load_units(args->p + (int64_t)a0 * VARVE_TILE_ROWS, n, args->n_row, &units);
            const int32_t first = n <= TILE ? n : (n + 1) / 2;
            for (int32_t b = 0; b < n_here; b++) {
                weigh(args, &units, &steps, a0, n, b0, b, sparse, has_min, &weights);
                fold_queries(args, a0, 0, first, b0 + b, &weights, has_min);
                if (first < n) fold_queries(args, a0, first, n - first, b0 + b, &weights, has_min);
            }
        }
    }
}

void varve_packfold_any_vnni(const struct varve_packfold_args *args) {
    switch (2 * (args->mv != NULL) + args->sparse) {
    case 0: packfold(args, false, false); break;
    case 1: packfold(args, true, false); break;
    case 2: packfold(args, false, true); break;
    default: packfold(args, true, true); break;
    }
}
