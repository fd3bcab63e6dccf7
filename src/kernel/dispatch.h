/* The kernel list as prototypes and as a table for an ISA level. */
#ifndef VARVE_KERNEL_DISPATCH_H
#define VARVE_KERNEL_DISPATCH_H

#include "kernel/kernel.h"

#define VARVE_KERNEL(op, slot, isa, symbol) varve_##op##_fn symbol;
#include "kernel/kernels.inc"
#undef VARVE_KERNEL

/* Fills the table with the best kernel of each slot among the levels that `isa` contains. */
void varve_kernels_select(enum varve_isa isa, struct varve_kernels *kernels);

#endif
