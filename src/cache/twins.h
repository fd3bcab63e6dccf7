/* Where twins are kept: slots for F16 rows, and runs that say which cells they belong to. */
#ifndef VARVE_CACHE_TWINS_H
#define VARVE_CACHE_TWINS_H

#include "base/checked.h"
#include "base/host.h"
#include "base/mask.h"
#include "cache/stage.h"
#include "varve/hot.h"

/* Slots for rows: a ring of a tensor, or the staged rows of one write. */
struct varve_slab {
    char *data;       /* row i at data + i * row_bytes */
    uint64_t *print;  /* fingerprint of the cold row that belongs to slot i */
    uint64_t *wanted; /* number of the view in which slot i was last in a window or its slack */
    uint64_t *used;   /* a bit for each slot; NULL for staged rows, which go all at once */
    int32_t n_slot;
    size_t block_bytes; /* of the allocation that begins at data; 0 for staged rows */
};

/* Up to 64 rows that were written one after the other into consecutive cells and slots. Runs stand
 * in the order of writing, the newest last. Bit i is row i. */
struct varve_run {
    int64_t cell;
    struct varve_slab *slab;
    int32_t slot, n;
    uint64_t live;    /* has a twin */
    uint64_t pinned;  /* first rows of a sequence */
    uint64_t left;    /* out of window and slack for all that see it */
    uint64_t checked; /* the fingerprint was compared in the view at hand */
};

struct varve_twins {
    struct varve_hot *hot;
    struct varve_twins *next;        /* of the tier */
    struct varve_twins *next_staged; /* of the stage */
    struct varve_twins_params p;
    size_t cold_bytes, row_bytes; /* of a row: cold, and F16 on whole cache lines */
    int64_t ring_rows;
    bool owned; /* cold rows are varve's: varve_twins_pin says which are the first of a sequence */

    struct varve_run *run;
    int32_t n_run;
    size_t run_bytes;

    struct varve_slab **slab; /* rings */
    int32_t n_slab;
    size_t slab_bytes;
    int64_t n_slot, n_free;
    int32_t at_slab, at_slot; /* where the next free slot is looked for */

    struct varve_stage *stage; /* that holds rows of this tensor; NULL: none are staged */
    struct varve_stage own;    /* for tensors that are read again */
    struct varve_slab staged;

    struct varve_place { /* of the rows of the write at hand; slab NULL: no twin */
        struct varve_slab *slab;
        int32_t slot;
        int64_t cell;
    } * place;
    size_t place_bytes;
    int64_t n_place;

    struct varve_twins_account account;
};

struct varve_hot {
    const struct varve_context *context;
    struct varve_hot_params p;
    struct varve_twins *twins;
    struct varve_stage stage; /* shared by all tensors that are not read again */
    struct varve_hot_bytes bytes;
    uint64_t n_view;
    void *scratch; /* staged runs on their way into the rings */
    size_t scratch_bytes;
};

/* The fields that the caller knows, checked. */
enum varve_status varve_hot_read_params(const struct varve_host *host,
                                        const struct varve_hot_params *params,
                                        struct varve_hot_params *known);

/* Budget and account of memory. `kind` is one of the counters of hot->bytes. */
bool varve_hot_take(struct varve_hot *hot, size_t *kind, size_t bytes);
void varve_hot_give(struct varve_hot *hot, size_t *kind, size_t bytes);

/* Memory of at least `want` bytes in *block, contents kept. False: no memory, *block is as before.
 */
bool varve_hot_grow(struct varve_hot *hot, void **block, size_t *bytes, size_t want);

/* The bytes that varve_hot_grow takes for `want`. */
struct varve_size varve_hot_grown(struct varve_size want);

/* Memory of at least `want` bytes in *block, of which the contents are not kept: the old block goes
 * first. False: no memory, *block may be NULL. */
bool varve_hot_renew(struct varve_hot *hot, void **block, size_t *bytes, size_t want);

/* Bytes of an F16 row, on whole cache lines. n_value fits into 31 bits. */
static inline size_t varve_twins_row_bytes(int64_t n_value) {
    return ((size_t)n_value * sizeof(uint16_t) + VARVE_ALIGN - 1) / VARVE_ALIGN * VARVE_ALIGN;
}

/* n rows, then for each slot a fingerprint and when it was wanted. */
static inline struct varve_size varve_slots_bytes(size_t row_bytes, int64_t n) {
    return varve_size_mul(varve_size_of((size_t)n), row_bytes + 2 * sizeof(uint64_t));
}

/* A ring: slots, a bit for each, and the slab itself. */
static inline struct varve_size varve_slab_bytes(size_t row_bytes, int64_t n) {
    const size_t n_word = (size_t)(n + 63) / 64;
    return varve_size_add(varve_slots_bytes(row_bytes, n), n_word * 8 + sizeof(struct varve_slab));
}

/* Ends some twins. Their rows stay readable until the next write. */
void varve_twins_drop(struct varve_twins *twins, struct varve_run *run, uint64_t rows);

/* Whether the cold row still is what it was when the twin was written. */
bool varve_twins_fresh(const struct varve_twins *twins, const struct varve_run *run, int32_t row);

/* Some rows of a run are in a window or its slack in the view at hand. */
void varve_twins_want(struct varve_twins *twins, const struct varve_run *run, uint64_t rows);

/* The fields that the caller knows, checked but for `cold`; *cold_bytes: of a row. A limit of 0
 * rows becomes four rings, and none is larger than the tensor. */
enum varve_status varve_twins_read_params(const struct varve_host *host, int64_t ring_rows,
                                          const struct varve_twins_params *params,
                                          struct varve_twins_params *known, size_t *cold_bytes);

/* ---- for a cache that owns its cold rows (store.h): cells are in use in the order of writing ----
 */

/* What the twins of one tensor take when writes have at most n_step rows and one ring is enough. */
struct varve_twins_need {
    struct varve_size hot, tables, staged;
    int64_t n_live; /* twins at once, staged ones included, and so runs at once */
};
struct varve_twins_need varve_twins_need(int64_t n_value, int64_t n_cell, int64_t ring_rows,
                                         int64_t n_step);

/* For a tensor without rows: its cold rows are varve's. Takes that memory, but for the staging
 * buffer, which only learns of it. */
enum varve_status varve_twins_reserve(struct varve_twins *twins, int64_t n_step);

/* Takes a tensor out of its tier. NULL: nothing to do. */
void varve_twins_destroy(struct varve_twins *twins);

/* Drops what has left the window for an end that sees all rows. */
void varve_twins_prune(struct varve_twins *twins);

/* In place of rule 4: a row that was announced is one of the first of its sequence. */
void varve_twins_pin(struct varve_twins *twins, int64_t cell);

/* Takes n cells from `first` on out: their twins end, twins behind belong to cells n lower, to
 * where the caller moves the cold rows. */
void varve_twins_cut(struct varve_twins *twins, int64_t first, int64_t n);

/* Twins of the same cells in another tensor of the same bytes, which has none: what `to` would keep
 * at the end of the sequence. */
void varve_twins_copy(struct varve_twins *to, const struct varve_twins *from);

static inline const char *varve_run_row(const struct varve_twins *twins,
                                        const struct varve_run *run, int32_t row) {
    return run->slab->data + (size_t)(run->slot + row) * twins->row_bytes;
}

#endif
