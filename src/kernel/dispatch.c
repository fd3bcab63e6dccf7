#include "kernel/dispatch.h"

#include <string.h>

void varve_kernels_select(enum varve_isa isa, struct varve_kernels *kernels) {
    memset(kernels, 0, sizeof *kernels);
    kernels->isa = isa;
    /* What the bundle contains is the mask; later lines win. */
#define VARVE_KERNEL(op, slot, level, symbol)         \
    if (varve_isa_contains(isa, VARVE_ISA_##level)) { \
        kernels->slot.run = symbol;                   \
        kernels->slot.isa = VARVE_ISA_##level;        \
        kernels->slot.name = #symbol;                 \
    }
#include "kernel/kernels.inc"
#undef VARVE_KERNEL
}
