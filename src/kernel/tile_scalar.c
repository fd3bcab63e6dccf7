#include "kernel/scalar.h"

#include <string.h>

/* Columns of the tile that are summed at once, in registers. */
#define COLUMNS VARVE_LANES

void varve_tilescore_exact_scalar(const struct varve_tilescore_args *args) {
    const struct varve_queries *const q = args->q;
    for (int32_t a = 0; a < q->n; a++) {
        const float *const f = q->f + (int64_t)a * q->ld;
        float *const s = args->s + (int64_t)a * VARVE_TILE_ROWS;
        for (int32_t r = 0; r < args->n_row; r += COLUMNS) {
            float sum[COLUMNS] = {0};
            const float *restrict t = args->t + r;
            for (int32_t d = 0; d < q->head_dim; d++, t += VARVE_TILE_ROWS) {
                for (int32_t j = 0; j < COLUMNS; j++) sum[j] += f[d] * t[j];
            }
            memcpy(s + r, sum, sizeof sum);
        }
    }
}

/* s += d * (dk * I + mk * sum) for one block and COLUMNS rows; I is exact in F32. */
static void score_block(const float *restrict fi, const float *restrict t, float d,
                        const float *restrict dk, const float *restrict mk, float q_sum,
                        float *restrict s) {
    float sum[COLUMNS] = {0};
    for (int32_t i = 0; i < VARVE_BLOCK; i++, t += VARVE_TILE_ROWS) {
        for (int32_t j = 0; j < COLUMNS; j++) sum[j] += fi[i] * t[j];
    }
    if (mk == NULL) {
        for (int32_t j = 0; j < COLUMNS; j++) s[j] += d * (dk[j] * sum[j]);
    } else {
        for (int32_t j = 0; j < COLUMNS; j++) s[j] += d * (dk[j] * sum[j] + mk[j] * q_sum);
    }
}

void varve_tilescore_q8_scalar(const struct varve_tilescore_args *args) {
    const struct varve_queries *const q = args->q;
    for (int32_t a = 0; a < q->n; a++) {
        const float *const fi = q->fi + (int64_t)a * q->ld;
        const float *const d = q->d + (int64_t)a * q->n_block;
        const int32_t *const q_sum = q->sum + (int64_t)a * q->n_block;
        for (int32_t r = 0; r < args->n_row; r += COLUMNS) {
            float sum[COLUMNS] = {0};
            for (int32_t b = 0; b < q->n_block; b++) {
                const int64_t block = (int64_t)b * VARVE_TILE_ROWS + r;
                score_block(fi + b * VARVE_BLOCK,
                            args->t + (int64_t)b * VARVE_BLOCK * VARVE_TILE_ROWS + r, d[b],
                            args->dk + block, args->mk != NULL ? args->mk + block : NULL,
                            (float)q_sum[b], sum);
            }
            memcpy(args->s + (int64_t)a * VARVE_TILE_ROWS + r, sum, sizeof sum);
        }
    }
}

void varve_tilefold_any_scalar(const struct varve_tilefold_args *args) {
    for (int32_t a = 0; a < args->n; a++) {
        varve_fold_rows(args->o + (int64_t)a * args->ld, args->v, args->ld,
                        args->p + (int64_t)a * VARVE_TILE_ROWS, args->alpha[a], args->head_dim,
                        args->n_row, args->sparse);
    }
}
