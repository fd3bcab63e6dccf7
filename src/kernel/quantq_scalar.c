#include "kernel/scalar.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Adding 1.5 * 2^23 leaves no bit below the units, so the addition itself rounds to nearest even;
 * exact for |x| < 2^22. */
#define ROUND_EVEN 12582912.0f

/* amax of a block, or NaN if it holds a NaN or an infinity. */
static float block_amax(const float *restrict x) {
    float amax = 0.0f;
    int32_t n_bad = 0;
    for (int32_t j = 0; j < VARVE_BLOCK; j++) {
        const float a = fabsf(x[j]);
        amax = amax > a ? amax : a;
        n_bad += !(a <= FLT_MAX);
    }
    return n_bad == 0 ? amax : NAN;
}

static int32_t quantize_block(const float *restrict x, float inverse, int8_t *restrict i,
                              float *restrict fi) {
    int32_t sum = 0;
    for (int32_t j = 0; j < VARVE_BLOCK; j++) {
        fi[j] = x[j] * inverse + ROUND_EVEN - ROUND_EVEN;
        i[j] = (int8_t)fi[j];
        sum += i[j];
    }
    return sum;
}

void varve_quantq_any_scalar(const struct varve_quantq_args *args) {
    for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
        const int32_t from = b * VARVE_BLOCK;
        const float amax = block_amax(args->x + from);
        const float inverse = 127.0f / amax;
        if (inverse <= FLT_MAX) {
            args->d[b] = amax / 127.0f;
            args->sum[b] = quantize_block(args->x + from, inverse, args->i + from, args->fi + from);
        } else {
            /* NaN, or all values below 127 / FLT_MAX: 4e-37 counts as zero */
            args->d[b] = isnan(amax) ? NAN : 0.0f;
            args->sum[b] = 0;
            memset(args->i + from, 0, VARVE_BLOCK * sizeof *args->i);
            memset(args->fi + from, 0, VARVE_BLOCK * sizeof *args->fi);
        }
    }
}
