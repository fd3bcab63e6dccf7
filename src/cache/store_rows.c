/* Rows of a cache with cold rows of its own: append, remove, copy. */
#include <string.h>

#include "cache/store.h"
#include "format/format.h"
#include "kernel/context.h"

/* ---- append ------------------------------------------------------------------------------- */

static enum varve_status check_source(const struct varve_host *host, const char *name,
                                      const struct varve_cache_rows *rows) {
    if (rows == NULL || rows->data == NULL) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "%s is NULL", name);
    }
    const struct varve_format_traits *const traits = varve_format_traits(rows->format);
    if (traits == NULL || traits->quantized) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "%s.format is %d: expected f32, f16 or bf16",
                          name, (int)rows->format);
    }
    return VARVE_OK;
}

static bool is_between(int64_t at, int64_t pos, int64_t n) { return at >= pos && at - pos < n; }

static enum varve_status check_place(const struct varve_cache *cache, int64_t n, int64_t pos) {
    const struct varve_host *const host = &cache->context->host;
    if (n < 0 || n > cache->p.n_step_max) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "n is %lld, expected 0 to %lld", (long long)n,
                          (long long)cache->p.n_step_max);
    }
    if (pos < 0 || pos > VARVE_STORE_MAX - n) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "pos is %lld: expected 0 to 2^48, or VARVE_CACHE_END", (long long)pos);
    }
    for (int64_t i = 0; pos < cache->end && i < cache->n_row; i++) {
        if (!is_between(cache->pos[i], pos, n)) continue;
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "pos is %lld: position %lld is in use",
                          (long long)pos, (long long)cache->pos[i]);
    }
    if (n > cache->p.n_row_max - cache->n_row) {
        return varve_fail(host, VARVE_ERROR_MEMORY,
                          "the cache is full: %lld of %lld rows in use, %lld to come",
                          (long long)cache->n_row, (long long)cache->p.n_row_max, (long long)n);
    }
    return VARVE_OK;
}

/* One row of the source as floats. */
static void gather(const struct varve_store *side, const struct varve_cache_rows *rows, int64_t i,
                   float *row) {
    const struct varve_format_traits *const traits = varve_format_traits(rows->format);
    const char *head = (const char *)rows->data + i * rows->row_stride;
    for (int64_t d = 0; d < side->n_value; d += side->head_dim, head += rows->head_stride) {
        traits->decode(head, side->head_dim, row + d);
    }
}

/* The kernel declines what only the definition of the format covers, and has no float formats. */
static void encode_row(const struct varve_cache *cache, const struct varve_store *side, void *row) {
    const struct varve_format_traits *const traits = varve_format_traits(side->format);
    const struct varve_encode_args args = {traits, VARVE_ENCODER_REFERENCE, side->n_value,
                                           cache->row, row};
    varve_encode_fn *const encode = cache->context->kernels.encode[side->format].run;
    if (encode == NULL || !encode(&args)) traits->encode(cache->row, side->n_value, row);
}

/* The first rows of the sequence are pinned, whoever attends to them. */
static void pin(struct varve_cache *cache, struct varve_twins *twins, int64_t n) {
    const int64_t n_sink = cache->hot->p.n_sink, end = cache->n_row + n;
    for (int64_t cell = cache->n_row; cell < end && cell < n_sink; cell++) {
        varve_twins_pin(twins, cell);
    }
}

static void append_side(struct varve_cache *cache, struct varve_store *side,
                        const struct varve_cache_rows *rows, int64_t n) {
    struct varve_twins *const twins = side->twins;
    bool hot = false;
    if (twins != NULL) { /* rows age when newer ones come: what is kept does not depend on views */
        varve_twins_prune(twins);
        hot = varve_twins_write(twins, cache->cells, n) == VARVE_OK;
    }
    for (int64_t i = 0; i < n; i++) {
        gather(side, rows, i, cache->row);
        encode_row(cache, side, varve_store_row(side, cache->n_row + i));
        if (hot) varve_twins_write_row(twins, i, cache->row);
    }
    if (hot) pin(cache, twins, n);
}

