/* A cache with cold rows of its own: what it takes, making and ending it. */
#include "cache/store.h"

#include <string.h>

#include "cache/view.h"
#include "format/format.h"
#include "kernel/context.h"

/* ---- sizes -------------------------------------------------------------------------------- */

/* Where things lie in the two blocks of a cache, and what the tier adds. */
struct sizes {
    struct varve_store side[2]; /* without rows */
    size_t v_offset, cold_bytes;
    size_t pos_offset, cells_offset, row_offset, table_bytes;
    struct varve_twins_need need[2];
    struct varve_size staged, scratch, look; /* of K and V together */
};

static enum varve_status too_large(const struct varve_host *host) {
    return varve_fail(host, VARVE_ERROR_OVERFLOW, "the cache is too large for this machine");
}

static enum varve_status measure_side(const struct varve_host *host, const char *name,
                                      int32_t n_head_kv, struct varve_store *side) {
    const enum varve_status status =
        varve_format_row_bytes(side->format, side->head_dim, &side->head_bytes);
    if (status != VARVE_OK) {
        return varve_fail(host, status, "head_dim_%s is %d: no head of format %d", name,
                          side->head_dim, (int)side->format);
    }
    side->n_value = (int64_t)side->head_dim * n_head_kv;
    const struct varve_size row =
        varve_size_mul(varve_size_of(side->head_bytes), (size_t)n_head_kv);
    if (row.overflow || side->n_value > INT32_MAX) return too_large(host);
    side->row_bytes = row.value;
    return VARVE_OK;
}

static enum varve_status check_params(const struct varve_host *host,
                                      const struct varve_cache_params *p) {
    if (p->n_head_kv < 1 || p->n_row_max < 1 || p->n_row_max > VARVE_STORE_MAX ||
        p->n_step_max < 1 || p->n_step_max > INT32_MAX) {
        return varve_fail(
            host, VARVE_ERROR_ARGUMENT,
            "n_head_kv is %d, n_row_max %lld, n_step_max %lld: expected at least 1, at "
            "most 2^48 rows and 2^31 - 1 in a step",
            p->n_head_kv, (long long)p->n_row_max, (long long)p->n_step_max);
    }
    return VARVE_OK;
}

/* Rows that can be appended at once. */
static int64_t n_append_max(const struct varve_cache_params *p) {
    return p->n_step_max < p->n_row_max ? p->n_step_max : p->n_row_max;
}

/* Rows of both sides in one block, all tables in another. False: too large. */
static bool lay_out(const struct varve_cache_params *p, struct sizes *s) {
    const struct varve_size n_row = varve_size_of((size_t)p->n_row_max);
    const struct varve_store *const k = &s->side[VARVE_CACHE_K], *const v = &s->side[VARVE_CACHE_V];
    const struct varve_size v_offset =
        varve_size_round(varve_size_mul(n_row, k->row_bytes), VARVE_ALIGN);
    const struct varve_size cold = varve_size_sum(v_offset, varve_size_mul(n_row, v->row_bytes));
    s->v_offset = v_offset.value;
    s->cold_bytes = cold.value;
    const struct varve_size n_step = varve_size_of((size_t)n_append_max(p));
    struct varve_size at = varve_size_round(varve_size_of(sizeof(struct varve_cache)), VARVE_ALIGN);
    s->pos_offset = at.value;
    at = varve_size_sum(at, varve_size_mul(n_row, sizeof(int64_t)));
    s->cells_offset = at.value;
    at = varve_size_sum(at, varve_size_mul(n_step, sizeof(int64_t)));
    s->row_offset = at.value;
    const int64_t n_value = k->n_value > v->n_value ? k->n_value : v->n_value;
    at = varve_size_sum(at, varve_size_mul(varve_size_of((size_t)n_value), sizeof(float)));
    s->table_bytes = at.value;
    return !at.overflow && !cold.overflow && cold.value <= INT64_MAX;
}

