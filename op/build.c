/* The public functions: check, then add nodes. */
#include "check.h"

#include "ggml-backend.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* A call that has passed its checks, with sources as ggml takes them. */
struct build {
    struct op_args args;
    struct ggml_tensor *src[SRC_COUNT];
    struct ggml_tensor *join[JOIN_COUNT];
    int64_t ne[GGML_MAX_DIMS]; /* of the result */
};

/* ---- nodes ---------------------------------------------------------------------------------- */

/* Bytes of scratch; false when the library has no plan or they do not fit. */
static bool scratch_of(const struct op_args *args, size_t *bytes) {
    struct op_call call;
    struct varve_plan *plan = NULL;
    enum varve_status status = VARVE_ERROR_OVERFLOW;
    if (op_context(args->function) == NULL) {
        return false;
    }
    if (op_call_read(&call, args->src, &args->with)) {
        status = op_plan(&call, &plan);
    }
    if (status == VARVE_OK && !op_scratch_bytes(&call, plan, bytes)) {
        status = VARVE_ERROR_OVERFLOW;
    }
    varve_plan_destroy(plan);
    return status == VARVE_OK ||
           op_refuse(args->function,
                     "sizes: %" PRId64 " queries, %d heads, %" PRId64 " sequences, head size %d of "
                     "V: %s",
                     call.attention.n_query, call.attention.n_head, call.attention.n_batch,
                     call.attention.head_dim_v, varve_status_text(status));
}

/* ggml ends the process when a context is full. */
static bool has_room(const char *f, struct ggml_context *ctx, size_t scratch, size_t result) {
    size_t needed = 2 * ggml_tensor_overhead();
    if (!ggml_get_no_alloc(ctx)) {
        needed += GGML_PAD(scratch, GGML_MEM_ALIGN) + GGML_PAD(result, GGML_MEM_ALIGN);
    }
    const size_t left = ggml_get_mem_size(ctx) - ggml_used_mem(ctx);
    return needed <= left || op_refuse(f, "ctx: %zu bytes left, expected %zu", left, needed);
}

static struct ggml_tensor *add_nodes(struct ggml_context *ctx, struct build *build,
                                     struct ggml_tensor *output) {
    static atomic_uint n_call;
    const struct op_args *args = &build->args;
    size_t scratch = 0, result = 0;
    if (!scratch_of(args, &scratch)) {
        return NULL;
    }
    if (output == NULL) { /* fits: as many values as the state, whose size has been checked */
        result = (size_t)(build->ne[0] * build->ne[1] * build->ne[2] * build->ne[3]) * 4;
    }
    if (!has_room(args->function, ctx, scratch, result)) {
        return NULL;
    }
    build->args.with.number = atomic_fetch_add(&n_call, 1);
    struct ggml_tensor *parts =
        ggml_custom_4d(ctx, GGML_TYPE_F32, (int64_t)((scratch + 3) / 4), 1, 1, 1, build->src,
                       SRC_COUNT, op_parts, GGML_N_TASKS_MAX, NULL);
    build->join[JOIN_PARTS] = parts;
    build->join[JOIN_BASE] = parts; /* tools that print a graph look at the first source */
    struct ggml_tensor *join =
        output != NULL ? ggml_custom_inplace(ctx, output, build->join + 1, JOIN_COUNT - 1, op_join,
                                             GGML_N_TASKS_MAX, NULL)
                       : ggml_custom_4d(ctx, GGML_TYPE_F32, build->ne[0], build->ne[1],
                                        build->ne[2], build->ne[3], build->join, JOIN_COUNT,
                                        op_join, GGML_N_TASKS_MAX, NULL);
    op_scalars_store(parts, &args->with);
    op_scalars_store(join, &args->with);
    ggml_format_name(parts, "varve_parts-%u", args->with.number);
    ggml_format_name(join, "varve-%u", args->with.number);
    return join;
}

/* ---- parameters ----------------------------------------------------------------------------- */

