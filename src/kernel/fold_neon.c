#include "kernel/quant_neon.h"

#include "kernel/fold.h"

/* Most sums of a tile in registers, and queries that it takes. */
enum { TILE_SUMS = 16, TILE_QUERIES = 4, BLOCK_VECTORS = VARVE_BLOCK / VEC_LANES };

/* Where a tile lies: its first query and column, which for quantized formats begins a block; a tile
 * of one vector may have fewer values than that. */
struct fold_place {
    int32_t a0, c, n_value;
};

/* 16 values of a block, without the scale where the weights have it. */
VEC_INLINE void load_half(const enum varve_format f, const uint8_t *block, const int32_t half,
                          float32x4_t v[4]) {
    quant_widen(quant_load_half(f, block, half), v);
    if (!quant_has_min(f)) return;
    const float32x4_t d = vec_broadcast_f16(block), m = vec_broadcast_f16(block + 2);
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) v[j] = vaddq_f32(vmulq_f32(d, v[j]), m);
}

VEC_INLINE void load_values(const enum varve_format f, const uint8_t *from, const int32_t j0,
                            const int32_t nv, int32_t n_value, float32x4_t *v) {
    if (nv == 1) {
        v[0] =
            n_value >= VEC_LANES ? vec_load_float(f, from) : vec_load_float_part(f, from, n_value);
        return;
    }
    VEC_UNROLL
    for (int32_t j = 0; j < nv; j += 4) {
        if (quant_is(f)) {
            load_half(f, from, (j0 + j) / 4, v + j);
        } else {
            vec_load_float_8(f, from + quant_row_bytes(f, VEC_LANES * j), v + j);
            vec_load_float_8(f, from + quant_row_bytes(f, VEC_LANES * (j + 2)), v + j + 2);
        }
    }
}

/* w[a][r] = p_a[r] * d of row r. In a sparse fold a zero weight stays zero whatever d is; codes are
 * finite. */
VEC_INLINE void scale_weights(const struct varve_fold_args *args, const enum varve_format format,
                              int32_t a0, int32_t c, const int32_t nq, float *w) {
    uint16_t half[VARVE_TILE_ROWS] __attribute__((aligned(64)));
    const int32_t n_full = args->n_row / VEC_LANES * VEC_LANES;
    /* the last vector is loaded whole */
    if (n_full < args->n_row) memset(half + n_full, 0, VEC_LANES * sizeof *half);
    for (int32_t r = 0; r < args->n_row; r += 16) {
        if (a0 == 0 && c == 0) {
            vec_prefetch(args->rows, args->n_row, r + 16, 16, 0,
                         quant_row_bytes(format, args->head_dim));
        }
        vec_gather_halves(args->rows + r, vec_min_i32(args->n_row - r, 16),
                          quant_row_bytes(format, c), 0, 1, VARVE_TILE_ROWS, half + r);
    }
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        const float32x4_t d = vec_load_halves(half + r);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const float32x4_t p = vld1q_f32(args->p + (int64_t)(a0 + a) * VARVE_TILE_ROWS + r);
            float32x4_t x = vmulq_f32(p, d);
            if (args->sparse) x = vec_keep(x, vmvnq_u32(vceqzq_f32(p)));
            vst1q_f32(w + a * VARVE_TILE_ROWS + r, x);
        }
    }
}

/* Rows r .. r + 15 of the next block, and the 16 after them of this one where scale_weights has not
 * fetched them. */
VEC_INLINE void fetch_rows(const struct varve_fold_args *args, const enum varve_format format,
                           int32_t r) {
    vec_fetch_ahead(&args->ahead, r, 16);
    if (!is_scaled(format)) {
        vec_prefetch(args->rows, args->n_row, r + 16, 16, 0,
                     quant_row_bytes(format, args->head_dim));
    }
}

/* Four rows: the weights of a query are one vector, of which products take a lane. */
VEC_INLINE void fold_four(const enum varve_format format, const uint8_t *const *rows,
                          int64_t offset, const float *w, const int32_t j0, const int32_t nq,
                          const int32_t nv, int32_t n_value, float32x4_t *sum) {
    float32x4_t p[TILE_QUERIES];
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) p[a] = vld1q_f32(w + a * VARVE_TILE_ROWS);
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        float32x4_t v[8];
        load_values(format, rows[i] + offset, j0, nv, n_value, v);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            VEC_UNROLL
            for (int32_t j = 0; j < nv; j++) {
                sum[a * nv + j] = vfmaq_n_f32(sum[a * nv + j], v[j], p[a][i]);
            }
        }
    }
}

VEC_INLINE void fold_one(const enum varve_format format, const uint8_t *from, const float *w,
                         const int32_t j0, const int32_t nq, const int32_t nv, int32_t n_value,
                         const bool sparse, float32x4_t *sum) {
    float32x4_t v[8];
    load_values(format, from, j0, nv, n_value, v);
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const float p = w[a * VARVE_TILE_ROWS];
        if (sparse && p == 0.0f) continue;
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            sum[a * nv + j] = vfmaq_n_f32(sum[a * nv + j], v[j], p);
        }
    }
}

