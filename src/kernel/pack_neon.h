/* packk for the levels that have a packscore: it takes NEON alone, and the plan wants both of one
 * level. */
#ifndef VARVE_KERNEL_PACK_NEON_H
#define VARVE_KERNEL_PACK_NEON_H

#include "kernel/quant_neon.h"

VEC_INLINE void pack_scales(const uint8_t *const *rows, int64_t offset, int32_t n_row, float *to) {
    vst1q_f32(to, vec_keep(vec_gather_f16(rows, offset), vec_lanes(n_row)));
}

/* Scales are complete up to a multiple of 16 columns. */
VEC_INLINE void packk(const struct varve_packk_args *args, const enum varve_format f) {
    const uint8_t *spare[VEC_LANES];
    const int32x4_t flip = vreinterpretq_s32_u8(vdupq_n_u8(128));
    for (int32_t r = 0; r < (args->n_row + 15) / 16 * 16; r += VEC_LANES) {
        vec_fetch_ahead(&args->ahead, r, VEC_LANES);
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * quant_bytes(f);
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r;
            uint32_t *const to = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS + r;
            int32x4_t x[8];
            quant_load_codes(f, rows, offset, x);
            VEC_UNROLL
            for (int32_t j = 0; j < 8; j++) {
                const int32x4_t y = j % 2 == 0 ? vuzp1q_s32(x[j / 2], x[4 + j / 2])
                                               : vuzp2q_s32(x[j / 2], x[4 + j / 2]);
                vst1q_u32(to + j * VARVE_TILE_ROWS, vreinterpretq_u32_s32(veorq_s32(y, flip)));
            }
            pack_scales(rows, offset, args->n_row - r, args->dk + at);
            if (quant_has_min(f)) pack_scales(rows, offset + 2, args->n_row - r, args->mk + at);
        }
    }
}

#define PACKK(name, f) \
    void name(const struct varve_packk_args *args) { packk(args, f); }

/* ------------------------------------------------------------------------------------ packscore */

/* Integer sums of a block for nq queries and 16 rows, in vectors of 4, to scores: those hold the
 * sums over the blocks before. */
VEC_INLINE void pack_add(const struct varve_packscore_args *args, int32_t a0, int32_t r, int32_t b,
                         const int32_t nq, const bool has_min, const int32x4_t *dot) {
    const struct varve_queries *const q = args->q;
    const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r;
    float32x4_t dk[4], mk[4];
    VEC_UNROLL
    for (int32_t v = 0; v < 4; v++) {
        dk[v] = vld1q_f32(args->dk + at + v * VEC_LANES);
        if (has_min) mk[v] = vld1q_f32(args->mk + at + v * VEC_LANES);
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const int64_t block = (int64_t)(a0 + a) * q->n_block + b;
        float *const s = args->s + (int64_t)(a0 + a) * VARVE_TILE_ROWS + r;
        const float d = q->d[block], q_sum = (float)q->sum[block];
        VEC_UNROLL
        for (int32_t v = 0; v < 4; v++) {
            float32x4_t part = vmulq_f32(dk[v], vcvtq_f32_s32(dot[4 * a + v]));
            if (has_min) part = vfmaq_n_f32(part, mk[v], q_sum);
            const float32x4_t old = b == 0 ? vec_zero() : vld1q_f32(s + v * VEC_LANES);
            vst1q_f32(s + v * VEC_LANES, vfmaq_n_f32(old, part, d));
        }
    }
}

#endif
