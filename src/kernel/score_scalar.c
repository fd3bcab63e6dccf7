#include "kernel/scalar.h"

#include <string.h>

/* n is a multiple of VARVE_LANES. */
static float dot(const float *restrict a, const float *restrict b, int32_t n) {
    float lane[VARVE_LANES] = {0};
    for (int32_t i = 0; i < n; i += VARVE_LANES) {
        for (int32_t j = 0; j < VARVE_LANES; j++) lane[j] += a[i + j] * b[i + j];
    }
    float sum = 0.0f;
    for (int32_t j = 0; j < VARVE_LANES; j++) sum += lane[j];
    return sum;
}

/* 16-bit factors: their product is exact, and the multiply-add instructions of x86 take them. */
static int32_t dot_i8(const int8_t *restrict a, const int8_t *restrict b) {
    int32_t sum = 0;
    for (int32_t j = 0; j < VARVE_BLOCK; j++) sum += (int16_t)a[j] * (int16_t)b[j];
    return sum;
}

void varve_score_exact_scalar(const struct varve_score_args *args) {
    const struct varve_queries *const q = args->q;
    float k[VARVE_PIECE];
    for (int32_t r = 0; r < args->n_row; r++) {
        for (int32_t from = 0; from < q->head_dim; from += VARVE_PIECE) {
            const int32_t n = varve_min_i32(q->head_dim - from, VARVE_PIECE);
            const int32_t padded = varve_round_up_16(n);
            args->format->decode(varve_row_piece(args->format, args->rows[r], from), n, k);
            memset(k + n, 0, (size_t)(padded - n) * sizeof *k);
            for (int32_t a = 0; a < q->n; a++) {
                float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS + r;
                const float sum = dot(q->f + (int64_t)a * q->ld + from, k, padded);
                *s = from == 0 ? sum : *s + sum;
            }
        }
    }
}

/* One piece of one row of K against one query. */
static float score_piece(const int8_t *restrict i, const float *restrict d,
                         const int32_t *restrict sum, const int8_t *restrict k,
                         const float *restrict dk, const float *restrict mk, int32_t n_block) {
    float s = 0.0f;
    for (int32_t b = 0; b < n_block; b++) {
        float part = dk[b] * (float)dot_i8(i + b * VARVE_BLOCK, k + b * VARVE_BLOCK);
        if (mk != NULL) part += mk[b] * (float)sum[b];
        s += d[b] * part;
    }
    return s;
}

void varve_score_q8_scalar(const struct varve_score_args *args) {
    const struct varve_queries *const q = args->q;
    int8_t k[VARVE_PIECE];
    float dk[VARVE_PIECE_BLOCKS], m[VARVE_PIECE_BLOCKS];
    const float *const mk = args->format->has_min ? m : NULL;
    for (int32_t r = 0; r < args->n_row; r++) {
        for (int32_t from = 0; from < q->head_dim; from += VARVE_PIECE) {
            const int32_t n = varve_min_i32(q->head_dim - from, VARVE_PIECE);
            args->format->split(varve_row_piece(args->format, args->rows[r], from), n, k, dk, m);
            for (int32_t a = 0; a < q->n; a++) {
                const int64_t block = (int64_t)a * q->n_block + from / VARVE_BLOCK;
                float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS + r;
                const float part = score_piece(q->i + (int64_t)a * q->ld + from, q->d + block,
                                               q->sum + block, k, dk, mk, n / VARVE_BLOCK);
                *s = from == 0 ? part : *s + part;
            }
        }
    }
}
