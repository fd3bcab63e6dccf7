/* f16: two bytes of IEEE binary16, rounded to nearest even. */
#include "format/block.h"

void varve_encode_f16(const float *src, int64_t n, void *dst) {
    uint8_t *const restrict p = dst;
    for (int64_t i = 0; i < n; i++) varve_store_u16(p + 2 * i, varve_f32_to_f16(src[i]));
}

void varve_decode_f16(const void *src, int64_t n, float *dst) {
    const uint8_t *const p = src;
    float *const restrict out = dst;
    for (int64_t i = 0; i < n; i++) out[i] = varve_f16_to_f32(varve_load_u16(p + 2 * i));
}
