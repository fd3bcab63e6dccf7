/* Folding with weights in 16 bits, whatever form the rows come in. */
#ifndef VARVE_KERNEL_FOLDQ_SCALAR_H
#define VARVE_KERNEL_FOLDQ_SCALAR_H

#include <math.h>
#include <stddef.h>

#include "kernel/scalar.h"

/* What all forms of arguments have. */
struct rounded_fold {
    int32_t n, ld, n_row;
    bool sparse, has_min;
    const float *p, *alpha;
    float *o;
};

/* One block of values of all rows, and the weights of one query for it. */
struct rounded_block {
    int8_t q[VARVE_TILE_ROWS][VARVE_BLOCK];
    float d[VARVE_TILE_ROWS], m[VARVE_TILE_ROWS];
    int32_t w[VARVE_TILE_ROWS];
    float step, min;
};

/* A NaN stays the largest, and makes the step NaN. */
static inline float varve_larger(float a, float b) { return b > a || b != b ? b : a; }

static inline void varve_round_weights(const struct rounded_fold *fold, int32_t a,
                                       struct rounded_block *block) {
    const float *const p = fold->p + (int64_t)a * VARVE_TILE_ROWS;
    float largest_p = 0x1p-100f, largest_d = 0x1p-100f;
    block->min = 0;
    for (int32_t r = 0; r < fold->n_row; r++) {
        if (fold->sparse && p[r] == 0.0f) continue;
        if (largest_p == largest_p) largest_p = varve_larger(largest_p, p[r]);
        if (largest_d == largest_d) largest_d = varve_larger(largest_d, fabsf(block->d[r]));
        if (fold->has_min) block->min += p[r] * block->m[r];
    }
    block->step = largest_p * (largest_d * FOLDQ_STEP);
    const float p_factor = 32767.0f / largest_p, d_factor = 32767.0f / largest_d;
    for (int32_t r = 0; r < fold->n_row; r++) {
        block->w[r] = 0;
        if ((fold->sparse && p[r] == 0.0f) || !isfinite(block->step)) continue;
        const int32_t u = (int32_t)nearbyintf(p[r] * p_factor);
        const int32_t t = (int32_t)nearbyintf(block->d[r] * d_factor);
        block->w[r] = (u * t + (1 << 14)) >> 15;
    }
}

/* The columns from `from` on of all queries. */
static inline void varve_fold_rounded(const struct rounded_fold *fold, int32_t from,
                                      struct rounded_block *block) {
    for (int32_t a = 0; a < fold->n; a++) {
        float *const o = fold->o + (int64_t)a * fold->ld + from;
        const float alpha = fold->alpha[a];
        int32_t sum[VARVE_BLOCK] = {0};
        varve_round_weights(fold, a, block);
        for (int32_t r = 0; r < fold->n_row; r++) {
            for (int32_t j = 0; j < VARVE_BLOCK; j++) sum[j] += block->w[r] * block->q[r][j];
        }
        for (int32_t j = 0; j < VARVE_BLOCK; j++) {
            const float old = alpha == 0.0f ? 0 : alpha * o[j];
            o[j] = old + block->step * (float)sum[j] + block->min;
        }
    }
}

#endif
