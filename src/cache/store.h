/* A cache that owns its cold rows. Cells are in use from 0 on without gaps, in the order of
 * writing: cell i is the i-th of the rows that are there. */
#ifndef VARVE_CACHE_STORE_H
#define VARVE_CACHE_STORE_H

#include "base/checked.h"
#include "cache/twins.h"
#include "varve/cache.h"

/* The largest position, and the most rows. */
#define VARVE_STORE_MAX (INT64_C(1) << 48)

struct varve_store {
    enum varve_format format;
    int32_t head_dim;
    int64_t n_value; /* of a row, all heads */
    size_t head_bytes, row_bytes;
    char *cold;                /* row i at cold + i * row_bytes */
    struct varve_twins *twins; /* NULL: none */
};

struct varve_cache {
    const struct varve_context *context;
    struct varve_hot *hot; /* NULL: cold rows only */
    struct varve_cache_params p;
    struct varve_store side[2]; /* enum varve_cache_side */
    int64_t n_row, end;
    int64_t *pos;   /* [n_row_max] */
    int64_t *cells; /* of the append at hand */
    float *row;     /* one row of the source */
    size_t cold_bytes, table_bytes;
};

static inline char *varve_store_row(const struct varve_store *side, int64_t cell) {
    return side->cold + (size_t)cell * side->row_bytes;
}

/* -inf hides a row that a query does not see: bytes of a view's own mask. */
struct varve_size varve_store_mask_bytes(const struct varve_cache_params *p, int64_t n_query);

#endif
