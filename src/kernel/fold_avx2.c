#include "kernel/vec_avx2.h"

/* Most sums of a tile in registers, blocks of a row and rows of weights that it takes. */
enum { TILE_SUMS = 12, TILE_BLOCKS = 2, TILE_WEIGHTS = 4 };

/* Vector j of the values that begin at `from`, the start of a block: the codes alone for quantized
 * formats, whose scale is in the weights. f16 reads only n_value values. */
VEC_INLINE __m256 load_values(const enum varve_format format, const uint8_t *from, const int32_t j,
                              int32_t n_value) {
    if (format == VARVE_FORMAT_F16) {
        return n_value >= VEC_LANES ? vec_load_f16(from + 16 * j)
                                    : vec_load_f16_part(from + 16 * j, n_value);
    }
    if (format == VARVE_FORMAT_Q8_0) {
        const uint8_t *const codes = from + j / 4 * 34 + 2 + j % 4 * 8;
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(vec_load_8_bytes(codes)));
    }
    /* q4_0: low nibbles of the 16 bytes, then high ones */
    const uint8_t *const codes = from + j / 4 * 18 + 2 + j % 2 * 8;
    const __m256i packed = _mm256_cvtepu8_epi32(vec_load_8_bytes(codes));
    const __m256i code =
        j % 4 >= 2 ? _mm256_srli_epi32(packed, 4) : _mm256_and_si256(packed, _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(code, _mm256_set1_epi32(8)));
}

/* Bytes of the first c values of a row. */
VEC_INLINE int64_t bytes_of(const enum varve_format format, int32_t c) {
    if (format == VARVE_FORMAT_F16) return (int64_t)c * 2;
    return (int64_t)(c / VARVE_BLOCK) * (format == VARVE_FORMAT_Q8_0 ? 34 : 18);
}

/* w[a * n_block + b][r] = p_a[r] * d of row r and block b: one product per block and row instead of
 * one per value. In a sparse fold a zero weight stays zero whatever d is; codes are finite. */
