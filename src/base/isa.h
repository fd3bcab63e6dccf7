/* ISA levels: which exist in this build, which this CPU has. */
#ifndef VARVE_BASE_ISA_H
#define VARVE_BASE_ISA_H

#include <stdbool.h>

enum varve_isa {
#define VARVE_ISA(suffix, name, text) VARVE_ISA_##suffix,
#include "base/isa.inc"
#undef VARVE_ISA
    VARVE_ISA_COUNT
};

/* Name of a level, NULL outside the enum. */
const char *varve_isa_text(enum varve_isa isa);

/* Whether CPU and operating system have the level. */
bool varve_isa_available(enum varve_isa isa);

/* The same, having asked the operating system for what it gives on request only: the tile registers
 * of AMX. They make the frames of signal handlers larger, so nobody asks before a level is used. */
bool varve_isa_enable(enum varve_isa isa);

/* Strongest level that can be enabled. */
enum varve_isa varve_isa_best(void);

#endif
