#include "kernel/quant_avx512.h"

#include "kernel/fold.h"

/* Most sums of a tile in registers, blocks of a row and rows of weights that it takes. */
enum { TILE_SUMS = 16, TILE_BLOCKS = 4, TILE_WEIGHTS = 8 };

/* Vector j of the values that begin at `from`, the start of a block; without the scale where the
 * weights have it. */
VEC_INLINE __m512 load_values(const enum varve_format f, const uint8_t *from, const int32_t j,
                              __mmask16 wanted) {
    if (!quant_is(f)) return vec_load_float(f, from + quant_row_bytes(f, VEC_LANES * j), wanted);
    const uint8_t *const block = from + j / 2 * quant_bytes(f);
    const __m512 code = quant_load_half(f, block, j % 2);
    if (!quant_has_min(f)) return code;
    return _mm512_add_ps(_mm512_mul_ps(vec_broadcast_f16(block), code),
                         vec_broadcast_f16(block + 2));
}

/* w[a * n_block + b][r] = p_a[r] * d of row r and block b. In a sparse fold a zero weight stays
 * zero whatever d is; codes are finite. */
VEC_INLINE void scale_weights(const struct varve_fold_args *args, const enum varve_format format,
                              int32_t a0, int32_t c, const int32_t nq, const int32_t n_block,
                              float *w) {
    uint16_t half[TILE_BLOCKS * VARVE_TILE_ROWS] __attribute__((aligned(64))) = {0};
    const bool fetch = a0 == 0 && c == 0;
    for (int32_t r = 0; r < args->n_row; r += 16) {
        if (fetch) {
            vec_prefetch(args->rows, args->n_row, r + 16, 16, 0,
                         quant_row_bytes(format, args->head_dim));
        }
        vec_gather_halves(args->rows + r, vec_min_i32(args->n_row - r, 16),
                          quant_row_bytes(format, c), quant_row_bytes(format, VARVE_BLOCK), n_block,
                          VARVE_TILE_ROWS, half + r);
    }
    for (int32_t b = 0; b < n_block; b++) {
        for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
            const __m512 d = vec_load_halves(half + b * VARVE_TILE_ROWS + r);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const __m512 p = _mm512_load_ps(args->p + (int64_t)(a0 + a) * VARVE_TILE_ROWS + r);
                const __mmask16 formed =
                    args->sparse ? _mm512_cmp_ps_mask(p, _mm512_setzero_ps(), _CMP_NEQ_UQ) : 0xFFFF;
                _mm512_store_ps(w + (a * n_block + b) * VARVE_TILE_ROWS + r,
                                _mm512_maskz_mul_ps(formed, p, d));
            }
        }
    }
}

/* o of nq queries x nv vectors from column c on stays in registers over all rows. */
VEC_INLINE void fold_tile(const struct varve_fold_args *args, const enum varve_format format,
                          int32_t a0, int32_t c, const int32_t nq, const int32_t nv,
                          __mmask16 wanted, const bool sparse, struct vec_ahead *ahead) {
    const bool scaled = is_scaled(format);
    const int64_t offset = quant_row_bytes(format, c);
    const int32_t n_block = scaled ? nv / 2 : 1;
    float scaled_weights[TILE_WEIGHTS * VARVE_TILE_ROWS] __attribute__((aligned(64)));
    const float *w = args->p + (int64_t)a0 * VARVE_TILE_ROWS;
    if (scaled) {
        scale_weights(args, format, a0, c, nq, n_block, scaled_weights);
        w = scaled_weights;
    }
    __m512 sum[TILE_SUMS];
    float *const o = args->o + (int64_t)a0 * args->ld + c;
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const float alpha = args->alpha[a0 + a];
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            const float *const old = o + (int64_t)a * args->ld + VEC_LANES * j;
            sum[a * nv + j] = alpha == 0.0f
                                  ? _mm512_setzero_ps()
                                  : _mm512_mul_ps(_mm512_set1_ps(alpha), _mm512_load_ps(old));
        }
    }
    for (int32_t r = 0; r < args->n_row; r++) {
        vec_ahead_step(ahead);
        const uint8_t *from = args->rows[r] + offset;
        __asm__(""
                : "+r"(from)); /* one address, not a sum of row and offset + constant per vector */
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            const __m512 v = load_values(format, from, j, wanted);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const int32_t i = scaled ? a * n_block + j / 2 : a;
                const __m512 p = _mm512_set1_ps(w[i * VARVE_TILE_ROWS + r]);
                const __m512 old = sum[a * nv + j];
                if (sparse) {
                    const __mmask16 formed =
                        _mm512_cmp_ps_mask(p, _mm512_setzero_ps(), _CMP_NEQ_UQ);
                    sum[a * nv + j] = _mm512_mask3_fmadd_ps(p, v, old, formed);
                } else {
                    sum[a * nv + j] = _mm512_fmadd_ps(p, v, old);
                }
            }
        }
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            _mm512_store_ps(o + (int64_t)a * args->ld + VEC_LANES * j, sum[a * nv + j]);
        }
    }
}

