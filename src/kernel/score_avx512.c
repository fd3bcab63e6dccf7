#include "kernel/vec_avx512.h"

/* Quantized rows are worked off in pieces of PIECE blocks for GROUP queries at a time, so that
 * scratch has a bound for every head size. */
enum { PIECE = 4, GROUP = 8 };

/* ------------------------------------------------------------------------------------------ f16 */

/* nq x nr sums of products, vectors along the row. Rows past the last are computed from the last
 * one and not stored. */
VEC_INLINE void score_f16_tile(const struct varve_score_args *args, int32_t a0, int32_t r0,
                               const int32_t nq, const int32_t nr) {
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
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) x[a] = _mm512_load_ps(f + (int64_t)a * q->ld + c);
        VEC_UNROLL
        for (int32_t i = 0; i < nr; i++) {
            const __m512 y = vec_load_f16(k[i] + 2 * c);
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
            const __m512 y = vec_load_f16_part(k[i] + 2 * c, rest);
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

void varve_score_f16_avx512(const struct varve_score_args *args) {
    for (int32_t r = 0; r < args->n_row; r += 8) {
        int32_t a = 0;
        vec_prefetch(args->rows, args->n_row, r + 8, 8, 0, 2 * args->q->head_dim);
        for (; a + 4 <= args->q->n; a += 4) {
            score_f16_tile(args, a, r, 4, 4);
            if (r + 4 < args->n_row) score_f16_tile(args, a, r + 4, 4, 4);
        }
        switch (args->q->n - a) {
        case 3: score_f16_tile(args, a, r, 3, 8); break;
        case 2: score_f16_tile(args, a, r, 2, 8); break;
        case 1: score_f16_tile(args, a, r, 1, 8); break;
        default: break;
        }
    }
}

/* --------------------------------------------------------------------- quantized: 16 rows at once
 *
 * A lane is a row: the codes of 16 rows are transposed by groups of four bytes and multiplied with
 * four bytes of Q in every lane. That costs a transpose per 16 rows but no horizontal sums, and the
 * block scales of 16 rows make one vector. */

/* Partial scores of one query group over a piece: sum = 0 for the first piece of the row. */
VEC_INLINE void load_sums(const float *s, bool first, __mmask16 valid, int32_t n_query,
                          __m512 *sum) {
    for (int32_t a = 0; a < n_query; a++) {
        sum[a] = first ? _mm512_setzero_ps()
                       : _mm512_maskz_loadu_ps(valid, s + (int64_t)a * VARVE_TILE_ROWS);
    }
}

VEC_INLINE void store_sums(float *s, __mmask16 valid, int32_t n_query, const __m512 *sum) {
    for (int32_t a = 0; a < n_query; a++) {
        _mm512_mask_storeu_ps(s + (int64_t)a * VARVE_TILE_ROWS, valid, sum[a]);
    }
}

/* half[b][r] = the scale of block b of row r, for a piece. */
VEC_INLINE void gather_scales(const uint8_t *const *rows, int64_t offset, int64_t block_bytes,
                              int32_t n_block, uint16_t *half) {
    switch (n_block) {
    case 1: vec_gather_halves(rows, VEC_LANES, offset, block_bytes, 1, VEC_LANES, half); break;
    case 2: vec_gather_halves(rows, VEC_LANES, offset, block_bytes, 2, VEC_LANES, half); break;
    case 3: vec_gather_halves(rows, VEC_LANES, offset, block_bytes, 3, VEC_LANES, half); break;
    default: vec_gather_halves(rows, VEC_LANES, offset, block_bytes, PIECE, VEC_LANES, half); break;
    }
}

/* sum += d * (dk * i) */
VEC_INLINE __m512 add_scaled(__m512 sum, float d, __m512 dk, __m512i i) {
    return _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(i), dk), _mm512_set1_ps(d), sum);
}

/* The bytes of each group of four as two 16-bit pairs: bytes 0 and 2, bytes 1 and 3. */
VEC_INLINE __m512i even_bytes(__m512i x) { return _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8); }

VEC_INLINE __m512i odd_bytes(__m512i x) { return _mm512_srai_epi16(x, 8); }

/* Q of one query over a piece, in the 16-bit pairs that even_bytes and odd_bytes make of K. */
struct pairs {
    int32_t even[PIECE * VARVE_BLOCK / 4], odd[PIECE * VARVE_BLOCK / 4];
};

VEC_INLINE void split_pairs(const int8_t *i, int32_t n_block, struct pairs *pairs) {
    for (int32_t b = 0; b < n_block; b++) {
        const __m256i x = _mm256_load_si256((const __m256i *)(const void *)(i + b * VARVE_BLOCK));
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
        _mm256_storeu_si256((__m256i *)(void *)(pairs->even + b * VARVE_BLOCK / 4), even);
        _mm256_storeu_si256((__m256i *)(void *)(pairs->odd + b * VARVE_BLOCK / 4),
                            _mm256_srai_epi16(x, 8));
    }
}

/* 16 rows of one q8_0 block against the queries of a group. Without VNNI, widening to 16 bits takes
 * as many multiply-adds as the unsigned-by-signed product with its sign trick, and cannot saturate
 * at -128. */
