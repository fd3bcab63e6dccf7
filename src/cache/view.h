/* The inside of a view while it is made. See docs/DESIGN.md 9. */
#ifndef VARVE_CACHE_VIEW_H
#define VARVE_CACHE_VIEW_H

#include "cache/twins.h"

/* K or V of one attention: which rows its queries read hot. */
struct varve_side {
    struct varve_twins *twins; /* NULL: none */
    int64_t cell0;             /* cell of row 0 */
    int64_t value0;            /* first value inside a row (MLA) */
    int64_t n_head_value;      /* values from head to head */
    int32_t n_run;
    uint64_t *seen;                  /* [n_query][n_run]: rows of the run that the query sees */
    uint64_t *hot;                   /* [n_query][n_run]: of these, the ones it reads hot */
    int64_t n_hot, n_sink, n_missed; /* sums over the queries, as the account has them */
};

struct varve_look {
    struct varve_hot *hot;
    const struct varve_hot_node *node;
    int64_t n_query, n_row;
    struct varve_side k, v; /* MLA: the same twins in both, looked at once */
    int64_t *n_visible;     /* [n_query] */
};

/* Row q of the mask; NULL without a mask. */
static inline const uint16_t *varve_look_mask(const struct varve_look *look, int64_t q) {
    const struct varve_mask *mask = look->node->mask;
    if (mask == NULL) return NULL;
    return (const uint16_t *)(const void *)((const char *)mask->data + q * mask->row_stride) +
           look->node->cold.mask_column;
}

/* Rows row .. row + n - 1 of the node that query q sees; n <= 64. */
uint64_t varve_look_visible(const struct varve_look *look, int64_t q, int64_t row, int32_t n);

/* Lists the segments. `look` is complete. */
enum varve_status varve_look_segments(const struct varve_look *look, struct varve_hot_view *view);

/* The most that this needs when K and V together have n_live twins: of the tier's scratch, and of
 * the blocks of a view. */
struct varve_size varve_look_scratch(int64_t n_live);
struct varve_size varve_look_bytes(int64_t n_live, int64_t n_query);

/* The mask of a view with rows that queries read in different ways: columns for each way. */
struct varve_size varve_look_mask_bytes(int64_t n_query, int64_t n_column);

/* Lists the comparisons that the node defers. */
enum varve_status varve_look_checks(const struct varve_look *look, struct varve_hot_view *view);

/* Adds the rows of a view to the account, once. */
void varve_view_count(struct varve_hot_view *view);

/* The blocks of a view. */
enum { VARVE_VIEW_WORK, VARVE_VIEW_SEGMENTS, VARVE_VIEW_MASK, VARVE_VIEW_CHECKS, N_VARVE_VIEW };

#endif
