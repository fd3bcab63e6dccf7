/* varve: F16 twins of recent rows beside quantized rows that somebody else owns.
 *
 * SPDX-License-Identifier: MIT
 *
 * An engine keeps its KV cache in a quantized format, as it always did. Beside it, varve keeps the
 * most recent rows a second time in F16, and for each attention says which rows to read where. The
 * result is a list of segments for varve_run. The rule is in docs/DESIGN.md 9: each query reads the
 * W most recently written rows that it can see, and the first S rows of its sequence, in F16.
 *
 * The order of calls, for each layer and step:
 *
 *     the engine writes cold rows of K                   varve_twins_write(k, cells, n)
 *     for each row (any thread)                          varve_twins_write_row(k, i, values)
 *     the same for V
 *     varve_hot_view(hot, &node, view)                   -> view->segments
 *     varve_plan_create, varve_run over these segments
 *
 * Engines that drive tasks themselves let the fingerprints be compared beside the attention
 * (node.defer): varve_hot_check for each check on any thread, then varve_hot_settle.
 *
 * A cell is a place for one row in the engine's tensor. Cells are not positions: age comes from the
 * order of writing, visibility from the mask. Objects that belong to one struct varve_hot are used
 * by one thread at a time, except varve_twins_write_row. */
#ifndef VARVE_HOT_H
#define VARVE_HOT_H

#include "varve/varve.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --------------------------------------------------------------------------------------- tiers */

/* The most rows of a window, and the most sinks. */
#define VARVE_HOT_ROWS_MAX (1 << 30)

/* Zero-initialise, then set; new fields come at the end. */
struct varve_hot_params {
    size_t struct_bytes; /* sizeof(struct varve_hot_params) */
    int32_t window;      /* W, 1 to VARVE_HOT_ROWS_MAX: rows that a query reads in F16 */
    int32_t n_sink;      /* S, 0 to VARVE_HOT_ROWS_MAX: first rows of a sequence that stay in F16 */
    /* Asks for memory before it is allocated (bytes > 0), and gives back (bytes < 0). False: not
     * granted. NULL: no limit. Several struct varve_hot may share one budget through it. */
    bool (*reserve)(void *user, int64_t bytes);
    void *user;
};

/* The twins of one engine context: settings, the staging buffer of all its layers, the account. */
struct varve_hot;

/** Creates the tier of one engine context.
 *  @units  see struct varve_hot_params.
 *  @owns   *hot is the caller's, released by varve_hot_destroy before the context.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_MEMORY; *hot is NULL then.
 *  @threads safe.
 *  @see    docs/DESIGN.md 9 */
VARVE_API enum varve_status varve_hot_create(const struct varve_context *context,
                                             const struct varve_hot_params *params,
                                             struct varve_hot **hot);

/** Releases a tier and all its twins.
 *  @units  hot: may be NULL.
 *  @owns   the tier, its twins and all views made from it are invalid afterwards.
 *  @errors none.
 *  @threads caller locks.
 *  @see    docs/DESIGN.md 9 */
VARVE_API void varve_hot_destroy(struct varve_hot *hot);

/* Bytes that a tier has allocated. */
struct varve_hot_bytes {
    size_t hot;     /* twins with their fingerprints */
    size_t staging; /* rows of the step at hand, and masks of views */
    size_t peak;    /* most of both at once */
};

/** Bytes in use now.
 *  @units  bytes.
 *  @owns   nothing.
 *  @errors none.
 *  @threads one thread per object.
 *  @see    docs/DESIGN.md 9 */
VARVE_API struct varve_hot_bytes varve_hot_bytes(const struct varve_hot *hot);

/** Rows that one sequence takes in a cache: the window, the slack, room to write, the sinks. A unit
 * for struct varve_twins_params.n_row_max.
 *  @units  rows.
 *  @owns   nothing.
 *  @errors none.
 *  @threads safe.
 *  @see    docs/DESIGN.md 9 */
VARVE_API int64_t varve_hot_ring_rows(int32_t window, int32_t n_sink);

/* --------------------------------------------------------------------------------------- twins */

