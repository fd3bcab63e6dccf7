#include "kernel/vec_avx512.h"

#include <math.h>

enum { VECTORS = VARVE_TILE_ROWS / VEC_LANES };

/* Logits of 16 scores; -inf in the lanes that are not valid. */
VEC_INLINE __m512 logits(const struct varve_softmax_args *args, int32_t r, __mmask16 valid) {
    const __m512 hidden = _mm512_set1_ps(-INFINITY);
    __m512 x = _mm512_mul_ps(_mm512_load_ps(args->s + r), _mm512_set1_ps(args->scale));
    if (args->softcap != 0.0f) {
        const __m512 cap = _mm512_set1_ps(args->softcap);
        x = _mm512_mul_ps(cap, vec_tanh(_mm512_div_ps(x, cap)));
    }
    if (args->bias != NULL) {
        const __m512 bias = _mm512_load_ps(args->bias + r);
        x = _mm512_fmadd_ps(_mm512_set1_ps(args->slope), bias, x);
        /* replaced, not added to: a hidden score may be NaN and the slope 0 */
        x = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(bias, hidden, _CMP_EQ_OQ), hidden);
    }
    return _mm512_mask_mov_ps(hidden, valid, x);
}

/* Weights of rows whose maximum is NaN or -inf: NaN, or 0 where nothing is visible. */
static void no_weights(const struct varve_softmax_args *args, float max, const __m512 *x,
                       int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const __mmask16 visible = _mm512_cmp_ps_mask(x[i], _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
        _mm512_store_ps(args->s + i * VEC_LANES, _mm512_maskz_mov_ps(visible, _mm512_set1_ps(max)));
    }
    *args->alpha = max == -INFINITY ? 0.0f : max;
    *args->sum = *args->alpha;
    *args->m = max;
}

/* One step over n vectors. `simple`: nothing but the scale, and all rows are there. */
VEC_INLINE void step(const struct varve_softmax_args *args, const int32_t n, const bool simple) {
    const float old_max = *args->m;
    __m512 x[VECTORS];
    /* operands in this order: a NaN among the scores is passed over */
    __m512 max = _mm512_set1_ps(old_max);
    VEC_UNROLL
    for (int32_t i = 0; i < n; i++) {
        const int32_t r = i * VEC_LANES;
        x[i] = simple ? _mm512_mul_ps(_mm512_load_ps(args->s + r), _mm512_set1_ps(args->scale))
                      : logits(args, r, vec_first(args->n_row - r));
        max = _mm512_max_ps(x[i], max);
    }
    const float new_max = _mm512_reduce_max_ps(max);
    if (new_max == -INFINITY || old_max != old_max) {
        /* a poisoned row must not look like an empty one */
        bool is_nan = old_max != old_max;
        for (int32_t i = 0; i < n; i++) is_nan |= _mm512_cmp_ps_mask(x[i], x[i], _CMP_UNORD_Q) != 0;
        no_weights(args, is_nan ? NAN : -INFINITY, x, n);
        return;
    }
    const __m512 origin = _mm512_set1_ps(new_max);
    __m512 sum = _mm512_setzero_ps();
    VEC_UNROLL
    for (int32_t i = 0; i < n; i++) {
        const __m512 p = vec_exp(_mm512_sub_ps(x[i], origin)); /* of -inf: 0 */
        _mm512_store_ps(args->s + i * VEC_LANES, p);
        sum = _mm512_add_ps(sum, p);
    }
    const float total = _mm512_reduce_add_ps(sum);
    float alpha = 1.0f; /* mostly: maxima seldom rise */
    if (new_max != old_max) {
        alpha = old_max == -INFINITY ? 0.0f
                                     : _mm512_cvtss_f32(vec_exp(_mm512_set1_ps(old_max - new_max)));
    }
    *args->alpha = alpha;
    *args->sum = alpha == 0.0f ? total : alpha * *args->sum + total;
    /* a NaN is not to be forgotten when the maximum rises */
    *args->m = total == total ? new_max : total;
}

void varve_softmax_any_avx512(const struct varve_softmax_args *args) {
    if (args->n_row == VARVE_TILE_ROWS && args->softcap == 0.0f && args->bias == NULL) {
        step(args, VECTORS, true);
        return;
    }
    switch ((args->n_row + VEC_LANES - 1) / VEC_LANES) {
    case 4: step(args, 4, false); break;
    case 3: step(args, 3, false); break;
    case 2: step(args, 2, false); break;
    default: step(args, 1, false); break;
    }
}
