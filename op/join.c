/* The node "join": merges what was carried with the partial states of the rows, and writes state
 * and result.
 *
 * No two threads write one cache line, wherever the two tensors begin: a thread owns whole lines of
 * the memory of each. A record that lies across the border of two threads is computed by both, and
 * each writes the bytes in its own lines. Nothing that is written here is read here. */
#include "call.h"
#include "trace.h"

#include <math.h>
#include <string.h>

/* A thread's view of the node. */
struct join {
    const struct op_call *call;
    const struct ggml_tensor *dst;
    char *base;
    const struct varve_plan *plan; /* NULL: nothing but what was carried, or `from` */
    struct op_slot *slot;
    bool failed; /* write NaN */
    int thread, n_thread;
    float *sum, *part, *row;
};

/* A tensor to write, whose rows belong to records. Dimensions in the order of memory: rows one
 * after the other have rising addresses, in most layouts. */
struct target {
    const struct ggml_tensor *tensor;
    bool is_state;
    size_t row_bytes;
    int dim[3]; /* of the tensor, fastest first */
    bool rising;
    uintptr_t low, high; /* the bytes that are this thread's, */
    int64_t first, last; /* and records among which they lie */
};

/* ---- records -------------------------------------------------------------------------------- */

/* Carried and new rows in join->sum; an empty record is all zeros behind m. */
static void merge_record(const struct join *join, struct op_index at) {
    const struct op_call *call = join->call;
    const size_t bytes = (2 + (size_t)call->with.head_dim_v) * sizeof(float);
    memcpy(join->sum, op_carry_of(call, join->base, at), bytes);
    struct varve_state sum = op_state_of(call, join->sum);
    const struct varve_state part = op_state_of(call, join->part);
    if (call->with.kind == OP_MERGE) {
        memcpy(join->part, op_row_of(join->dst->src[JOIN_FROM], at), bytes);
        (void)varve_state_merge(&sum, &part);
    } else if (join->plan != NULL) {
        (void)varve_partial_read(join->plan, join->base + call->varve_at, at.b, at.i, at.h,
                                 join->part);
        (void)varve_state_merge(&sum, &part);
    }
    if (join->sum[0] == -INFINITY) {
        op_record_empty(call, join->sum); /* its o may have been anything */
    }
}

/* Divides join->sum into join->row, whose value behind the output is the LSE. */
static void divide(const struct join *join, const float *sink) {
    const struct varve_state sum = op_state_of(join->call, join->sum);
    const struct varve_output output = {.data = join->row,
                                        .lse = join->row + join->call->with.head_dim_v};
    (void)varve_state_finish(&sum, sink, &output);
}

/* The row of a record in the state. Without o, its o is the result, divided or not. */
static const float *state_row(const struct join *join, const struct target *target) {
    const struct op_call *call = join->call;
    if (!op_state_has_o(target->tensor) && op_has(call, FLAG_DIVIDE)) {
        divide(join, NULL);
        struct varve_state sum = op_state_of(call, join->sum);
        const struct varve_output output = {.data = join->row,
                                            .lse = join->row + call->with.head_dim_v};
        (void)varve_state_import(&sum, &output);
    }
    return join->sum;
}

/* The row of a record in the result. */
static const float *result_row(const struct join *join, int32_t h) {
    if (!op_has(join->call, FLAG_DIVIDE)) {
        return join->sum + 2;
    }
    const struct ggml_tensor *sinks = join->dst->src[JOIN_SINKS];
    const bool enters = sinks != NULL && op_has(join->call, FLAG_FINAL);
    divide(join, enters ? (const float *)sinks->data + h : NULL);
    return join->row;
}

/* The record that both targets are written from. */
static void compute(const struct join *join, struct op_index at) {
    if (join->failed) {
        return;
    }
    merge_record(join, at);
    if (trace_level() > 0) {
        trace_record(&join->slot->after, join->sum);
        trace_state(join->slot, at, join->sum, 2 + (int64_t)join->call->with.head_dim_v);
    }
}

