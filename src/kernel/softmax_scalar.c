#include "kernel/scalar.h"

#include <math.h>

/* Replaces the scores of a query by logits and returns their maximum; NaN if one of them is NaN, so
 * that a poisoned row cannot look like an empty one. */
static float logits(const struct varve_softmax_args *args, int32_t a) {
    float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS;
    const float *const bias = args->bias != NULL ? args->bias[a] : NULL;
    float max = -INFINITY;
    bool has_nan = false;
    for (int32_t r = 0; r < args->n_row; r++) {
        float x = s[r] * args->scale;
        if (args->softcap != 0.0f) x = args->softcap * tanhf(x / args->softcap);
        if (bias != NULL) {
            /* a hidden row's score may be NaN: it must be replaced, not added to */
            x = bias[r] == -INFINITY ? -INFINITY : x + args->slope[a] * bias[r];
        }
        s[r] = x;
        has_nan |= isnan(x);
        if (x > max) max = x;
    }
    return has_nan ? NAN : max;
}

static void softmax(const struct varve_softmax_args *args, int32_t a) {
    float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS;
    const float old_max = args->m[a];
    const float block_max = logits(args, a);
    /* a NaN on either side stays */
    const float max = isnan(old_max) || block_max <= old_max ? old_max : block_max;
    const bool empty = max == -INFINITY;
    float sum = 0.0f;
    for (int32_t r = 0; r < args->n_row; r++) {
        s[r] = s[r] == -INFINITY ? 0.0f : expf(s[r] - max);
        sum += s[r];
    }
    for (int32_t r = args->n_row; r < varve_round_up_16(args->n_row); r++) s[r] = 0.0f;
    const float alpha = empty || old_max == -INFINITY ? 0.0f : expf(old_max - max);
    args->alpha[a] = alpha;
    args->sum[a] = alpha == 0.0f ? sum : alpha * args->sum[a] + sum;
    args->m[a] = max;
}

void varve_softmax_any_scalar(const struct varve_softmax_args *args) {
    for (int32_t a = 0; a < args->n; a++) softmax(args, a);
}
