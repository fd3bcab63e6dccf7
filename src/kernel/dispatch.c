#include "kernel/dispatch.h"

#include <string.h>

void varve_kernels_select(enum varve_isa isa, struct varve_kernels *kernels) {
    memset(kernels, 0, sizeof *kernels);
    kernels->isa = isa;
    /* Levels of one family are ordered, so "at most isa" is the mask; later lines win. */
#define VARVE_KERNEL(op, slot, level, symbol)  \
    if (VARVE_ISA_##level <= isa) {            \
        kernels->slot.run = symbol;            \
        kernels->slot.isa = VARVE_ISA_##level; \
        kernels->slot.name = #symbol;          \
    }
#include "kernel/kernels.inc"
#undef VARVE_KERNEL
}
