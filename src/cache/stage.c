#include "cache/stage.h"

#include "base/checked.h"
#include "cache/twins.h"
#include "kernel/context.h"

struct varve_chunk {
    struct varve_chunk *next;
    size_t bytes; /* with this header */
};

enum { header_bytes = VARVE_ALIGN };

static bool add_chunk(struct varve_stage *stage, size_t bytes) {
    struct varve_hot *hot = stage->hot;
    if (!varve_hot_take(hot, &hot->bytes.staging, bytes)) return false;
    struct varve_chunk *chunk = varve_host_allocate(&hot->context->host, bytes);
    if (chunk == NULL) {
        varve_hot_give(hot, &hot->bytes.staging, bytes);
        return false;
    }
    *chunk = (struct varve_chunk){stage->chunk, bytes};
    stage->chunk = chunk;
    stage->used = header_bytes;
    return true;
}

void *varve_stage_allocate(struct varve_stage *stage, size_t bytes) {
    const struct varve_size want = varve_size_round(varve_size_of(bytes), VARVE_ALIGN);
    const struct varve_size least = varve_size_add(want, header_bytes);
    if (least.overflow) return NULL;
    if (stage->chunk == NULL || stage->chunk->bytes - stage->used < want.value) {
        /* What was needed last time will be needed again. */
        const size_t again = stage->chunk == NULL ? stage->needed + header_bytes : 0;
        const bool guessed = again > least.value && add_chunk(stage, again);
        if (!guessed && !add_chunk(stage, least.value)) return NULL;
    }
    char *const at = (char *)stage->chunk + stage->used;
    stage->used += want.value;
    stage->total += want.value;
    return at;
}

struct varve_size varve_stage_bytes(struct varve_size used) {
    return used.value == 0 ? used : varve_size_add(used, header_bytes);
}

void varve_stage_expect(struct varve_stage *stage, size_t used) {
    if (used > stage->needed) stage->needed = used;
}

void varve_stage_release(struct varve_stage *stage) {
    struct varve_hot *hot = stage->hot;
    while (stage->chunk != NULL) {
        struct varve_chunk *const chunk = stage->chunk;
        const size_t bytes = chunk->bytes;
        stage->chunk = chunk->next;
        varve_host_release(&hot->context->host, chunk, bytes);
        varve_hot_give(hot, &hot->bytes.staging, bytes);
    }
}

void varve_stage_clear(struct varve_stage *stage) {
    stage->attended = false;
    stage->needed = stage->total;
    stage->total = 0;
    stage->used = header_bytes;
    if (stage->chunk != NULL && stage->chunk->next != NULL) varve_stage_release(stage);
}
