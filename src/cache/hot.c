/* The tier: memory, budget, account, and the list of its tensors. */
#include <string.h>

#include "base/checked.h"
#include "cache/age.h"
#include "cache/twins.h"
#include "format/format.h"
#include "kernel/context.h"

/* ---- memory ------------------------------------------------------------------------------- */

bool varve_hot_take(struct varve_hot *hot, size_t *kind, size_t bytes) {
    if (bytes > INT64_MAX ||
        (hot->p.reserve != NULL && !hot->p.reserve(hot->p.user, (int64_t)bytes))) {
        return false;
    }
    *kind += bytes;
    const size_t sum = hot->bytes.hot + hot->bytes.staging;
    if (sum > hot->bytes.peak) hot->bytes.peak = sum;
    return true;
}

void varve_hot_give(struct varve_hot *hot, size_t *kind, size_t bytes) {
    *kind -= bytes;
    if (hot->p.reserve != NULL) (void)hot->p.reserve(hot->p.user, -(int64_t)bytes);
}

struct varve_size varve_hot_grown(struct varve_size want) {
    const size_t half = want.value / 2;
    return varve_size_add(want, half);
}

bool varve_hot_renew(struct varve_hot *hot, void **block, size_t *bytes, size_t want) {
    if (want <= *bytes) return true;
    varve_host_release(&hot->context->host, *block, *bytes);
    *block = NULL;
    *bytes = 0;
    return varve_hot_grow(hot, block, bytes, want);
}

bool varve_hot_grow(struct varve_hot *hot, void **block, size_t *bytes, size_t want) {
    if (want <= *bytes) return true;
    const struct varve_host *host = &hot->context->host;
    const struct varve_size grown = varve_hot_grown(varve_size_of(want));
    const size_t size = grown.overflow ? want : grown.value;
    void *const larger = varve_host_allocate(host, size);
    if (larger == NULL) return false;
    if (*bytes > 0) memcpy(larger, *block, *bytes);
    varve_host_release(host, *block, *bytes);
    *block = larger;
    *bytes = size;
    return true;
}

/* ---- tier --------------------------------------------------------------------------------- */

int64_t varve_hot_ring_rows(int32_t window, int32_t n_sink) {
    return (int64_t)window + VARVE_AGE_SLACK + VARVE_AGE_ROOM + n_sink;
}

enum varve_status varve_hot_read_params(const struct varve_host *host,
                                        const struct varve_hot_params *params,
                                        struct varve_hot_params *known) {
    memset(known, 0, sizeof *known);
    memcpy(known, params,
           params->struct_bytes < sizeof *known ? params->struct_bytes : sizeof *known);
    if (known->window < 1 || known->window > VARVE_HOT_ROWS_MAX || known->n_sink < 0 ||
        known->n_sink > VARVE_HOT_ROWS_MAX) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "window is %d, n_sink %d: expected at least 1 and 0, at most %d",
                          known->window, known->n_sink, VARVE_HOT_ROWS_MAX);
    }
    return VARVE_OK;
}

enum varve_status varve_hot_create(const struct varve_context *context,
                                   const struct varve_hot_params *params, struct varve_hot **hot) {
    if (hot == NULL) return VARVE_ERROR_ARGUMENT;
    *hot = NULL;
    if (context == NULL || params == NULL) return VARVE_ERROR_ARGUMENT;
    const struct varve_host *host = &context->host;
    struct varve_hot_params known;
    const enum varve_status status = varve_hot_read_params(host, params, &known);
    if (status != VARVE_OK) return status;
    struct varve_hot *const made = varve_host_allocate(host, sizeof *made);
    if (made == NULL) return VARVE_ERROR_MEMORY;
    memset(made, 0, sizeof *made);
    made->context = context;
    made->p = known;
    made->stage.hot = made;
    *hot = made;
    return VARVE_OK;
}

static void unlink_twins(struct varve_twins *twins) {
    struct varve_twins **at = &twins->hot->twins;
    while (*at != twins) at = &(*at)->next;
    *at = twins->next;
    if (twins->stage == NULL) return;
    at = &twins->stage->twins;
    while (*at != twins) at = &(*at)->next_staged;
    *at = twins->next_staged;
    if (twins->stage->twins == NULL) varve_stage_clear(twins->stage);
}

