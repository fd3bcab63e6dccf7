#include "kernel/scalar.h"

#include <string.h>

/* Rows and values transposed at once: 16 rows fill one cache line of the tile per value. */
enum { ROWS = 16, VALUES = 32 };

void varve_unpackk_exact_scalar(const struct varve_unpackk_args *args) {
    float k[ROWS][VALUES];
    for (int32_t r = 0; r < args->n_row; r += ROWS) {
        const int32_t n_row = varve_min_i32(args->n_row - r, ROWS);
        memset(k, 0, sizeof k); /* rows past the last become zero columns */
        for (int32_t from = 0; from < args->head_dim; from += VALUES) {
            const int32_t n = varve_min_i32(args->head_dim - from, VALUES);
            for (int32_t i = 0; i < n_row; i++) {
                args->format->decode(varve_row_piece(args->format, args->rows[r + i], from), n,
                                     k[i]);
            }
            for (int32_t d = 0; d < n; d++) {
                float *const t = args->t + (int64_t)(from + d) * VARVE_TILE_ROWS + r;
                for (int32_t i = 0; i < ROWS; i++) t[i] = k[i][d];
            }
        }
    }
}

void varve_unpackk_q8_scalar(const struct varve_unpackk_args *args) {
    int8_t k[ROWS][VALUES];
    float dk[ROWS], mk[ROWS];
    for (int32_t r = 0; r < args->n_row; r += ROWS) {
        const int32_t n_row = varve_min_i32(args->n_row - r, ROWS);
        memset(k, 0, sizeof k); /* rows past the last become zero columns */
        memset(dk, 0, sizeof dk);
        memset(mk, 0, sizeof mk);
        for (int32_t from = 0; from < args->head_dim; from += VALUES) {
            for (int32_t i = 0; i < n_row; i++) {
                args->format->split(varve_row_piece(args->format, args->rows[r + i], from), VALUES,
                                    k[i], &dk[i], &mk[i]);
            }
            for (int32_t d = 0; d < VALUES; d++) {
                float *const t = args->t + (int64_t)(from + d) * VARVE_TILE_ROWS + r;
                for (int32_t i = 0; i < ROWS; i++) t[i] = (float)k[i][d];
            }
            const int64_t block = (int64_t)(from / VARVE_BLOCK) * VARVE_TILE_ROWS + r;
            memcpy(args->dk + block, dk, sizeof dk);
            if (args->format->has_min) memcpy(args->mk + block, mk, sizeof mk);
        }
    }
}

void varve_unpackv_any_scalar(const struct varve_unpackv_args *args) {
    for (int32_t r = 0; r < args->n_row; r++) {
        float *const v = args->v + (int64_t)r * args->ld;
        args->format->decode(args->rows[r], args->head_dim, v);
        memset(v + args->head_dim, 0, (size_t)(args->ld - args->head_dim) * sizeof *v);
    }
}
