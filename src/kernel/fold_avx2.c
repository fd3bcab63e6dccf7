#include "kernel/quant_avx2.h"

#include "kernel/fold.h"

/* Most sums of a tile in registers, blocks of a row and rows of weights that it takes. */
enum { TILE_SUMS = 12, TILE_BLOCKS = 2, TILE_WEIGHTS = 4 };

/* Vector j of the values that begin at `from`, the start of a block; without the scale where the
 * weights have it. Float formats read only n_value values. */
VEC_INLINE __m256 load_values(const enum varve_format f, const uint8_t *from, const int32_t j,
                              int32_t n_value) {
    if (!quant_is(f)) {
        const uint8_t *const p = from + quant_row_bytes(f, VEC_LANES * j);
        return n_value >= VEC_LANES ? vec_load_float(f, p) : vec_load_float_part(f, p, n_value);
    }
    const uint8_t *const block = from + j / 4 * quant_bytes(f);
    const __m256 code = quant_load_quarter(f, block, j % 4);
    if (!quant_has_min(f)) return code;
    return _mm256_add_ps(_mm256_mul_ps(vec_broadcast_f16(block), code),
                         vec_broadcast_f16(block + 2));
}

/* w[a * n_block + b][r] = p_a[r] * d of row r and block b. In a sparse fold a zero weight stays
 * zero whatever d is; codes are finite. */
VEC_INLINE void scale_weights(const struct varve_fold_args *args, const enum varve_format format,
                              int32_t a0, int32_t c, const int32_t nq, const int32_t n_block,
                              float *w) {
    uint16_t half[TILE_BLOCKS * VARVE_TILE_ROWS] __attribute__((aligned(64)));
    const bool fetch = a0 == 0 && c == 0;
    const int32_t n_full = args->n_row / VEC_LANES * VEC_LANES;
    for (int32_t b = 0; b < n_block && n_full < args->n_row; b++) {
        /* the last vector is loaded whole */
        memset(half + b * VARVE_TILE_ROWS + n_full, 0, VEC_LANES * sizeof *half);
    }
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
            const __m256 d = vec_load_halves(half + b * VARVE_TILE_ROWS + r);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const __m256 p = _mm256_load_ps(args->p + (int64_t)(a0 + a) * VARVE_TILE_ROWS + r);
                __m256 x = _mm256_mul_ps(p, d);
                if (args->sparse) {
                    x = _mm256_and_ps(x, _mm256_cmp_ps(p, _mm256_setzero_ps(), _CMP_NEQ_UQ));
                }
                _mm256_store_ps(w + (a * n_block + b) * VARVE_TILE_ROWS + r, x);
            }
        }
    }
}

/* Rows r .. r + 15 of the next block, and the 16 after them of this one where scale_weights has not
 * fetched them. */
VEC_INLINE void fetch_rows(const struct varve_fold_args *args, const enum varve_format format,
                           int32_t r) {
    vec_fetch_ahead(&args->ahead, r, 16);
    if (!is_scaled(format)) {
        vec_prefetch(args->rows, args->n_row, r + 16, 16, 0,
                     quant_row_bytes(format, args->head_dim));
    }
}

/* Adds the rows to o of nq queries and the vectors j0 .. j0 + nv - 1 of a tile that begins at
 * column c; o stays in registers. w has n_block rows of weights per query. */
VEC_INLINE void fold_pass(const struct varve_fold_args *args, const enum varve_format format,
                          const float *w, int32_t a0, int32_t c, const int32_t nq,
                          const int32_t n_block, const int32_t j0, const int32_t nv,
                          int32_t n_value, const bool sparse) {
    const int64_t offset = quant_row_bytes(format, c);
    float *const o = args->o + (int64_t)a0 * args->ld + c + VEC_LANES * j0;
    __m256 sum[TILE_SUMS];
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const float alpha = args->alpha[a0 + a];
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            const float *const old = o + (int64_t)a * args->ld + VEC_LANES * j;
            sum[a * nv + j] = alpha == 0.0f
                                  ? _mm256_setzero_ps()
                                  : _mm256_mul_ps(_mm256_set1_ps(alpha), _mm256_load_ps(old));
        }
    }
    /* rows inside by 16: a test in each row costs more than the fetches */
    for (int32_t r0 = 0; r0 < args->n_row; r0 += 16) {
        if (a0 == 0 && c == 0 && j0 == 0) fetch_rows(args, format, r0);
        const int32_t end = vec_min_i32(r0 + 16, args->n_row);
        for (int32_t r = r0; r < end; r++) {
            const uint8_t *from = args->rows[r] + offset;
            /* one address, not a sum of row and offset + constant per vector */
            __asm__("" : "+r"(from));
            VEC_UNROLL
            for (int32_t j = 0; j < nv; j++) {
                const __m256 v = load_values(format, from, j0 + j, n_value);
                VEC_UNROLL
                for (int32_t a = 0; a < nq; a++) {
                    const int32_t i = a * n_block + (is_scaled(format) ? (j0 + j) / 4 : 0);
                    const __m256 p = _mm256_set1_ps(w[i * VARVE_TILE_ROWS + r]);
                    __m256 x = v;
                    if (sparse) {
                        x = _mm256_and_ps(x, _mm256_cmp_ps(p, _mm256_setzero_ps(), _CMP_NEQ_UQ));
                    }
                    sum[a * nv + j] = _mm256_fmadd_ps(p, x, sum[a * nv + j]);
                }
            }
        }
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            _mm256_store_ps(o + (int64_t)a * args->ld + VEC_LANES * j, sum[a * nv + j]);
        }
    }
}

