#include "kernel/quant_neon.h"

/* Both products are matrix products with one fixed tile: 4 queries x 4 vectors leave 16 sums, 4
 * vectors of the tile and 4 of the other factor in the 32 registers. Leading dimensions are
 * multiples of 16 floats, so that there are always four vectors. */
enum { QUERIES = 4, VECTORS = 4, SUMS = QUERIES * VECTORS, COLUMNS = VECTORS * VEC_LANES };

VEC_INLINE void load_row(const float *y, float32x4_t row[VECTORS]) {
    VEC_UNROLL
    for (int32_t j = 0; j < VECTORS; j++) row[j] = vld1q_f32(y + VEC_LANES * j);
}

/* sum[a][j] = sum over i < n of x[a][i] * y[i][j] for nq queries and 16 columns. If `sparse`, terms
 * whose x is 0 are not formed. */
VEC_INLINE void multiply(const float *x, int64_t ldx, const float *y, int64_t ldy, int32_t n,
                         const int32_t nq, const bool sparse, float32x4_t sum[SUMS]) {
    float32x4_t row[VECTORS], lanes[QUERIES];
    int32_t i = 0;
    VEC_UNROLL
    for (int32_t j = 0; j < nq * VECTORS; j++) sum[j] = vec_zero();
    for (; !sparse && i + 4 <= n; i += 4) {
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) lanes[a] = vld1q_f32(x + a * ldx + i);
        VEC_UNROLL
        for (int32_t k = 0; k < 4; k++) {
            load_row(y + (i + k) * ldy, row);
            VEC_UNROLL
            for (int32_t j = 0; j < nq * VECTORS; j++) {
                sum[j] = vfmaq_n_f32(sum[j], row[j % VECTORS], lanes[j / VECTORS][k]);
            }
        }
    }
    for (; i < n; i++) {
        load_row(y + i * ldy, row);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const float factor = x[a * ldx + i];
            if (sparse && factor == 0.0f) continue;
            VEC_UNROLL
            for (int32_t j = 0; j < VECTORS; j++) {
                sum[a * VECTORS + j] = vfmaq_n_f32(sum[a * VECTORS + j], row[j], factor);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------ tilescore */

VEC_INLINE void exact_tile(const struct varve_tilescore_args *args, int32_t a0, int32_t r,
                           const int32_t nq) {
    const struct varve_queries *const q = args->q;
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS + r;
    float32x4_t sum[SUMS];
    multiply(q->f + (int64_t)a0 * q->ld, q->ld, args->t + r, VARVE_TILE_ROWS, q->head_dim, nq,
             false, sum);
    VEC_UNROLL
    for (int32_t i = 0; i < nq * VECTORS; i++) {
        vst1q_f32(s + i / VECTORS * VARVE_TILE_ROWS + i % VECTORS * VEC_LANES, sum[i]);
    }
}

/* One block after the other; the scores themselves hold the sums over blocks. */
VEC_INLINE void q8_tile(const struct varve_tilescore_args *args, int32_t a0, int32_t r,
                        const int32_t nq, const bool has_min) {
    const struct varve_queries *const q = args->q;
    const float *const fi = q->fi + (int64_t)a0 * q->ld;
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS + r;
    for (int32_t b = 0; b < q->n_block; b++) {
        float32x4_t sum[SUMS];
        const int64_t from = (int64_t)b * VARVE_BLOCK;
        multiply(fi + from, q->ld, args->t + from * VARVE_TILE_ROWS + r, VARVE_TILE_ROWS,
                 VARVE_BLOCK, nq, false, sum);
        VEC_UNROLL
        for (int32_t j = 0; j < VECTORS; j++) {
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r + VEC_LANES * j;
            const float32x4_t dk = vld1q_f32(args->dk + at);
            const float32x4_t mk = has_min ? vld1q_f32(args->mk + at) : vec_zero();
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const int64_t block = (int64_t)(a0 + a) * q->n_block + b;
                float *const p = s + a * VARVE_TILE_ROWS + VEC_LANES * j;
                float32x4_t part = vmulq_f32(dk, sum[a * VECTORS + j]);
                if (has_min) part = vfmaq_n_f32(part, mk, (float)q->sum[block]);
                const float32x4_t old = b == 0 ? vec_zero() : vld1q_f32(p);
                vst1q_f32(p, vfmaq_n_f32(old, part, q->d[block]));
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
        for (; a + 4 <= n; a += 4) score_tile(args, product, a, r, 4);
        if (a + 2 <= n) {
            score_tile(args, product, a, r, 2);
            a += 2;
        }
        if (a < n) score_tile(args, product, a, r, 1);
    }
}

void varve_tilescore_exact_neon(const struct varve_tilescore_args *args) {
    score_rows(args, EXACT);
}

void varve_tilescore_q8_neon(const struct varve_tilescore_args *args) {
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
    float *const o = args->o + (int64_t)a0 * args->ld + c;
    float32x4_t sum[SUMS];
    multiply(args->p + (int64_t)a0 * VARVE_TILE_ROWS, VARVE_TILE_ROWS, args->v + c, args->ld,
             args->n_row, nq, sparse, sum);
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const float alpha = args->alpha[a0 + a];
        VEC_UNROLL
        for (int32_t j = 0; j < VECTORS; j++) {
            float *const at = o + (int64_t)a * args->ld + VEC_LANES * j;
            float32x4_t x = sum[a * VECTORS + j];
            if (alpha != 0.0f) x = vfmaq_n_f32(x, vld1q_f32(at), alpha);
            vst1q_f32(at, x);
        }
    }
}

/* Columns outermost, so that the part of V that all queries share stays in L1. */
VEC_INLINE void fold_values(const struct varve_tilefold_args *args, const bool sparse) {
    for (int32_t c = 0; c < args->head_dim; c += COLUMNS) {
        int32_t a = 0;
        for (; a + 4 <= args->n; a += 4) fold_tile(args, a, c, 4, sparse);
        if (a + 2 <= args->n) {
            fold_tile(args, a, c, 2, sparse);
            a += 2;
        }
        if (a < args->n) fold_tile(args, a, c, 1, sparse);
    }
}

void varve_tilefold_any_neon(const struct varve_tilefold_args *args) {
    if (args->sparse) {
        fold_values(args, true);
    } else {
        fold_values(args, false);
    }
}
