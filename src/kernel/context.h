/* A context: what the host lends, and the kernel table. */
#ifndef VARVE_KERNEL_CONTEXT_H
#define VARVE_KERNEL_CONTEXT_H

#include "base/host.h"
#include "kernel/kernel.h"

struct varve_context {
    struct varve_host host;
    struct varve_kernels kernels;
};

#endif
