/* One record of a state: m, s and o of one (query, head). The algebra of docs/DESIGN.md 6. */
#ifndef VARVE_ATTEND_STATE_H
#define VARVE_ATTEND_STATE_H

#include <stdint.h>

#include "varve/varve.h"

/* A borrowed record; o has head_dim_v floats and is not read while m is -inf. */
struct varve_record {
    float m, s;
    const float *o;
};

/* Adds `in` to the running record (*m, *s, o), scaling both to the larger maximum. */
void varve_record_merge(float *m, float *s, float *o, const struct varve_record *in,
                        int32_t head_dim);

/* Divides. sink: NULL or the head's learned logit. out and lse may be NULL. */
void varve_record_finish(const struct varve_record *in, const float *sink, int32_t head_dim,
                         float *out, float *lse);

/* Start of record (b, i, h) inside a state, in floats. */
static inline int64_t varve_state_at(const struct varve_state *state, int64_t b, int64_t i,
                                     int32_t h) {
    return ((b * state->n_query + i) * state->n_head + h) * (2 + (int64_t)state->head_dim_v);
}

/* Output row of (b, i, h). */
static inline float *varve_output_at(const struct varve_output *output, int64_t b, int64_t i,
                                     int32_t h) {
    return (float *)(void *)((char *)output->data + b * output->batch_stride +
                             i * output->query_stride + h * output->head_stride);
}

#endif