/* Fields that a caller compiled against an older header does not have are taken as zero. */
static bool read_params(const char *f, const struct varve_ggml_state_params *params,
                        struct varve_ggml_state_params *known) {
    *known = (struct varve_ggml_state_params){.first = params == NULL, .final = params == NULL};
    if (params == NULL) {
        return true;
    }
    if (params->struct_bytes < sizeof(params->struct_bytes)) {
        return op_refuse(f, "params: struct_bytes is %zu, expected %zu", params->struct_bytes,
                         sizeof(*params));
    }
    memcpy(known, params,
           params->struct_bytes < sizeof(*known) ? params->struct_bytes : sizeof(*known));
    return known->n_thread_max >= 0 ||
           op_refuse(f, "params: n_thread_max is %d, expected 0 or more", (int)known->n_thread_max);
}

static int32_t thread_count(int32_t n_thread_max) {
    return n_thread_max == 0 || n_thread_max > VARVE_GGML_STATE_THREADS ? VARVE_GGML_STATE_THREADS
                                                                        : n_thread_max;
}

static uint16_t flags_of(const struct varve_ggml_state_params *p) {
    return (uint16_t)((p->first ? FLAG_FIRST : 0) | (p->final ? FLAG_FINAL : 0) |
                      (p->final || p->normalise ? FLAG_DIVIDE : 0));
}

/* A negative bias is none, and the softcap is an even function, as in ggml. */
static struct op_scalars scalars_of(float scale, float max_bias, float softcap,
                                    const struct varve_ggml_state_params *p) {
    return (struct op_scalars){.scale = scale,
                               .max_bias = max_bias < 0 ? 0 : max_bias,
                               .softcap = softcap < 0 ? -softcap : softcap,
                               .n_thread = thread_count(p->n_thread_max),
                               .kind = OP_ATTEND,
                               .flags = flags_of(p)};
}

/* ---- public --------------------------------------------------------------------------------- */

struct ggml_tensor *varve_ggml_flash_attn_ext_with_state(
    struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
    struct ggml_tensor *mask, struct ggml_tensor *k_quant, struct ggml_tensor *v_quant,
    struct ggml_tensor *mask_quant, struct ggml_tensor *state, float scale, float max_bias,
    float logit_softcap, const struct varve_ggml_state_params *params) {
    struct varve_ggml_state_params p;
    if (ctx == NULL) {
        op_refuse(__func__, "ctx: NULL, expected a context");
        return NULL;
    }
    if (!read_params(__func__, params, &p)) {
        return NULL;
    }
    struct build build = {
        .args = {.function = __func__,
                 .sinks = p.sinks,
                 .previous = p.previous,
                 .output = p.output,
                 .with = scalars_of(scale, max_bias, logit_softcap, &p)},
        .src = {q, k, v, mask, k_quant, v_quant, mask_quant, state, p.previous},
        .join = {[JOIN_STATE] = state, [JOIN_SINKS] = p.sinks},
    };
    for (int i = 0; i < SRC_COUNT; i++) {
        const bool of_nothing = (i == SRC_MASK && k == NULL) ||
                                (i == SRC_MASK_QUANT && k_quant == NULL); /* hides no row */
        build.src[i] = of_nothing ? NULL : build.src[i];
        build.args.src[i] = build.src[i];
    }
    if (!op_check_attend(&build.args)) {
        return NULL;
    }
    if (p.previous == NULL && !p.first && !op_state_has_o(state)) {
        build.src[SRC_OUTPUT] = p.output; /* it was filled before the graph */
    }
    build.ne[0] = build.args.with.head_dim_v;
    build.ne[1] = q->ne[2];
    build.ne[2] = q->ne[1];
    build.ne[3] = q->ne[3];
    return add_nodes(ctx, &build, p.output);
}

bool varve_ggml_state_init(struct ggml_tensor *state) {
    if (state == NULL || state->data == NULL) {
        return op_refuse(__func__, "state: %s, expected a tensor with memory",
                         state == NULL ? "NULL" : "no memory");
    }
    if (state->type != GGML_TYPE_F32 || state->ne[0] < 2 || !ggml_is_contiguous(state)) {
        return op_refuse(__func__, "state: expected a contiguous F32 tensor with ne[0] of 2 or "
                                   "more");
    }
    if (state->buffer != NULL && !ggml_backend_buffer_is_host(state->buffer)) {
        return op_refuse(__func__, "state: memory of a device, expected memory of the host");
    }
    const int64_t n = ggml_nrows(state);
    for (int64_t r = 0; r < n; r++) {
        float *record = (float *)state->data + r * state->ne[0];
        record[0] = -INFINITY;
        memset(record + 1, 0, (size_t)(state->ne[0] - 1) * sizeof(float));
    }
    return true;
}

