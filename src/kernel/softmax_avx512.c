#include "kernel/vec_avx512.h"

#include <math.h>

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

void varve_softmax_any_avx512(const struct varve_softmax_args *args) {
    enum { VECTORS = VARVE_TILE_ROWS / VEC_LANES };
    const float old_max = *args->m;
    const int32_t n = (args->n_row + VEC_LANES - 1) / VEC_LANES;
    __m512 x[VECTORS];
    __m512 max = _mm512_set1_ps(old_max);
    __mmask16 is_nan = _mm512_cmp_ps_mask(max, max, _CMP_UNORD_Q);
    for (int32_t i = 0; i < n; i++) {
        const int32_t r = i * VEC_LANES;
        x[i] = logits(args, r, vec_first(args->n_row - r));
        is_nan |= _mm512_cmp_ps_mask(x[i], x[i], _CMP_UNORD_Q);
        max = _mm512_max_ps(max, x[i]);
    }
    /* the maximum would forget a NaN, and a poisoned row must not look like an empty one */
    const float new_max = is_nan ? NAN : _mm512_reduce_max_ps(max);
    __m512 sum = _mm512_setzero_ps();
    float alpha = 0.0f;
    if (new_max == -INFINITY) {
        for (int32_t i = 0; i < n; i++) {
            _mm512_store_ps(args->s + i * VEC_LANES, _mm512_setzero_ps());
        }
    } else {
        const __m512 origin = _mm512_set1_ps(new_max);
        for (int32_t i = 0; i < n; i++) {
            /* not through the difference, which is NaN for -inf below a NaN or infinite maximum */
            const __mmask16 visible =
                _mm512_cmp_ps_mask(x[i], _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
            const __m512 p = _mm512_maskz_mov_ps(visible, vec_exp(_mm512_sub_ps(x[i], origin)));
            _mm512_store_ps(args->s + i * VEC_LANES, p);
            sum = _mm512_add_ps(sum, p);
        }
        if (old_max != -INFINITY) {
            alpha = _mm512_cvtss_f32(vec_exp(_mm512_set1_ps(old_max - new_max)));
        }
    }
    const float total = _mm512_reduce_add_ps(sum);
    *args->alpha = alpha;
    *args->sum = alpha == 0.0f ? total : alpha * *args->sum + total;
    *args->m = new_max;
}