VEC_INLINE void score_q8_0_block(const uint8_t *const *rows, int64_t offset, __m512 dk,
                                 const struct pairs *pairs, int32_t b, const float *d,
                                 int32_t n_block, int32_t n_query, __m512 *sum) {
    __m512i k[8], even[8], odd[8];
    vec_load_quads(rows, offset + 2, k);
    vec_load_quads(rows, offset + 18, k + 4);
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        even[j] = even_bytes(k[j]);
        odd[j] = odd_bytes(k[j]);
    }
    for (int32_t a = 0; a < n_query; a++) {
        const int32_t *const q_even = pairs[a].even + b * 8;
        const int32_t *const q_odd = pairs[a].odd + b * 8;
        __m512i i0 = _mm512_setzero_si512();
        __m512i i1 = _mm512_setzero_si512();
        VEC_UNROLL
        for (int32_t j = 0; j < 8; j++) {
            i0 = _mm512_add_epi32(i0, _mm512_madd_epi16(even[j], _mm512_set1_epi32(q_even[j])));
            i1 = _mm512_add_epi32(i1, _mm512_madd_epi16(odd[j], _mm512_set1_epi32(q_odd[j])));
        }
        sum[a] = add_scaled(sum[a], d[(int64_t)a * n_block], dk, _mm512_add_epi32(i0, i1));
    }
}

void varve_score_q8_0_avx512(const struct varve_score_args *args) {
    const struct varve_queries *const q = args->q;
    struct pairs pairs[GROUP];
    uint16_t half[PIECE * VEC_LANES] __attribute__((aligned(64)));
    const uint8_t *spare[VEC_LANES];
    __m512 sum[GROUP];
    for (int32_t a0 = 0; a0 < q->n; a0 += GROUP) {
        const int32_t n_query = vec_min_i32(q->n - a0, GROUP);
        for (int32_t b0 = 0; b0 < q->n_block; b0 += PIECE) {
            const int32_t n_block = vec_min_i32(q->n_block - b0, PIECE);
            for (int32_t a = 0; a < n_query; a++) {
                split_pairs(q->i + (int64_t)(a0 + a) * q->ld + b0 * VARVE_BLOCK, n_block,
                            &pairs[a]);
            }
            for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
                const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
                const __mmask16 valid = vec_first(args->n_row - r);
                float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS + r;
                vec_prefetch(args->rows, args->n_row, r + VEC_LANES, VEC_LANES, b0 * 34,
                             n_block * 34);
                gather_scales(rows, (int64_t)b0 * 34, 34, n_block, half);
                load_sums(s, b0 == 0, valid, n_query, sum);
                for (int32_t b = 0; b < n_block; b++) {
                    score_q8_0_block(
                        rows, (int64_t)(b0 + b) * 34, vec_load_halves(half + b * VEC_LANES), pairs,
                        b, q->d + (int64_t)a0 * q->n_block + b0 + b, q->n_block, n_query, sum);
                }
                store_sums(s, valid, n_query, sum);
            }
        }
    }
}

/* 16 rows of one q4_0 block. The codes 0..15 are unsigned, so that eight products of pairs with
 * |Q| <= 127 add up in 16 bits: 8 * 2 * 15 * 127 = 30480. Their offset of -8 comes in through the
 * sum of Q. */
VEC_INLINE void score_q4_0_block(const uint8_t *const *rows, __m512 dk,
                                 const struct varve_queries *q, int32_t a0, int32_t b,
                                 int32_t n_query, __m512 *sum) {
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i packed[4], low[4], high[4];
    vec_load_quads(rows, (int64_t)b * 18 + 2, packed);
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        low[j] = _mm512_and_si512(packed[j], nibble);
        high[j] = _mm512_and_si512(_mm512_srli_epi16(packed[j], 4), nibble);
    }
    for (int32_t a = 0; a < n_query; a++) {
        const int8_t *const i = q->i + (int64_t)(a0 + a) * q->ld + b * VARVE_BLOCK;
        const int64_t block = (int64_t)(a0 + a) * q->n_block + b;
        __m512i i0 = _mm512_maddubs_epi16(low[0], vec_broadcast_4_bytes(i));
        __m512i i1 = _mm512_maddubs_epi16(high[0], vec_broadcast_4_bytes(i + 16));
        VEC_UNROLL
        for (int32_t j = 1; j < 4; j++) {
            const __m512i q0 = vec_broadcast_4_bytes(i + 4 * j);
            const __m512i q1 = vec_broadcast_4_bytes(i + 16 + 4 * j);
            i0 = _mm512_add_epi16(i0, _mm512_maddubs_epi16(low[j], q0));
            i1 = _mm512_add_epi16(i1, _mm512_maddubs_epi16(high[j], q1));
        }
        const __m512i all = _mm512_madd_epi16(_mm512_add_epi16(i0, i1), _mm512_set1_epi16(1));
        const __m512i centred = _mm512_sub_epi32(all, _mm512_set1_epi32(8 * q->sum[block]));
        sum[a] = add_scaled(sum[a], q->d[block], dk, centred);
    }
}

void varve_score_q4_0_avx512(const struct varve_score_args *args) {
    const struct varve_queries *const q = args->q;
    const uint8_t *spare[VEC_LANES];
    uint16_t half[PIECE * VEC_LANES] __attribute__((aligned(64)));
    __m512 sum[GROUP];
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        const __mmask16 valid = vec_first(args->n_row - r);
        vec_prefetch(args->rows, args->n_row, r + VEC_LANES, VEC_LANES, 0, q->n_block * 18);
        for (int32_t a0 = 0; a0 < q->n; a0 += GROUP) {
            const int32_t n_query = vec_min_i32(q->n - a0, GROUP);
            for (int32_t a = 0; a < n_query; a++) sum[a] = _mm512_setzero_ps();
            for (int32_t b = 0; b < q->n_block; b++) {
                if (b % PIECE == 0) {
                    gather_scales(rows, (int64_t)b * 18, 18, q->n_block - b, half);
                }
                score_q4_0_block(rows, vec_load_halves(half + b % PIECE * VEC_LANES), q, a0, b,
                                 n_query, sum);
            }
            store_sums(args->s + (int64_t)a0 * VARVE_TILE_ROWS + r, valid, n_query, sum);
        }
    }
}
