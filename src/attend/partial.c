/* Partial states in scratch: where they lie, how they are merged, and where results go. */
#include "attend/partial.h"

#include <math.h>
#include <string.h>

int64_t varve_partial_at(const struct varve_plan *plan, int64_t chunk, int64_t b, int64_t i,
                         int32_t h) {
    const struct varve_attention *a = &plan->attention;
    const int64_t head = (chunk * a->n_batch + b) * a->n_head_kv + h / plan->group;
    return (head * a->n_query + i) * plan->group + h % plan->group;
}

float *varve_partial_ms(const struct varve_plan *plan, void *scratch, int64_t at) {
    return (float *)(void *)((char *)scratch + plan->partial_ms) + VARVE_RECORD_MS * at;
}

float *varve_partial_o(const struct varve_plan *plan, void *scratch, int64_t at) {
    return (float *)(void *)((char *)scratch + plan->partial_o) + at * plan->ld_v;
}

static struct varve_record partial_record(const struct varve_plan *plan, const void *scratch,
                                          int64_t at) {
    const char *const from = scratch;
    const float *const ms =
        (const float *)(const void *)(from + plan->partial_ms) + VARVE_RECORD_MS * at;
    const float *const o = (const float *)(const void *)(from + plan->partial_o) + at * plan->ld_v;
    return (struct varve_record){ms[0], ms[1], o};
}

void varve_partial_deliver(const struct varve_plan *plan, const struct varve_io *io, int64_t b,
                           int64_t i, int32_t h, const struct varve_record *record) {
    const struct varve_attention *a = &plan->attention;
    if (io->state != NULL) {
        float *const data = io->state->data + varve_state_at(io->state, b, i, h);
        varve_record_merge(&data[0], &data[1], &data[2], record, a->head_dim_v);
        return;
    }
    const struct varve_output *output = &io->output;
    varve_record_finish(record, io->sinks ? &io->sinks[h] : NULL, a->head_dim_v,
                        output->data ? varve_output_at(output, b, i, h) : NULL,
                        output->lse ? &output->lse[(b * a->n_query + i) * a->n_head + h] : NULL);
}

/* Merges the chunks of a few records in the order of the chunks, whoever computed them. The first
 * chunk's partial is the accumulator; this task is its only reader and writer now. */
void varve_partial_merge(const struct varve_plan *plan, const struct varve_io *io, void *scratch,
                         int64_t number) {
    const struct varve_attention *a = &plan->attention;
    const int64_t n_record = a->n_batch * a->n_query * a->n_head;
    const int64_t per_task = (n_record + plan->n_task[1] - 1) / plan->n_task[1];
    const int64_t first = number * per_task;
    const int64_t last = first + per_task < n_record ? first + per_task : n_record;
    for (int64_t r = first; r < last; r++) {
        const int32_t h = (int32_t)(r % a->n_head);
        const int64_t i = r / a->n_head % a->n_query;
        const int64_t b = r / a->n_head / a->n_query;
        const int64_t at = varve_partial_at(plan, 0, b, i, h);
        float *const ms = varve_partial_ms(plan, scratch, at);
        float *const o = varve_partial_o(plan, scratch, at);
        for (int64_t c = 1; c < plan->n_chunk; c++) {
            const struct varve_record in =
                partial_record(plan, scratch, varve_partial_at(plan, c, b, i, h));
            varve_record_merge(&ms[0], &ms[1], o, &in, a->head_dim_v);
        }
        const struct varve_record record = {ms[0], ms[1], o};
        varve_partial_deliver(plan, io, b, i, h, &record);
    }
}

enum varve_status varve_partial_read(const struct varve_plan *plan, const void *scratch, int64_t b,
                                     int64_t i, int32_t h, float *record) {
    if (plan == NULL || scratch == NULL || record == NULL || !plan->attention.partials) {
        return VARVE_ERROR_ARGUMENT;
    }
    const struct varve_attention *a = &plan->attention;
    if (b < 0 || b >= a->n_batch || i < 0 || i >= a->n_query || h < 0 || h >= a->n_head) {
        return VARVE_ERROR_ARGUMENT;
    }
    /* The first merge into an empty record copies, bit for bit. */
    record[0] = -INFINITY;
    memset(&record[1], 0, (1 + (size_t)a->head_dim_v) * sizeof(float));
    for (int64_t c = 0; c < plan->n_chunk; c++) {
        const struct varve_record in =
            partial_record(plan, scratch, varve_partial_at(plan, c, b, i, h));
        varve_record_merge(&record[0], &record[1], &record[2], &in, a->head_dim_v);
    }
    return VARVE_OK;
}
