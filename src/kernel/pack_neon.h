/* What packscore shares on the levels that have one. */
#ifndef VARVE_KERNEL_PACK_NEON_H
#define VARVE_KERNEL_PACK_NEON_H

#include "kernel/quant_neon.h"

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