/* All columns for nq queries, in tiles of at least eight sums where the row is long enough: the
 * latency of four multiply-adds on two ports. */
VEC_INLINE void fold_queries(const struct varve_fold_args *args, const enum varve_format format,
                             int32_t a0, const int32_t nq, const bool sparse,
                             struct vec_ahead *ahead) {
    const int32_t n_full = args->head_dim / VEC_LANES * VEC_LANES;
    int32_t c = 0;
    if (nq <= 2) {
        for (; c + 8 * VEC_LANES <= n_full; c += 8 * VEC_LANES) {
            fold_tile(args, format, a0, c, nq, 8, 0xFFFF, sparse, ahead);
        }
    }
    if (nq <= 4) {
        for (; c + 4 * VEC_LANES <= n_full; c += 4 * VEC_LANES) {
            fold_tile(args, format, a0, c, nq, 4, 0xFFFF, sparse, ahead);
        }
    }
    for (; c + 2 * VEC_LANES <= n_full; c += 2 * VEC_LANES) {
        fold_tile(args, format, a0, c, nq, 2, 0xFFFF, sparse, ahead);
    }
    if (quant_is(format)) return; /* whole blocks of two vectors */
    for (; c < args->head_dim; c += VEC_LANES) {
        fold_tile(args, format, a0, c, nq, 1, vec_first(args->head_dim - c), sparse, ahead);
    }
}

VEC_INLINE void fold_rows(const struct varve_fold_args *args, const enum varve_format format,
                          const bool sparse) {
    /* vectors of a tile of the first queries, most of the steps */
    const int32_t nv = args->n >= 8 ? 2 : args->n >= 3 ? 4 : 8;
    struct vec_ahead ahead = vec_ahead_of(&args->ahead, args->rows[0],
                                          args->n_row * vec_parts(args->head_dim, nv * VEC_LANES) *
                                              vec_parts(args->n, 8));
    int32_t a = 0;
    for (; a + 8 <= args->n; a += 8) fold_queries(args, format, a, 8, sparse, &ahead);
    for (; a + 4 <= args->n; a += 4) fold_queries(args, format, a, 4, sparse, &ahead);
    switch (args->n - a) {
    case 3: fold_queries(args, format, a, 3, sparse, &ahead); break;
    case 2: fold_queries(args, format, a, 2, sparse, &ahead); break;
    case 1: fold_queries(args, format, a, 1, sparse, &ahead); break;
    default: break;
    }
}

FOLD(varve_fold_f32_avx512, VARVE_FORMAT_F32)
FOLD(varve_fold_f16_avx512, VARVE_FORMAT_F16)
FOLD(varve_fold_bf16_avx512, VARVE_FORMAT_BF16)
FOLD(varve_fold_q8_0_avx512, VARVE_FORMAT_Q8_0)
FOLD(varve_fold_q4_0_avx512, VARVE_FORMAT_Q4_0)
FOLD(varve_fold_q4_1_avx512, VARVE_FORMAT_Q4_1)
FOLD(varve_fold_q5_0_avx512, VARVE_FORMAT_Q5_0)
FOLD(varve_fold_q5_1_avx512, VARVE_FORMAT_Q5_1)
FOLD(varve_fold_iq4_nl_avx512, VARVE_FORMAT_IQ4_NL)
