#include "kernel/scalar.h"

#include <math.h>
#include <stddef.h>

/* One block of values of all rows, and the weights of one query for it. */
struct block {
    int8_t q[VARVE_TILE_ROWS][VARVE_BLOCK];
    float d[VARVE_TILE_ROWS], m[VARVE_TILE_ROWS];
    int32_t w[VARVE_TILE_ROWS];
    float step, min;
};

/* A NaN stays the largest, and makes the step NaN. */
static float larger(float a, float b) { return b > a || b != b ? b : a; }

static void round_weights(const struct varve_fold_args *args, int32_t a, struct block *block) {
    const float *const p = args->p + (int64_t)a * VARVE_TILE_ROWS;
    float t[VARVE_TILE_ROWS], largest = 0;
    block->min = 0;
    for (int32_t r = 0; r < args->n_row; r++) {
        const bool formed = !args->sparse || p[r] != 0.0f;
        t[r] = formed ? p[r] * block->d[r] : 0;
        if (largest == largest) largest = larger(largest, fabsf(t[r]));
        if (formed && args->format->has_min) block->min += p[r] * block->m[r];
    }
    const float step = largest / 32767.0f;
    block->step = step < 0x1p-126f ? 0x1p-126f : step;
    const float inverse = 1.0f / block->step;
    for (int32_t r = 0; r < args->n_row; r++) {
        block->w[r] = isfinite(largest) ? (int32_t)nearbyintf(t[r] * inverse) : 0;
    }
}

void varve_foldq_any_scalar(const struct varve_fold_args *args) {
    struct block block;
    for (int32_t from = 0; from < args->head_dim; from += VARVE_BLOCK) {
        for (int32_t r = 0; r < args->n_row; r++) {
            args->format->split(varve_row_piece(args->format, args->rows[r], from), VARVE_BLOCK,
                                block.q[r], &block.d[r], &block.m[r]);
        }
        for (int32_t a = 0; a < args->n; a++) {
            float *const o = args->o + (int64_t)a * args->ld + from;
            const float alpha = args->alpha[a];
            int32_t sum[VARVE_BLOCK] = {0};
            round_weights(args, a, &block);
            for (int32_t r = 0; r < args->n_row; r++) {
                for (int32_t j = 0; j < VARVE_BLOCK; j++) sum[j] += block.w[r] * block.q[r][j];
            }
            for (int32_t j = 0; j < VARVE_BLOCK; j++) {
                const float old = alpha == 0.0f ? 0 : alpha * o[j];
                o[j] = old + block.step * (float)sum[j] + block.min;
            }
        }
    }
}