/* n_vector vectors from column c on, in passes of nv. */
VEC_INLINE void fold_tile(const struct varve_fold_args *args, const enum varve_format format,
                          int32_t a0, int32_t c, const int32_t nq, const int32_t n_vector,
                          const int32_t nv, int32_t n_value, const bool sparse) {
    const int32_t n_block = is_scaled(format) ? n_vector / 4 : 1;
    float scaled_weights[TILE_WEIGHTS * VARVE_TILE_ROWS] __attribute__((aligned(64)));
    const float *w = args->p + (int64_t)a0 * VARVE_TILE_ROWS;
    if (is_scaled(format)) {
        scale_weights(args, format, a0, c, nq, n_block, scaled_weights);
        w = scaled_weights;
    }
    VEC_UNROLL
    for (int32_t j = 0; j < n_vector; j += nv) {
        fold_pass(args, format, w, a0, c, nq, n_block, j, nv, n_value, sparse);
    }
}

/* All columns for nq queries, nv vectors at once. Tiles of quantized formats are whole blocks of
 * four vectors. */
VEC_INLINE void fold_queries(const struct varve_fold_args *args, const enum varve_format format,
                             int32_t a0, const int32_t nq, const int32_t nv, const bool sparse) {
    const int32_t n_vector = quant_is(format) && nv < 4 ? 4 : nv;
    int32_t c = 0;
    for (; c + n_vector * VEC_LANES <= args->head_dim; c += n_vector * VEC_LANES) {
        fold_tile(args, format, a0, c, nq, n_vector, nv, VEC_LANES, sparse);
    }
    if (!quant_is(format)) {
        for (; c < args->head_dim; c += VEC_LANES) {
            fold_tile(args, format, a0, c, nq, 1, 1, args->head_dim - c, sparse);
        }
    } else if (n_vector > 4 && c < args->head_dim) {
        fold_tile(args, format, a0, c, nq, 4, vec_min_i32(nv, 4), VEC_LANES, sparse);
    }
}

/* At least eight sums, the latency of four multiply-adds on two ports, and at most twelve. */
VEC_INLINE void fold_rows(const struct varve_fold_args *args, const enum varve_format format,
                          const bool sparse) {
    int32_t a = 0;
    for (; a + 4 <= args->n; a += 4) fold_queries(args, format, a, 4, 2, sparse);
    switch (args->n - a) {
    case 3: fold_queries(args, format, a, 3, 4, sparse); break;
    case 2: fold_queries(args, format, a, 2, 4, sparse); break;
    case 1: fold_queries(args, format, a, 1, 8, sparse); break;
    default: break;
    }
}

FOLD(varve_fold_f32_avx2, VARVE_FORMAT_F32)
FOLD(varve_fold_f16_avx2, VARVE_FORMAT_F16)
FOLD(varve_fold_bf16_avx2, VARVE_FORMAT_BF16)
FOLD(varve_fold_q8_0_avx2, VARVE_FORMAT_Q8_0)
FOLD(varve_fold_q4_0_avx2, VARVE_FORMAT_Q4_0)
FOLD(varve_fold_q4_1_avx2, VARVE_FORMAT_Q4_1)
FOLD(varve_fold_q5_0_avx2, VARVE_FORMAT_Q5_0)
FOLD(varve_fold_q5_1_avx2, VARVE_FORMAT_Q5_1)
FOLD(varve_fold_iq4_nl_avx2, VARVE_FORMAT_IQ4_NL)