/* After compute. */
static const float *row_of(const struct join *join, const struct target *target, int32_t h) {
    if (join->failed) {
        memset(join->sum, 0xFF, join->call->record_bytes); /* NaN */
        return join->sum;
    }
    return target->is_state ? state_row(join, target) : result_row(join, h);
}

/* ---- lines ---------------------------------------------------------------------------------- */

/* Sorts the dimensions by stride. Rows rise if each stride steps over all that lies inside. */
static struct target target_of(const struct ggml_tensor *t, bool is_state) {
    struct target target = {
        .tensor = t, .is_state = is_state, .row_bytes = (size_t)t->ne[0] * sizeof(float)};
    for (int d = 1; d < GGML_MAX_DIMS; d++) {
        int at = d - 1;
        for (; at > 0; at--) {
            if (t->nb[target.dim[at - 1]] <= t->nb[d]) {
                break;
            }
            target.dim[at] = target.dim[at - 1];
        }
        target.dim[at] = d;
    }
    target.rising = true;
    size_t least = target.row_bytes;
    for (int i = 0; i < 3; i++) {
        const int d = target.dim[i];
        if (t->ne[d] > 1) {
            target.rising = target.rising && t->nb[d] >= least;
            least = t->nb[d] * (size_t)t->ne[d];
        }
    }
    return target;
}

/* The n-th record in the order of memory. */
static struct op_index nth_record(const struct target *target, int64_t n) {
    int64_t at[GGML_MAX_DIMS] = {0};
    for (int i = 0; i < 3; i++) {
        const int d = target->dim[i];
        at[d] = n % target->tensor->ne[d];
        n /= target->tensor->ne[d];
    }
    return (struct op_index){at[3], at[2], (int32_t)at[1]};
}

static uintptr_t address(const struct target *target, int64_t n) {
    return (uintptr_t)op_row_of(target->tensor, nth_record(target, n));
}

/* First record of a thread's share, before borders move to lines. */
static int64_t share(int64_t n_record, int thread, int n_thread) {
    return n_record / n_thread * thread + n_record % n_thread * thread / n_thread;
}

/* First byte that belongs to a thread: the line in which its first record begins. */
static uintptr_t border(const struct join *join, const struct target *target, int thread) {
    if (thread == 0 || thread == join->n_thread) {
        return thread == 0 ? 0 : UINTPTR_MAX;
    }
    const int64_t first = share(join->call->n_record, thread, join->n_thread);
    return address(target, first) / OP_LINE * OP_LINE;
}

/* What is this thread's. Layouts whose rows do not rise (rows that share memory, which nobody
 * should want) are left to the first thread. */
static void set_share(const struct join *join, struct target *target) {
    const int64_t n_record = join->call->n_record;
    target->low = 0;
    target->high = UINTPTR_MAX;
    target->first = 0;
    target->last = join->thread == 0 ? n_record : 0;
    if (!target->rising) {
        return;
    }
    target->low = border(join, target, join->thread);
    target->high = border(join, target, join->thread + 1);
    target->first = share(n_record, join->thread, join->n_thread);
    target->last = share(n_record, join->thread + 1, join->n_thread);
    while (target->first > 0 &&
           address(target, target->first - 1) + target->row_bytes > target->low) {
        target->first--;
    }
}

/* Writes the bytes of a record that are this thread's. */
static void write_row(const struct join *join, const struct target *target, int64_t r) {
    const uintptr_t begin = address(target, r), end = begin + target->row_bytes;
    const uintptr_t from = begin > target->low ? begin : target->low;
    const uintptr_t to = end < target->high ? end : target->high;
    if (r < target->first || r >= target->last || from >= to) {
        return;
    }
    const struct op_index at = nth_record(target, r);
    const float *row = row_of(join, target, at.h);
    memcpy(op_row_of(target->tensor, at) + (from - begin), (const char *)row + (from - begin),
           to - from);
    if (!target->is_state) {
        trace_result(join->slot, at, row, target->tensor->ne[0]);
    }
}

