/* A cache with cold rows of its own lends them: who sees what, as a mask, and then as segments. */
#include <string.h>

#include "base/fp16.h"
#include "cache/store.h"
#include "kernel/context.h"

/* The largest number of F16: distances beyond it must not become -inf, which hides. */
#define FARTHEST 65504

static int64_t row_columns(int64_t n_row) { return (n_row + 31) / 32 * 32; /* whole cache lines */ }

struct varve_size varve_store_mask_bytes(const struct varve_cache_params *p, int64_t n_query) {
    return varve_size_mul(varve_size_of((size_t)row_columns(p->n_row_max)),
                          (size_t)n_query * sizeof(uint16_t));
}

static enum varve_status check_node(const struct varve_cache *cache,
                                    const struct varve_cache_node *node) {
    const struct varve_host *const host = &cache->context->host;
    if (node->n_query < 0 || node->n_query > cache->p.n_step_max) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "n_query is %lld, expected 0 to %lld",
                          (long long)node->n_query, (long long)cache->p.n_step_max);
    }
    if (node->pos < 0 || node->pos > VARVE_STORE_MAX) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "pos is %lld: expected 0 to 2^48",
                          (long long)node->pos);
    }
    if (node->window < 0) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "window is %lld: expected at least 0",
                          (long long)node->window);
    }
    return VARVE_OK;
}

/* Whether a mask is needed: some query does not see some row, or sees it at a distance. */
static bool needs_mask(const struct varve_cache *cache, const struct varve_cache_node *node) {
    if (node->bias || (node->causal && cache->end - 1 > node->pos)) return true;
    const int64_t last = node->pos + node->n_query - 1;
    bool far = false;
    for (int64_t i = 0; node->window > 0 && i < cache->n_row; i++) {
        far |= last - cache->pos[i] >= node->window;
    }
    return far;
}

static uint16_t bias_of(int64_t distance) {
    const int64_t size = distance < 0 ? -distance : distance;
    return varve_f32_to_f16(size < FARTHEST ? -(float)size : -(float)FARTHEST);
}

/* The mask of one query at `at`. */
static void fill_row(const struct varve_cache *cache, const struct varve_cache_node *node,
                     int64_t at, uint16_t *row) {
    const int64_t first = node->window > 0 ? at - node->window + 1 : INT64_MIN;
    const int64_t last = node->causal ? at : INT64_MAX;
    const int64_t *const pos = cache->pos;
    for (int64_t i = 0; i < cache->n_row; i++) {
        row[i] = pos[i] >= first && pos[i] <= last ? 0 : VARVE_F16_NEG_INF;
    }
    for (int64_t i = 0; node->bias && i < cache->n_row; i++) {
        if (row[i] == 0) row[i] = bias_of(at - pos[i]);
    }
}

/* Room for all rows that the cache can hold, so that a growing sequence takes it once. */
static bool reserve_mask(const struct varve_cache *cache, int64_t n_query,
                         struct varve_cache_view *view) {
    const struct varve_host *const host = &cache->context->host;
    const struct varve_size bytes = varve_store_mask_bytes(&cache->p, n_query);
    if (bytes.overflow) return false;
    if (bytes.value <= view->block_bytes) return true;
    varve_host_release(host, view->block, view->block_bytes);
    view->block_bytes = 0;
    view->block = varve_host_allocate(host, bytes.value);
    if (view->block == NULL) return false;
    view->block_bytes = bytes.value;
    return true;
}

static bool make_mask(const struct varve_cache *cache, const struct varve_cache_node *node,
                      struct varve_cache_view *view) {
    if (!reserve_mask(cache, node->n_query, view)) return false;
    const int64_t n_column = row_columns(cache->n_row);
    uint16_t *const values = view->block;
    for (int64_t q = 0; q < node->n_query; q++) {
        fill_row(cache, node, node->pos + q, values + q * n_column);
    }
    view->mask = (struct varve_mask){.data = values,
                                     .n_column = n_column,
                                     .n_query = node->n_query,
                                     .n_head = 1,
                                     .n_batch = 1,
                                     .row_stride = n_column * (int64_t)sizeof(uint16_t)};
    return true;
}

static struct varve_segment cold_rows(const struct varve_cache *cache,
                                      const struct varve_mask *mask) {
    const struct varve_store *const k = &cache->side[VARVE_CACHE_K];
    const struct varve_store *const v = &cache->side[VARVE_CACHE_V];
    return (struct varve_segment){.k_format = k->format,
                                  .v_format = v->format,
                                  .k = k->cold,
                                  .v = v->cold,
                                  .n_rows = cache->n_row,
                                  .k_row_stride = (int64_t)k->row_bytes,
                                  .k_head_stride = (int64_t)k->head_bytes,
                                  .v_row_stride = (int64_t)v->row_bytes,
                                  .v_head_stride = (int64_t)v->head_bytes,
                                  .mask = mask};
}

static enum varve_status list_hot(struct varve_cache *cache, const struct varve_cache_node *node,
                                  struct varve_cache_view *view) {
    const struct varve_hot_node mixed = {.cold = view->cold,
                                         .n_query = node->n_query,
                                         .mask = view->cold.mask,
                                         .k = cache->side[VARVE_CACHE_K].twins,
                                         .v = cache->side[VARVE_CACHE_V].twins};
    const enum varve_status status = varve_hot_view(cache->hot, &mixed, &view->hot);
    if (status != VARVE_OK) return status;
    view->segments = view->hot.segments;
    view->n_segment = view->hot.n_segment;
    view->n_row = view->hot.n_row;
    return VARVE_OK;
}

enum varve_status varve_cache_view(struct varve_cache *cache, const struct varve_cache_node *node,
                                   struct varve_cache_view *view) {
    if (cache == NULL || node == NULL || view == NULL) return VARVE_ERROR_ARGUMENT;
    view->segments = NULL;
    view->n_segment = view->n_row = 0;
    view->context = cache->context;
    const enum varve_status status = check_node(cache, node);
    if (status != VARVE_OK) return status;
    const bool masked = node->n_query > 0 && needs_mask(cache, node);
    if (masked && !make_mask(cache, node, view)) return VARVE_ERROR_MEMORY;
    view->cold = cold_rows(cache, masked ? &view->mask : NULL);
    if (cache->side[VARVE_CACHE_K].twins != NULL || cache->side[VARVE_CACHE_V].twins != NULL) {
        return list_hot(cache, node, view);
    }
    view->segments = &view->cold;
    view->n_segment = cache->n_row > 0;
    view->n_row = cache->n_row;
    return VARVE_OK;
}

void varve_cache_view_release(struct varve_cache_view *view) {
    varve_hot_view_release(&view->hot);
    if (view->block != NULL) {
        varve_host_release(&view->context->host, view->block, view->block_bytes);
    }
    memset(view, 0, sizeof *view);
}
