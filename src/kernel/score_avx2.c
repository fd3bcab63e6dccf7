#include "kernel/quant_avx2.h"

/* -------------------------------------------------------------------------------- float formats */

/* nq x nr sums of products, vectors along the row; nr is 4 or 8. Rows past the last are computed
 * from the last one and not stored. */
VEC_INLINE void score_float_tile(const struct varve_score_args *args,
                                 const enum varve_format format, int32_t a0, int32_t r0,
                                 const int32_t nq, const int32_t nr) {
    const struct varve_queries *const q = args->q;
    const float *const f = q->f + (int64_t)a0 * q->ld;
    const uint8_t *k[8];
    __m256 sum[12];
    VEC_UNROLL
    for (int32_t i = 0; i < nr; i++) k[i] = args->rows[vec_min_i32(r0 + i, args->n_row - 1)];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * nr; i++) sum[i] = _mm256_setzero_ps();
    int32_t c = 0;
    for (; c + VEC_LANES <= q->head_dim; c += VEC_LANES) {
        __m256 x[3];
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) x[a] = _mm256_load_ps(f + (int64_t)a * q->ld + c);
        VEC_UNROLL
        for (int32_t i = 0; i < nr; i++) {
            const __m256 y = vec_load_float(format, k[i] + quant_row_bytes(format, c));
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                sum[a * nr + i] = _mm256_fmadd_ps(x[a], y, sum[a * nr + i]);
            }
        }
    }
    if (c < q->head_dim) {
        VEC_UNROLL
        for (int32_t i = 0; i < nr; i++) {
            const __m256 y =
                vec_load_float_part(format, k[i] + quant_row_bytes(format, c), q->head_dim - c);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const __m256 x = _mm256_load_ps(f + (int64_t)a * q->ld + c);
                sum[a * nr + i] = _mm256_fmadd_ps(x, y, sum[a * nr + i]);
            }
        }
    }
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS + r0;
    VEC_UNROLL
    for (int32_t i = 0; i < nr; i += 4) {
        const __m128i valid = _mm256_castsi256_si128(vec_first(args->n_row - r0 - i));
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            _mm_maskstore_ps(s + a * VARVE_TILE_ROWS + i, valid, vec_sums_4(sum + a * nr + i));
        }
    }
}

VEC_INLINE void score_float(const struct varve_score_args *args, const enum varve_format format) {
    for (int32_t r = 0; r < args->n_row; r += 8) {
        const bool second = r + 4 < args->n_row;
        int32_t a = 0;
        vec_fetch_ahead(&args->ahead, r, 8);
        vec_prefetch(args->rows, args->n_row, r + 8, 8, 0,
                     quant_row_bytes(format, args->q->head_dim));
        /* 4 as 2 + 2 rather than 3 + 1 */
        for (; args->q->n - a == 3 || args->q->n - a > 4; a += 3) {
            score_float_tile(args, format, a, r, 3, 4);
            if (second) score_float_tile(args, format, a, r + 4, 3, 4);
        }
        for (; a + 2 <= args->q->n; a += 2) {
            score_float_tile(args, format, a, r, 2, 4);
            if (second) score_float_tile(args, format, a, r + 4, 2, 4);
        }
        if (a < args->q->n) score_float_tile(args, format, a, r, 1, 8);
    }
}

#define SCORE_FLOAT(name, f) \
    void name(const struct varve_score_args *args) { score_float(args, f); }
SCORE_FLOAT(varve_score_f32_avx2, VARVE_FORMAT_F32)
SCORE_FLOAT(varve_score_f16_avx2, VARVE_FORMAT_F16)
SCORE_FLOAT(varve_score_bf16_avx2, VARVE_FORMAT_BF16)

/* ---------------------------------------------------------------------------- quantized formats */

/* The bytes of each group of four as two 16-bit pairs: bytes 0 and 2, bytes 1 and 3. */
VEC_INLINE __m256i even_bytes(__m256i x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }

VEC_INLINE __m256i odd_bytes(__m256i x) { return _mm256_srai_epi16(x, 8); }

