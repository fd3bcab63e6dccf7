#include "base/fp16.h"
#include "kernel/scalar.h"

bool varve_narrow_any_scalar(const struct varve_narrow_args *args) {
    bool finite = true;
    for (int64_t i = 0; i < args->n; i++) {
        args->h[i] = varve_f32_to_f16(args->x[i]);
        finite &= varve_f16_is_finite(args->h[i]);
    }
    return finite;
}
