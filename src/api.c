/* Public entry points that belong to no single part: version, status, context, and the check of
 * what a run is given. No arithmetic. */
#include <string.h>

#include "kernel/context.h"
#include "attend/plan.h"
#include "kernel/dispatch.h"

#define STRING_(x) #x
#define STRING(x) STRING_(x)

const char *varve_version(void) {
    return STRING(VARVE_VERSION_MAJOR) "." STRING(VARVE_VERSION_MINOR) "." STRING(
        VARVE_VERSION_PATCH);
}

const char *varve_status_text(enum varve_status status) {
    switch (status) {
    case VARVE_OK: return "success";
    case VARVE_ERROR_ARGUMENT: return "invalid argument";
    case VARVE_ERROR_UNSUPPORTED: return "not supported by this build or CPU";
    case VARVE_ERROR_OVERFLOW: return "size overflow";
    case VARVE_ERROR_MEMORY: return "out of memory, or buffer too small";
    }
    return "unknown status";
}

const char *varve_arithmetic_name(enum varve_arithmetic arithmetic) {
    static const char *const names[] = {"default", "exact", "q8", "fast"};
    return (unsigned)arithmetic <= VARVE_ARITHMETIC_FAST ? names[arithmetic] : NULL;
}

const char *varve_isa_name(int32_t i, bool *available) {
    const char *name = i < 0 ? NULL : varve_isa_text((enum varve_isa)i);
    if (name != NULL && available != NULL) *available = varve_isa_available((enum varve_isa)i);
    return name;
}

/* Level of a name, or the best one for NULL. VARVE_ISA_COUNT: no such level. */
static enum varve_isa isa_of(const char *name) {
    if (name == NULL) return varve_isa_best();
    int i = 0;
    while (i < VARVE_ISA_COUNT && strcmp(name, varve_isa_text((enum varve_isa)i)) != 0) i++;
    return (enum varve_isa)i;
}

enum varve_status varve_context_create(const struct varve_context_params *params,
                                       struct varve_context **context) {
    if (context == NULL) return VARVE_ERROR_ARGUMENT;
    *context = NULL;
    /* Fields that a caller compiled against an older header does not have are taken as zero. */
    struct varve_context_params known = {0};
    if (params != NULL) {
        if (params->struct_bytes < sizeof params->struct_bytes) return VARVE_ERROR_ARGUMENT;
        memcpy(&known, params,
               params->struct_bytes < sizeof known ? params->struct_bytes : sizeof known);
    }
    const struct varve_host host = varve_host_from(&known);
    if ((known.allocate == NULL) != (known.release == NULL)) {
        return varve_fail(&host, VARVE_ERROR_ARGUMENT,
                          "allocate and release: expected both or neither");
    }
    const enum varve_isa isa = isa_of(known.isa);
    if (isa == VARVE_ISA_COUNT) {
        return varve_fail(&host, VARVE_ERROR_UNSUPPORTED, "isa \"%s\" is unknown to this build",
                          known.isa);
    }
    if (!varve_isa_enable(isa)) {
        return varve_fail(&host, VARVE_ERROR_UNSUPPORTED,
                          "this CPU does not have isa \"%s\", or its operating system keeps it",
                          known.isa);
    }
    struct varve_context *made = varve_host_allocate(&host, sizeof *made);
    if (made == NULL) return VARVE_ERROR_MEMORY;
    made->host = host;
    varve_kernels_select(isa, &made->kernels);
    *context = made;
    return VARVE_OK;
}

void varve_context_destroy(struct varve_context *context) {
    if (context == NULL) return;
    const struct varve_host host = context->host; /* outlives the block it releases */
    varve_host_release(&host, context, sizeof *context);
}

const char *varve_context_isa(const struct varve_context *context) {
    return varve_isa_text(context->kernels.isa);
}

static enum varve_status check_strides(const struct varve_host *host, const char *name,
                                       const void *data, int64_t alignment, int64_t a, int64_t b,
                                       int64_t c) {
    if (data == NULL) return varve_fail(host, VARVE_ERROR_ARGUMENT, "%s is NULL", name);
    if ((intptr_t)data % alignment != 0 || a % alignment != 0 || b % alignment != 0 ||
        c % alignment != 0) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "%s: address and strides must be multiples of %d bytes", name,
                          (int)alignment);
    }
    return VARVE_OK;
}

static enum varve_status check_mask(const struct varve_plan *plan, const struct varve_mask *mask) {
    if (mask == NULL) return VARVE_OK;
    const struct varve_host *host = &plan->context->host;
    const struct varve_attention *a = &plan->attention;
    const enum varve_status status = check_strides(
        host, "mask.data", mask->data, 2, mask->row_stride, mask->head_stride, mask->batch_stride);
    if (status != VARVE_OK) return status;
    if (mask->n_query < a->n_query || mask->n_head < 1 || a->n_head % mask->n_head != 0 ||
        mask->n_batch < 1 || a->n_batch % mask->n_batch != 0) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "mask has %lld queries, %d heads, %lld batch entries; expected at least "
                          "%lld, a divisor of %d, a divisor of %lld",
                          (long long)mask->n_query, mask->n_head, (long long)mask->n_batch,
                          (long long)a->n_query, a->n_head, (long long)a->n_batch);
    }
    return VARVE_OK;
}