void varve_twins_destroy(struct varve_twins *twins) {
    if (twins == NULL) return;
    struct varve_hot *const hot = twins->hot;
    const struct varve_host *host = &hot->context->host;
    unlink_twins(twins);
    varve_stage_release(&twins->own);
    for (int32_t i = 0; i < twins->n_slab; i++) {
        const size_t bytes = twins->slab[i]->block_bytes; /* the slab lies in its own block */
        varve_host_release(host, twins->slab[i]->data, bytes);
        varve_hot_give(hot, &hot->bytes.hot, bytes);
    }
    varve_host_release(host, twins->slab, twins->slab_bytes);
    varve_host_release(host, twins->run, twins->run_bytes);
    varve_host_release(host, twins->place, twins->place_bytes);
    varve_host_release(host, twins, sizeof *twins);
}

void varve_hot_destroy(struct varve_hot *hot) {
    if (hot == NULL) return;
    while (hot->twins != NULL) varve_twins_destroy(hot->twins);
    varve_stage_release(&hot->stage);
    const struct varve_host *host = &hot->context->host;
    varve_host_release(host, hot->scratch, hot->scratch_bytes);
    varve_host_release(host, hot, sizeof *hot);
}

struct varve_hot_bytes varve_hot_bytes(const struct varve_hot *hot) {
    return hot->bytes;
}

/* ---- tensors ------------------------------------------------------------------------------ */

static enum varve_status check_twins(const struct varve_host *host,
                                     const struct varve_twins_params *p, size_t *cold_bytes) {
    const enum varve_status status = varve_format_row_bytes(p->format, p->n_value, cold_bytes);
    if (status != VARVE_OK) {
        return varve_fail(host, status, "n_value is %lld, no row of this format",
                          (long long)p->n_value);
    }
    if (p->n_cell < 1 || p->cold_stride < (int64_t)*cold_bytes || p->n_row_max < 0) {
        return varve_fail(
            host, VARVE_ERROR_ARGUMENT,
            "%lld cells of %lld bytes, n_row_max %lld: expected cells of at least %zu "
            "bytes",
            (long long)p->n_cell, (long long)p->cold_stride, (long long)p->n_row_max, *cold_bytes);
    }
    int64_t end;
    if (__builtin_mul_overflow(p->n_cell, p->cold_stride, &end) || p->n_value > INT32_MAX) {
        return varve_fail(host, VARVE_ERROR_OVERFLOW, "the tensor is too large");
    }
    return VARVE_OK;
}

enum varve_status varve_twins_read_params(const struct varve_host *host, int64_t ring_rows,
                                          const struct varve_twins_params *params,
                                          struct varve_twins_params *known, size_t *cold_bytes) {
    memset(known, 0, sizeof *known);
    memcpy(known, params,
           params->struct_bytes < sizeof *known ? params->struct_bytes : sizeof *known);
    const enum varve_status status = check_twins(host, known, cold_bytes);
    if (status != VARVE_OK) return status;
    if (known->n_row_max == 0) known->n_row_max = 4 * ring_rows;
    if (known->n_row_max > known->n_cell) known->n_row_max = known->n_cell;
    return VARVE_OK;
}

enum varve_status varve_twins_create(struct varve_hot *hot, const struct varve_twins_params *params,
                                     struct varve_twins **twins) {
    if (twins == NULL) return VARVE_ERROR_ARGUMENT;
    *twins = NULL;
    if (hot == NULL || params == NULL) return VARVE_ERROR_ARGUMENT;
    const struct varve_host *host = &hot->context->host;
    const int64_t ring = varve_hot_ring_rows(hot->p.window, hot->p.n_sink);
    struct varve_twins_params known;
    size_t cold_bytes = 0;
    const enum varve_status status =
        varve_twins_read_params(host, ring, params, &known, &cold_bytes);
    if (status != VARVE_OK) return status;
    if (known.cold == NULL) return varve_fail(host, VARVE_ERROR_ARGUMENT, "cold is NULL");
    struct varve_twins *const made = varve_host_allocate(host, sizeof *made);
    if (made == NULL) return VARVE_ERROR_MEMORY;
    memset(made, 0, sizeof *made);
    made->hot = hot;
    made->p = known;
    made->cold_bytes = cold_bytes;
    made->row_bytes = varve_twins_row_bytes(known.n_value);
    made->ring_rows = ring;
    made->own.hot = hot;
    made->next = hot->twins;
    hot->twins = made;
    *twins = made;
    return VARVE_OK;
}

void varve_twins_set_reread(struct varve_twins *twins) { twins->p.reread = true; }

struct varve_twins_account varve_twins_account(const struct varve_twins *twins) {
    return twins->account;
}
