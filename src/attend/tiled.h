/* A task, and the two products of a block through the tile kernels. */
#ifndef VARVE_ATTEND_TILED_H
#define VARVE_ATTEND_TILED_H

#include "attend/visible.h"

/* One task of phase 0: queries [query0, query0 + n_query) of some KV heads against one chunk. */
struct task {
    const struct varve_plan *plan;
    const struct varve_io *io;
    struct varve_view view;
    int64_t chunk, batch, query0, n_query;
    int32_t head_kv0;
    int32_t n;           /* queries of one KV head: n_query * group */
    int64_t head_floats; /* of o, from one KV head to the next */
    bool unpacked;       /* the block at hand is in the tiles already */
    /* the worker's slice of scratch */
    float *query_f;
    int8_t *query_i;
    float *query_fi, *query_d;
    int32_t *query_sum;
    uint32_t *query_pair;
    float *m, *sum, *alpha, *o, *s, *bias, *k_tile, *k_d, *k_m, *v_tile, *v_d, *v_m;
};

/* s = q . k for one KV head, whose rows these are. */
void varve_tiled_score(const struct task *task, const struct varve_block *block,
                       const struct varve_queries *queries, const uint8_t *const *rows,
                       struct varve_ahead ahead, float *s);

/* o = alpha o + p v for one KV head. */
void varve_tiled_fold(const struct task *task, const struct varve_block *block, const float *s,
                      float *o, const float *alpha, const uint8_t *const *rows,
                      struct varve_ahead ahead);

#endif