/* What twins add. False: too large. */
static bool add_twins(const struct varve_cache_params *p, const struct varve_hot_params *tier,
                      struct sizes *s) {
    const int64_t ring = varve_hot_ring_rows(tier->window, tier->n_sink);
    if ((ring < p->n_row_max ? ring : p->n_row_max) > INT32_MAX) return false;
    int64_t n_live = 0;
    for (int i = 0; i < 2; i++) {
        if (!varve_format_traits(s->side[i].format)->quantized) continue;
        s->need[i] = varve_twins_need(s->side[i].n_value, p->n_row_max, ring, n_append_max(p));
        n_live += s->need[i].n_live;
        s->staged = varve_size_sum(s->staged, s->need[i].staged);
        if (s->need[i].hot.overflow || s->need[i].tables.overflow) return false;
    }
    if (n_live == 0) return true;
    /* a view needs scratch, and so does moving staged rows into the rings */
    const struct varve_size staged_runs =
        varve_size_mul(varve_size_of((size_t)n_append_max(p)), sizeof(struct varve_run));
    s->scratch = varve_look_scratch(n_live);
    if (s->scratch.value < staged_runs.value) s->scratch = staged_runs;
    s->look = varve_look_bytes(n_live, p->n_step_max);
    return !staged_runs.overflow && !s->scratch.overflow && !s->look.overflow &&
           !s->staged.overflow;
}

/* tier: NULL for cold rows only. */
static enum varve_status measure(const struct varve_host *host, const struct varve_hot_params *tier,
                                 const struct varve_cache_params *p, struct sizes *s) {
    memset(s, 0, sizeof *s);
    enum varve_status status = check_params(host, p);
    if (status != VARVE_OK) return status;
    s->side[VARVE_CACHE_K] = (struct varve_store){.format = p->k_format, .head_dim = p->head_dim_k};
    s->side[VARVE_CACHE_V] = (struct varve_store){.format = p->v_format, .head_dim = p->head_dim_v};
    status = measure_side(host, "k", p->n_head_kv, &s->side[VARVE_CACHE_K]);
    if (status == VARVE_OK) {
        status = measure_side(host, "v", p->n_head_kv, &s->side[VARVE_CACHE_V]);
    }
    if (status != VARVE_OK) return status;
    if (!lay_out(p, s) || (tier != NULL && !add_twins(p, tier, s))) return too_large(host);
    return VARVE_OK;
}

static struct varve_cache_params read_params(const struct varve_cache_params *params) {
    struct varve_cache_params known = {0};
    memcpy(&known, params,
           params->struct_bytes < sizeof known ? params->struct_bytes : sizeof known);
    return known;
}

enum varve_status varve_cache_plan(const struct varve_context *context,
                                   const struct varve_hot_params *tier,
                                   const struct varve_cache_params *params,
                                   struct varve_cache_bytes *bytes) {
    if (context == NULL || params == NULL || bytes == NULL) return VARVE_ERROR_ARGUMENT;
    const struct varve_host *const host = &context->host;
    const struct varve_cache_params p = read_params(params);
    struct varve_hot_params known;
    struct sizes s;
    enum varve_status status = VARVE_OK;
    if (tier != NULL) status = varve_hot_read_params(host, tier, &known);
    if (status == VARVE_OK) status = measure(host, tier != NULL ? &known : NULL, &p, &s);
    if (status != VARVE_OK) return status;
    const struct varve_twins_need *const k = &s.need[VARVE_CACHE_K], *const v =
                                                                         &s.need[VARVE_CACHE_V];
    const struct varve_size hot = varve_size_sum(k->hot, v->hot);
    const struct varve_size tables =
        varve_size_sum(varve_size_of(s.table_bytes), varve_size_sum(k->tables, v->tables));
    const struct varve_size staging = varve_stage_bytes(s.staged);
    struct varve_size shared = varve_size_sum(s.look, varve_hot_grown(s.scratch));
    shared = varve_size_add(shared, tier != NULL ? sizeof(struct varve_hot) : 0);
    shared = varve_size_sum(shared, varve_store_mask_bytes(&p, p.n_step_max));
    struct varve_size total = varve_size_sum(varve_size_of(s.cold_bytes), hot);
    total = varve_size_sum(varve_size_sum(total, tables), varve_size_sum(staging, shared));
    if (total.overflow) return too_large(host);
    *bytes = (struct varve_cache_bytes){s.cold_bytes,  hot.value,    tables.value,
                                        staging.value, shared.value, total.value};
    return VARVE_OK;
}

/* ---- making and ending -------------------------------------------------------------------- */

