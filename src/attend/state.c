#include "attend/state.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"

void varve_record_merge(float *m, float *s, float *o, const struct varve_record *in,
                        int32_t head_dim) {
    if (in->m == -INFINITY) return; /* neutral; also avoids -inf - -inf */
    if (*m == -INFINITY) {
        *m = in->m;
        *s = in->s;
        memcpy(o, in->o, (size_t)head_dim * sizeof(float));
        return;
    }
    const float max = *m > in->m ? *m : in->m;
    const float keep = expf(*m - max);
    const float add = expf(in->m - max);
    *m = max;
    *s = *s * keep + in->s * add;
    for (int32_t d = 0; d < head_dim; d++) o[d] = o[d] * keep + in->o[d] * add;
}

void varve_record_finish(const struct varve_record *in, const float *sink, int32_t head_dim,
                         float *out, float *lse) {
    const bool empty = in->m == -INFINITY;
    float m = in->m;
    float s = empty ? 0 : in->s;
    float scale = 1;
    /* A sink is a logit without a value: it enters the sum only, and only here. */
    if (sink != NULL && *sink != -INFINITY) {
        const float max = !empty && m > *sink ? m : *sink;
        scale = empty ? 0 : expf(m - max);
        s = s * scale + expf(*sink - max);
        m = max;
    }
    if (lse != NULL) *lse = s == 0 ? -INFINITY : m + logf(s);
    if (out == NULL) return;
    if (empty) {
        memset(out, 0, (size_t)head_dim * sizeof(float));
        return;
    }
    const float factor = scale / s;
    for (int32_t d = 0; d < head_dim; d++) out[d] = in->o[d] * factor;
}

enum varve_status varve_state_floats(const struct varve_attention *attention, size_t *n_float) {
    if (attention == NULL || n_float == NULL) return VARVE_ERROR_ARGUMENT;
    if (attention->n_batch < 0 || attention->n_query < 0 || attention->n_head < 0 ||
        attention->head_dim_v < 1) {
        return VARVE_ERROR_ARGUMENT;
    }
    struct varve_size size = varve_size_of((size_t)attention->n_batch);
    size = varve_size_mul(size, (size_t)attention->n_query);
    size = varve_size_mul(size, (size_t)attention->n_head);
    size = varve_size_mul(size, 2 + (size_t)attention->head_dim_v);
    if (size.overflow || size.value > SIZE_MAX / sizeof(float)) return VARVE_ERROR_OVERFLOW;
    *n_float = size.value;
    return VARVE_OK;
}

enum varve_status varve_state_init(const struct varve_attention *attention, float *data,
                                   size_t n_float, struct varve_state *state) {
    size_t needed;
    const enum varve_status status = varve_state_floats(attention, &needed);
    if (status != VARVE_OK) return status;
    if (state == NULL || (data == NULL && needed > 0)) return VARVE_ERROR_ARGUMENT;
    if (n_float < needed) return VARVE_ERROR_MEMORY;
    const size_t record = 2 + (size_t)attention->head_dim_v;
    for (size_t i = 0; i < needed; i += record) {
        data[i] = -INFINITY;
        memset(&data[i + 1], 0, (record - 1) * sizeof(float));
    }
    *state = (struct varve_state){data, attention->n_batch, attention->n_query, attention->n_head,
                                  attention->head_dim_v};
    return VARVE_OK;
}

/* Also refuses shapes made by hand whose size overflows. */
static bool state_usable(const struct varve_state *state) {
    if (state == NULL || (uintptr_t)state->data % sizeof(float) != 0) return false;
    const struct varve_attention shape = {.n_batch = state->n_batch,
                                          .n_query = state->n_query,
                                          .n_head = state->n_head,
                                          .head_dim_v = state->head_dim_v};
    size_t n_float;
    if (varve_state_floats(&shape, &n_float) != VARVE_OK) return false;
    return state->data != NULL || n_float == 0;
}

static bool output_usable(const struct varve_output *output) {
    return output != NULL && (uintptr_t)output->data % sizeof(float) == 0 &&
           (uintptr_t)output->lse % sizeof(float) == 0 && output->query_stride % 4 == 0 &&
           output->head_stride % 4 == 0 && output->batch_stride % 4 == 0;
}

enum varve_status varve_state_merge(struct varve_state *dst, const struct varve_state *src) {
    if (!state_usable(dst) || !state_usable(src)) return VARVE_ERROR_ARGUMENT;
    if (dst->data == src->data && dst->data != NULL) return VARVE_ERROR_ARGUMENT;
    if (dst->n_batch != src->n_batch || dst->n_query != src->n_query ||
        dst->n_head != src->n_head || dst->head_dim_v != src->head_dim_v) {
        return VARVE_ERROR_ARGUMENT;
    }
    const int64_t record = 2 + (int64_t)dst->head_dim_v;
    const int64_t n = dst->n_batch * dst->n_query * dst->n_head * record;
    for (int64_t i = 0; i < n; i += record) {
        const struct varve_record in = {src->data[i], src->data[i + 1], &src->data[i + 2]};
        varve_record_merge(&dst->data[i], &dst->data[i + 1], &dst->data[i + 2], &in,
                           dst->head_dim_v);
    }
    return VARVE_OK;
}

/* Index of record (b, i, h) in the contiguous lse array. */
static int64_t lse_at(const struct varve_state *state, int64_t b, int64_t i, int32_t h) {
    return (b * state->n_query + i) * state->n_head + h;
}

enum varve_status varve_state_finish(const struct varve_state *state, const float *sinks,
                                     const struct varve_output *output) {
    if (!state_usable(state) || !output_usable(output)) return VARVE_ERROR_ARGUMENT;
    for (int64_t b = 0; b < state->n_batch; b++) {
        for (int64_t i = 0; i < state->n_query; i++) {
            for (int32_t h = 0; h < state->n_head; h++) {
                const float *data = &state->data[varve_state_at(state, b, i, h)];
                const struct varve_record in = {data[0], data[1], &data[2]};
                varve_record_finish(&in, sinks ? &sinks[h] : NULL, state->head_dim_v,
                                    output->data ? varve_output_at(output, b, i, h) : NULL,
                                    output->lse ? &output->lse[lse_at(state, b, i, h)] : NULL);
            }
        }
    }
    return VARVE_OK;
}

enum varve_status varve_state_import(struct varve_state *state, const struct varve_output *output) {
    if (!state_usable(state) || !output_usable(output) || output->data == NULL ||
        output->lse == NULL) {
        return VARVE_ERROR_ARGUMENT;
    }
    for (int64_t b = 0; b < state->n_batch; b++) {
        for (int64_t i = 0; i < state->n_query; i++) {
            for (int32_t h = 0; h < state->n_head; h++) {
                float *data = &state->data[varve_state_at(state, b, i, h)];
                const float lse = output->lse[lse_at(state, b, i, h)];
                data[0] = lse;
                data[1] = lse == -INFINITY ? 0 : 1;
                memcpy(&data[2], varve_output_at(output, b, i, h),
                       (size_t)state->head_dim_v * sizeof(float));
            }
        }
    }
    return VARVE_OK;
}