/* One tensor of cold rows, K or V of one layer. Cell c is at cold + c * cold_stride. */
struct varve_twins_params {
    size_t struct_bytes; /* sizeof(struct varve_twins_params) */
    enum varve_format format;
    int64_t n_value; /* values of a row, all KV heads: a multiple of the format's block */
    const void *cold;
    int64_t cold_stride; /* bytes, >= those of a row */
    int64_t n_cell;
    int64_t n_row_max; /* most twins to keep; 0: four rings (varve_hot_ring_rows) */
    bool shared; /* sequences may share rows: what left the window is kept while there is room */
    bool reread; /* attended again after another tensor was written: staged rows are kept */
};

/* The twins of one tensor. */
struct varve_twins;

/** Adds a tensor to a tier. No memory for twins is taken before the first write.
 *  @units  see struct varve_twins_params.
 *  @owns   *twins belongs to hot and lives as long; the cold rows stay the caller's and must stay
 *          readable.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_OVERFLOW, VARVE_ERROR_MEMORY; *twins is NULL then.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 9 */
VARVE_API enum varve_status varve_twins_create(struct varve_hot *hot,
                                               const struct varve_twins_params *params,
                                               struct varve_twins **twins);

/* What the twins of one tensor take once its cache has been filled. */
struct varve_twins_bytes {
    size_t hot;     /* rings, with fingerprints */
    size_t sinks;   /* of these, rows that are pinned when each sequence has its own first rows */
    size_t staging; /* rows of one write; tensors of a layer need it at once, layers in turn */
    size_t tables;  /* places and runs that are in use when rows were written in order */
};

/** Says how much memory the twins of a tensor will take, before anything is allocated. Without a
 *  reserve that refuses: with one, twins and staging together stay within it.
 *  @units  params: `cold` is not looked at; n_sequence: sequences that have rows in it, >= 1;
 *          n_step: most rows of one write, >= 0.
 *  @owns   nothing.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_OVERFLOW; *bytes is untouched then.
 *  @threads safe.
 *  @see    docs/DESIGN.md 9 */
VARVE_API enum varve_status varve_twins_plan(const struct varve_context *context,
                                             const struct varve_hot_params *tier,
                                             const struct varve_twins_params *params,
                                             int64_t n_sequence, int64_t n_step,
                                             struct varve_twins_bytes *bytes);

/** From now on the tensor is attended again after others were written (as struct varve_twins_params
 *  says it at creation).
 *  @units  none.
 *  @owns   nothing.
 *  @errors none.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 9 */
VARVE_API void varve_twins_set_reread(struct varve_twins *twins);

/** Announces a write: twins of these cells are dropped, places for new ones are made. Then
 *  varve_twins_write_row is called for each row. What finds no place (no memory, no budget) has no
 *  twin and is counted; that is no error.
 *  @units  cells: n cells in the order of writing; of equal ones the last counts.
 *  @owns   nothing kept.
 *  @errors VARVE_ERROR_ARGUMENT (NULL, a cell outside of the tensor), VARVE_ERROR_MEMORY (for
 * tables; these rows have no twins then). Nothing else is changed by an error.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 9 */
VARVE_API enum varve_status varve_twins_write(struct varve_twins *twins, const int64_t *cells,
                                              int64_t n);

/** Stores the twin of row i of the announced write, with the fingerprint of its cold row. The cold
 * row must have been written. Every row of a write needs one call before the next view.
 *  @units  i: 0 .. n - 1; values: n_value floats.
 *  @owns   nothing kept.
 *  @errors none: without a place the call does nothing.
 *  @threads safe for different i.
 *  @see    docs/DESIGN.md 9 */
VARVE_API void varve_twins_write_row(struct varve_twins *twins, int64_t i, const float *values);

/* What has been done with the twins of one tensor. Rows are counted for each query that attended,
 * twins once. */
struct varve_twins_account {
    uint64_t rows_hot, rows_sink, rows_cold; /* in the window; pinned and not in it; the rest */
    /* Places of the window that no twin filled: the smaller of W and the visible rows, less
     * rows_hot; part of rows_cold. An older twin fills the place of a recent row that has none,
     * also a pinned one, which is then one of rows_hot: after a rollback beyond the slack this is
     * smaller by the sinks than the number of recent rows without a twin. */
    uint64_t rows_missed;
    uint64_t twins_written; /* given a place */
    uint64_t twins_stale;   /* dropped: the cold row had changed, or F16 cannot hold its values */
    /* For want of room (budget, n_row_max or memory): twins dropped before they had left the
     * window, and rows that never got a place, which are not in twins_written. Rows of a write that
     * ended with VARVE_ERROR_MEMORY are in neither. */
    uint64_t twins_evicted;
};

