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
#define VARVE_GGML_NEED "varve_ggml_need"

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

/* What is known of a context that is planned. Zero-initialise, then set; new fields come at the
 * end.
 */
struct varve_ggml_need_params {
    size_t struct_bytes; /* sizeof(struct varve_ggml_need_params) */
    int32_t n_sequence;  /* that the context may hold, all in use */
    int32_t n_thread;
    int64_t n_tensor;        /* cache tensors of the context, for shares of a byte budget */
    int64_t window;          /* rows of a sliding window that this layer has; 0: it sees all */
    bool reread_k, reread_v; /* other attention nodes of the graph read the same tensor */
};

/* What attention takes beside the cache. New fields are added at the end only. */
struct varve_ggml_need {
    const char *declined; /* why varve leaves the node to ggml; NULL: it does not. Static storage */
    /* F16 rows of the node's tensor of K and of V once the context is full, their fingerprints
     * included, and of these the pinned ones. V zero where it is a view of K. */
    uint64_t hot_k, hot_v, sinks_k, sinks_v;
    uint64_t staging_own; /* rows of one ubatch, in tensors that are read again */
    uint64_t staging;     /* the same in others; all layers use it, one after the other */
    uint64_t view;        /* masks where queries differ; one after the other, too */
    uint64_t tables;      /* of the node's tensors */
    uint64_t work;        /* tables and scratch of the node at hand; one after the other */
};

struct ggml_tensor;

/** Says what a context will take for one attention node of its largest graph, before anything is
 *  allocated: by the code that takes it, with the settings of contexts made now.
 *  @units  attention: a FLASH_ATTN_EXT node as llama.cpp reserves it, with a full ubatch; its
 *          tensors need no data. need_bytes: sizeof(struct varve_ggml_need) of the caller; no more
 *          is written. All sizes in bytes, without a budget (VARVE_HOT_MAX): that caps hot, staging
 *          and view together.
 *  @owns   need stays the caller's.
 *  @errors false when an argument is NULL or out of range; nothing is written then.
 *  @threads safe.
 *  @see    docs/DESIGN.md 9 */
typedef bool (*varve_ggml_need_fn)(const struct ggml_tensor *attention,
                                   const struct varve_ggml_need_params *params,
                                   struct varve_ggml_need *need, size_t need_bytes);

#ifdef __cplusplus
}
#endif

#endif
