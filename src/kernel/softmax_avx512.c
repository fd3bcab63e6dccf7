#include "kernel/vec_avx512.h"

#include <math.h>

/* Up to 16 queries together: one is a long chain of dependent steps (maximum, exp, sum), and what
 * has one value for a query fills a vector. */
enum { QUERIES = VEC_LANES, VECTORS = VARVE_TILE_ROWS / VEC_LANES };

/* Logits of 16 scores of a query; -inf in the lanes that are not valid. */
VEC_INLINE __m512 logits(const struct varve_softmax_args *args, int32_t a, int32_t r,
                         const bool plain) {
    const __m512 hidden = _mm512_set1_ps(-INFINITY);
    const int32_t left = args->n_row - r;
    const __mmask16 valid = vec_first(left > 0 ? left : 0);
    const float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS + r;
    __m512 x = _mm512_mul_ps(_mm512_load_ps(s), _mm512_set1_ps(args->scale));
    if (plain) return x;
    if (args->softcap != 0.0f) {
        const __m512 cap = _mm512_set1_ps(args->softcap);
        x = _mm512_mul_ps(cap, vec_tanh(_mm512_div_ps(x, cap)));
    }
    if (args->bias != NULL) {
        const __m512 bias = _mm512_maskz_load_ps(valid, args->bias[a] + r);
        x = _mm512_fmadd_ps(_mm512_set1_ps(args->slope[a]), bias, x);
        /* replaced, not added to: a hidden score may be NaN and the slope 0 */
        x = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(bias, hidden, _CMP_EQ_OQ), hidden);
    }
    return _mm512_mask_mov_ps(hidden, valid, x);
}

/* Lane i is the maximum, or the sum, of x[i]; of n of them, the other lanes are anything. */
VEC_INLINE __m512 reduce(const __m512i x[QUERIES], int32_t n, const enum vec_reduction how) {
    __m512i y[4];
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        y[i] = 4 * i < n ? vec_reduce_4(x + 4 * i, how) : _mm512_setzero_si512();
    }
    return _mm512_castsi512_ps(vec_reduce_quarters(y, how));
}

/* Queries a0 .. a0 + n - 1; `plain` when all rows are valid and a logit is the score times the
 * scale. The maxima may forget a NaN, but it stays in its p and in the sum, and from there it comes
 * back to the maximum: a poisoned row must not look like an empty one, nor be forgotten when alpha
 * is 0. */
VEC_INLINE void softmax(const struct varve_softmax_args *args, int32_t a0, int32_t n,
                        const bool plain) {
    const __m512 hidden = _mm512_set1_ps(-INFINITY);
    const __mmask16 each = vec_first(n);
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS;
    float origin[QUERIES] __attribute__((aligned(64)));
    __m512i of_query[QUERIES]; /* floats */
    for (int32_t a = n; a % 4 != 0; a++) of_query[a] = _mm512_castps_si512(hidden);
    for (int32_t a = 0; a < n; a++) {
        __m512 x[VECTORS];
        VEC_UNROLL
        for (int32_t v = 0; v < VECTORS; v++) {
            x[v] = logits(args, a0 + a, v * VEC_LANES, plain);
            if (!plain) _mm512_store_ps(s + a * VARVE_TILE_ROWS + v * VEC_LANES, x[v]);
        }
        of_query[a] = _mm512_castps_si512(
            _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3])));
    }
    const __m512 old_max = _mm512_maskz_loadu_ps(each, args->m + a0);
    /* the old one stays if it is a NaN */
    const __m512 max = _mm512_max_ps(reduce(of_query, n, VEC_MAX_F32), old_max);
    /* -inf - -inf is NaN */
    const __mmask16 empty = _mm512_cmp_ps_mask(max, hidden, _CMP_EQ_OQ);
    const __m512 origins = _mm512_mask_mov_ps(max, empty, _mm512_setzero_ps());
    _mm512_store_ps(origin, origins);
    for (int32_t a = 0; a < n; a++) {
        __m512 p[VECTORS];
        VEC_UNROLL
        for (int32_t v = 0; v < VECTORS; v++) {
            float *const at = s + a * VARVE_TILE_ROWS + v * VEC_LANES;
            const __m512 x = plain ? logits(args, a0 + a, v * VEC_LANES, true) : _mm512_load_ps(at);
            p[v] = vec_exp(_mm512_sub_ps(x, _mm512_set1_ps(origin[a])));
            _mm512_store_ps(at, p[v]);
        }
        of_query[a] = _mm512_castps_si512(
            _mm512_add_ps(_mm512_add_ps(p[0], p[1]), _mm512_add_ps(p[2], p[3])));
    }
    const __m512 total = reduce(of_query, n, VEC_ADD_F32);
    const __mmask16 begun = _mm512_cmp_ps_mask(old_max, hidden, _CMP_NEQ_UQ);
    const __m512 alpha = _mm512_maskz_mov_ps(begun, vec_exp(_mm512_sub_ps(old_max, origins)));
    const __mmask16 some = _mm512_cmp_ps_mask(alpha, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512 old_sum = _mm512_maskz_loadu_ps(each, args->sum + a0);
    const __m512 sum = _mm512_mask3_fmadd_ps(alpha, old_sum, total, some);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(total, total, _CMP_UNORD_Q);
    _mm512_mask_storeu_ps(args->alpha + a0, each, alpha);
    _mm512_mask_storeu_ps(args->sum + a0, each, sum);
    _mm512_mask_storeu_ps(args->m + a0, each, _mm512_mask_mov_ps(max, is_nan, total));
}

void varve_softmax_any_avx512(const struct varve_softmax_args *args) {
    const bool plain =
        args->n_row == VARVE_TILE_ROWS && args->softcap == 0.0f && args->bias == NULL;
    for (int32_t a = 0; a < args->n; a += QUERIES) {
        const int32_t n = vec_min_i32(args->n - a, QUERIES);
        if (plain)
            softmax(args, a, n, true);
        else
            softmax(args, a, n, false);
    }
}
