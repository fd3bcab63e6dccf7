#include "base/fp16.h"
#include "kernel/vec_neon.h"

void varve_narrow_any_neon(const struct varve_narrow_args *args) {
    int64_t i = 0;
    for (; i + VEC_LANES <= args->n; i += VEC_LANES) {
        vst1_u16(args->h + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(args->x + i))));
    }
    for (; i < args->n; i++) args->h[i] = varve_f32_to_f16(args->x[i]);
}
