/* VARVE_TRACE: what a call has done, on stderr or in VARVE_TRACE_FILE. Costs one relaxed load when
 * it is off. */
#ifndef VARVE_OP_TRACE_H
#define VARVE_OP_TRACE_H

#include "call.h"

/* 0: off; 1: a line for each call; 2: also the first value that is not finite, and its origin. */
int trace_level(void);

/* Each node's share of a slot, with nothing found yet. */
void trace_start_parts(struct op_slot *slot);
void trace_start_join(struct op_slot *slot);

/* Widens a range by a record's m and s. */
void trace_record(struct op_range *range, const float *record);

/* Level 2: this thread's share of the inputs that some query sees. */
void trace_inputs(const struct op_call *call, char *base, int thread, int n_thread);

/* Level 2: a row of the result; a record that goes into the state. */
void trace_result(struct op_slot *slot, struct op_index at, const float *row, int64_t n);
void trace_state(struct op_slot *slot, struct op_index at, const float *record, int64_t n);

/* Called by each thread that worked on join, at its end; the last one prints. plan may be NULL. */
void trace_leave(const struct op_call *call, char *base, const struct varve_plan *plan,
                 int n_thread);

#endif
