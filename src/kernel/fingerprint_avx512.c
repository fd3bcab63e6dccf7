#include "kernel/dispatch.h" /* the prototypes */

/* xxhash takes the vectors that this file is compiled for. */
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t varve_fingerprint_any_avx512(const struct varve_fingerprint_args *args) {
    return XXH3_64bits(args->row, args->bytes);
}
