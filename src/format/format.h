/* How one K or V row is stored: bytes only, nothing of attention. One row of formats.inc and one
 * file per format; the scalar code in that file is the definition of the format.
 *
 * Every quantized format has blocks of 32 values and the one shape
 *     value = d * q + m        q an 8-bit integer, d and m F32 per block (m is 0 without has_min),
 * so that kernels without code of their own for a format can work on its parts.
 */
#ifndef VARVE_FORMAT_FORMAT_H
#define VARVE_FORMAT_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "varve/varve.h"

#define VARVE_BLOCK 32 /* values per block of each quantized format, and of quantized Q */

struct varve_format_traits {
    enum varve_format format;
    const char *name;
    int32_t block_values;
    int32_t block_bytes;
    bool quantized;
    bool has_min;
    /* n values, a multiple of block_values; src and dst do not overlap and need no alignment. */
    void (*encode)(const float *src, int64_t n, void *dst);
    void (*decode)(const void *src, int64_t n, float *dst);
    /* Quantized formats only, else NULL: the parts of each block. d and m have n / 32 entries; m is
     * not written without has_min. */
    void (*split)(const void *src, int64_t n, int8_t *q, float *d, float *m);
};

/* NULL for a value outside the enum. */
const struct varve_format_traits *varve_format_traits(enum varve_format format);

#endif
