/* f32: four bytes of IEEE binary32, as they are in memory. */
#include "format/block.h"

#include <string.h>

void varve_encode_f32(const float *src, int64_t n, void *dst) {
    memcpy(dst, src, (size_t)n * sizeof *src);
}

void varve_decode_f32(const void *src, int64_t n, float *dst) {
    memcpy(dst, src, (size_t)n * sizeof *dst);
}
