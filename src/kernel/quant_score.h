/* Scores of quantized rows, VEC_LANES at once. A lane is a row: the codes of the rows are
 * transposed by groups of four bytes and multiplied with four bytes of Q in every lane. That costs
 * a transpose per VEC_LANES rows but no horizontal sums, and the block scales of the rows make one
 * vector. The bias of the codes comes in through the sum of Q.
 *
 * Included at the end of a file that has the integer dot product of its ISA level:
 *     struct score_codes, score_codes   what it makes of the codes, once for all queries
 *     struct score_query, score_query   what it makes of a piece of a query, once for all rows
 *     score_dot                         the sum of code - bias times Q over block b, where q_sum is
 *                                       the sum of Q
 *     score_dot_pair                    the same for two queries at once, where the file has it and
 *                                       defines SCORE_PAIR */
#ifndef VARVE_KERNEL_QUANT_SCORE_H
#define VARVE_KERNEL_QUANT_SCORE_H

/* half[b][r] = the half float at offset + b * step of VEC_LANES rows, for a piece. */
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

/* sum[a] += d_a * (dk * I + mk * sum of Q), I the integer sum of block b. */
VEC_INLINE void score_add(const enum varve_format f, const struct score_group *group, int32_t a,
                          int32_t b, vec_i32 i, vec_f32 dk, vec_f32 mk, vec_f32 *sum) {
    const int64_t at = (int64_t)a * group->n_block + b;
    vec_f32 part = vec_mul(vec_to_f32(i), dk);
    if (quant_has_min(f)) part = vec_fma(mk, vec_all((float)group->sum[at]), part);
    sum[a] = vec_fma(part, vec_all(group->d[at]), sum[a]);
}

/* VEC_LANES rows of one block. */
VEC_INLINE void score_block(const enum varve_format f, const struct score_group *group, int32_t b,
                            const uint8_t *const *rows, int64_t offset, vec_f32 dk, vec_f32 mk,
                            vec_f32 *sum) {
    vec_i32 x[8];
    struct score_codes codes;
    int32_t a = 0;
    quant_load_codes(f, rows, offset, x);
    score_codes(f, x, &codes);
#ifdef SCORE_PAIR
    for (; a + 2 <= group->n; a += 2) {
        vec_i32 i[2];
        score_dot_pair(&codes, &group->query[a], b, i);
        score_add(f, group, a, b, i[0], dk, mk, sum);
        score_add(f, group, a + 1, b, i[1], dk, mk, sum);
    }
#endif
    for (; a < group->n; a++) {
        const int32_t q_sum = group->sum[(int64_t)a * group->n_block + b];
        const vec_i32 i = score_dot(f, &codes, &group->query[a], b, q_sum);
        score_add(f, group, a, b, i, dk, mk, sum);
    }
}

/* n_block blocks of n_row <= VEC_LANES rows from offset on; the first piece of a row begins its
 * sums. */
VEC_INLINE void score_rows(const enum varve_format f, const struct score_group *group,
                           const uint8_t *const *rows, int32_t n_row, int64_t offset,
                           int32_t n_block, bool first, float *s) {
    uint16_t dk[SCORE_PIECE * VEC_LANES] __attribute__((aligned(64)));
    uint16_t mk[SCORE_PIECE * VEC_LANES] __attribute__((aligned(64)));
    vec_f32 sum[SCORE_GROUP];
    const vec_mask valid = vec_first(n_row);
    score_gather(rows, offset, quant_bytes(f), n_block, dk);
    if (quant_has_min(f)) score_gather(rows, offset + 2, quant_bytes(f), n_block, mk);
    for (int32_t a = 0; a < group->n; a++) {
        sum[a] = first ? vec_zero() : vec_load_some(valid, s + a * VARVE_TILE_ROWS);
    }
    for (int32_t b = 0; b < n_block; b++) {
        score_block(f, group, b, rows, offset + (int64_t)b * quant_bytes(f),
                    vec_load_halves(dk + b * VEC_LANES),
                    quant_has_min(f) ? vec_load_halves(mk + b * VEC_LANES) : vec_zero(), sum);
    }
    for (int32_t a = 0; a < group->n; a++) {
        vec_store_some(s + a * VARVE_TILE_ROWS, valid, sum[a]);
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
