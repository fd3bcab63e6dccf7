/* Plans of the latest nodes. Layers of one kind repeat a plan for every token of 256, layers with a
 * sliding window and full ones take turns, and sequences of one node may each need their own. */
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { n_kept = 8 };

static struct plugin_plan_key key_of(const struct plugin_backend *backend,
                                     const struct varve_attention *attention,
                                     const struct varve_segment *segments, int64_t n_segment) {
    struct plugin_plan_key key;
    memset(&key, 0, sizeof(key)); /* compared as bytes */
    memcpy(&key.attention, attention, sizeof(key.attention));
    key.n_worker = threads_most(backend->threads, backend->n_thread);
    for (int64_t i = 0; i < n_segment; i++) {
        key.n_row += segments[i].n_rows;
        key.k_formats |= 1u << segments[i].k_format;
        key.v_formats |= 1u << segments[i].v_format;
    }
    return key;
}

static void trace(const struct plugin_plan *made) {
    if (!plugin_config()->trace) {
        return;
    }
    /* What decides kernels and tiles, not the exact length: one line per shape. */
    struct plugin_plan_key shape;
    memcpy(&shape, &made->key, sizeof(shape)); /* with its padding, which is zero */
    shape.attention.n_query = shape.attention.n_query > 1 ? 2 : 1;
    shape.n_row = 0;
    if (plugin_first_time(plugin_hash(1, &shape, sizeof(shape)))) {
        char text[512];
        varve_plan_print(made->plan, text, sizeof(text));
        plugin_log(GGML_LOG_LEVEL_INFO, "plan: %s", text);
    }
}

/* The one that was not used for the longest time, or a new one while all serve the node at hand. */
static struct plugin_plan *place(struct plugin_backend *backend) {
    struct plugin_plan *oldest = NULL;
    for (int32_t i = 0; i < backend->n_plan; i++) {
        if (oldest == NULL || backend->plan[i].node < oldest->node) {
            oldest = &backend->plan[i];
        }
    }
    if (backend->n_plan >= n_kept && oldest->node < backend->n_node) {
        varve_plan_destroy(oldest->plan);
        oldest->plan = NULL;
        return oldest;
    }
    struct plugin_plan *more =
        realloc(backend->plan, (size_t)(backend->n_plan + 1) * sizeof(*more));
    if (more == NULL) {
        return NULL;
    }
    backend->plan = more;
    more += backend->n_plan++;
    memset(more, 0, sizeof(*more));
    return more;
}

enum varve_status plans_get(struct plugin_backend *backend, const struct varve_attention *attention,
                            const struct varve_segment *segments, int64_t n_segment,
                            const struct varve_plan **plan) {
    const struct plugin_plan_key key = key_of(backend, attention, segments, n_segment);
    for (int32_t i = 0; i < backend->n_plan; i++) {
        struct plugin_plan *known = &backend->plan[i];
        if (known->plan != NULL && memcmp(&known->key, &key, sizeof(key)) == 0) {
            known->node = backend->n_node;
            *plan = known->plan;
            return VARVE_OK;
        }
    }
    struct varve_plan *fresh = NULL;
    const enum varve_status status =
        varve_plan_create(backend->varve, attention, segments, n_segment, key.n_worker, &fresh);
    struct plugin_plan *made = status == VARVE_OK ? place(backend) : NULL;
    if (made == NULL) {
        varve_plan_destroy(fresh);
        return status == VARVE_OK ? VARVE_ERROR_MEMORY : status;
    }
    memcpy(&made->key, &key, sizeof(key));
    made->plan = fresh;
    made->node = backend->n_node;
    *plan = fresh;
    trace(made);
    return VARVE_OK;
}

void plans_free(struct plugin_backend *backend) {
    for (int32_t i = 0; i < backend->n_plan; i++) {
        varve_plan_destroy(backend->plan[i].plan);
    }
    free(backend->plan);
}
