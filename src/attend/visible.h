/* Which rows the queries of a task may see: mask tensor, causal order, sliding window; and the bias
 * that mask and ALiBi add to their logits. Rows that no query sees are never handed on, so they are
 * never read (promise 4). */
#ifndef VARVE_ATTEND_VISIBLE_H
#define VARVE_ATTEND_VISIBLE_H

#include "attend/plan.h"

/* The queries of a task. One *line* is one distinct mask row: a query, or a (query, head) where the
 * mask differs by head; line = query * n_line_head + head (0 if shared). */
struct varve_view {
    const struct varve_plan *plan;
    const struct varve_mask *mask; /* of segments without one of their own; may be NULL */
    int64_t batch;
    int64_t query0, n_query;
    int32_t head0;
    int32_t n_line_head; /* 1, or the task's number of query heads */
    int64_t n_line;      /* 0: everything is visible and nothing is added */
};

/* Up to 64 rows of one segment: bit j is row j. */
struct varve_span {
    uint64_t any; /* rows that some line sees */
    uint64_t all; /* rows that every line sees */
    bool plain;   /* nothing is added to the logits of visible rows */
};

/* Visibility of many rows of a segment at once: lines of a mask lie in pages of their own, and
 * walking from page to page for 64 columns at a time costs more than looking at them. */
#define VARVE_SPANS 8
struct varve_spans {
    const struct varve_segment *segment; /* NULL: of nothing yet */
    int64_t row;                         /* the first; up to 64 * VARVE_SPANS of them */
    int32_t n;
    struct varve_span span[VARVE_SPANS]; /* 64 rows each */
};

/* The mask that holds for a segment; NULL: none. */
static inline const struct varve_mask *varve_view_mask(const struct varve_view *view,
                                                       const struct varve_segment *segment) {
    return segment->mask != NULL ? segment->mask : view->mask;
}

/* Whether rows under this mask (NULL: none) are biased by their distance from the query. */
static inline bool varve_view_alibi(const struct varve_view *view, const struct varve_mask *mask) {
    const struct varve_attention *a = &view->plan->attention;
    return mask == NULL && a->max_bias > 0 && !a->alibi_by_mask;
}

/* A block: the visible rows handed to the kernels, all with the formats, head strides and mask of
 * one segment. Pointers are those of KV head 0. */
struct varve_block {
    const struct varve_segment *segment;
    int32_t n;
    bool sparse; /* some line does not see some of the rows */
    bool plain;  /* no bias needed: plain, and not sparse */
    const uint8_t *k[VARVE_TILE_ROWS];
    const uint8_t *v[VARVE_TILE_ROWS];
    int64_t column[VARVE_TILE_ROWS]; /* of the mask */
    int64_t pos[VARVE_TILE_ROWS];
};

struct varve_view varve_view_of(const struct varve_plan *plan, const struct varve_io *io,
                                int64_t batch, int64_t query0, int64_t n_query, int32_t head0,
                                int32_t n_head);

/* Visibility of rows row .. row + n - 1 of a segment, n <= 64. `spans` keeps what was found of rows
 * up to row + n_ahead - 1, n_ahead >= n, for the calls to come. */
struct varve_span varve_view_span(const struct varve_view *view, struct varve_spans *spans,
                                  const struct varve_segment *segment, int64_t row, int32_t n,
                                  int64_t n_ahead);

/* The bias of a block, bias[line][VARVE_TILE_ROWS]; hidden rows get -inf, padding gets 0. */
void varve_view_bias(const struct varve_view *view, const struct varve_block *block, float *bias);

#endif
