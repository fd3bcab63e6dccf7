#include "kernel/quant_avx512.h"

/* -------------------------------------------------------------------------------- float formats */

/* nq x nr sums of products, vectors along the row. Rows past the last are computed from the last
 * one and not stored. */
VEC_INLINE void score_float_tile(const struct varve_score_args *args,
                                 const enum varve_format format, int32_t a0, int32_t r0,
                                 const int32_t nq, const int32_t nr, struct vec_ahead *ahead) {
    const struct varve_queries *const q = args->q;
    const float *const f = q->f + (int64_t)a0 * q->ld;
    const uint8_t *k[8];
    __m512 sum[16 + 8];
    VEC_UNROLL
    for (int32_t i = 0; i < nr; i++) k[i] = args->rows[vec_min_i32(r0 + i, args->n_row - 1)];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * nr; i++) sum[i] = _mm512_setzero_ps();
    int32_t c = 0;
    for (; c + VEC_LANES <= q->head_dim; c += VEC_LANES) {
        __m512 x[4];
        vec_ahead_step(ahead);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) x[a] = _mm512_load_ps(f + (int64_t)a * q->ld + c);
        VEC_UNROLL
        for (int32_t i = 0; i < nr; i++) {
            const __m512 y = vec_load_float(format, k[i] + quant_row_bytes(format, c), 0xFFFF);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                sum[a * nr + i] = _mm512_fmadd_ps(x[a], y, sum[a * nr + i]);
            }
        }
    }
    if (c < q->head_dim) {
        const __mmask16 rest = vec_first(q->head_dim - c);
        VEC_UNROLL
        for (int32_t i = 0; i < nr; i++) {
            const __m512 y = vec_load_float(format, k[i] + quant_row_bytes(format, c), rest);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const __m512 x = _mm512_load_ps(f + (int64_t)a * q->ld + c);
                sum[a * nr + i] = _mm512_fmadd_ps(x, y, sum[a * nr + i]);
            }
        }
    }
    const __mmask8 valid = (__mmask8)vec_first(args->n_row - r0);
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS + r0;
    if (nr == 8) {
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            _mm256_mask_storeu_ps(s + a * VARVE_TILE_ROWS, valid, vec_sums_8(sum + a * nr));
        }
    } else { /* 4 x 4 */
        const __m512 all = vec_sums_16(sum);
        _mm_mask_storeu_ps(s, valid, _mm512_castps512_ps128(all));
        _mm_mask_storeu_ps(s + VARVE_TILE_ROWS, valid, _mm512_extractf32x4_ps(all, 1));
        _mm_mask_storeu_ps(s + 2 * VARVE_TILE_ROWS, valid, _mm512_extractf32x4_ps(all, 2));
        _mm_mask_storeu_ps(s + 3 * VARVE_TILE_ROWS, valid, _mm512_extractf32x4_ps(all, 3));
    }
}

VEC_INLINE void score_float(const struct varve_score_args *args, const enum varve_format format) {
    const int32_t n = args->q->n, n_vector = args->q->head_dim / VEC_LANES;
    /* tiles of 4 x 4, and what is left of the queries in a tile of eight rows */
    struct vec_ahead ahead = vec_ahead_of(
        &args->ahead, (args->n_row + 7) / 8 * (n / 4 * 2 + (n % 4 != 0)) * n_vector);
    for (int32_t r = 0; r < args->n_row; r += 8) {
        int32_t a = 0;
        for (; a + 4 <= n; a += 4) {
            score_float_tile(args, format, a, r, 4, 4, &ahead);
            if (r + 4 < args->n_row) score_float_tile(args, format, a, r + 4, 4, 4, &ahead);
        }
        switch (n - a) {
        case 3: score_float_tile(args, format, a, r, 3, 8, &ahead); break;
        case 2: score_float_tile(args, format, a, r, 2, 8, &ahead); break;
        case 1: score_float_tile(args, format, a, r, 1, 8, &ahead); break;
        default: break;
        }
    }
}

#define SCORE_FLOAT(name, f) \
    void name(const struct varve_score_args *args) { score_float(args, f); }
SCORE_FLOAT(varve_score_f32_avx512, VARVE_FORMAT_F32)
SCORE_FLOAT(varve_score_f16_avx512, VARVE_FORMAT_F16)
SCORE_FLOAT(varve_score_bf16_avx512, VARVE_FORMAT_BF16)

