/* The staging buffer: rows of a ubatch that is too large for the rings. All tensors of a tier share
 * one, since a layer is attended before the next one is written. */
#ifndef VARVE_CACHE_STAGE_H
#define VARVE_CACHE_STAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/checked.h"

struct varve_hot;
struct varve_twins;

struct varve_stage {
    struct varve_hot *hot;
    struct varve_twins *twins; /* tensors with rows in it, linked by next_staged */
    bool attended;             /* a view has read them: they may make room for another layer's */
    /* Memory: chunks, the newest first. More than one only until the stage is emptied. */
    struct varve_chunk *chunk;
    size_t used;   /* of the first chunk, with its header */
    size_t total;  /* handed out since the stage was empty */
    size_t needed; /* total when it was last emptied */
};

/* Bytes on a 64-byte boundary, valid until varve_stage_clear; NULL: no memory, or no budget. */
void *varve_stage_allocate(struct varve_stage *stage, size_t bytes);

/* The bytes of one chunk in which these fit, and that so much will be needed: the first chunk is
 * made as large. */
struct varve_size varve_stage_bytes(struct varve_size used);
void varve_stage_expect(struct varve_stage *stage, size_t used);

/* Empties the memory; keeps one chunk of the size that was needed. */
void varve_stage_clear(struct varve_stage *stage);

/* Gives all memory back. */
void varve_stage_release(struct varve_stage *stage);

#endif
