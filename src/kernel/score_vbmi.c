#include "kernel/quant_avx512.h"

/* Scores of up to four queries, eight rows and two blocks to a vector: lanes 0-3 are block 0 of
 * rows 0-3, 4-7 block 1 of the same rows, 8-15 the same of rows 4-7. One permutation takes what it
 * wants from two rows, a whole level of the transpose, and the steps come with the codes. With more
 * queries the multiplications count, and lanes of 16 rows are faster (score_vnni.c). */
enum { QUERIES = 4, PAIRS = 4, ROWS = 8, PAIR_VALUES = 2 * VARVE_BLOCK };

/* Lanes of block 1. */
#define BLOCK_1 ((__mmask16)0xF0F0)

/* What the queries of a tile multiply with; groups of four bytes in the order of the codes. */
struct queries {
    __m512i x[QUERIES][PAIRS][8];
    __m512i start[QUERIES][PAIRS]; /* what the bias of the codes adds */
    __m512 d[QUERIES][PAIRS];
};

VEC_INLINE void load_query(const enum varve_format f, const struct varve_queries *q, int32_t a,
                           int32_t p, struct queries *to) {
    const __m512i both = _mm512_loadu_si512(q->i + (int64_t)a * q->ld + (int64_t)p * PAIR_VALUES);
    const __m512i first = _mm512_maskz_set1_epi32(BLOCK_1, 8);
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        to->x[a][p][j] =
            _mm512_permutexvar_epi32(_mm512_add_epi32(first, _mm512_set1_epi32(j)), both);
    }
    const int64_t at = (int64_t)a * q->n_block + 2 * p;
    const __m512i sum =
        _mm512_mask_set1_epi32(_mm512_set1_epi32(q->sum[at]), BLOCK_1, q->sum[at + 1]);
    to->start[a][p] = _mm512_mullo_epi32(sum, _mm512_set1_epi32(-quant_bias(f)));
    to->d[a][p] =
        _mm512_mask_mov_ps(_mm512_set1_ps(q->d[at]), BLOCK_1, _mm512_set1_ps(q->d[at + 1]));
}

/* ---- codes -------------------------------------------------------------------------------- */

/* Bytes of a pair of blocks: 16 codes of each, for q8_0 those from 16 i on. A masked load would do
 * for q4_0, but takes microseconds where the rest of the vector lies in a page that does not exist.
 */
VEC_INLINE __m512i load_row(const enum varve_format f, const uint8_t *p, const int32_t i) {
    if (f == VARVE_FORMAT_Q8_0) return _mm512_loadu_si512(p + 4 * i);
    const __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_inserti32x4(_mm512_castsi256_si512(first), vec_load_16_bytes(p + 20), 2);
}

/* Where load_row put code `byte` of its 16 of a block. */
VEC_INLINE int32_t byte_at(const enum varve_format f, const int32_t i, const int32_t block,
                           const int32_t byte) {
    if (f == VARVE_FORMAT_Q8_0) return 2 + 34 * block + 12 * i + byte;
    return block == 0 ? 2 + byte : 32 + byte;
}

/* The steps of eight rows, from what load_row gave for i = 0. */
VEC_INLINE __m512 take_steps(const enum varve_format f, const __m512i row[ROWS]) {
    uint16_t from[16] __attribute__((aligned(32)));
    VEC_UNROLL
    for (int32_t i = 0; i < 16; i++) { /* half floats: odd rows from the second operand */
        from[i] = (uint16_t)((i & 1 ? 32 : 0) + (i & 4 ? quant_bytes(f) / 2 : 0));
    }
    const __m512i at =
        _mm512_castsi256_si512(_mm256_load_si256((const __m256i *)(const void *)from));
    __m256i h[4];
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        h[i] = _mm512_castsi512_si256(_mm512_permutex2var_epi16(row[2 * i], at, row[2 * i + 1]));
    }
    const __m256i low = _mm256_mask_mov_epi16(h[0], 0x00CC, h[1]);
    const __m256i high = _mm256_mask_mov_epi16(h[2], 0xCC00, h[3]);
    return _mm512_cvtph_ps(_mm256_mask_mov_epi16(low, 0xFF00, high));
}

