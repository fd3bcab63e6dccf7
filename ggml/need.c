/* What a context will take, said before anything is allocated: for `varve plan`. */
#include "plugin.h"

#include <string.h>

/* Twins of one side; zero: none. */
struct side_need {
    struct varve_twins_bytes bytes;
    int64_t n_row; /* with a twin, of one sequence and its ubatch */
};

static void need_of_side(const struct plugin_tiers *tiers, const struct ggml_tensor *attention,
                         const struct ggml_tensor *source, bool reread,
                         const struct varve_ggml_need_params *params, struct side_need *side) {
    const struct ggml_tensor *root = learn_root(source);
    const struct learn_facts facts = {
        .attended = true, .reread = reread, .n_sequence = params->n_sequence, .settled = true};
    const struct varve_hot_params tier = {
        .struct_bytes = sizeof(tier), .window = tiers->window, .n_sink = tiers->n_sink};
    const int64_t n_query = attention->src[0]->ne[1];
    const int64_t n_step = n_query * attention->src[0]->ne[3];
    const int64_t ring = varve_hot_ring_rows(tiers->window, tiers->n_sink);
    struct varve_twins_params twins;
    if (tiers->window == 0 || !ggml_is_quantized(root->type) || root->op != GGML_OP_NONE ||
        !hot_twins_params(tiers, root, &facts, params->n_tensor, &twins)) {
        return;
    }
    /* A row that a sliding window hides before W + slack newer ones are seen never leaves (rule 6
     * of docs/DESIGN.md 9): the rings fill up, as where sequences share rows. */
    twins.shared |= params->window > 0 && params->window < varve_hot_ring_rows(tiers->window, 0);
    if (varve_twins_plan(plugin_varve(), &tier, &twins, params->n_sequence, n_step, &side->bytes) ==
        VARVE_OK) {
        const int64_t n_row = ring + n_query;
        side->n_row = n_row < twins.n_cell ? n_row : twins.n_cell;
    }
}

/* Threads that may work on one node; 0: no memory. */
static int32_t most_threads(int32_t n_thread) {
    struct plugin_threads *threads = threads_create();
    const int32_t n = threads != NULL ? threads_most(threads, n_thread) : 0;
    threads_destroy(threads);
    return n;
}

bool need_of(const struct ggml_tensor *attention, const struct varve_ggml_need_params *params,
             struct varve_ggml_need *need, size_t need_bytes) {
    if (attention == NULL || params == NULL || need == NULL ||
        params->struct_bytes < sizeof(*params) || params->n_sequence < 1 || params->n_thread < 1) {
        return false;
    }
    struct varve_ggml_need now;
    memset(&now, 0, sizeof(now));
    now.declined = attention->op == GGML_OP_FLASH_ATTN_EXT ? attention_decline(attention)
                                                           : "it is no attention node";
    if (now.declined == NULL) {
        const struct plugin_tiers tiers = hot_settings();
        struct side_need k = {0};
        struct side_need v = {0};
        need_of_side(&tiers, attention, attention->src[1], params->reread_k, params, &k);
        if (learn_root(attention->src[1]) != learn_root(attention->src[2])) {
            need_of_side(&tiers, attention, attention->src[2], params->reread_v, params, &v);
        }
        const int64_t n_query = attention->src[0]->ne[1];
        const int64_t n_part = attention->src[0]->ne[3];
        const int64_t n_row = k.n_row > v.n_row ? k.n_row : v.n_row;
        struct varve_hot_view_bytes view = {0, 0};
        if (n_row > 0) {
            (void)varve_hot_view_plan(n_query, n_row, &view);
        }
        now.hot_k = k.bytes.hot;
        now.hot_v = v.bytes.hot;
        now.sinks_k = k.bytes.sinks;
        now.sinks_v = v.bytes.sinks;
        *(params->reread_k ? &now.staging_own : &now.staging) += k.bytes.staging;
        *(params->reread_v ? &now.staging_own : &now.staging) += v.bytes.staging;
        now.tables = k.bytes.tables + v.bytes.tables;
        now.view = (uint64_t)n_part * view.staging;
        now.work = (uint64_t)n_part * view.tables +
                   attention_scratch(attention, k.n_row, v.n_row, n_row > 0 ? n_query - 1 : 0,
                                     most_threads(params->n_thread));
    }
    memcpy(need, &now, need_bytes < sizeof(now) ? need_bytes : sizeof(now));
    return true;
}
