/* How a problem is cut. See docs/DESIGN.md 5. */
#ifndef VARVE_ATTEND_PLAN_H
#define VARVE_ATTEND_PLAN_H

#include "kernel/context.h"

/* Where a worker's buffers lie inside its slice of scratch, in bytes from the slice's start. */
struct varve_layout {
    /* packed queries of the task's heads */
    size_t query_f, query_i, query_fi, query_d, query_sum, query_pair;
    size_t m, sum, alpha, o;                   /* their running states */
    size_t s, bias;                            /* scores and mask of one block */
    size_t k_tile, k_d, k_m, v_tile, v_d, v_m; /* one decoded block */
    size_t bytes;                              /* the whole slice */
};

struct varve_plan {
    const struct varve_context *context;
    size_t plan_bytes; /* of this allocation */
    struct varve_attention attention;
    uint32_t k_formats, v_formats; /* bit per format that segments may have */
    uint32_t k_direct, v_direct;   /* of these, the ones served by direct kernels */
    uint32_t k_packed;             /* of the others, those scored from packed bytes */
    uint32_t v_rounded;            /* of v_direct, those folded by foldq where K is q8 */
    uint32_t v_packed;             /* of the others, those folded from pairs where K is q8 */
    uint32_t k_paired, v_paired;   /* of the others, those multiplied in bfloat16 (class fast) */
    bool any_exact, any_q8;        /* which query packings the K formats need */
    bool any_paired;               /* the same */
    int64_t n_row;                 /* all segments together */
    int32_t group;                 /* query heads per KV head */
    int32_t n_head_task;           /* KV heads per task: all of them with few queries, else 1 */
    int32_t n_head_step;           /* of them, whose queries go through softmax together */
    int32_t ld_k, ld_v;            /* head sizes rounded up to 16 */
    int32_t n_block;               /* blocks of 32 in a quantized query */
    int32_t ld_pair;               /* words of a query in bfloat16 */
    int64_t tile_query, n_tile;    /* queries per tile, tiles */
    int64_t chunk_rows, n_chunk;   /* KV rows per chunk, chunks */
    bool partials;                 /* phase 0 leaves partial states instead of results */
    int64_t n_task[VARVE_PHASE_COUNT];
    int32_t n_worker;
    struct varve_layout layout;
    /* partial states, behind the workers' slices: [chunk][batch entry][KV head][query][group] of
     * o[ld_v] and of m, s, these in a cache line of their own: threads write next to each other */
    size_t partial_o, partial_ms;
    size_t scratch_bytes;
    float slope[]; /* [n_head] ALiBi slopes, 1 without ALiBi */
};

/* Whether K rows of a format are read with quantized queries (class q8). */
static inline bool varve_k_is_q8(const struct varve_plan *plan, enum varve_format format) {
    return varve_format_traits(format)->quantized &&
           plan->attention.arithmetic != VARVE_ARITHMETIC_EXACT;
}

/* Rows, queries, batch entries and positions beyond this are refused: sums and products of a few of
 * them stay inside int64_t. */
#define VARVE_COUNT_MAX (INT64_C(1) << 48)

/* Floats from m of a partial state to m of the next. */
#define VARVE_RECORD_MS 16

#endif