/* Codes of eight bits are widened to 16. That takes as many multiply-adds as the unsigned-by-signed
 * product with its sign trick, and cannot saturate at -128. They fill all registers then, so that
 * the multiply-adds take them from memory. */
struct score_codes {
    __m256i x[16];
};

/* Q of one query over a piece, in the pairs that even_bytes and odd_bytes make of K. */
struct score_query {
    const int8_t *i;
    int32_t even[SCORE_PIECE * VARVE_BLOCK / 4], odd[SCORE_PIECE * VARVE_BLOCK / 4];
};

VEC_INLINE void score_codes(const enum varve_format f, const __m256i x[8],
                            struct score_codes *codes) {
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        codes->x[j] = quant_is_wide(f) ? even_bytes(x[j]) : x[j];
        if (quant_is_wide(f)) codes->x[8 + j] = odd_bytes(x[j]);
    }
}

VEC_INLINE void score_query(const enum varve_format f, const int8_t *i, int32_t n_block,
                            struct score_query *query) {
    query->i = i;
    for (int32_t b = 0; b < n_block && quant_is_wide(f); b++) {
        const __m256i x = _mm256_load_si256((const __m256i *)(const void *)(i + b * VARVE_BLOCK));
        _mm256_storeu_si256((__m256i *)(void *)(query->even + b * VARVE_BLOCK / 4), even_bytes(x));
        _mm256_storeu_si256((__m256i *)(void *)(query->odd + b * VARVE_BLOCK / 4), odd_bytes(x));
    }
}

VEC_INLINE __m256i score_dot_wide(const struct score_codes *codes, const int32_t *even,
                                  const int32_t *odd) {
    __m256i i0 = _mm256_setzero_si256();
    __m256i i1 = _mm256_setzero_si256();
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        i0 = _mm256_add_epi32(i0, _mm256_madd_epi16(codes->x[j], _mm256_set1_epi32(even[j])));
        i1 = _mm256_add_epi32(i1, _mm256_madd_epi16(codes->x[8 + j], _mm256_set1_epi32(odd[j])));
    }
    return _mm256_add_epi32(i0, i1);
}

/* Codes of four or five bits: products of pairs with |Q| <= 127 add up in 16 bits, eight of them
 * for four bits (8 * 2 * 15 * 127 = 30480), four for five (4 * 2 * 31 * 127 = 31496). */
VEC_INLINE __m256i score_dot_narrow(const enum varve_format f, const struct score_codes *codes,
                                    const int8_t *i) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i sum[2];
    VEC_UNROLL
    for (int32_t half = 0; half < 2; half++) {
        sum[half] = _mm256_maddubs_epi16(codes->x[4 * half], vec_broadcast_4_bytes(i + 16 * half));
        VEC_UNROLL
        for (int32_t j = 4 * half + 1; j < 4 * half + 4; j++) {
            const __m256i product =
                _mm256_maddubs_epi16(codes->x[j], vec_broadcast_4_bytes(i + 4 * j));
            sum[half] = _mm256_add_epi16(sum[half], product);
        }
    }
    if (quant_largest_code(f) <= 15) {
        return _mm256_madd_epi16(_mm256_add_epi16(sum[0], sum[1]), one);
    }
    return _mm256_add_epi32(_mm256_madd_epi16(sum[0], one), _mm256_madd_epi16(sum[1], one));
}

VEC_INLINE __m256i score_dot(const enum varve_format f, const struct score_codes *codes,
                             const struct score_query *query, int32_t b, int32_t q_sum) {
    const __m256i i = quant_is_wide(f)
                          ? score_dot_wide(codes, query->even + 8 * b, query->odd + 8 * b)
                          : score_dot_narrow(f, codes, query->i + b * VARVE_BLOCK);
    if (quant_signed_bias(f) == 0) return i;
    return _mm256_sub_epi32(i, _mm256_set1_epi32(quant_signed_bias(f) * q_sum));
}

#include "kernel/quant_score.h"

SCORE_QUANT(varve_score_q8_0_avx2, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_avx2, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_avx2, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_avx2, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_avx2, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_avx2, VARVE_FORMAT_IQ4_NL)
