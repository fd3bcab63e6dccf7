#include "kernel/foldq_avxvnni.h"

#include "kernel/pairs_avxvnni.h"

/* Pairs of rows: a lane holds the codes of one column of two rows, 16 bits each, and a weight is a
 * pair of 16 bits for every lane, so one instruction does what two multiply-adds do in F32. There
 * are 16 registers: a tile is half a block for four queries, or a whole one for two. */

/* The block at `offset` of a pair of rows: n_half halves from half h0 on, times nq queries. */
VEC_INLINE void fold_pair(const enum varve_format f, const uint8_t *const *rows, int64_t offset,
                          const int16_t *w, const int32_t h0, const int32_t nq,
                          const int32_t n_half, vec_i32 *sum) {
    VEC_UNROLL
    for (int32_t h = 0; h < n_half; h++) {
        vec_i32 x[2];
        load_pairs(f, rows[0] + offset, rows[1] + offset, h0 + h, x);
        fold_vectors(x, w, FOLDQ_BLOCKS * VARVE_TILE_ROWS, nq, 2 * n_half, sum + 2 * h);
    }
}

/* The rows of a call, an even number of them: an odd one has its last twice, with weight 0. */
struct row_pairs {
    const uint8_t *const *rows;
    const uint8_t *spare[VARVE_TILE_ROWS];
};

VEC_INLINE void pair_rows(const struct varve_fold_args *args, struct row_pairs *pairs) {
    pairs->rows = args->rows;
    if (args->n_row % 2 == 0) return;
    for (int32_t r = 0; r < args->n_row; r++) pairs->spare[r] = args->rows[r];
    pairs->spare[args->n_row] = args->rows[args->n_row - 1];
    pairs->rows = pairs->spare;
}

/* nq queries from a0 on, n_half halves from half h0 on of the block that begins at column c and is
 * number b of the weights. */
VEC_INLINE void fold_tile(const struct varve_fold_args *args, const enum varve_format f,
                          const uint8_t *const *rows, int32_t a0, int32_t c,
                          const struct weights *weights, int32_t b, const int32_t h0,
                          const int32_t nq, const int32_t n_half) {
    enum { STEP = 8 };
    const int64_t offset = quant_row_bytes(f, c);
    const int16_t *w = weights->w[0][b];
    vec_i32 sum[8];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * n_half * 2; i++) sum[i] = vec_all_i32(0);
    for (int32_t r0 = 0; r0 < args->n_row; r0 += STEP) {
        const uint8_t *const *const end = rows + vec_min_i32(r0 + STEP, args->n_row);
        if (h0 == 0 && c == 0 && a0 == 0) vec_fetch_ahead(&args->ahead, r0, STEP);
        for (const uint8_t *const *at = rows + r0; at < end; at += 2, w += 2) {
            __asm__("" : "+r"(w)); /* one address for all queries */
            fold_pair(f, at, offset, w, h0, nq, n_half, sum);
        }
    }
    VEC_UNROLL
    for (int32_t i = 0; i < nq * n_half * 2; i++) {
        const int32_t a = i / 2 / n_half, h = h0 + i / 2 % n_half;
        float *const o = args->o + (int64_t)(a0 + a) * args->ld + c + half_column(f, h, i % 2);
        store_sum(o, args->alpha[a0 + a], weights, a, b, quant_has_min(f), sum[i]);
    }
}

VEC_INLINE void load_scales(const struct varve_fold_args *args, const enum varve_format f,
                            int32_t c, int32_t n_block, float (*d)[VARVE_TILE_ROWS],
                            float (*m)[VARVE_TILE_ROWS]) {
    const int64_t at = quant_row_bytes(f, c);
    load_halves(args->rows, args->n_row, at, quant_bytes(f), n_block, d);
    if (!quant_has_min(f)) return;
    load_halves(args->rows, args->n_row, at + 2, quant_bytes(f), n_block, m);
}

VEC_INLINE void fold_queries(const struct varve_fold_args *args, const enum varve_format f,
                             const uint8_t *const *rows, int32_t a0, const int32_t nq) {
    const int32_t n = args->head_dim / VARVE_BLOCK;
    float d[FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    float m[FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    struct scales scales = {d[0], quant_has_min(f) ? m[0] : NULL, 0, quant_signed_bias(f)};
    struct units units;
    struct weights weights;
    if (a0 == 0) {
        vec_prefetch(args->rows, args->n_row, 0, 16, 0, quant_row_bytes(f, args->head_dim));
    }
    load_units(args->p + (int64_t)a0 * VARVE_TILE_ROWS, nq, args->n_row, &units);
    for (int32_t b0 = 0; b0 < n; b0 += FOLDQ_BLOCKS) {
        const int32_t n_block = vec_min_i32(n - b0, FOLDQ_BLOCKS);
        scales.n_block = n_block;
        load_scales(args, f, b0 * VARVE_BLOCK, n_block, d, m);
        load_weights(&units, &scales, nq, args->sparse, &weights);
        for (int32_t b = 0; b < n_block; b++) {
            const int32_t c = (b0 + b) * VARVE_BLOCK;
            if (nq <= 2) {
                fold_tile(args, f, rows, a0, c, &weights, b, 0, nq, 2);
            } else {
                fold_tile(args, f, rows, a0, c, &weights, b, 0, nq, 1);
                fold_tile(args, f, rows, a0, c, &weights, b, 1, nq, 1);
            }
        }
    }
}

VEC_INLINE void foldq(const struct varve_fold_args *args, const enum varve_format f) {
    struct row_pairs pairs;
    pair_rows(args, &pairs);
    int32_t a = 0;
    for (; a + FOLDQ_QUERIES <= args->n; a += FOLDQ_QUERIES) {
        fold_queries(args, f, pairs.rows, a, FOLDQ_QUERIES);
    }
    switch (args->n - a) {
    case 3: fold_queries(args, f, pairs.rows, a, 3); break;
    case 2: fold_queries(args, f, pairs.rows, a, 2); break;
    case 1: fold_queries(args, f, pairs.rows, a, 1); break;
    default: break;
    }
}

#define FOLDQ(name, f) \
    void name(const struct varve_fold_args *args) { foldq(args, f); }
FOLDQ(varve_foldq_q8_0_avxvnni, VARVE_FORMAT_Q8_0)
FOLDQ(varve_foldq_q4_0_avxvnni, VARVE_FORMAT_Q4_0)
FOLDQ(varve_foldq_q4_1_avxvnni, VARVE_FORMAT_Q4_1)
FOLDQ(varve_foldq_q5_0_avxvnni, VARVE_FORMAT_Q5_0)
FOLDQ(varve_foldq_q5_1_avxvnni, VARVE_FORMAT_Q5_1)
FOLDQ(varve_foldq_iq4_nl_avxvnni, VARVE_FORMAT_IQ4_NL)
