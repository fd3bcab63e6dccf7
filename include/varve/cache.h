/* varve: a KV cache for engines that have none.
 *
 * SPDX-License-Identifier: MIT
 *
 * A struct varve_cache holds K and V of one layer and one sequence: *cold* rows in any format and,
 * beside quantized ones, F16 twins of recent rows as varve/hot.h keeps them. Rows are appended as
 * floats, age by the rule of docs/DESIGN.md 9, and are lent as segments for varve_run. Section 10
 * says what the cache adds to the rule.
 *
 * An engine makes one struct varve_hot with the window and the sinks (none: cold rows only) and one
 * cache for each layer and sequence. They share its budget, its staging buffer and one view, since
 * a layer is attended before the next one is written. In each step, for each layer in turn:
 *
 *     varve_cache_append(cache, &k, &v, n, VARVE_CACHE_END)   rows of this step
 *     varve_cache_view(cache, &node, &view)                   -> view.segments
 *     varve_plan_create, varve_run over these segments, without a mask in struct varve_io
 *
 * Visibility is in the segments: `causal`, `window` and `query_pos` of struct varve_attention stay
 * zero and are given in struct varve_cache_node instead.
 *
 * Caches of one struct varve_hot, and their views, are used by one thread at a time. All memory but
 * that of staging and views is taken when a cache is created; varve_cache_plan says how much. */
#ifndef VARVE_CACHE_H
#define VARVE_CACHE_H

#include "varve/hot.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------- cache */

/* Zero-initialise, then set; new fields come at the end. */
struct varve_cache_params {
    size_t struct_bytes; /* sizeof(struct varve_cache_params) */
    enum varve_format k_format, v_format;
    int32_t head_dim_k, head_dim_v; /* multiples of the formats' blocks */
    int32_t n_head_kv;
    int64_t n_row_max;  /* rows that the cache can hold */
    int64_t n_step_max; /* most rows of one append, and most queries of one view; < 2^31 */
};

/* Memory of one cache. */
struct varve_cache_bytes {
    /* Taken by varve_cache_create, exactly. */
    size_t cold;   /* rows in their format */
    size_t hot;    /* F16 twins of window, slack and sinks, with their fingerprints */
    size_t tables; /* positions, which row has its twin where, one row of floats */
    /* Once for all caches of the same shape in a tier, taken when needed. */
    size_t staging; /* F16 rows of one append of n_step_max rows */
    size_t shared;  /* at most: the tier itself, its tables, one view with its masks */
    size_t total;
};

/* K and V rows of one layer of one sequence. */
struct varve_cache;

/** Says how much memory a cache takes, before anything is allocated.
 *  @units  bytes; tier: the parameters of the struct varve_hot that the cache will belong to, NULL
 *          for none.
 *  @owns   nothing.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_OVERFLOW; *bytes is untouched then.
 *  @threads safe.
 *  @see    docs/DESIGN.md 10 */
VARVE_API enum varve_status varve_cache_plan(const struct varve_context *context,
                                             const struct varve_hot_params *tier,
                                             const struct varve_cache_params *params,
                                             struct varve_cache_bytes *bytes);

/** Creates an empty cache.
 *  @units  hot: the tier, made from the same context; NULL: cold rows only.
 *  @owns   *cache is the caller's, released by varve_cache_destroy before the tier.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_OVERFLOW, VARVE_ERROR_MEMORY (also when the tier's
 *          budget does not grant the twins); *cache is NULL then.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 10 */
VARVE_API enum varve_status varve_cache_create(const struct varve_context *context,
                                               struct varve_hot *hot,
                                               const struct varve_cache_params *params,
                                               struct varve_cache **cache);

/** Releases a cache with its rows.
 *  @units  cache: may be NULL.
 *  @owns   the cache and the segments of views made from it are invalid afterwards.
 *  @errors none.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 10 */
VARVE_API void varve_cache_destroy(struct varve_cache *cache);

/** Rows in the cache.
 *  @units  rows.
 *  @owns   nothing.
 *  @errors none.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 10 */
VARVE_API int64_t varve_cache_n_row(const struct varve_cache *cache);

/** Where varve_cache_append continues: the largest position in the cache plus one; 0 if it is
 * empty.
 *  @units  absolute position.
 *  @owns   nothing.
 *  @errors none.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 10 */
VARVE_API int64_t varve_cache_end(const struct varve_cache *cache);

/* Which side of a cache. */
enum varve_cache_side { VARVE_CACHE_K = 0, VARVE_CACHE_V = 1 };

/** What has been done with the twins of K or V since the cache was created.
 *  @units  rows, see struct varve_twins_account; all zero for a side without twins.
 *  @owns   nothing.
 *  @errors zeros for another side.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 9 */
VARVE_API struct varve_twins_account varve_cache_account(const struct varve_cache *cache,
                                                         enum varve_cache_side side);