VEC_INLINE void scale_weights(const struct varve_fold_args *args, const enum varve_format format,
                              int32_t a0, int32_t c, const int32_t nq, const int32_t n_block,
                              float *w) {
    uint16_t half[TILE_BLOCKS * VARVE_TILE_ROWS] __attribute__((aligned(64))) = {0};
    const bool fetch = a0 == 0 && c == 0;
    for (int32_t r = 0; r < args->n_row; r += 16) {
        if (fetch) {
            vec_prefetch(args->rows, args->n_row, r + 16, 16, 0, bytes_of(format, args->head_dim));
        }
        vec_gather_halves(args->rows + r, vec_min_i32(args->n_row - r, 16), bytes_of(format, c),
                          bytes_of(format, VARVE_BLOCK), n_block, VARVE_TILE_ROWS, half + r);
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

/* Adds the rows to o of nq queries and the vectors j0 .. j0 + nv - 1 of a tile that begins at
 * column c; o stays in registers. w has n_block rows of weights per query. */
VEC_INLINE void fold_pass(const struct varve_fold_args *args, const enum varve_format format,
                          const float *w, int32_t a0, int32_t c, const int32_t nq,
                          const int32_t n_block, const int32_t j0, const int32_t nv,
                          int32_t n_value, const bool sparse) {
    const int64_t offset = bytes_of(format, c);
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
    const bool fetch = format == VARVE_FORMAT_F16 && a0 == 0 && c == 0;
    for (int32_t r = 0; r < args->n_row; r++) {
        if (fetch && r % 8 == 0) {
            vec_prefetch(args->rows, args->n_row, r + 8, 8, 0, bytes_of(format, args->head_dim));
        }
        const uint8_t *from = args->rows[r] + offset;
        __asm__(""
                : "+r"(from)); /* one address, not a sum of row and offset + constant per vector */
        VEC_UNROLL
        for (int32_t j = 0; j < nv; j++) {
            const __m256 v = load_values(format, from, j0 + j, n_value);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const int32_t i = a * n_block + (format == VARVE_FORMAT_F16 ? 0 : (j0 + j) / 4);
                const __m256 p = _mm256_set1_ps(w[i * VARVE_TILE_ROWS + r]);
                __m256 x = v;
                if (sparse) {
                    x = _mm256_and_ps(x, _mm256_cmp_ps(p, _mm256_setzero_ps(), _CMP_NEQ_UQ));
                }
                sum[a * nv + j] = _mm256_fmadd_ps(p, x, sum[a * nv + j]);
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

/* ------------------------------------------------------------------------------------------ f16 */

/* All columns for nq queries in tiles of nv vectors, the rest vector by vector. */
VEC_INLINE void fold_f16_queries(const struct varve_fold_args *args, int32_t a0, const int32_t nq,
                                 const int32_t nv, const bool sparse) {
    const float *const w = args->p + (int64_t)a0 * VARVE_TILE_ROWS;
    int32_t c = 0;
    for (; c + nv * VEC_LANES <= args->head_dim; c += nv * VEC_LANES) {
        fold_pass(args, VARVE_FORMAT_F16, w, a0, c, nq, 1, 0, nv, VEC_LANES, sparse);
    }
    for (; c < args->head_dim; c += VEC_LANES) {
        fold_pass(args, VARVE_FORMAT_F16, w, a0, c, nq, 1, 0, 1, args->head_dim - c, sparse);
    }
}

VEC_INLINE void fold_f16_rows(const struct varve_fold_args *args, const bool sparse) {
    int32_t a = 0;
    for (; a + 4 <= args->n; a += 4) fold_f16_queries(args, a, 4, 2, sparse);
    switch (args->n - a) {
    case 3: fold_f16_queries(args, a, 3, 4, sparse); break;
    case 2: fold_f16_queries(args, a, 2, 4, sparse); break;
    case 1: fold_f16_queries(args, a, 1, 8, sparse); break;
    default: break;
    }
}

void varve_fold_f16_avx2(const struct varve_fold_args *args) {
    if (args->sparse) {
        fold_f16_rows(args, true);
    } else {
        fold_f16_rows(args, false);
    }
}

/* ------------------------------------------------------------------------------------ quantized */

/* Tiles of one block: four vectors, in passes of nv. The weights know what is sparse. */
VEC_INLINE void fold_quantized_queries(const struct varve_fold_args *args,
                                       const enum varve_format format, int32_t a0, const int32_t nq,
                                       const int32_t nv) {
    float w[TILE_WEIGHTS * VARVE_TILE_ROWS] __attribute__((aligned(64)));
    for (int32_t c = 0; c < args->head_dim; c += VARVE_BLOCK) {
        scale_weights(args, format, a0, c, nq, 1, w);
        VEC_UNROLL
        for (int32_t j = 0; j < VARVE_BLOCK / VEC_LANES; j += nv) {
            fold_pass(args, format, w, a0, c, nq, 1, j, nv, VEC_LANES, false);
        }
    }
}

/* One query: two blocks at once, or the sums would wait for each other. */
VEC_INLINE void fold_quantized_query(const struct varve_fold_args *args,
                                     const enum varve_format format, int32_t a0) {
    float w[TILE_WEIGHTS * VARVE_TILE_ROWS] __attribute__((aligned(64)));
    int32_t c = 0;
    for (; c + 2 * VARVE_BLOCK <= args->head_dim; c += 2 * VARVE_BLOCK) {
        scale_weights(args, format, a0, c, 1, 2, w);
        fold_pass(args, format, w, a0, c, 1, 2, 0, 8, VEC_LANES, false);
    }
    if (c < args->head_dim) {
        scale_weights(args, format, a0, c, 1, 1, w);
        fold_pass(args, format, w, a0, c, 1, 1, 0, 4, VEC_LANES, false);
    }
}

VEC_INLINE void fold_quantized_rows(const struct varve_fold_args *args,
                                    const enum varve_format format) {
    int32_t a = 0;
    for (; a + 4 <= args->n; a += 4) fold_quantized_queries(args, format, a, 4, 2);
    switch (args->n - a) {
    case 3: fold_quantized_queries(args, format, a, 3, 4); break;
    case 2: fold_quantized_queries(args, format, a, 2, 4); break;
    case 1: fold_quantized_query(args, format, a); break;
    default: break;
    }
}

void varve_fold_q8_0_avx2(const struct varve_fold_args *args) {
    fold_quantized_rows(args, VARVE_FORMAT_Q8_0);
}

void varve_fold_q4_0_avx2(const struct varve_fold_args *args) {
    fold_quantized_rows(args, VARVE_FORMAT_Q4_0);
}
