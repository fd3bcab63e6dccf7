#include "kernel/scalar.h"

/* Rows and values decoded at once: a query's sums then stay in registers for ROWS rows. */
enum { ROWS = 8, VALUES = 64 };

void varve_fold_any_scalar(const struct varve_fold_args *args) {
    float v[ROWS * VALUES] = {0}; /* what a short last piece leaves is added to padding only */
    for (int32_t from = 0; from < args->head_dim; from += VALUES) {
        const int32_t n = varve_min_i32(args->head_dim - from, VALUES);
        for (int32_t r = 0; r < args->n_row; r += ROWS) {
            const int32_t n_row = varve_min_i32(args->n_row - r, ROWS);
            for (int32_t i = 0; i < n_row; i++) {
                args->format->decode(varve_row_piece(args->format, args->rows[r + i], from), n,
                                     v + i * VALUES);
            }
            for (int32_t a = 0; a < args->n; a++) {
                varve_fold_rows(args->o + (int64_t)a * args->ld + from, v, VALUES,
                                args->p + (int64_t)a * VARVE_TILE_ROWS + r,
                                r == 0 ? args->alpha[a] : 1.0f, n, n_row, args->sparse);
            }
        }
    }
}