static enum varve_status check_segments(const struct varve_plan *plan, const struct varve_io *io) {
    const struct varve_host *host = &plan->context->host;
    int64_t n_row = 0;
    for (int64_t i = 0; i < io->n_segment; i++) {
        const struct varve_segment *segment = &io->segments[i];
        if (segment->n_rows < 0 || __builtin_add_overflow(n_row, segment->n_rows, &n_row)) {
            return varve_fail(host, VARVE_ERROR_ARGUMENT, "segment %lld: n_rows is %lld",
                              (long long)i, (long long)segment->n_rows);
        }
        if (segment->n_rows == 0) continue;
        if (segment->k == NULL || segment->v == NULL) {
            return varve_fail(host, VARVE_ERROR_ARGUMENT, "segment %lld: %s is NULL", (long long)i,
                              segment->k == NULL ? "k" : "v");
        }
        if ((unsigned)segment->k_format >= VARVE_FORMAT_COUNT ||
            (unsigned)segment->v_format >= VARVE_FORMAT_COUNT ||
            !(plan->k_formats >> segment->k_format & 1) ||
            !(plan->v_formats >> segment->v_format & 1)) {
            return varve_fail(host, VARVE_ERROR_ARGUMENT,
                              "segment %lld: formats %d, %d are not the plan's", (long long)i,
                              (int)segment->k_format, (int)segment->v_format);
        }
        if (segment->pos < -VARVE_COUNT_MAX || segment->pos > VARVE_COUNT_MAX) {
            return varve_fail(host, VARVE_ERROR_ARGUMENT,
                              "segment %lld: pos is %lld, expected at most 2^48", (long long)i,
                              (long long)segment->pos);
        }
        const struct varve_mask *mask = segment->mask != NULL ? segment->mask : io->mask;
        if (mask != NULL && (segment->mask_column < 0 || segment->n_rows > mask->n_column ||
                             segment->mask_column > mask->n_column - segment->n_rows)) {
            return varve_fail(host, VARVE_ERROR_ARGUMENT,
                              "segment %lld: %lld mask columns from %lld, the mask has %lld",
                              (long long)i, (long long)segment->n_rows,
                              (long long)segment->mask_column, (long long)mask->n_column);
        }
        const enum varve_status status = check_mask(plan, segment->mask);
        if (status != VARVE_OK) return status;
    }
    if (n_row != plan->n_row) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "segments have %lld rows, the plan %lld",
                          (long long)n_row, (long long)plan->n_row);
    }
    return VARVE_OK;
}

/* Where the result goes: a state of the right shape, or an output, never both. */
static enum varve_status check_result(const struct varve_plan *plan, const struct varve_io *io) {
    const struct varve_host *host = &plan->context->host;
    const struct varve_attention *a = &plan->attention;
    const struct varve_output *output = &io->output;
    const struct varve_state *state = io->state;
    if (a->partials) {
        if (state == NULL && output->data == NULL && output->lse == NULL && io->sinks == NULL) {
            return VARVE_OK;
        }
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "partials together with state, output or sinks: merge and finish what "
                          "varve_partial_read gives");
    }
    if ((uintptr_t)output->lse % 4 != 0 || (uintptr_t)io->sinks % 4 != 0) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "output.lse, sinks: not aligned to 4 bytes");
    }
    if (state == NULL) {
        if (output->data == NULL && output->lse != NULL) return VARVE_OK;
        return check_strides(host, "output.data", output->data, 4, output->query_stride,
                             output->head_stride, output->batch_stride);
    }
    if (output->data != NULL || output->lse != NULL || io->sinks != NULL) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "state together with output or sinks: finish the state instead");
    }
    if (state->data == NULL || (uintptr_t)state->data % 4 != 0 || state->n_batch != a->n_batch ||
        state->n_query != a->n_query || state->n_head != a->n_head ||
        state->head_dim_v != a->head_dim_v) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "state: NULL or misaligned data, or not the plan's shape");
    }
    return VARVE_OK;
}

enum varve_status varve_io_check(const struct varve_plan *plan, const struct varve_io *io) {
    if (plan == NULL || io == NULL) return VARVE_ERROR_ARGUMENT;
    const struct varve_host *host = &plan->context->host;
    if (io->n_segment < 0 || (io->n_segment > 0 && io->segments == NULL)) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "n_segment is %lld, segments %s",
                          (long long)io->n_segment, io->segments ? "given" : "NULL");
    }
    enum varve_status status = check_segments(plan, io);
    if (status == VARVE_OK) status = check_mask(plan, io->mask);
    if (status != VARVE_OK || plan->attention.n_batch * plan->attention.n_query == 0) {
        return status;
    }
    status = check_strides(host, "query.data", io->query.data, 4, io->query.query_stride,
                           io->query.head_stride, io->query.batch_stride);
    return status == VARVE_OK ? check_result(plan, io) : status;
}
