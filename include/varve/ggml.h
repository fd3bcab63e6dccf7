/* varve's back end for ggml: what a host can ask it at run time.
 *
 * SPDX-License-Identifier: MIT
 *
 * The back end is a plug-in (libggml-varve.so), found by ggml through GGML_BACKEND_PATH or
 * ggml_backend_load. It exports nothing to link against: the functions below are fetched with
 *
 *     ggml_backend_reg_t reg = ggml_backend_reg_by_name(VARVE_GGML_NAME);
 *     varve_ggml_counters_fn counters =
 *         (varve_ggml_counters_fn)ggml_backend_reg_get_proc_address(reg, VARVE_GGML_COUNTERS);
 *
 * It also answers to "ggml_backend_set_n_threads", as ggml's own back ends do. */
#ifndef VARVE_GGML_H
#define VARVE_GGML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Name of the registry and of its only device. */
#define VARVE_GGML_NAME "VARVE"

/* Names for ggml_backend_reg_get_proc_address. */
#define VARVE_GGML_COUNTERS "varve_ggml_counters"
#define VARVE_GGML_DECLINED "varve_ggml_declined"
#define VARVE_GGML_ACCOUNT "varve_ggml_account"
#define VARVE_GGML_SET_TIERS "varve_ggml_set_tiers"

/* What the back end has done in this process, over all its contexts. New fields are added at the
 * end only. */
struct varve_ggml_counters {
    uint64_t attention_nodes;    /* FLASH_ATTN_EXT nodes computed */
    uint64_t attention_rows;     /* rows of K offered to them, summed over sequences */
    uint64_t attention_bytes;    /* bytes of those rows of K and V, all KV heads */
    uint64_t set_rows_nodes;     /* SET_ROWS nodes computed */
    uint64_t set_rows_rows;      /* rows written */
    uint64_t set_rows_bytes;     /* bytes written */
    uint64_t attention_accepted; /* questions about FLASH_ATTN_EXT nodes answered with yes */
    uint64_t attention_declined; /* ... and with no; one node is asked about several times */
    uint64_t set_rows_accepted;  /* the same for SET_ROWS */
    uint64_t set_rows_declined;
    uint64_t stock_attention; /* caches seen to be attended by other code than ours */
    uint64_t failed_nodes;    /* nodes that ended with an error status */
};

/** Reads the counters.
 *  @units  counters: at most counters_bytes bytes of it are written, which makes old hosts work
 * with new plug-ins and the other way round; pass sizeof(struct varve_ggml_counters) and zero it
 * before.
 *  @owns   counters stays the caller's.
 *  @errors none; NULL is ignored.
 *  @threads safe; the fields are read one by one, not as one snapshot.
 *  @see    docs/DESIGN.md 7 (the plug-in for ggml) */
typedef void (*varve_ggml_counters_fn)(struct varve_ggml_counters *counters, size_t counters_bytes);

/** The i-th reason for which nodes were declined so far, and how many questions it answered.
 *  @units  i: 0, 1, 2...; *n_question may be NULL.
 *  @owns   static storage.
 *  @errors NULL when i is past the last reason.
 *  @threads safe.
 *  @see    docs/DESIGN.md 7 */
typedef const char *(*varve_ggml_declined_fn)(int i, uint64_t *n_question);

/* What the hot tier did for one side (K or V; where V is a view of K, as in MLA, for K only). Rows
 * are counted once for each query and node that attended to them, so their sum is the work of
 * attention, not the size of the cache. */
struct varve_ggml_side {
    uint64_t rows_hot;  /* read in F16 because they were in the window */
    uint64_t rows_sink; /* read in F16 because they are pinned, and not in the window */
    uint64_t rows_cold; /* read in the format of the cache */
    /* Of these, places of the window that no twin filled: recent rows were written by others,
     * evicted, or came back after a rollback beyond the slack. An older twin fills such a place,
     * also a pinned one, which is then one of rows_hot: after a rollback this is smaller by the
     * sinks than the number of recent rows without a twin. */
    uint64_t rows_missed;
    uint64_t twins_written; /* given a place; from here on each twin counts once */
    uint64_t twins_stale;   /* dropped: the cold row had changed behind our back, or F16 cannot hold
                               its values */
    /* For want of room (the byte budget, the rings of the tensor, or memory): twins dropped before
     * they had left the window, and rows that never got a place, which are not in twins_written. */
    uint64_t twins_evicted;
};

/* The account of one context, or of all of them. New fields are added at the end only. */
struct varve_ggml_account {
    struct varve_ggml_side k, v;
    uint64_t
        bytes_cold; /* rows attended by the latest node of each layer, as the cache holds them */
    uint64_t bytes_hot;      /* allocated for twins, with their fingerprints and tables */
    uint64_t bytes_hot_peak; /* the most that was allocated at once, staging included */
    uint64_t bytes_staging;  /* allocated for the rows of the ubatch at hand */
    uint64_t bytes_limit;    /* VARVE_HOT_MAX, 0: none was set */
    int32_t window;          /* W; 0: tiers are off */
    int32_t n_sink;
};

/** Reads the account of the hot tier.
 *  @units  context: 0, 1, 2... the contexts that are alive, oldest first; -1: the sum over all that
 *          there have been. account_bytes: sizeof(struct varve_ggml_account) of the caller; no more
 *          is written.
 *  @owns   account stays the caller's.
 *  @errors false when there is no such context or account is NULL; nothing is written then.
 *  @threads safe; the fields are read one by one, not as one snapshot.
 *  @see    docs/DESIGN.md 9 */
typedef bool (*varve_ggml_account_fn)(int32_t context, struct varve_ggml_account *account,
                                      size_t account_bytes);

/** Sets the tiers of contexts that are created from now on, over VARVE_TIERS, VARVE_SINKS and
 *  VARVE_HOT_MAX.
 *  @units  tiers: "f16:W" with W from 1 to 2^30 rows, "none", or NULL to leave it; n_sink: pinned
 *          rows, 0 to 2^30, or -1 to leave it; hot_max: bytes for all contexts together, 0: no
 *          limit, or -1 to leave it.
 *  @owns   nothing kept.
 *  @errors false for a value that cannot be read or is out of range; nothing is changed then.
 *  @threads safe.
 *  @see    docs/DESIGN.md 9 */
typedef bool (*varve_ggml_set_tiers_fn)(const char *tiers, int32_t n_sink, int64_t hot_max);

#ifdef __cplusplus
}
#endif

#endif
