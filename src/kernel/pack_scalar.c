#include "kernel/foldq_scalar.h"

#include <string.h>

/* The block of a row that begins with value `from`; zeros past the last row. */
static void split_row(const struct varve_format_traits *format, const uint8_t *const *rows,
                      int32_t n_row, int32_t r, int32_t from, int8_t q[VARVE_BLOCK], float *d,
                      float *m) {
    memset(q, 0, VARVE_BLOCK);
    *d = *m = 0;
    if (r < n_row) format->split(varve_row_piece(format, rows[r], from), VARVE_BLOCK, q, d, m);
}

void varve_packk_any_scalar(const struct varve_packk_args *args) {
    const int32_t n_block = args->head_dim / VARVE_BLOCK;
    for (int32_t b = 0; b < n_block; b++) {
        float *const dk = args->dk + (int64_t)b * VARVE_TILE_ROWS;
        float *const mk = args->mk + (int64_t)b * VARVE_TILE_ROWS;
        uint32_t *const x = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS;
        for (int32_t r = 0; r < (args->n_row + 15) / 16 * 16; r++) {
            int8_t q[VARVE_BLOCK];
            float d, m;
            split_row(args->format, args->rows, args->n_row, r, b * VARVE_BLOCK, q, &d, &m);
            dk[r] = d;
            if (args->format->has_min) mk[r] = m;
            for (int32_t j = 0; j < VARVE_BLOCK / 4; j++) {
                uint8_t byte[4];
                for (int32_t i = 0; i < 4; i++) byte[i] = (uint8_t)(q[4 * j + i] + 128);
                memcpy(&x[j * VARVE_TILE_ROWS + r], byte, sizeof byte);
            }
        }
    }
}

static int32_t dot_block(const uint32_t *x, const int8_t *i) {
    int32_t sum = 0;
    for (int32_t j = 0; j < VARVE_BLOCK / 4; j++) {
        uint8_t byte[4];
        memcpy(byte, &x[j * VARVE_TILE_ROWS], sizeof byte);
        for (int32_t n = 0; n < 4; n++) sum += (byte[n] - 128) * i[4 * j + n];
    }
    return sum;
}

void varve_packscore_q8_scalar(const struct varve_packscore_args *args) {
    const struct varve_queries *const q = args->q;
    for (int32_t a = 0; a < q->n; a++) {
        for (int32_t r = 0; r < args->n_row; r++) {
            float s = 0;
            for (int32_t b = 0; b < q->n_block; b++) {
                const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r;
                const uint32_t *const x = args->x + (int64_t)b * 8 * VARVE_TILE_ROWS + r;
                const int8_t *const i = q->i + (int64_t)a * q->ld + b * VARVE_BLOCK;
                float part = args->dk[at] * (float)dot_block(x, i);
                if (args->mk != NULL) {
                    part += args->mk[at] * (float)q->sum[(int64_t)a * q->n_block + b];
                }
                s += q->d[(int64_t)a * q->n_block + b] * part;
            }
            args->s[(int64_t)a * VARVE_TILE_ROWS + r] = s;
        }
    }
}

void varve_packv_any_scalar(const struct varve_packv_args *args) {
    for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
        int16_t(*const x)[2] = args->x + (int64_t)b * VARVE_TILE_ROWS / 2 * VARVE_BLOCK;
        float *const dv = args->dv + (int64_t)b * VARVE_TILE_ROWS;
        float *const mv = args->mv + (int64_t)b * VARVE_TILE_ROWS;
        for (int32_t r = 0; r < VARVE_TILE_ROWS; r++) {
            int8_t q[VARVE_BLOCK];
            float d, m;
            split_row(args->format, args->rows, args->n_row, r, b * VARVE_BLOCK, q, &d, &m);
            dv[r] = d;
            if (args->format->has_min) mv[r] = m;
            for (int32_t c = 0; c < VARVE_BLOCK; c++) x[r / 2 * VARVE_BLOCK + c][r % 2] = q[c];
        }
    }
}

void varve_packfold_any_scalar(const struct varve_packfold_args *args) {
    const struct rounded_fold fold = {args->n,          args->ld, args->n_row, args->sparse,
                                      args->mv != NULL, args->p,  args->alpha, args->o};
    struct rounded_block block;
    for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
        const int16_t(*const x)[2] = args->x + (int64_t)b * VARVE_TILE_ROWS / 2 * VARVE_BLOCK;
        for (int32_t r = 0; r < args->n_row; r++) {
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r;
            block.d[r] = args->dv[at];
            block.m[r] = fold.has_min ? args->mv[at] : 0;
            for (int32_t c = 0; c < VARVE_BLOCK; c++) {
                block.q[r][c] = (int8_t)x[r / 2 * VARVE_BLOCK + c][r % 2];
            }
        }
        varve_fold_rounded(&fold, b * VARVE_BLOCK, &block);
    }
}
