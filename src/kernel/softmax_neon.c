#include "kernel/vec_neon.h"

#include <math.h>

/* Logits of 4 scores of a query; -inf in the lanes that are not valid. */
VEC_INLINE float32x4_t logits(const struct varve_softmax_args *args, int32_t a, int32_t r,
                              uint32x4_t valid) {
    const float32x4_t hidden = vdupq_n_f32(-INFINITY);
    const float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS + r;
    float32x4_t x = vmulq_n_f32(vld1q_f32(s), args->scale);
    if (args->softcap != 0.0f) {
        const float32x4_t cap = vdupq_n_f32(args->softcap);
        x = vmulq_f32(cap, vec_tanh(vdivq_f32(x, cap)));
    }
    if (args->bias != NULL) {
        const float32x4_t bias = vld1q_f32(args->bias[a] + r);
        x = vfmaq_n_f32(x, bias, args->slope[a]);
        /* replaced, not added to: a hidden score may be NaN and the slope 0 */
        x = vbslq_f32(vceqq_f32(bias, hidden), hidden, x);
    }
    return vbslq_f32(valid, x, hidden);
}

/* Weights of the logits x below `max`, in place of the scores; returns their sum. */
VEC_INLINE float weights(const float32x4_t *x, int32_t n, float max, float *s) {
    const float32x4_t origin = vdupq_n_f32(max);
    float32x4_t sum = vec_zero();
    for (int32_t i = 0; i < n; i++) {
        /* not through the difference, which is NaN for -inf below a NaN or infinite maximum */
        const uint32x4_t hidden = vceqq_f32(x[i], vdupq_n_f32(-INFINITY));
        const float32x4_t p = vec_keep(vec_exp(vsubq_f32(x[i], origin)), vmvnq_u32(hidden));
        vst1q_f32(s + i * VEC_LANES, p);
        sum = vaddq_f32(sum, p);
    }
    return vaddvq_f32(sum);
}

VEC_INLINE void softmax(const struct varve_softmax_args *args, int32_t a) {
    enum { VECTORS = VARVE_TILE_ROWS / VEC_LANES };
    float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS;
    const float old_max = args->m[a];
    const int32_t n = (args->n_row + 15) / 16 * 4;
    float32x4_t x[VECTORS];
    float32x4_t max = vdupq_n_f32(old_max);
    for (int32_t i = 0; i < n; i++) {
        const int32_t r = i * VEC_LANES;
        x[i] = logits(args, a, r, vec_lanes(args->n_row - r));
        max =
            vmaxq_f32(max, x[i]); /* a NaN stays: a poisoned row must not look like an empty one */
    }
    const float new_max = vmaxvq_f32(max);
    float total = 0.0f;
    float alpha = 0.0f;
    if (new_max == -INFINITY) {
        for (int32_t i = 0; i < n; i++) vst1q_f32(s + i * VEC_LANES, vec_zero());
    } else {
        total = weights(x, n, new_max, s);
        if (old_max != -INFINITY) {
            alpha = vgetq_lane_f32(vec_exp(vdupq_n_f32(old_max - new_max)), 0);
        }
    }
    args->alpha[a] = alpha;
    args->sum[a] = alpha == 0.0f ? total : alpha * args->sum[a] + total;
    args->m[a] = new_max;
}

void varve_softmax_any_neon(const struct varve_softmax_args *args) {
    for (int32_t a = 0; a < args->n; a++) softmax(args, a);
}
