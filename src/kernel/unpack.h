/* What is the same in the unpacking kernels of every width. A file that includes it, behind the
 * vec_*.h and quant_*.h of its ISA, defines the three functions that are declared first. */
#ifndef VARVE_KERNEL_UNPACK_H
#define VARVE_KERNEL_UNPACK_H

#include "kernel/quant.h"

/* VEC_LANES rows x up to VEC_LANES columns. Missing rows are zero without being read. */
VEC_INLINE void unpack_square(const enum varve_format f, const uint8_t *const *rows, int32_t n_row,
                              int32_t c, int32_t n_column, float *t);

/* The integers of one block; those of rows past the last are zero. */
VEC_INLINE void unpack_block(const enum varve_format f, const uint8_t *const *rows, int64_t offset,
                             vec_mask valid, float *t);

/* Rows past the last become zero columns. */
VEC_INLINE void store_column(float *t, vec_mask valid, vec_f32 x);

/* The tile's columns are complete up to a multiple of 16. */
VEC_INLINE int32_t tile_columns(int32_t n_row) { return (n_row + 15) / 16 * 16; }

VEC_INLINE void unpackk_float(const struct varve_unpackk_args *args, const enum varve_format f) {
    for (int32_t r = 0; r < tile_columns(args->n_row); r += VEC_LANES) {
        vec_fetch_ahead(&args->ahead, r, VEC_LANES);
        for (int32_t c = 0; c < args->head_dim; c += VEC_LANES) {
            unpack_square(f, args->rows + r, args->n_row - r, c, args->head_dim - c,
                          args->t + (int64_t)c * VARVE_TILE_ROWS + r);
        }
    }
}

VEC_INLINE void unpackk_quant(const struct varve_unpackk_args *args, const enum varve_format f) {
    const uint8_t *spare[VEC_LANES];
    for (int32_t r = 0; r < tile_columns(args->n_row); r += VEC_LANES) {
        vec_fetch_ahead(&args->ahead, r, VEC_LANES);
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        const vec_mask valid = vec_first(args->n_row - r);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * quant_bytes(f);
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r;
            unpack_block(f, rows, offset, valid,
                         args->t + (int64_t)b * VARVE_BLOCK * VARVE_TILE_ROWS + r);
            store_column(args->dk + at, valid, vec_gather_f16(rows, offset));
            if (quant_has_min(f)) {
                store_column(args->mk + at, valid, vec_gather_f16(rows, offset + 2));
            }
        }
    }
}

#define UNPACKK(name, kind, f) \
    void name(const struct varve_unpackk_args *args) { unpackk_##kind(args, f); }
#define UNPACKV(name, kind, f) \
    void name(const struct varve_unpackv_args *args) { unpackv_##kind(args, f); }

#endif
