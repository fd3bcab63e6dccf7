/* Words of 64 bits, one for each row, and the entries of an F16 mask row that hide nothing (are not
 * -inf). */
#ifndef VARVE_BASE_MASK_H
#define VARVE_BASE_MASK_H

#include <stdint.h>

#include "base/fp16.h"

/* The lowest n bits; n of any size. */
static inline uint64_t varve_low_bits(int64_t n) {
    return n >= 64 ? UINT64_MAX : n <= 0 ? 0 : (UINT64_C(1) << n) - 1;
}

/* Number of entries that are not -inf. Vectorised by compilers; n of any length. */
static inline int64_t varve_mask_count(const uint16_t *row, int64_t n) {
    int64_t n_visible = 0;
    while (n > 0) {
        const int32_t part = n < 16384 ? (int32_t)n : 16384; /* counts stay inside 16 bits */
        int16_t n_hidden = 0;
        for (int32_t j = 0; j < part; j++) {
            n_hidden = (int16_t)(n_hidden + (row[j] == VARVE_F16_NEG_INF));
        }
        n_visible += part - n_hidden;
        row += part;
        n -= part;
    }
    return n_visible;
}

/* Bit j: entry j is visible; n <= 64. All or nothing is the common case and is settled fast. */
static inline uint64_t varve_mask_bits(const uint16_t *row, int32_t n) {
    const int64_t n_visible = varve_mask_count(row, n);
    if (n_visible == 0) return 0;
    uint64_t bits = UINT64_MAX >> (64 - n);
    if (n_visible == n) return bits;
    bits = 0;
    for (int32_t j = 0; j < n; j++) bits |= (uint64_t)(row[j] != VARVE_F16_NEG_INF) << j;
    return bits;
}

#endif