/* x[j] = bytes 4 j .. 4 j + 3 of the 16 codes that load_row gave. */
VEC_INLINE void transpose(const enum varve_format f, const __m512i row[ROWS], const int32_t i,
                          __m512i x[4]) {
    uint8_t from[64] __attribute__((aligned(64)));
    VEC_UNROLL
    for (int32_t k = 0; k < 16; k++) { /* quarter k / 4: groups k / 8 and k / 8 + 2 of a block */
        const int32_t group = k / 8 + (k & 2), block = k / 4 % 2, odd = k % 2;
        VEC_UNROLL
        for (int32_t n = 0; n < 4; n++) {
            from[4 * k + n] = (uint8_t)(64 * odd + byte_at(f, i, block, 4 * group + n));
        }
    }
    const __m512i at = _mm512_load_si512(from);
    __m512i y[4], z[4];
    VEC_UNROLL
    for (int32_t k = 0; k < 4; k++) {
        y[k] = _mm512_permutex2var_epi8(row[2 * k], at, row[2 * k + 1]);
    }
    VEC_UNROLL
    for (int32_t k = 0; k < 2; k++) {
        z[k] = _mm512_unpacklo_epi64(y[2 * k], y[2 * k + 1]);
        z[2 + k] = _mm512_unpackhi_epi64(y[2 * k], y[2 * k + 1]);
    }
    x[0] = _mm512_shuffle_i32x4(z[0], z[1], 0x44);
    x[1] = _mm512_shuffle_i32x4(z[0], z[1], 0xEE);
    x[2] = _mm512_shuffle_i32x4(z[2], z[3], 0x44);
    x[3] = _mm512_shuffle_i32x4(z[2], z[3], 0xEE);
}

VEC_INLINE void load_rows(const enum varve_format f, const uint8_t *const *rows, int64_t offset,
                          const int32_t i, __m512i row[ROWS]) {
    VEC_UNROLL
    for (int32_t r = 0; r < ROWS; r++) {
        row[r] = load_row(f, rows[r] + offset, i);
        __asm__("" : "+v"(row[r])); /* most loads cross a cache line: once only */
    }
}

/* Codes of pair p of eight rows; returns their steps. */
VEC_INLINE __m512 load_codes(const enum varve_format f, const uint8_t *const *rows, int32_t p,
                             __m512i x[8]) {
    const int64_t offset = (int64_t)p * 2 * quant_bytes(f);
    __m512i row[ROWS];
    load_rows(f, rows, offset, 0, row);
    transpose(f, row, 0, x);
    const __m512 d = take_steps(f, row);
    if (f == VARVE_FORMAT_Q8_0) {
        load_rows(f, rows, offset, 1, row);
        transpose(f, row, 1, x + 4);
    }
    const __m512i sign = _mm512_set1_epi8((char)0x80), nibble = _mm512_set1_epi8(15);
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        if (f == VARVE_FORMAT_Q8_0) {
            x[j] = _mm512_xor_si512(x[j], sign);
            x[4 + j] = _mm512_xor_si512(x[4 + j], sign);
        } else {
            x[4 + j] = _mm512_and_si512(_mm512_srli_epi16(x[j], 4), nibble);
            x[j] = _mm512_and_si512(x[j], nibble);
        }
    }
    return d;
}

/* ---- tiles -------------------------------------------------------------------------------- */

/* sum += unsigned codes by signed bytes. As an intrinsic, GCC copies the sum first. */
VEC_INLINE __m512i add_bytes(__m512i sum, __m512i codes, __m512i i) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(i));
    return sum;
}

