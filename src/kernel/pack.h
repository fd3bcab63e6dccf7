/* Packing quantized K, and scores from packed rows, by dot products of unsigned with signed bytes.
 * Included by a file that has those of its ISA level: dot_vnni.h, dot_avxvnni.h. */
#ifndef VARVE_KERNEL_PACK_H
#define VARVE_KERNEL_PACK_H

#include "kernel/quant.h"

/* ---------------------------------------------------------------------------------------- packk */

VEC_INLINE void packk(const struct varve_packk_args *args, const enum varve_format f) {
    const uint8_t *spare[VEC_LANES];
    const vec_i32 more = vec_all_i32((int32_t)((uint32_t)(128 - quant_bias(f)) * 0x01010101u));
    for (int32_t r = 0; r < (args->n_row + 15) / 16 * 16; r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        const vec_mask valid = vec_first(args->n_row - r);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * quant_bytes(f);
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r;
            uint32_t *const to = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS + r;
            vec_i32 x[8];
            quant_load_codes(f, rows, offset, x);
            VEC_UNROLL
            for (int32_t j = 0; j < 8; j++) {
                const vec_i32 y = dot_codes(f, x[j]);
                vec_store_i32(to + j * VARVE_TILE_ROWS,
                              quant_bias(f) == 128 ? y : vec_add_i8(y, more));
            }
            vec_store(args->dk + at, vec_keep(vec_gather_f16(rows, offset), valid));
            if (quant_has_min(f)) {
                vec_store(args->mk + at, vec_keep(vec_gather_f16(rows, offset + 2), valid));
            }
        }
    }
}

#define PACKK(name, f) \
    void name(const struct varve_packk_args *args) { packk(args, f); }

/* ------------------------------------------------------------------------------------ packscore */

/* nq queries x nv vectors of rows: integer sums of a block stay in registers, and with 32 of them
 * the sums of the row too. */
VEC_INLINE void score_tile(const struct varve_packscore_args *args, int32_t a0, int32_t r,
                           const int32_t nq, const int32_t nv, const bool fetch,
                           struct vec_ahead *ahead) {
    const struct varve_queries *const q = args->q;
    vec_f32 sum[8];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * nv; i++) sum[i] = vec_zero();
    for (int32_t b = 0; b < q->n_block; b++) {
        const uint32_t *const x = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS + r;
        const int8_t *const i0 = q->i + (int64_t)a0 * q->ld + b * VARVE_BLOCK;
        const int32_t *const q_sum = q->sum + (int64_t)a0 * q->n_block + b;
        const float *const d = q->d + (int64_t)a0 * q->n_block + b;
        vec_i32 dot[8];
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            VEC_UNROLL
            for (int32_t v = 0; v < nv; v++) {
                dot[a * nv + v] = vec_all_i32(-128 * q_sum[(int64_t)a * q->n_block]);
            }
        }
        VEC_UNROLL
        for (int32_t j = 0; j < VARVE_BLOCK / 4; j++) {
            vec_i32 k[4];
            if (fetch) vec_ahead_step(ahead);
            VEC_UNROLL
            for (int32_t v = 0; v < nv; v++) {
                k[v] = vec_load_i32(x + j * VARVE_TILE_ROWS + v * VEC_LANES);
            }
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const vec_i32 y = vec_broadcast_4_bytes(i0 + (int64_t)a * q->ld + 4 * j);
                VEC_UNROLL
                for (int32_t v = 0; v < nv; v++) {
                    dot[a * nv + v] = dot_bytes(dot[a * nv + v], k[v], y);
                }
            }
        }
        VEC_UNROLL
        for (int32_t v = 0; v < nv; v++) {
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r + v * VEC_LANES;
            const vec_f32 dk = vec_load(args->dk + at);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                vec_f32 part = vec_mul(vec_to_f32(dot[a * nv + v]), dk);
                if (args->mk != NULL) {
                    const vec_f32 s = vec_all((float)q_sum[(int64_t)a * q->n_block]);
                    part = vec_fma(vec_load(args->mk + at), s, part);
                }
                const vec_f32 scale = vec_all(d[(int64_t)a * q->n_block]);
                sum[a * nv + v] = vec_fma(part, scale, sum[a * nv + v]);
            }
        }
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        VEC_UNROLL
        for (int32_t v = 0; v < nv; v++) {
            vec_store(args->s + (int64_t)(a0 + a) * VARVE_TILE_ROWS + r + v * VEC_LANES,
                      sum[a * nv + v]);
        }
    }
}

/* The first queries fetch ahead. */
VEC_INLINE void score_rows(const struct varve_packscore_args *args, int32_t r, const int32_t nv,
                           struct vec_ahead *ahead) {
    int32_t a = 0;
    for (; a + 2 <= vec_min_i32(args->q->n, AHEAD_QUERIES); a += 2) {
        score_tile(args, a, r, 2, nv, true, ahead);
    }
    for (; a + 2 <= args->q->n; a += 2) score_tile(args, a, r, 2, nv, false, ahead);
    if (a < args->q->n) score_tile(args, a, r, 1, nv, true, ahead);
}

VEC_INLINE void packscore(const struct varve_packscore_args *args) {
    enum { MOST = 4, STEP = MOST * VEC_LANES };
    const int32_t n_tile = vec_parts(vec_min_i32(args->q->n, AHEAD_QUERIES), 2);
    struct vec_ahead ahead =
        vec_ahead_of(&args->ahead, (const uint8_t *)args->x,
                     vec_parts(args->n_row, STEP) * n_tile * args->q->n_block * VARVE_BLOCK / 4);
    VEC_UNROLL
    for (int32_t r = 0; r < VARVE_TILE_ROWS; r += STEP) { /* constant: rows become displacements */
        const int32_t n = (args->n_row - r + VEC_LANES - 1) / VEC_LANES;
        if (n >= MOST) {
            score_rows(args, r, MOST, &ahead);
        } else if (n == 3) {
            score_rows(args, r, 3, &ahead);
        } else if (n == 2) {
            score_rows(args, r, 2, &ahead);
        } else if (n == 1) {
            score_rows(args, r, 1, &ahead);
        }
    }
}

#endif
