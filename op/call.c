/* From tensors to a problem of the library, and how scratch is laid out. */
#include "call.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- log ------------------------------------------------------------------------------------ */

bool op_refuse(const char *function, const char *format, ...) {
    char line[512];
    const int length = snprintf(line, sizeof(line), "%s: ", function);
    va_list args;
    va_start(args, format);
    vsnprintf(line + length, sizeof(line) - (size_t)length - 1, format, args);
    va_end(args);
    strcat(line, "\n"); /* room was left for it */
    ggml_log_callback log = NULL;
    void *user = NULL;
    ggml_log_get(&log, &user);
    if (log != NULL) {
        log(GGML_LOG_LEVEL_ERROR, line, user);
    }
    return false;
}

/* ---- context -------------------------------------------------------------------------------- */

/* The level named by VARVE_ISA, else the best. The library is silent: what it would say about a
 * call, the checks of the call have said in terms of tensors. */
static struct varve_context *context_create(const char *function) {
    struct varve_context *context = NULL;
    struct varve_context_params params = {.struct_bytes = sizeof(params)};
    const char *isa = getenv("VARVE_ISA");
    params.isa = isa != NULL && isa[0] != '\0' ? isa : NULL;
    enum varve_status status = varve_context_create(&params, &context);
    if (status == VARVE_ERROR_UNSUPPORTED && params.isa != NULL) {
        op_refuse(function, "VARVE_ISA is %s, no level of this build and CPU; the best is used",
                  isa);
        params.isa = NULL;
        status = varve_context_create(&params, &context);
    }
    if (status != VARVE_OK) {
        op_refuse(function, "no context of the library: %s", varve_status_text(status));
    }
    return context;
}

const struct varve_context *op_context(const char *function) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct varve_context *_Atomic made;
    struct varve_context *context = atomic_load_explicit(&made, memory_order_acquire);
    if (context == NULL) {
        pthread_mutex_lock(&lock);
        context = atomic_load_explicit(&made, memory_order_relaxed);
        if (context == NULL) {
            context = context_create(function);
            atomic_store_explicit(&made, context, memory_order_release);
        }
        pthread_mutex_unlock(&lock);
    }
    return context;
}

/* ---- scalars -------------------------------------------------------------------------------- */

/* What ggml keeps in op_params of GGML_OP_CUSTOM: function, n_tasks, userdata. */
struct custom_params {
    ggml_custom_op_t function;
    int n_tasks;
    void *userdata;
};
enum { SCALARS_AT = GGML_MAX_OP_PARAMS - sizeof(struct op_scalars) };
_Static_assert(sizeof(struct custom_params) + sizeof(struct op_scalars) <= GGML_MAX_OP_PARAMS,
               "op_params must have room behind what ggml keeps there");

void op_scalars_store(struct ggml_tensor *node, const struct op_scalars *with) {
    memcpy((char *)node->op_params + SCALARS_AT, with, sizeof(*with));
}

struct op_scalars op_scalars_load(const struct ggml_tensor *node) {
    struct op_scalars with;
    memcpy(&with, (const char *)node->op_params + SCALARS_AT, sizeof(with));
    return with;
}

/* ---- translation ---------------------------------------------------------------------------- */

bool op_format(enum ggml_type type, enum varve_format *format) {
    static const enum ggml_type types[VARVE_FORMAT_COUNT] = {
        [VARVE_FORMAT_F32] = GGML_TYPE_F32,      [VARVE_FORMAT_F16] = GGML_TYPE_F16,
        [VARVE_FORMAT_BF16] = GGML_TYPE_BF16,    [VARVE_FORMAT_Q8_0] = GGML_TYPE_Q8_0,
        [VARVE_FORMAT_Q4_0] = GGML_TYPE_Q4_0,    [VARVE_FORMAT_Q4_1] = GGML_TYPE_Q4_1,
        [VARVE_FORMAT_Q5_0] = GGML_TYPE_Q5_0,    [VARVE_FORMAT_Q5_1] = GGML_TYPE_Q5_1,
        [VARVE_FORMAT_IQ4_NL] = GGML_TYPE_IQ4_NL};
    for (int f = 0; f < VARVE_FORMAT_COUNT; f++) {
        if (types[f] == type) {
            *format = (enum varve_format)f;
            return true;
        }
    }
    return false;
}

static struct varve_mask mask_of(const struct ggml_tensor *t) {
    return (struct varve_mask){.data = t->data,
                               .n_column = t->ne[0],
                               .n_query = t->ne[1],
                               .n_head = (int32_t)t->ne[2],
                               .n_batch = t->ne[3],
                               .row_stride = (int64_t)t->nb[1],
                               .head_stride = (int64_t)t->nb[2],
                               .batch_stride = (int64_t)t->nb[3]};
}

/* One entry may serve all sequences. */
static int64_t batch_stride(const struct ggml_tensor *t) {
    return t->ne[3] == 1 ? 0 : (int64_t)t->nb[3];
}