enum varve_status varve_cache_append(struct varve_cache *cache, const struct varve_cache_rows *k,
                                     const struct varve_cache_rows *v, int64_t n, int64_t pos) {
    if (cache == NULL) return VARVE_ERROR_ARGUMENT;
    const struct varve_host *const host = &cache->context->host;
    const int64_t first = pos == VARVE_CACHE_END ? cache->end : pos;
    enum varve_status status = check_place(cache, n, first);
    if (status != VARVE_OK || n == 0) return status;
    status = check_source(host, "k", k);
    if (status == VARVE_OK) status = check_source(host, "v", v);
    if (status != VARVE_OK) return status;
    for (int64_t i = 0; i < n; i++) {
        cache->cells[i] = cache->n_row + i;
        cache->pos[cache->n_row + i] = first + i;
    }
    append_side(cache, &cache->side[VARVE_CACHE_K], k, n);
    append_side(cache, &cache->side[VARVE_CACHE_V], v, n);
    cache->n_row += n;
    if (first + n > cache->end) cache->end = first + n;
    return VARVE_OK;
}

/* ---- remove ------------------------------------------------------------------------------- */

static void cut_twins(struct varve_cache *cache, int64_t first, int64_t n) {
    for (int i = 0; i < 2; i++) {
        if (cache->side[i].twins != NULL) varve_twins_cut(cache->side[i].twins, first, n);
    }
}

static void move_row(struct varve_cache *cache, int64_t to, int64_t from) {
    if (to == from) return;
    cache->pos[to] = cache->pos[from];
    for (int i = 0; i < 2; i++) {
        const struct varve_store *const side = &cache->side[i];
        memcpy(varve_store_row(side, to), varve_store_row(side, from), side->row_bytes);
    }
}

enum varve_status varve_cache_remove(struct varve_cache *cache, int64_t pos, int64_t n) {
    if (cache == NULL) return VARVE_ERROR_ARGUMENT;
    if (pos < 0 || n < 0) {
        return varve_fail(&cache->context->host, VARVE_ERROR_ARGUMENT,
                          "pos is %lld, n %lld: expected at least 0", (long long)pos, (long long)n);
    }
    /* from the last cells to the first: those before a cut keep their numbers */
    for (int64_t first = cache->n_row; first > 0; first--) {
        const int64_t end = first;
        while (first > 0 && is_between(cache->pos[first - 1], pos, n)) first--;
        if (first < end) cut_twins(cache, first, end - first);
        if (first == 0) break;
    }
    int64_t n_kept = 0, end = 0;
    for (int64_t cell = 0; cell < cache->n_row; cell++) {
        const int64_t at = cache->pos[cell];
        if (is_between(at, pos, n)) continue;
        if (at >= end) end = at + 1;
        move_row(cache, n_kept++, cell);
    }
    cache->n_row = n_kept;
    cache->end = end;
    return VARVE_OK;
}

/* ---- copy --------------------------------------------------------------------------------- */

static enum varve_status check_pair(const struct varve_cache *dst, const struct varve_cache *src) {
    const struct varve_host *const host = &dst->context->host;
    const struct varve_cache_params *const a = &dst->p, *const b = &src->p;
    if (dst == src) return varve_fail(host, VARVE_ERROR_ARGUMENT, "dst and src are the same cache");
    if (a->k_format != b->k_format || a->v_format != b->v_format ||
        a->head_dim_k != b->head_dim_k || a->head_dim_v != b->head_dim_v ||
        a->n_head_kv != b->n_head_kv) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "dst and src differ in formats or heads");
    }
    if (src->n_row > a->n_row_max) {
        return varve_fail(host, VARVE_ERROR_MEMORY, "dst holds %lld rows, src has %lld",
                          (long long)a->n_row_max, (long long)src->n_row);
    }
    return VARVE_OK;
}

enum varve_status varve_cache_copy(struct varve_cache *dst, const struct varve_cache *src) {
    if (dst == NULL || src == NULL) return VARVE_ERROR_ARGUMENT;
    const enum varve_status status = check_pair(dst, src);
    if (status != VARVE_OK) return status;
    cut_twins(dst, 0, dst->p.n_row_max);
    dst->n_row = src->n_row;
    dst->end = src->end;
    memcpy(dst->pos, src->pos, (size_t)src->n_row * sizeof *src->pos);
    for (int i = 0; i < 2; i++) {
        const struct varve_store *const from = &src->side[i], *const to = &dst->side[i];
        memcpy(to->cold, from->cold, (size_t)src->n_row * from->row_bytes);
        if (to->twins != NULL && from->twins != NULL) varve_twins_copy(to->twins, from->twins);
    }
    return VARVE_OK;
}