/* One or two queries of 16 rows: sum += d * (steps of the rows) * (integer sums). */
VEC_INLINE void score_codes(const struct queries *q, int32_t a, int32_t p, __m512i x[2][8],
                            const __m512 d[2], const int32_t nq, __m512 *sum) {
    __m512i i[4];
    VEC_UNROLL
    for (int32_t k = 0; k < nq; k++) {
        i[2 * k] = q->start[a + k][p];
        __asm__("" : "+v"(i[2 * k])); /* one load for both */
        i[2 * k + 1] = i[2 * k];
    }
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        VEC_UNROLL
        for (int32_t k = 0; k < nq; k++) {
            const __m512i y = q->x[a + k][p][j];
            i[2 * k] = add_bytes(i[2 * k], x[0][j], y);
            i[2 * k + 1] = add_bytes(i[2 * k + 1], x[1][j], y);
        }
    }
    VEC_UNROLL
    for (int32_t k = 0; k < 2 * nq; k++) {
        const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(i[k]), d[k % 2]);
        sum[k] = _mm512_fmadd_ps(part, q->d[a + k / 2][p], sum[k]);
    }
}

/* 16 rows. */
VEC_INLINE void score_rows(const enum varve_format f, const struct queries *q, int32_t n_pair,
                           const uint8_t *const *rows, int32_t n_row, const int32_t nq, float *s) {
    __m512 sum[2 * QUERIES];
    VEC_UNROLL
    for (int32_t n = 0; n < 2 * nq; n++) sum[n] = _mm512_setzero_ps();
    for (int32_t p = 0; p < n_pair; p++) {
        __m512i x[2][8];
        __m512 d[2];
        VEC_UNROLL
        for (int32_t v = 0; v < 2; v++) d[v] = load_codes(f, rows + v * ROWS, p, x[v]);
        VEC_UNROLL
        for (int32_t a = 0; a + 2 <= nq; a += 2) score_codes(q, a, p, x, d, 2, sum + 2 * a);
        if (nq % 2 != 0) score_codes(q, nq - 1, p, x, d, 1, sum + 2 * nq - 2);
    }
    const __mmask16 valid = vec_first(n_row);
    VEC_UNROLL
    for (int32_t a = 0; a < nq;
         a++) { /* adds the blocks of a pair, which leaves the rows in order */
        vec_store_some(s + a * VARVE_TILE_ROWS, valid,
                       vec_add_quarters(sum[2 * a], sum[2 * a + 1]));
    }
}

VEC_INLINE void score_all(const struct varve_score_args *args, const enum varve_format f,
                          const int32_t nq) {
    const int32_t n_pair = args->q->head_dim / PAIR_VALUES;
    const uint8_t *spare[VEC_LANES];
    struct queries q;
    for (int32_t a = 0; a < nq; a++) {
        for (int32_t p = 0; p < n_pair; p++) load_query(f, args->q, a, p, &q);
    }
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        vec_fetch_ahead(&args->ahead, r, VEC_LANES);
        vec_prefetch(args->rows, args->n_row, r + VEC_LANES, VEC_LANES, 0,
                     quant_row_bytes(f, args->q->head_dim));
        score_rows(f, &q, n_pair, rows, args->n_row - r, nq, args->s + r);
    }
}

VEC_INLINE void score(const struct varve_score_args *args, const enum varve_format f,
                      varve_score_fn *otherwise) {
    const int32_t head_dim = args->q->head_dim;
    const bool fits = head_dim % PAIR_VALUES == 0 && head_dim <= PAIRS * PAIR_VALUES;
    switch (fits ? args->q->n : 0) {
    case 1: score_all(args, f, 1); break;
    case 2: score_all(args, f, 2); break;
    case 3: score_all(args, f, 3); break;
    case 4: score_all(args, f, 4); break;
    default: otherwise(args); break;
    }
}

void varve_score_q8_0_vbmi(const struct varve_score_args *args) {
    score(args, VARVE_FORMAT_Q8_0, varve_score_q8_0_vnni);
}

void varve_score_q4_0_vbmi(const struct varve_score_args *args) {
    score(args, VARVE_FORMAT_Q4_0, varve_score_q4_0_vnni);
}
