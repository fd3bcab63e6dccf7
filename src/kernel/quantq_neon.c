#include "kernel/vec_neon.h"

#include <math.h>

enum { VECTORS = VARVE_BLOCK / VEC_LANES };

/* i and fi of a block, and the sum of i; |x * inverse| is at most 127. */
VEC_INLINE int32_t quantize_block(const float32x4_t x[VECTORS], float inverse, int8_t *i,
                                  float *fi) {
    int32x4_t sum = vdupq_n_s32(0);
    VEC_UNROLL
    for (int32_t j = 0; j < VECTORS; j += 2) {
        const int32x4_t i0 = vcvtnq_s32_f32(vmulq_n_f32(x[j], inverse));
        const int32x4_t i1 = vcvtnq_s32_f32(vmulq_n_f32(x[j + 1], inverse));
        vst1q_f32(fi + VEC_LANES * j, vcvtq_f32_s32(i0));
        vst1q_f32(fi + VEC_LANES * (j + 1), vcvtq_f32_s32(i1));
        vst1_s8(i + VEC_LANES * j, vmovn_s16(vcombine_s16(vmovn_s32(i0), vmovn_s32(i1))));
        sum = vaddq_s32(sum, vaddq_s32(i0, i1));
    }
    return vaddvq_s32(sum);
}

void varve_quantq_any_neon(const struct varve_quantq_args *args) {
    const float max_float = 0x1.fffffep+127f;
    for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
        const int32_t from = b * VARVE_BLOCK;
        float32x4_t x[VECTORS];
        float32x4_t top = vec_zero();
        VEC_UNROLL
        for (int32_t j = 0; j < VECTORS; j++) {
            x[j] = vld1q_f32(args->x + from + VEC_LANES * j);
            top = vmaxq_f32(top, vabsq_f32(x[j])); /* a NaN stays */
        }
        const float amax = vmaxvq_f32(top);
        const bool finite = amax <= max_float;
        float inverse = 127.0f / amax;
        float d = amax / 127.0f;
        if (!finite || inverse > max_float) { /* all 0, or so small that it counts as 0 */
            d = finite ? 0.0f : NAN;
            inverse = 0.0f;
            VEC_UNROLL
            for (int32_t j = 0; j < VECTORS; j++) x[j] = vec_zero();
        }
        args->d[b] = d;
        args->sum[b] = quantize_block(x, inverse, args->i + from, args->fi + from);
    }
}
