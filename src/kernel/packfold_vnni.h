/* The weights of many queries in 16 bits, for the files that fold packed blocks. */
#ifndef VARVE_KERNEL_PACKFOLD_VNNI_H
#define VARVE_KERNEL_PACKFOLD_VNNI_H

#include "kernel/foldq_vnni.h"

/* Queries whose weights are rounded together, one to a lane of the divisions. */
enum { GROUP = 16 };

/* Weights of up to GROUP queries for one block of columns. */
struct weights {
    int16_t w[GROUP][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float step[GROUP] __attribute__((aligned(64)));
    float min[GROUP]; /* sum of p m */
};

VEC_INLINE void weigh(const struct varve_packfold_args *args, int32_t a0, int32_t n, int32_t b,
                      const bool sparse, const bool has_min, struct weights *weights) {
    const float *const p = args->p + (int64_t)a0 * VARVE_TILE_ROWS;
    const float *const d = args->dv + (int64_t)b * VARVE_TILE_ROWS;
    float inverse[GROUP] __attribute__((aligned(64)));
    __mmask16 valid[FOLDQ_VECTORS];
    __m512i all[GROUP / 4];
    struct row_weights row;
    valid_rows(args->n_row, valid);
    for (int32_t a = 0; a < GROUP; a += 4) {
        __m512i x[4];
        VEC_UNROLL
        for (int32_t k = 0; k < 4; k++) {
            x[k] = _mm512_setzero_si512();
            if (a + k >= n) continue;
            load_row_weights(p + (a + k) * VARVE_TILE_ROWS, valid, sparse, &row);
            x[k] = largest_product(&row, d);
            if (has_min) {
                weights->min[a + k] = sum_of_minima(&row, args->mv + (int64_t)b * VARVE_TILE_ROWS);
            }
        }
        all[a / 4] = reduce_4(x, false);
    }
    _mm512_store_ps(weights->step, steps_of(reduce_quarters(all, false), inverse));
    for (int32_t a = 0; a < n; a++) {
        load_row_weights(p + a * VARVE_TILE_ROWS, valid, sparse, &row);
        (void)round_weights(&row, d, inverse[a], weights->w[a]);
    }
}

#endif