static enum varve_status make_twins(struct varve_cache *cache, struct varve_store *side) {
    const struct varve_twins_params params = {
        .struct_bytes = sizeof params,
        .format = side->format,
        .n_value = side->n_value,
        .cold = side->cold,
        .cold_stride = (int64_t)side->row_bytes,
        .n_cell = cache->p.n_row_max,
        .n_row_max = varve_hot_ring_rows(cache->hot->p.window, cache->hot->p.n_sink)};
    const enum varve_status status = varve_twins_create(cache->hot, &params, &side->twins);
    return status == VARVE_OK ? varve_twins_reserve(side->twins, n_append_max(&cache->p)) : status;
}

static enum varve_status join_tier(struct varve_cache *cache, const struct sizes *s) {
    struct varve_hot *const hot = cache->hot;
    if (!varve_hot_grow(hot, &hot->scratch, &hot->scratch_bytes, s->scratch.value)) {
        return VARVE_ERROR_MEMORY;
    }
    varve_stage_expect(&hot->stage, s->staged.value);
    enum varve_status status = VARVE_OK;
    for (int i = 0; i < 2 && status == VARVE_OK; i++) {
        if (s->need[i].n_live > 0) status = make_twins(cache, &cache->side[i]);
    }
    return status;
}

enum varve_status varve_cache_create(const struct varve_context *context, struct varve_hot *hot,
                                     const struct varve_cache_params *params,
                                     struct varve_cache **cache) {
    if (cache == NULL) return VARVE_ERROR_ARGUMENT;
    *cache = NULL;
    if (context == NULL || params == NULL) return VARVE_ERROR_ARGUMENT;
    const struct varve_host *const host = &context->host;
    if (hot != NULL && hot->context != context) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "hot: the tier belongs to another context");
    }
    const struct varve_cache_params p = read_params(params);
    struct sizes s;
    enum varve_status status = measure(host, hot != NULL ? &hot->p : NULL, &p, &s);
    if (status != VARVE_OK) return status;
    char *const block = varve_host_allocate(host, s.table_bytes);
    if (block == NULL) return VARVE_ERROR_MEMORY;
    struct varve_cache *const made = (struct varve_cache *)(void *)block;
    *made = (struct varve_cache){.context = context,
                                 .hot = hot,
                                 .p = p,
                                 .side = {s.side[VARVE_CACHE_K], s.side[VARVE_CACHE_V]},
                                 .pos = (int64_t *)(void *)(block + s.pos_offset),
                                 .cells = (int64_t *)(void *)(block + s.cells_offset),
                                 .row = (float *)(void *)(block + s.row_offset),
                                 .cold_bytes = s.cold_bytes,
                                 .table_bytes = s.table_bytes};
    char *const cold = varve_host_allocate(host, s.cold_bytes);
    status = cold != NULL ? VARVE_OK : VARVE_ERROR_MEMORY;
    made->side[VARVE_CACHE_K].cold = cold;
    made->side[VARVE_CACHE_V].cold = cold != NULL ? cold + s.v_offset : NULL;
    if (status == VARVE_OK && s.scratch.value > 0) status = join_tier(made, &s);
    if (status != VARVE_OK) {
        varve_cache_destroy(made);
        return status;
    }
    *cache = made;
    return VARVE_OK;
}

void varve_cache_destroy(struct varve_cache *cache) {
    if (cache == NULL) return;
    const struct varve_host *const host = &cache->context->host;
    for (int i = 0; i < 2; i++) varve_twins_destroy(cache->side[i].twins);
    varve_host_release(host, cache->side[VARVE_CACHE_K].cold, cache->cold_bytes);
    varve_host_release(host, cache, cache->table_bytes);
}

/* ---- what is there ------------------------------------------------------------------------ */

int64_t varve_cache_n_row(const struct varve_cache *cache) { return cache->n_row; }

int64_t varve_cache_end(const struct varve_cache *cache) { return cache->end; }

struct varve_twins_account varve_cache_account(const struct varve_cache *cache,
                                               enum varve_cache_side side) {
    const struct varve_twins_account none = {0};
    if (side != VARVE_CACHE_K && side != VARVE_CACHE_V) return none;
    return cache->side[side].twins != NULL ? varve_twins_account(cache->side[side].twins) : none;
}
