#include "kernel/vec_avx2.h"

#include <math.h>

/* Logits of 8 scores of a query; -inf in the lanes that are not valid. */
VEC_INLINE __m256 logits(const struct varve_softmax_args *args, int32_t a, int32_t r,
                         __m256i valid) {
    const __m256 hidden = _mm256_set1_ps(-INFINITY);
    const float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS + r;
    __m256 x = _mm256_mul_ps(_mm256_load_ps(s), _mm256_set1_ps(args->scale));
    if (args->softcap != 0.0f) {
        const __m256 cap = _mm256_set1_ps(args->softcap);
        x = _mm256_mul_ps(cap, vec_tanh(_mm256_div_ps(x, cap)));
    }
    if (args->bias != NULL) {
        const __m256 bias = _mm256_load_ps(args->bias[a] + r);
        x = _mm256_fmadd_ps(_mm256_set1_ps(args->slope[a]), bias, x);
        /* replaced, not added to: a hidden score may be NaN and the slope 0 */
        x = _mm256_blendv_ps(x, hidden, _mm256_cmp_ps(bias, hidden, _CMP_EQ_OQ));
    }
    return _mm256_blendv_ps(hidden, x, _mm256_castsi256_ps(valid));
}

VEC_INLINE void softmax(const struct varve_softmax_args *args, int32_t a) {
    enum { VECTORS = VARVE_TILE_ROWS / VEC_LANES };
    float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS;
    const float old_max = args->m[a];
    const int32_t n = (args->n_row + 15) / 16 * 2;
    __m256 x[VECTORS];
    __m256 max = _mm256_set1_ps(old_max);
    __m256 is_nan = _mm256_cmp_ps(max, max, _CMP_UNORD_Q);
    for (int32_t i = 0; i < n; i++) {
        const int32_t r = i * VEC_LANES;
        x[i] = logits(args, a, r, vec_first(args->n_row - r));
        is_nan = _mm256_or_ps(is_nan, _mm256_cmp_ps(x[i], x[i], _CMP_UNORD_Q));
        max = _mm256_max_ps(max, x[i]);
    }
    /* the maximum would forget a NaN, and a poisoned row must not look like an empty one */
    const float new_max = _mm256_movemask_ps(is_nan) != 0 ? NAN : vec_max(max);
    __m256 sum = _mm256_setzero_ps();
    float alpha = 0.0f;
    if (new_max == -INFINITY) {
        for (int32_t i = 0; i < n; i++) {
            _mm256_store_ps(s + i * VEC_LANES, _mm256_setzero_ps());
        }
    } else {
        const __m256 origin = _mm256_set1_ps(new_max);
        for (int32_t i = 0; i < n; i++) {
            /* not through the difference, which is NaN for -inf below a NaN or infinite maximum */
            const __m256 visible = _mm256_cmp_ps(x[i], _mm256_set1_ps(-INFINITY), _CMP_NEQ_UQ);
            const __m256 p = _mm256_and_ps(visible, vec_exp(_mm256_sub_ps(x[i], origin)));
            _mm256_store_ps(s + i * VEC_LANES, p);
            sum = _mm256_add_ps(sum, p);
        }
        if (old_max != -INFINITY) {
            alpha = _mm256_cvtss_f32(vec_exp(_mm256_set1_ps(old_max - new_max)));
        }
    }
    const float total = vec_sum(sum);
    args->alpha[a] = alpha;
    args->sum[a] = alpha == 0.0f ? total : alpha * args->sum[a] + total;
    args->m[a] = new_max;
}

void varve_softmax_any_avx2(const struct varve_softmax_args *args) {
    for (int32_t a = 0; a < args->n; a++) softmax(args, a);
}
