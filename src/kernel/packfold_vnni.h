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

/* Blocks of columns whose units are kept while queries pass. */
enum { PACKFOLD_BLOCKS = 16 };

struct steps {
    int16_t unit[PACKFOLD_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float step[PACKFOLD_BLOCKS]; /* of queries whose largest p is 1 */
};

/* Of n blocks from b0 on. */
VEC_INLINE void steps_of(const struct varve_packfold_args *args, int32_t b0, int32_t n,
                         struct steps *steps) {
    load_steps(args->dv + (int64_t)b0 * VARVE_TILE_ROWS, args->n_row, n, steps->unit, steps->step);
}

/* n queries from a0 on, whose units are given, and block b0 + b. */
VEC_INLINE void weigh(const struct varve_packfold_args *args, const struct units *units,
                      const struct steps *steps, int32_t a0, int32_t n, int32_t b0, int32_t b,
                      const bool sparse, const bool has_min, struct weights *weights) {
    const float *const p = args->p + (int64_t)a0 * VARVE_TILE_ROWS;
    const int64_t at = (int64_t)(b0 + b) * VARVE_TILE_ROWS;
    int16_t own[VARVE_TILE_ROWS] __attribute__((aligned(64)));
    __mmask16 formed[FOLDQ_VECTORS];
    __m512i d[2];
    float step = 0;
    if (!sparse) {
        valid_rows(args->n_row, formed);
        load_unit(steps->unit[b], d);
        step = steps->step[b];
    }
    for (int32_t a = 0; a < n; a++) {
        if (sparse) {
            formed_rows(p + a * VARVE_TILE_ROWS, args->n_row, true, formed);
            step = unit_steps(args->dv + at, formed, own);
            load_unit(own, d);
        }
        (void)multiply_units(units->p[a], d, weights->w[a]);
        weights->step[a] = units->largest[a] * step;
        if (has_min) {
            weights->min[a] = sum_of_minima(p + a * VARVE_TILE_ROWS, args->mv + at, formed);
        }
    }
}

#endif
