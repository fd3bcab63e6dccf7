/* varve's back end for ggml: what a host can ask it at run time.
 *
 * SPDX-License-Identifier: MIT
 *
 * The back end is a plug-in (libggml-varve.so), found by ggml through GGML_BACKEND_PATH or
 * ggml_backend_load. It exports nothing to link against: the two functions below are fetched with
 *
 *     ggml_backend_reg_t reg = ggml_backend_reg_by_name(VARVE_GGML_NAME);
 *     varve_ggml_counters_fn counters =
 *         (varve_ggml_counters_fn)ggml_backend_reg_get_proc_address(reg, VARVE_GGML_COUNTERS);
 *
 * It also answers to "ggml_backend_set_n_threads", as ggml's own back ends do. */
#ifndef VARVE_GGML_H
#define VARVE_GGML_H

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
 *  @see    docs/DESIGN.md 9 (the back end for ggml) */
typedef void (*varve_ggml_counters_fn)(struct varve_ggml_counters *counters, size_t counters_bytes);

/** The i-th reason for which nodes were declined so far, and how many questions it answered.
 *  @units  i: 0, 1, 2...; *n_question may be NULL.
 *  @owns   static storage.
 *  @errors NULL when i is past the last reason.
 *  @threads safe.
 *  @see    docs/DESIGN.md 9 */
typedef const char *(*varve_ggml_declined_fn)(int i, uint64_t *n_question);

#ifdef __cplusplus
}
#endif

#endif