/* ----------------------------------------------------------------------------------------- rows */

/* Rows as an engine has them. Value d of head h of row i lies at data + i * row_stride +
 * h * head_stride, d values further; no alignment is needed. */
struct varve_cache_rows {
    enum varve_format format; /* VARVE_FORMAT_F32, VARVE_FORMAT_F16 or VARVE_FORMAT_BF16 */
    const void *data;
    int64_t row_stride, head_stride; /* bytes */
};

/* Position for varve_cache_append: after the last one. */
#define VARVE_CACHE_END (-1)

/** Writes rows behind those that are there, as the newest: in the cold format, with the bytes of
 *  varve_format_encode, and in F16 where there are twins. Rows that come while the cache holds
 * fewer than the tier's n_sink are pinned.
 *  @units  n: rows, 0 to n_step_max; pos: absolute position of the first row, the others follow, or
 *          VARVE_CACHE_END. Positions may be left out, and filled later.
 *  @owns   nothing kept.
 *  @errors VARVE_ERROR_ARGUMENT (NULL, a source that is not of floats, n, a position below 0 or
 *          above 2^48 or in use), VARVE_ERROR_MEMORY (the cache is full). Nothing is written then.
 *          Without memory for staging, rows are written without twins and counted.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 10 */
VARVE_API enum varve_status varve_cache_append(struct varve_cache *cache,
                                               const struct varve_cache_rows *k,
                                               const struct varve_cache_rows *v, int64_t n,
                                               int64_t pos);

/** Removes rows by their positions. Their room is used again. Rows that were written later move up:
 *  removing the last ones (rollback) copies nothing.
 *  @units  positions pos .. pos + n - 1, those without a row are passed over; n INT64_MAX: all from
 *          pos on.
 *  @owns   segments of views are invalid afterwards.
 *  @errors VARVE_ERROR_ARGUMENT (NULL, pos or n below 0). Nothing is removed then.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 10 */
VARVE_API enum varve_status varve_cache_remove(struct varve_cache *cache, int64_t pos, int64_t n);

/** Makes a cache hold what another one holds: rows, positions, twins, pins. What it held is
 * removed. Twins that have left the window, seen from the last row, are not copied.
 *  @units  dst: of the same formats and heads, n_row_max at least the rows of src. Its tier may be
 *          another one; without a tier it has cold rows only.
 *  @owns   both stay the caller's; src is not changed. Segments of views of dst are invalid
 *          afterwards.
 *  @errors VARVE_ERROR_ARGUMENT (NULL, the same cache, another shape), VARVE_ERROR_MEMORY (dst is
 *          too small). Nothing is changed then.
 *  @threads one thread for both tiers.
 *  @see    docs/DESIGN.md 10 */
VARVE_API enum varve_status varve_cache_copy(struct varve_cache *dst,
                                             const struct varve_cache *src);

/* ----------------------------------------------------------------------------------------- view */

/* Who looks at a cache. Zero-initialise, then set. */
struct varve_cache_node {
    int64_t n_query; /* 0 to n_step_max */
    int64_t pos;     /* query i stands at pos + i; for the rows appended last: end - n_query */
    bool causal;     /* rows after the query are not seen */
    int64_t window;  /* 0: off; else only rows with query position - row position < window */
    bool bias; /* ALiBi (max_bias of struct varve_attention): the mask holds minus the distance,
                  in F16 */
};

/* Segments of a cache. Zero-initialise; used again and again, also for other caches of the same
 * tier; ended by varve_cache_view_release. */
struct varve_cache_view {
    const struct varve_segment *segments; /* for varve_plan_create and varve_io */
    int64_t n_segment;
    int64_t
        n_row; /* rows of all segments: those of the cache, and once more where queries differ */
    struct varve_hot_view hot; /* private from here on */
    struct varve_segment cold;
    struct varve_mask mask;
    const struct varve_context *context;
    void *block;
    size_t block_bytes;
};

/** Lists segments by which each query reads each row that it sees once, hot or cold as the rule
 * says.
 *  @units  see struct varve_cache_node.
 *  @owns   view->segments belongs to the view and borrows the rows of the cache. It is valid until
 *          the next call with the same view, the next change of any cache of the tier, or
 *          varve_cache_view_release.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_MEMORY. After an error the view is empty.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 9, 10 */
VARVE_API enum varve_status varve_cache_view(struct varve_cache *cache,
                                             const struct varve_cache_node *node,
                                             struct varve_cache_view *view);

/** Frees what a view holds.
 *  @units  view: may be zero-initialised.
 *  @owns   the view is as zero-initialised afterwards. Comes before the tier is destroyed.
 *  @errors none.
 *  @threads one thread per tier.
 *  @see    docs/DESIGN.md 10 */
VARVE_API void varve_cache_view_release(struct varve_cache_view *view);

#ifdef __cplusplus
}
#endif

#endif