struct ggml_tensor *varve_ggml_state_merge(struct ggml_context *ctx, struct ggml_tensor *into,
                                           struct ggml_tensor *into_after, struct ggml_tensor *from,
                                           struct ggml_tensor *from_after) {
    if (ctx == NULL) {
        op_refuse(__func__, "ctx: NULL, expected a context");
        return NULL;
    }
    struct build build = {
        .args = {.function = __func__,
                 .with = {.n_thread = VARVE_GGML_STATE_THREADS, .kind = OP_MERGE}},
        .src = {[SRC_Q] = into, [SRC_STATE] = into, [SRC_OUTPUT] = into_after},
        .join = {[JOIN_STATE] = into, [JOIN_FROM] = from, [JOIN_FROM_AFTER] = from_after},
    };
    if (!op_check_state(&build.args, "into", into)) {
        return NULL;
    }
    if (from == NULL) {
        op_refuse(__func__, "from: NULL, expected a state");
        return NULL;
    }
    if (!op_check_f32(__func__, "from", from, into->ne) ||
        !op_check_apart(__func__, "into", into, "from", from)) {
        return NULL;
    }
    return add_nodes(ctx, &build, into);
}

struct ggml_tensor *varve_ggml_state_finish(struct ggml_context *ctx, struct ggml_tensor *state,
                                            struct ggml_tensor *after, struct ggml_tensor *sinks,
                                            bool with_lse) {
    if (ctx == NULL) {
        op_refuse(__func__, "ctx: NULL, expected a context");
        return NULL;
    }
    struct build build = {
        .args = {.function = __func__,
                 .sinks = sinks,
                 .with = {.n_thread = VARVE_GGML_STATE_THREADS,
                          .kind = OP_FINISH,
                          .flags = FLAG_FINAL | FLAG_DIVIDE}},
        .src = {[SRC_Q] = state, [SRC_STATE] = state, [SRC_OUTPUT] = after},
        .join = {[JOIN_SINKS] = sinks},
    };
    if (!op_check_state(&build.args, "state", state) ||
        !op_check_sinks(&build.args, state->ne[1])) {
        return NULL;
    }
    memcpy(build.ne, state->ne, sizeof(build.ne));
    build.ne[0] = build.args.with.head_dim_v + (with_lse ? 1 : 0);
    return add_nodes(ctx, &build, NULL);
}

bool varve_ggml_state_sizes(const struct ggml_tensor *q, const struct ggml_tensor *k,
                            const struct ggml_tensor *v, const struct ggml_tensor *k_quant,
                            const struct ggml_tensor *v_quant, int32_t n_thread_max,
                            struct varve_ggml_state_sizes *sizes) {
    struct varve_ggml_state_params p = {.first = true, .final = true};
    if (sizes == NULL) {
        return op_refuse(__func__, "sizes: NULL, expected memory for them");
    }
    if (n_thread_max < 0) {
        return op_refuse(__func__, "n_thread_max: is %d, expected 0 or more", (int)n_thread_max);
    }
    p.n_thread_max = n_thread_max;
    struct op_args args = {.function = __func__,
                           .src = {q, k, v, NULL, k_quant, v_quant},
                           .with = scalars_of(1, 0, 0, &p)};
    size_t scratch = 0;
    if (!op_check_attend(&args) || !scratch_of(&args, &scratch)) {
        return false;
    }
    const size_t n_record = (size_t)(q->ne[1] * q->ne[2] * q->ne[3]); /* fits: scratch does */
    const size_t dv = (size_t)args.with.head_dim_v;
    *sizes = (struct varve_ggml_state_sizes){.state_bytes = n_record * (2 + dv) * sizeof(float),
                                             .scratch_bytes = scratch,
                                             .output_bytes = n_record * dv * sizeof(float)};
    return true;
}
