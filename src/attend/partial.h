/* Partial states of chunks in scratch, and results. */
#ifndef VARVE_ATTEND_PARTIAL_H
#define VARVE_ATTEND_PARTIAL_H

#include "attend/plan.h"
#include "attend/state.h"

/* Number of the partial state of (chunk, b, i, h). */
int64_t varve_partial_at(const struct varve_plan *plan, int64_t chunk, int64_t b, int64_t i,
                         int32_t h);

/* m and s of partial state `at`, and its o. */
float *varve_partial_ms(const struct varve_plan *plan, void *scratch, int64_t at);
float *varve_partial_o(const struct varve_plan *plan, void *scratch, int64_t at);

/* Where a complete record goes: into the caller's state, or divided into the output. */
void varve_partial_deliver(const struct varve_plan *plan, const struct varve_io *io, int64_t b,
                           int64_t i, int32_t h, const struct varve_record *record);

/* Task `number` of phase 1. */
void varve_partial_merge(const struct varve_plan *plan, const struct varve_io *io, void *scratch,
                         int64_t number);

#endif
