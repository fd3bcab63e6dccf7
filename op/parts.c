/* The node "parts": attends to the rows of both parts, and copies what the call carries on. It
 * writes scratch only, each thread lines of its own. */
#include "call.h"
#include "trace.h"

#include <string.h>

/* A state without o is completed by the result of the call before. */
static void read_carried(const struct op_call *call, struct op_index at, float *record) {
    const struct ggml_tensor *state = call->src[SRC_STATE];
    const size_t o_bytes = (size_t)call->with.head_dim_v * sizeof(float);
    memcpy(record, op_row_of(state, at), (size_t)state->ne[0] * sizeof(float));
    if (!op_state_has_o(state)) {
        memcpy(record + 2, op_row_of(call->src[SRC_OUTPUT], at), o_bytes);
    }
}

/* What the state holds before the call, for this thread's share of the records: no other thread
 * touches their copies until join. A first call reads neither state nor output. */
static void carry(const struct op_call *call, char *base, int thread, int n_thread) {
    const bool first = op_has(call, FLAG_FIRST);
    for (int64_t r = thread; r < call->n_record; r += n_thread) {
        const struct op_index at = op_index_of(call, r);
        float *record = op_carry_of(call, base, at);
        if (first) {
            op_record_empty(call, record);
        } else {
            read_carried(call, at, record);
        }
        trace_record(&op_slot_of(call, base, thread)->before, record);
    }
}

static bool has_memory(const struct op_call *call) {
    const struct ggml_tensor *state = call->src[SRC_STATE];
    const bool reads_output = !op_has(call, FLAG_FIRST) && !op_state_has_o(state);
    for (int i = 0; i < SRC_COUNT; i++) {
        const struct ggml_tensor *t = call->src[i];
        const bool is_used = i != SRC_OUTPUT || reads_output;
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
    carry(&call, base, ith, n_thread);
    slot->status = (int32_t)attend(&call, base, ith, n_thread);
    trace_inputs(&call, base, ith, n_thread);
}
