#include "base/fp16.h"
#include "kernel/scalar.h"

void varve_narrow_any_scalar(const struct varve_narrow_args *args) {
    for (int64_t i = 0; i < args->n; i++) args->h[i] = varve_f32_to_f16(args->x[i]);
}