/* Each part has a length and a mask of its own; absent ones are no segment. */
static void add_part(struct op_call *call, int part) {
    const struct ggml_tensor *k = call->src[SRC_K + part * PART_STRIDE];
    const struct ggml_tensor *v = call->src[SRC_V + part * PART_STRIDE];
    const struct ggml_tensor *mask = call->src[SRC_MASK + part * PART_STRIDE];
    if (k == NULL) {
        return;
    }
    struct varve_segment *s = &call->segments[call->io.n_segment++];
    *s = (struct varve_segment){.k = k->data,
                                .v = v->data,
                                .k_row_stride = (int64_t)k->nb[1],
                                .k_head_stride = (int64_t)k->nb[2],
                                .k_batch_stride = batch_stride(k),
                                .v_row_stride = (int64_t)v->nb[1],
                                .v_head_stride = (int64_t)v->nb[2],
                                .v_batch_stride = batch_stride(v)};
    op_format(k->type, &s->k_format);
    op_format(v->type, &s->v_format);
    s->n_rows = k->ne[1];
    if (mask != NULL) {
        call->masks[part] = mask_of(mask);
        s->mask = &call->masks[part];
    }
    call->attention.n_head_kv = (int32_t)k->ne[2];
}

/* Shapes: from q, or for calls without attention from the state. */
static void set_attention(struct op_call *call) {
    const struct ggml_tensor *q = call->src[SRC_Q];
    const struct ggml_tensor *state = call->src[SRC_STATE];
    struct varve_attention *a = &call->attention;
    const bool attends = call->with.kind == OP_ATTEND;
    a->head_dim_k = attends ? (int32_t)q->ne[0] : 1;
    a->head_dim_v = call->with.head_dim_v;
    a->n_head = (int32_t)(attends ? q->ne[2] : state->ne[1]);
    a->n_head_kv = a->n_head; /* parts, if there are any, know better */
    a->n_query = attends ? q->ne[1] : state->ne[2];
    a->n_batch = attends ? q->ne[3] : state->ne[3];
    a->scale = call->with.scale;
    a->max_bias = call->with.max_bias;
    a->softcap = call->with.softcap;
    a->alibi_by_mask = true;
    a->partials = true;
}

/* Adds n objects behind *end. */
static bool append(size_t *end, size_t n, size_t bytes) {
    size_t sum;
    return !__builtin_mul_overflow(n, bytes, &sum) && !__builtin_add_overflow(*end, sum, end) &&
           *end <= PTRDIFF_MAX / 2;
}

bool op_call_read(struct op_call *call, const struct ggml_tensor *const *src,
                  const struct op_scalars *with) {
    memset(call, 0, sizeof(*call));
    memcpy(call->src, src, sizeof(call->src));
    call->with = *with;
    set_attention(call);
    if (with->kind == OP_ATTEND) {
        const struct ggml_tensor *q = src[SRC_Q];
        call->io.query = (struct varve_query){.data = q->data,
                                              .query_stride = (int64_t)q->nb[1],
                                              .head_stride = (int64_t)q->nb[2],
                                              .batch_stride = (int64_t)q->nb[3]};
        call->io.segments = call->segments;
        add_part(call, 0);
        add_part(call, 1);
    }
    size_t n_float = 0;
    if (varve_state_floats(&call->attention, &n_float) != VARVE_OK) {
        return false;
    }
    const size_t record = 2 + (size_t)with->head_dim_v;
    call->n_record = (int64_t)(n_float / record);
    call->record_bytes = (record * sizeof(float) + OP_LINE - 1) / OP_LINE * OP_LINE;
    call->slot_at = OP_LINE; /* behind the header */
    call->work_at = call->slot_at + (size_t)with->n_thread * OP_SLOT_BYTES;
    call->carry_at = call->work_at;
    if (!append(&call->carry_at, (size_t)with->n_thread * WORK_COUNT, call->record_bytes)) {
        return false;
    }
    call->varve_at = call->carry_at;
    return append(&call->varve_at, (size_t)call->n_record, call->record_bytes);
}

void op_call_of(struct op_call *call, const struct ggml_tensor *parts) {
    const struct op_scalars with = op_scalars_load(parts);
    const struct ggml_tensor *src[SRC_COUNT];
    for (int i = 0; i < SRC_COUNT; i++) {
        src[i] = parts->src[i];
    }
    op_call_read(call, src, &with); /* fitted when the node was built */
}

enum varve_status op_plan(const struct op_call *call, struct varve_plan **plan) {
    *plan = NULL;
    return call->with.kind != OP_ATTEND
               ? VARVE_OK
               : varve_plan_create(op_context(__func__), &call->attention, call->segments,
                                   call->io.n_segment, call->with.n_thread, plan);
}

bool op_scratch_bytes(const struct op_call *call, const struct varve_plan *plan, size_t *bytes) {
    *bytes = call->varve_at;
    return append(bytes, 1, plan != NULL ? varve_plan_scratch_bytes(plan) : 0) &&
           append(bytes, 1, OP_LINE);
}

void op_record_empty(const struct op_call *call, float *record) {
    struct varve_state state;
    const struct varve_attention one = {
        .n_batch = 1, .n_query = 1, .n_head = 1, .head_dim_v = call->with.head_dim_v};
    (void)varve_state_init(&one, record, 2 + (size_t)one.head_dim_v, &state); /* it has the size */
}
