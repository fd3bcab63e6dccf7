/* The node "parts": attends to the rows of both parts, and copies what the call carries on. It
 * writes scratch only, each thread lines of its own. */
#include "call.h"
#include "trace.h"

#include <math.h>
#include <string.h>

/* A state without o is completed by the result of the call before. */
static bool reads_output(const struct op_call *call) {
    return !op_has(call, FLAG_FIRST) && !op_state_has_o(call->src[SRC_STATE]);
}

/* What the state holds before the call. A first call reads neither state nor output. */
static void carry_record(const struct op_call *call, struct op_index at, float *record) {
    const struct ggml_tensor *state = call->src[SRC_STATE];
    const struct ggml_tensor *output = call->src[SRC_OUTPUT];
    const size_t o_bytes = (size_t)call->with.head_dim_v * sizeof(float);
    const bool first = op_has(call, FLAG_FIRST);
    if (first) {
        op_record_empty(call, record);
        return;
    }
    memcpy(record, op_row_of(state, at), (size_t)state->ne[0] * sizeof(float));
    if (reads_output(call)) {
        memcpy(record + 2, op_row_of(output, at), o_bytes);
    }
}

static bool has_memory(const struct op_call *call) {
    for (int i = 0; i < SRC_COUNT; i++) {
        const struct ggml_tensor *t = call->src[i];
        const bool is_used =
            i != SRC_OUTPUT || (call->src[SRC_STATE] != NULL && reads_output(call));
        if (t != NULL && is_used && t->data == NULL && ggml_nelements(t) > 0) {
            return false;
        }
    }
    return true;
}

/* This thread's share of the tasks. Which tasks there are does not depend on threads. */
static enum varve_status attend(const struct op_call *call, char *base, int thread, int n_thread) {
    struct varve_plan *plan;
    enum varve_status status = op_plan(call, &plan);
    if (status == VARVE_OK && plan != NULL) {
        status = varve_io_check(plan, &call->io);
        char *const scratch = base + call->varve_at;
        const int64_t n_task = status == VARVE_OK ? varve_plan_n_task(plan, 0) : 0;
        for (int64_t task = thread; task < n_task; task += n_thread) {
            varve_run_task(plan, &call->io, scratch, 0, task, thread);
        }
    }
    varve_plan_destroy(plan);
    return status;
}

void op_parts(struct ggml_tensor *dst, int ith, int nth, void *unused) {
    (void)unused;
    struct op_call call;
    op_call_of(&call, dst);
    const int n_thread = nth < call.with.n_thread ? nth : call.with.n_thread;
    if (ith >= n_thread || dst->data == NULL) {
        return;
    }
    char *const base = op_base(dst->data);
    if (ith == 0) {
        struct op_header *header = op_header_of(base);
        atomic_init(&header->n_left, 0);
        header->n_thread = n_thread;
    }
    struct op_slot *slot = op_slot_of(&call, base, ith);
    trace_start_parts(slot);
    slot->status = VARVE_ERROR_ARGUMENT;
    if (!has_memory(&call)) {
        return;
    }
    for (int64_t r = ith; r < call.n_record; r += n_thread) {
        const struct op_index at = op_index_of(&call, r);
        float *record = op_carry_of(&call, base, at);
        carry_record(&call, at, record);
        trace_record(&slot->before, record);
    }
    slot->status = (int32_t)attend(&call, base, ith, n_thread);
    trace_inputs(&call, base, ith, n_thread);
}
