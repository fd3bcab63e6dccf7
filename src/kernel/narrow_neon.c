#include "base/fp16.h"
#include "kernel/vec_neon.h"

bool varve_narrow_any_neon(const struct varve_narrow_args *args) {
    const uint16x4_t exponent = vdup_n_u16(0x7C00);
    uint16x4_t largest = vdup_n_u16(0); /* 0x7C00 with an infinity or a NaN */
    int64_t i = 0;
    for (; i + VEC_LANES <= args->n; i += VEC_LANES) {
        const uint16x4_t h = vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(args->x + i)));
        vst1_u16(args->h + i, h);
        largest = vmax_u16(largest, vand_u16(h, exponent));
    }
    bool finite = vmaxv_u16(largest) < 0x7C00;
    for (; i < args->n; i++) {
        args->h[i] = varve_f32_to_f16(args->x[i]);
        finite &= varve_f16_is_finite(args->h[i]);
    }
    return finite;
}