/* Adds the rows to o of nq queries and nv vectors; o stays in registers. */
VEC_INLINE void fold_pass(const struct varve_fold_args *args, const enum varve_format format,
                          const float *w, const struct fold_place at, const int32_t j0,
                          const int32_t nq, const int32_t nv, const bool sparse) {
    const int64_t offset = quant_row_bytes(format, at.c);
    float *const o = args->o + (int64_t)at.a0 * args->ld + at.c + VEC_LANES * j0;
    float32x4_t sum[TILE_SUMS];
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const float alpha = args->alpha[at.a0 + a];
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            const float *const old = o + (int64_t)a * args->ld + VEC_LANES * j;
            sum[a * nv + j] = alpha == 0.0f ? vec_zero() : vmulq_n_f32(vld1q_f32(old), alpha);
        }
    }
    /* rows inside by 16: a test in each row costs more than the fetches */
    for (int32_t r0 = 0; r0 < args->n_row; r0 += 16) {
        if (at.a0 == 0 && at.c == 0 && j0 == 0) fetch_rows(args, format, r0);
        const int32_t end = vec_min_i32(r0 + 16, args->n_row);
        int32_t r = r0;
        for (; !sparse && r + 4 <= end; r += 4) {
            fold_four(format, args->rows + r, offset, w + r, j0, nq, nv, at.n_value, sum);
        }
        for (; r < end; r++) {
            fold_one(format, args->rows[r] + offset, w + r, j0, nq, nv, at.n_value, sparse, sum);
        }
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            vst1q_f32(o + (int64_t)a * args->ld + VEC_LANES * j, sum[a * nv + j]);
        }
    }
}

/* n_vector vectors from column c on, in passes of nv. */
VEC_INLINE void fold_tile(const struct varve_fold_args *args, const enum varve_format format,
                          const struct fold_place at, const int32_t nq, const int32_t n_vector,
                          const int32_t nv, const bool sparse) {
    float scaled_weights[TILE_QUERIES * VARVE_TILE_ROWS] __attribute__((aligned(64)));
    const float *w = args->p + (int64_t)at.a0 * VARVE_TILE_ROWS;
    if (is_scaled(format)) {
        scale_weights(args, format, at.a0, at.c, nq, scaled_weights);
        w = scaled_weights;
    }
    VEC_UNROLL
    for (int32_t j = 0; j < n_vector; j += nv) {
        fold_pass(args, format, w, at, j, nq, nv, sparse);
    }
}

/* All columns for nq queries, nv vectors at once. Tiles of quantized formats are whole blocks. */
VEC_INLINE void fold_queries(const struct varve_fold_args *args, const enum varve_format format,
                             int32_t a0, const int32_t nq, const int32_t nv, const bool sparse) {
    const int32_t n_vector = quant_is(format) ? BLOCK_VECTORS : nv;
    struct fold_place at = {.a0 = a0, .n_value = VEC_LANES};
    for (; at.c + n_vector * VEC_LANES <= args->head_dim; at.c += n_vector * VEC_LANES) {
        fold_tile(args, format, at, nq, n_vector, nv, sparse);
    }
    if (quant_is(format)) return;
    for (; at.c < args->head_dim; at.c += VEC_LANES) {
        at.n_value = args->head_dim - at.c;
        fold_tile(args, format, at, nq, 1, 1, sparse);
    }
}

/* At least eight sums, the latency of four multiply-adds on two ports, and at most sixteen. */
VEC_INLINE void fold_rows(const struct varve_fold_args *args, const enum varve_format format,
                          const bool sparse) {
    int32_t a = 0;
    for (; a + 4 <= args->n; a += 4) fold_queries(args, format, a, 4, 4, sparse);
    switch (args->n - a) {
    case 3: fold_queries(args, format, a, 3, 4, sparse); break;
    case 2: fold_queries(args, format, a, 2, 8, sparse); break;
    case 1: fold_queries(args, format, a, 1, 8, sparse); break;
    default: break;
    }
}

FOLD(varve_fold_f32_neon, VARVE_FORMAT_F32)
FOLD(varve_fold_f16_neon, VARVE_FORMAT_F16)
FOLD(varve_fold_bf16_neon, VARVE_FORMAT_BF16)
FOLD(varve_fold_q8_0_neon, VARVE_FORMAT_Q8_0)
FOLD(varve_fold_q4_0_neon, VARVE_FORMAT_Q4_0)
FOLD(varve_fold_q4_1_neon, VARVE_FORMAT_Q4_1)
FOLD(varve_fold_q5_0_neon, VARVE_FORMAT_Q5_0)
FOLD(varve_fold_q5_1_neon, VARVE_FORMAT_Q5_1)
FOLD(varve_fold_iq4_nl_neon, VARVE_FORMAT_IQ4_NL)
