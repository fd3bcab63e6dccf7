/* The weights of many queries in 16 bits, for the files that fold packed blocks. */
#ifndef VARVE_KERNEL_PACKFOLD_VNNI_H
#define VARVE_KERNEL_PACKFOLD_VNNI_H

#include "kernel/foldq_vnni.h"

/* Queries whose weights are rounded together. */
enum { GROUP = FOLDQ_QUERIES };

/* Weights of up to GROUP queries for one block of columns. */
struct weights {
    int16_t w[GROUP][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float step[GROUP] __attribute__((aligned(64)));
    float min[GROUP]; /* sum of p m */
};

/* n queries from a0 on, whose units are given. */
VEC_INLINE void weigh(const struct varve_packfold_args *args, const struct units *units, int32_t a0,
                      int32_t n, int32_t b, const bool sparse, const bool has_min,
                      struct weights *weights) {
    const float *const p = args->p + (int64_t)a0 * VARVE_TILE_ROWS;
    const int64_t at = (int64_t)b * VARVE_TILE_ROWS;
    __mmask16 formed[FOLDQ_VECTORS];
    __m512 unit[FOLDQ_VECTORS];
    float step = 0;
    for (int32_t a = 0; a < n; a++) {
        if (sparse || a == 0) {
            formed_rows(p + a * VARVE_TILE_ROWS, args->n_row, sparse, formed);
            step = unit_steps(args->dv + at, formed, unit);
        }
        (void)round_weights(units->p[a], unit, weights->w[a]);
        weights->step[a] = units->largest[a] * step;
        if (has_min) {
            weights->min[a] = sum_of_minima(p + a * VARVE_TILE_ROWS, args->mv + at, formed);
        }
    }
}

#endif
