/* Scores of quantized rows, 16 at once. A lane is a row: the codes of 16 rows are transposed by
 * groups of four bytes and multiplied with four bytes of Q in every lane. That costs a transpose
 * per 16 rows but no horizontal sums, and the block scales of 16 rows make one vector. The bias of
 * the codes comes in through the sum of Q.
 *
 * Compiled twice: for AVX-512 alone and, by score_vnni.c, for VNNI. */
#ifndef VARVE_KERNEL_QUANT_SCORE_AVX512_H
#define VARVE_KERNEL_QUANT_SCORE_AVX512_H

#include "kernel/quant_avx512.h"

/* -------------------------------------------------------------------------------------- rows */

/* half[b][r] = the half float at offset + b * step of 16 rows, for a piece. */
VEC_INLINE void score_gather(const uint8_t *const *rows, int64_t offset, int64_t step,
                             int32_t n_block, uint16_t *half) {
    switch (n_block) {
    case 1: vec_gather_halves(rows, VEC_LANES, offset, step, 1, VEC_LANES, half); break;
    case 2: vec_gather_halves(rows, VEC_LANES, offset, step, 2, VEC_LANES, half); break;
    case 3: vec_gather_halves(rows, VEC_LANES, offset, step, 3, VEC_LANES, half); break;
    default: vec_gather_halves(rows, VEC_LANES, offset, step, SCORE_PIECE, VEC_LANES, half); break;
    }
}

/* What a piece of the queries of a group takes from args->q: element (a, b) at a * n_block + b. */
struct score_group {
    int32_t n, n_block; /* queries; blocks of the whole row */
    const float *d;
    const int32_t *sum;
    struct score_query query[SCORE_GROUP];
};

/* 16 rows of one block: sum[a] += d_a * (dk * I + mk * sum of Q). */
VEC_INLINE void score_block(const enum varve_format f, const struct score_group *group, int32_t b,
                            const uint8_t *const *rows, int64_t offset, __m512 dk, __m512 mk,
                            __m512 *sum) {
    __m512i x[8];
    struct score_codes codes;
    quant_load_codes(f, rows, offset, x);
    score_codes(f, x, &codes);
    for (int32_t a = 0; a < group->n; a++) {
        const int64_t at = (int64_t)a * group->n_block + b;
        const int32_t q_sum = group->sum[at];
        const __m512i i = score_dot(f, &codes, &group->query[a], b, -quant_bias(f) * q_sum);
        __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(i), dk);
        if (quant_has_min(f)) part = _mm512_fmadd_ps(mk, _mm512_set1_ps((float)q_sum), part);
        sum[a] = _mm512_fmadd_ps(part, _mm512_set1_ps(group->d[at]), sum[a]);
    }
}

/* n_block blocks of n_row <= 16 rows from offset on; the first piece of a row begins its sums. */
VEC_INLINE void score_rows(const enum varve_format f, const struct score_group *group,
                           const uint8_t *const *rows, int32_t n_row, int64_t offset,
                           int32_t n_block, bool first, float *s) {
    uint16_t dk[SCORE_PIECE * VEC_LANES] __attribute__((aligned(64)));
    uint16_t mk[SCORE_PIECE * VEC_LANES] __attribute__((aligned(64)));
    __m512 sum[SCORE_GROUP];
    const __mmask16 valid = vec_first(n_row);
    score_gather(rows, offset, quant_bytes(f), n_block, dk);
    if (quant_has_min(f)) score_gather(rows, offset + 2, quant_bytes(f), n_block, mk);
    for (int32_t a = 0; a < group->n; a++) {
        sum[a] =
            first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(valid, s + a * VARVE_TILE_ROWS);
    }
    for (int32_t b = 0; b < n_block; b++) {
        score_block(f, group, b, rows, offset + (int64_t)b * quant_bytes(f),
                    vec_load_halves(dk + b * VEC_LANES),
                    quant_has_min(f) ? vec_load_halves(mk + b * VEC_LANES) : _mm512_setzero_ps(),
                    sum);
    }
    for (int32_t a = 0; a < group->n; a++) {
        _mm512_mask_storeu_ps(s + a * VARVE_TILE_ROWS, valid, sum[a]);
    }
}

VEC_INLINE void score_quant(const struct varve_score_args *args, const enum varve_format f) {
    const struct varve_queries *const q = args->q;
    const uint8_t *spare[VEC_LANES];
    struct score_group group = {.n_block = q->n_block};
    for (int32_t a0 = 0; a0 < q->n; a0 += SCORE_GROUP) {
        group.n = vec_min_i32(q->n - a0, SCORE_GROUP);
        for (int32_t b0 = 0; b0 < q->n_block; b0 += SCORE_PIECE) {
            const int32_t n_block = vec_min_i32(q->n_block - b0, SCORE_PIECE);
            const int64_t offset = (int64_t)b0 * quant_bytes(f);
            group.d = q->d + (int64_t)a0 * q->n_block + b0;
            group.sum = q->sum + (int64_t)a0 * q->n_block + b0;
            for (int32_t a = 0; a < group.n; a++) {
                score_query(f, q->i + (int64_t)(a0 + a) * q->ld + b0 * VARVE_BLOCK, n_block,
                            &group.query[a]);
            }
            for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
                const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
                if (a0 == 0) {
                    if (b0 == 0) vec_fetch_ahead(&args->ahead, r, VEC_LANES);
                    vec_prefetch(args->rows, args->n_row, r + VEC_LANES, VEC_LANES, offset,
                                 n_block * quant_bytes(f));
                }
                score_rows(f, &group, rows, args->n_row - r, offset, n_block, b0 == 0,
                           args->s + (int64_t)a0 * VARVE_TILE_ROWS + r);
            }
        }
    }
}

#define SCORE_QUANT(name, f) \
    void name(const struct varve_score_args *args) { score_quant(args, f); }

#endif