/* Writes this thread's part of targets whose records lie in one order: each is computed once. */
static void write_targets(const struct join *join, const struct target *targets, int n_target) {
    int64_t first = INT64_MAX, last = 0;
    for (int i = 0; i < n_target; i++) {
        first = targets[i].first < first ? targets[i].first : first;
        last = targets[i].last > last ? targets[i].last : last;
    }
    for (int64_t r = first; r < last; r++) {
        compute(join, nth_record(&targets[0], r));
        for (int i = 0; i < n_target; i++) {
            write_row(join, &targets[i], r);
        }
    }
}

static void write_all(const struct join *join) {
    const struct ggml_tensor *state = join->dst->src[JOIN_STATE];
    struct target targets[2]; /* the state last: making its row may change the record */
    int n = 0;
    if (join->call->with.kind != OP_MERGE) {
        targets[n++] = target_of(join->dst, false);
    }
    if (state != NULL && state->data != NULL) {
        targets[n++] = target_of(state, true);
    }
    for (int i = 0; i < n; i++) {
        set_share(join, &targets[i]);
    }
    if (n == 2 && memcmp(targets[0].dim, targets[1].dim, sizeof(targets[0].dim)) != 0) {
        write_targets(join, &targets[1], 1);
        n = 1;
    }
    write_targets(join, targets, n);
}

/* ---- node ----------------------------------------------------------------------------------- */

/* What the threads of parts came to, and a plan of this thread's own. */
static void prepare(struct join *join, struct varve_plan **plan) {
    const int n = op_header_of(join->base)->n_thread;
    enum varve_status status = VARVE_OK;
    for (int t = 0; t < n && status == VARVE_OK; t++) {
        status = (enum varve_status)op_slot_of(join->call, join->base, t)->status;
    }
    const struct ggml_tensor *sinks = join->dst->src[JOIN_SINKS];
    const struct ggml_tensor *from = join->dst->src[JOIN_FROM];
    if ((sinks != NULL && sinks->data == NULL) || (from != NULL && from->data == NULL)) {
        status = VARVE_ERROR_ARGUMENT;
    }
    const bool parts_failed = status != VARVE_OK;
    *plan = NULL;
    if (!parts_failed) {
        status = op_plan(join->call, plan);
    }
    /* one line, by thread 0, for what all threads know */
    if (status != VARVE_OK && (join->thread == 0 || !parts_failed)) {
        op_refuse("varve", "node '%s' cannot be computed (%s); its result is NaN", join->dst->name,
                  status == VARVE_ERROR_ARGUMENT ? "a source without memory, or not aligned"
                                                 : varve_status_text(status));
    }
    join->plan = *plan;
    join->failed = status != VARVE_OK;
}

void op_join(struct ggml_tensor *dst, int ith, int nth, void *unused) {
    (void)unused;
    struct ggml_tensor *parts = dst->src[JOIN_PARTS];
    struct op_call call;
    op_call_of(&call, parts);
    const int n_thread = nth < call.with.n_thread ? nth : call.with.n_thread;
    if (ith >= n_thread || parts->data == NULL || dst->data == NULL) {
        return; /* without memory for the node itself there is nowhere to say so */
    }
    char *const base = op_base(parts->data);
    struct join join = {.call = &call,
                        .dst = dst,
                        .base = base,
                        .slot = op_slot_of(&call, base, ith),
                        .thread = ith,
                        .n_thread = n_thread,
                        .sum = op_work_of(&call, base, ith, WORK_SUM),
                        .part = op_work_of(&call, base, ith, WORK_PART),
                        .row = op_work_of(&call, base, ith, WORK_ROW)};
    trace_start_join(join.slot);
    struct varve_plan *plan;
    prepare(&join, &plan);
    write_all(&join);
    trace_leave(&call, base, plan, n_thread);
    varve_plan_destroy(plan);
}
