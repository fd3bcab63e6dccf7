#include "kernel/quant_avx512.h"

/* -------------------------------------------------------------------------------- float formats */

/* Eight sums of products at once, of nq queries and nr rows, vectors along the row; query a and row
 * i are element a * nr + i. */
enum { SUMS = 8, STEPS = 4 };

/* What is left to be done with the sums of the rows before, in STEPS parts: adding across lanes
 * takes as long as a quarter of the products, and hides behind them only if it stands between them:
 * the processor looks ahead no further than some 60 vector instructions. */
VEC_INLINE void reduce_part(__m512 x[SUMS], const int32_t part) {
    switch (part) {
    case 0:
    case 1:
        VEC_UNROLL
        for (int32_t i = 2 * part; i < 2 * part + 2; i++) x[i] = vec_add_halves(x[i], x[4 + i]);
        break;
    case 2:
        x[0] = vec_add_pairs(x[0], x[1]);
        x[2] = vec_add_pairs(x[2], x[3]);
        break;
    default:
        x[0] = vec_add_neighbours(x[0], x[2]);
        x[0] = vec_add_quarters(x[0], x[0]); /* lane i is the sum of x[i] */
        break;
    }
}

/* Scores of nr rows, of which n_row are there. */
VEC_INLINE void store_scores(float *s, __m512 all, int32_t n_row, const int32_t nq,
                             const int32_t nr) {
    const __m256 x = _mm512_castps512_ps256(all);
    if (n_row < nr) {
        const __mmask8 valid = (__mmask8)vec_first(n_row);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const __m256 y = _mm256_maskz_compress_ps((__mmask8)(valid << a * nr), x);
            _mm256_mask_storeu_ps(s + a * VARVE_TILE_ROWS, valid, y);
        }
        return;
    }
    const __m128 half[2] = {_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)};
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++, s += VARVE_TILE_ROWS) {
        if (nr == 8) _mm256_storeu_ps(s, x);
        if (nr == 4) _mm_storeu_ps(s, half[a]);
        if (nr == 2 && a % 2 == 0) _mm_storel_pi((__m64 *)(void *)s, half[a / 2]);
        if (nr == 2 && a % 2 == 1) _mm_storeh_pi((__m64 *)(void *)s, half[a / 2]);
    }
}

/* Products of the values from `at` of the rows on. */
VEC_INLINE void add_products(const enum varve_format f, const float *q, int32_t ld,
                             const uint8_t *const *k, int64_t at, __mmask16 wanted,
                             const int32_t nq, const int32_t nr, __m512 sum[SUMS]) {
    __m512 x[4];
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        x[a] = _mm512_load_ps(q + (int64_t)a * ld);
        __asm__("" : "+v"(x[a])); /* once for all rows: two loads of 64 bytes take two cycles */
    }
    VEC_UNROLL
    for (int32_t i = 0; i < nr; i++) {
        const __m512 y = vec_load_float(f, k[i] + at, wanted);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            sum[a * nr + i] = _mm512_fmadd_ps(x[a], y, sum[a * nr + i]);
        }
    }
}

/* nq queries from a0 on. Rows past the last are computed from the last one and not stored. */
VEC_INLINE void score_float_queries(const struct varve_score_args *args, const enum varve_format f,
                                    int32_t a0, const int32_t nq, const int32_t nr,
                                    struct vec_ahead *ahead) {
    const struct varve_queries *const queries = args->q;
    const int32_t ld = queries->ld;
    const int64_t bytes = quant_row_bytes(f, VEC_LANES);
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS;
    __m512 sum[SUMS], old[SUMS];
    VEC_UNROLL
    for (int32_t i = 0; i < SUMS; i++) old[i] = sum[i] = _mm512_setzero_ps();
    for (int32_t r = 0; r < args->n_row; r += nr) {
        const float *q = queries->f + (int64_t)a0 * ld;
        const uint8_t *k[SUMS];
        int32_t left = queries->head_dim;
        int64_t at = 0;
        VEC_UNROLL
        for (int32_t i = 0; i < nr; i++) k[i] = args->rows[vec_min_i32(r + i, args->n_row - 1)];
        VEC_UNROLL
        for (int32_t i = 0; i < nq * nr; i++) sum[i] = _mm512_setzero_ps();
        const bool wide = left >= STEPS * VEC_LANES;
        VEC_UNROLL
        for (int32_t j = 0; j < STEPS; j++) {
            if (wide) {
                vec_ahead_step(ahead);
                add_products(f, q + j * VEC_LANES, ld, k, j * bytes, 0xFFFF, nq, nr, sum);
            }
            reduce_part(old, j);
        }
        if (r > 0) store_scores(s + r - nr, old[0], nr, nq, nr);
        if (wide) {
            q += STEPS * VEC_LANES;
            at += STEPS * bytes;
            left -= STEPS * VEC_LANES;
        }
        for (; left >= VEC_LANES; left -= VEC_LANES, q += VEC_LANES, at += bytes) {
            vec_ahead_step(ahead);
            add_products(f, q, ld, k, at, 0xFFFF, nq, nr, sum);
        }
        if (left > 0) add_products(f, q, ld, k, at, vec_first(left), nq, nr, sum);
        VEC_UNROLL
        for (int32_t i = 0; i < nq * nr; i++) old[i] = sum[i];
    }
    VEC_UNROLL
    for (int32_t j = 0; j < STEPS; j++) reduce_part(old, j);
    const int32_t last = (args->n_row - 1) / nr * nr;
    store_scores(s + last, old[0], args->n_row - last, nq, nr);
}

VEC_INLINE void score_float(const struct varve_score_args *args, const enum varve_format f) {
    const int32_t n = args->q->n;
    const int32_t nr = n >= 3 ? 2 : 8 / n; /* most steps are those of such rows */
    struct vec_ahead ahead = vec_ahead_of(&args->ahead, args->rows[0],
                                          vec_parts(args->n_row, nr) * vec_parts(n, 4) *
                                              (args->q->head_dim / VEC_LANES));
    int32_t a = 0;
    for (; a + 4 <= n; a += 4) score_float_queries(args, f, a, 4, 2, &ahead);
    switch (n - a) {
    case 3: score_float_queries(args, f, a, 3, 2, &ahead); break;
    case 2: score_float_queries(args, f, a, 2, 4, &ahead); break;
    case 1: score_float_queries(args, f, a, 1, 8, &ahead); break;
    default: break;
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