/* ---------------------------------------------------------------------------- quantized formats */

/* Codes of eight bits are widened to 16: bytes 0 and 2 of each four, then bytes 1 and 3. That takes
 * as many multiply-adds as the unsigned-by-signed product needs to keep from saturating. */
struct score_codes {
    __m512i x[16];
};

struct score_query {
    const int8_t *i;
    int32_t even[SCORE_PIECE * VARVE_BLOCK / 4], odd[SCORE_PIECE * VARVE_BLOCK / 4];
};

VEC_INLINE void score_codes(const enum varve_format f, const __m512i x[8],
                            struct score_codes *codes) {
    const bool wide = quant_is_wide(f);
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        codes->x[j] = wide ? _mm512_and_si512(x[j], _mm512_set1_epi16(0xFF)) : x[j];
        if (wide) codes->x[8 + j] = _mm512_srli_epi16(x[j], 8);
    }
}

VEC_INLINE void score_query(const enum varve_format f, const int8_t *i, int32_t n_block,
                            struct score_query *query) {
    query->i = i;
    for (int32_t b = 0; b < n_block && quant_is_wide(f); b++) {
        const __m256i x = _mm256_load_si256((const __m256i *)(const void *)(i + b * VARVE_BLOCK));
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
        _mm256_storeu_si256((__m256i *)(void *)(query->even + b * VARVE_BLOCK / 4), even);
        _mm256_storeu_si256((__m256i *)(void *)(query->odd + b * VARVE_BLOCK / 4),
                            _mm256_srai_epi16(x, 8));
    }
}

VEC_INLINE __m512i score_dot_wide(const struct score_codes *codes, const int32_t *even,
                                  const int32_t *odd) {
    __m512i i0 = _mm512_setzero_si512();
    __m512i i1 = _mm512_setzero_si512();
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        i0 = _mm512_add_epi32(i0, _mm512_madd_epi16(codes->x[j], _mm512_set1_epi32(even[j])));
        i1 = _mm512_add_epi32(i1, _mm512_madd_epi16(codes->x[8 + j], _mm512_set1_epi32(odd[j])));
    }
    return _mm512_add_epi32(i0, i1);
}

/* Codes of four or five bits: products of pairs with |Q| <= 127 add up in 16 bits, eight of them
 * for four bits (8 * 2 * 15 * 127 = 30480), four for five (4 * 2 * 31 * 127 = 31496). */
VEC_INLINE __m512i score_dot_narrow(const enum varve_format f, const struct score_codes *codes,
                                    const int8_t *i) {
    const __m512i one = _mm512_set1_epi16(1);
    __m512i sum[2];
    VEC_UNROLL
    for (int32_t half = 0; half < 2; half++) {
        sum[half] = _mm512_maddubs_epi16(codes->x[4 * half], vec_broadcast_4_bytes(i + 16 * half));
        VEC_UNROLL
        for (int32_t j = 4 * half + 1; j < 4 * half + 4; j++) {
            const __m512i product =
                _mm512_maddubs_epi16(codes->x[j], vec_broadcast_4_bytes(i + 4 * j));
            sum[half] = _mm512_add_epi16(sum[half], product);
        }
    }
    if (quant_largest_code(f) <= 15) {
        return _mm512_madd_epi16(_mm512_add_epi16(sum[0], sum[1]), one);
    }
    return _mm512_add_epi32(_mm512_madd_epi16(sum[0], one), _mm512_madd_epi16(sum[1], one));
}

VEC_INLINE __m512i score_dot(const enum varve_format f, const struct score_codes *codes,
                             const struct score_query *query, int32_t b, int32_t q_sum) {
    const __m512i i = quant_is_wide(f)
                          ? score_dot_wide(codes, query->even + 8 * b, query->odd + 8 * b)
                          : score_dot_narrow(f, codes, query->i + b * VARVE_BLOCK);
    if (quant_bias(f) == 0) return i;
    return _mm512_sub_epi32(i, _mm512_set1_epi32(quant_bias(f) * q_sum));
}

#include "kernel/quant_score.h"

SCORE_QUANT(varve_score_q8_0_avx512, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_avx512, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_avx512, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_avx512, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_avx512, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_avx512, VARVE_FORMAT_IQ4_NL)
