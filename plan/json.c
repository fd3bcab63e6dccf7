/* The plan as JSON, all sizes in bytes. */
#include "plan.h"

#include "json_file.h"

#include "varve/varve.h"

static json_t *number(uint64_t value) { return json_integer((json_int_t)value); }

static json_t *layer_json(const struct plan_layer *l) {
    const struct varve_ggml_need *n = &l->need;
    const bool own = !l->shares;
    return json_pack(
        "{s:i, s:b, s:b, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s?}",
        "number", (int)l->number, "shared", l->shares, "latent", l->is_latent, "cells",
        (json_int_t)l->n_cell, "streams", (json_int_t)l->n_stream, "values_k",
        (json_int_t)l->n_value_k, "values_v", (json_int_t)(l->is_latent ? 0 : l->n_value_v),
        "cold_k", number(l->cold_k), "cold_v", number(l->cold_v), "hot",
        number(own ? n->hot_k + n->hot_v - n->sinks_k - n->sinks_v : 0), "sinks",
        number(own ? n->sinks_k + n->sinks_v : 0), "staging", number(n->staging), "staging_own",
        number(own ? n->staging_own : 0), "view", number(n->view), "tables",
        number(own ? n->tables : 0), "scratch", number(n->work), "declined", n->declined);
}

static json_t *layers_json(const struct plan_figures *f) {
    json_t *list = json_array();
    for (size_t i = 0; i < f->n_layer; i++) {
        json_array_append_new(list, layer_json(&f->layers[i]));
    }
    return list;
}

static json_t *total_json(const struct plan *plan) {
    const struct plan_figures *f = &plan->figures;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                     "weights", number(plan->model->weights), "cold", number(f->cold), "hot",
                     number(f->hot), "sinks", number(f->sinks), "staging", number(f->staging),
                     "state", number(f->state), "cells", number(f->cells), "graphs",
                     number(f->graphs), "mask", number(f->mask), "compute", number(f->compute),
                     "scratch", number(f->scratch), "output", number(f->output), "context",
                     number(f->total), "total", number(f->total + plan->model->weights));
}

static json_t *rows_json(const struct plan *plan) {
    json_t *list = json_array();
    for (size_t i = 0; i < plan->n_row; i++) {
        const struct plan_row *row = &plan->rows[i];
        const char *refused = row->refused[0] != '\0' ? row->refused : NULL;
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:o, s:o, s:I, s:s?}", "type_k", row->type_k, "type_v",
                            row->type_v, "cache", number(row->cache), "total", number(row->total),
                            "longest", (json_int_t)row->longest, "refused", refused));
    }
    return list;
}

bool write_plan(const struct plan *plan, int fd) {
    const struct plan_options *o = plan->model->options;
    const struct plan_figures *f = &plan->figures;
    json_t *root = json_pack(
        "{s:s, s:o, s:o, s:b, s:{s:I, s:I, s:I, s:b, s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:o}, "
        "s:I, "
        "s:o, s:o, s:o, s:s?}",
        "version", varve_version(), "model", json_file_text(o->model), "name",
        json_file_text(plan->model->name), "random_weights", plan->model->is_random, "settings",
        "context", (json_int_t)f->n_ctx, "context_per_slot", (json_int_t)f->n_ctx_seq, "slots",
        (json_int_t)o->n_slot, "unified", o->unified, "ubatch", (json_int_t)o->n_ubatch, "threads",
        (json_int_t)o->n_threads, "type_k", o->type_k, "type_v", o->type_v, "tiers", o->tiers.tiers,
        "sinks", (json_int_t)o->tiers.n_sink, "hot_max", (json_int_t)o->tiers.hot_max, "ram",
        number(plan->ram), "context_trained", (json_int_t)plan->model->n_ctx_train, "layers",
        layers_json(f), "bytes", total_json(plan), "types", rows_json(plan), "declined",
        f->declined);
    const bool ok = json_file_write(o->json, fd, root);
    json_decref(root);
    return ok;
}
