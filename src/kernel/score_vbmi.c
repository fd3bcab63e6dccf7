#include "kernel/quant_vbmi.h"

/* Scores of up to four queries, eight rows and two blocks to a vector (quant_vbmi.h). With more
 * queries the multiplications count, and lanes of 16 rows are faster (score_vnni.c). */
enum { QUERIES = 4, PAIRS = 4 };

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
                           const uint8_t *const *rows, int32_t n_row, const int32_t nq, float *s,
                           struct vec_ahead *ahead) {
    __m512 sum[2 * QUERIES];
    VEC_UNROLL
    for (int32_t n = 0; n < 2 * nq; n++) sum[n] = _mm512_setzero_ps();
    for (int32_t p = 0; p < n_pair; p++) {
        __m512i x[2][8];
        __m512 d[2];
        VEC_UNROLL
        for (int32_t v = 0; v < 2; v++) {
            d[v] = load_codes(f, rows + v * ROWS, p, x[v]);
            vec_ahead_step(ahead);
        }
        VEC_UNROLL
        for (int32_t a = 0; a + 2 <= nq; a += 2) {
            score_codes(q, a, p, x, d, 2, sum + 2 * a);
            vec_ahead_step(ahead);
        }
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
    struct vec_ahead ahead = vec_ahead_of(
        &args->ahead, args->rows[0], vec_parts(args->n_row, VEC_LANES) * n_pair * (2 + nq / 2));
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        score_rows(f, &q, n_pair, rows, args->n_row - r, nq, args->s + r, &ahead);
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
