/* ISA levels: which exist in this build, which this CPU has. */
#ifndef VARVE_BASE_ISA_H
#define VARVE_BASE_ISA_H

#include <stdbool.h>

enum varve_isa {
#define VARVE_ISA(suffix, base, name, text) VARVE_ISA_##suffix,
#include "base/isa.inc"
#undef VARVE_ISA
    VARVE_ISA_COUNT
};

/* Name of a level, and what a CPU must have for it; NULL outside the enum. */
const char *varve_isa_text(enum varve_isa isa);
const char *varve_isa_needs(enum varve_isa isa);

/* Whether the bundle `isa` contains `level`; it contains itself. */
bool varve_isa_contains(enum varve_isa isa, enum varve_isa level);

/* Whether CPU and operating system have the level. */
bool varve_isa_available(enum varve_isa isa);

/* The same, having asked the operating system for what it gives on request only: the tile registers
 * of AMX. They make the frames of signal handlers larger, so nobody asks before a level is used. */
bool varve_isa_enable(enum varve_isa isa);

/* Whether a level is used only where it is asked for by name: no CPU has run its kernels yet. */
bool varve_isa_by_name_only(enum varve_isa isa);

/* Strongest level available of the others. */
enum varve_isa varve_isa_best(void);

#endif