/** The account of one tensor since it was added.
 *  @units  rows.
 *  @owns   nothing.
 *  @errors none.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 9 */
VARVE_API struct varve_twins_account varve_twins_account(const struct varve_twins *twins);

/* ---------------------------------------------------------------------------------------- view */

/* One attention over cells of a tensor, for one batch entry. */
struct varve_hot_node {
    struct varve_segment cold; /* all rows as the engine holds them; batch strides are ignored */
    int64_t n_query;
    const struct varve_mask *mask; /* NULL: every query sees every row; else n_head 1, n_batch 1 */
    /* Twins of K and of V, or NULL where there are none. k and v of `cold` lie in their cells, with
     * the stride of the cells; they may begin inside a row. MLA: the same twins for both. */
    struct varve_twins *k, *v;
    /* Twins are taken to be fresh; varve_hot_check compares them, varve_hot_settle says whether the
     * result may be used. */
    bool defer;
};

/* Which rows to read where. Zero-initialise; used again and again; ended by varve_hot_view_release.
 */
struct varve_hot_view {
    const struct varve_segment *segments; /* for varve_plan_create and varve_io */
    int64_t n_segment;
    int64_t n_row;   /* rows of all segments: those of `cold`, and once more where queries differ */
    int64_t n_check; /* calls of varve_hot_check; 0 unless the node defers */
    struct varve_mask mask; /* private: of segments in which queries differ */
    struct varve_hot *hot;  /* private from here on */
    struct varve_twins *side[2];
    struct varve_twins_account counted[2];
    void *block[4];
    size_t block_bytes[4];
};

/** Looks up which rows have twins, checks these against the cold rows, and lists segments that read
 *  each row as the rule says.
 *  @units  see struct varve_hot_node.
 *  @owns   view->segments belongs to the view and is valid until the next call with the same view,
 * the next write into one of the tensors, or varve_hot_view_release. node->mask must stay until the
 * run has ended.
 *  @errors VARVE_ERROR_ARGUMENT (also for a mask that differs by head: attend to `cold` then),
 *          VARVE_ERROR_MEMORY. After an error the view is empty.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 9 */
VARVE_API enum varve_status varve_hot_view(struct varve_hot *hot, const struct varve_hot_node *node,
                                           struct varve_hot_view *view);

/* What a view takes. */
struct varve_hot_view_bytes {
    size_t staging; /* its own mask, from the budget of the tier */
    size_t tables;  /* which query reads which rows where */
};

/** Says how much memory a view of K and V with twins will take when rows were written in order: the
 *  queries are the last n_query rows of one sequence, n_row rows of each side have twins.
 *  @units  counts.
 *  @owns   nothing.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_OVERFLOW; *bytes is untouched then.
 *  @threads safe.
 *  @see    docs/DESIGN.md 9 */
VARVE_API enum varve_status varve_hot_view_plan(int64_t n_query, int64_t n_row,
                                                struct varve_hot_view_bytes *bytes);

/** Compares the fingerprints of some rows of a view whose node defers (about 64 of them).
 *  @units  i: 0 .. view->n_check - 1.
 *  @owns   nothing.
 *  @errors none: what is found is kept in the view.
 *  @threads safe for different i, and beside the run over the view's segments.
 *  @see    docs/DESIGN.md 9 */
VARVE_API void varve_hot_check(struct varve_hot_view *view, int64_t i);

/** Ends a run over a view whose node defers. True: every twin was fresh, the result stands. False:
 *  some were stale (or not compared), these are dropped, and the result must be thrown away: make
 *  the view again, without `defer`, and run again. Rows are counted when it stands.
 *  @units  view: any; true for one that was settled or does not defer.
 *  @owns   nothing.
 *  @errors none.
 *  @threads one thread per tier, after all checks.
 *  @see    docs/DESIGN.md 9 */
VARVE_API bool varve_hot_settle(struct varve_hot_view *view);

/** Frees what a view holds.
 *  @units  view: may be zero-initialised.
 *  @owns   the view is as zero-initialised afterwards.
 *  @errors none.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 9 */
VARVE_API void varve_hot_view_release(struct varve_hot_view *view);

#ifdef __cplusplus
}
#endif

#endif
