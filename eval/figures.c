#include "figures.h"

#include "json_file.h"

#include "varve/varve.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static json_t *real(double value) { return isfinite(value) ? json_real(value) : json_null(); }

/* Value and interval; the latter is null where there are too few blocks. */
static json_t *figure(const struct statistics_figure *f) {
    return json_pack("{s:o, s:o, s:o}", "value", real(f->value), "low", real(f->low), "high",
                     real(f->high));
}

static json_t *statistics_json(const struct statistics *s) {
    return json_pack("{s:I, s:{s:o, s:o, s:o, s:o, s:o, s:o}, s:o, s:o, s:o, s:o}", "positions",
                     (json_int_t)s->n, "kl", "mean", figure(&s->mean), "median", figure(&s->median),
                     "p99", figure(&s->p99), "p999", figure(&s->p999), "max", real(s->max),
                     "missing_at_most", real(s->loss), "same_top", figure(&s->same_top),
                     "ppl_ratio", figure(&s->ppl_ratio), "ppl_reference", real(s->ppl_reference),
                     "rms_dp", figure(&s->rms_dp));
}

static json_t *bytes_json(const struct eval_result *r) {
    const struct eval_chunk *s = &r->sum;
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "per_token",
                     real(r->bytes_per_token), "cold_per_token", real(r->cold_bytes_per_token),
                     "bits_per_value", real(r->bits_per_value), "cells", (json_int_t)s->n_cell,
                     "values_k", (json_int_t)s->values_k, "values_v", (json_int_t)s->values_v,
                     "cold", (json_int_t)s->bytes_cold, "hot", (json_int_t)s->bytes_hot, "staging",
                     (json_int_t)s->bytes_staging, "hot_peak", (json_int_t)s->bytes_hot_peak);
}

static json_t *speed_json(int64_t n_token, double seconds) {
    return json_pack("{s:I, s:f, s:o}", "tokens", (json_int_t)n_token, "seconds", seconds,
                     "tokens_per_second",
                     real(n_token > 0 && seconds > 0 ? (double)n_token / seconds : NAN));
}

/* Ranges of positions, both ends included, with their mean divergence. */
static json_t *places_json(const struct eval_options *o, const struct eval_result *r,
                           bool from_end) {
    const int32_t n = (int32_t)(o->n_ctx - 1 - o->from);
    json_t *list = json_array();
    for (int32_t i = 0; i < (from_end ? n_distance_most : n_part); i++) {
        const int32_t near = 1 << (from_end ? i : 0);
        const int32_t first = from_end ? near : (int32_t)(o->from + (int64_t)n * i / n_part);
        const int32_t last = from_end ? (2 * near - 1 < n ? 2 * near - 1 : n)
                                      : (int32_t)(o->from + (int64_t)n * (i + 1) / n_part - 1);
        if (last >= first && (!from_end || near <= n)) {
            json_array_append_new(
                list, json_pack("{s:i, s:i, s:o}", "first", first, "last", last, "kl",
                                figure(from_end ? &r->by_distance[i] : &r->by_part[i])));
        }
    }
    return list;
}

static json_t *beside_json(const struct eval_result *results, const struct eval_result *r,
                           int32_t other) {
    if (other < 0) {
        return json_null();
    }
    const struct eval_result *to = &results[other];
    return json_pack("{s:s, s:o, s:b}", "config", to->config.label, "bytes_ratio",
                     real(to->bytes_per_token / r->bytes_per_token), "warning",
                     result_difference(r, to) > RESULT_SAME_BYTES);
}

/* ---- tasks ---------------------------------------------------------------------------------- */

static void add_count(json_t *object, const struct task_count *c) {
    json_object_set_new(object, "right", json_integer(c->right));
    json_object_set_new(object, "of", json_integer(c->of));
    json_object_set_new(object, "rate", figure(&c->rate));
}

static json_t *task_json(enum task_kind kind, const struct task_result *r) {
    json_t *task = json_object(), *more = kind == TASK_PASSKEY ? json_array() : json_object();
    add_count(task, &r->items);
    json_object_set_new(task, "lost", json_integer(r->lost));
    json_object_set_new(task, "won", json_integer(r->won));
    json_object_set_new(task, "p", real(r->p));
    for (int d = 0; kind == TASK_PASSKEY && d < task_n_depth; d++) {
        json_t *depth = json_pack("{s:f}", "depth", r->by_depth[d].depth);
        add_count(depth, &r->by_depth[d].count);
        json_array_append_new(more, depth);
    }
    if (kind != TASK_PASSKEY) {
        add_count(more, &r->tokens);
    }
    json_object_set_new(task, kind == TASK_PASSKEY ? "by_depth" : "tokens", more);
    return task;
}

/* One run's tasks, by name. */
static json_t *tasks_json(const struct eval_options *o, const struct task_result tasks[n_task]) {
    json_t *all = json_object();
    for (int k = 0; k < n_task; k++) {
        if (o->tasks[k]) {
            json_object_set_new(all, task_name((enum task_kind)k),
                                task_json((enum task_kind)k, &tasks[k]));
        }
    }
    return all;
}

/* ---- results -------------------------------------------------------------------------------- */

static json_t *result_json(const struct eval_options *o, int32_t n_text,
                           const struct eval_result *results, const struct eval_result *r) {
    const struct eval_config *c = &r->config;
    json_t *texts = json_array();
    for (int32_t t = 0; t < n_text; t++) {
        json_array_append_new(texts, statistics_json(&r->by_text[t]));
    }
    json_t *config =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:b, s:b}", "label", c->label, "type_k",
                  c->type_k, "type_v", c->type_v, "window", (json_int_t)c->window, "sinks",
                  (json_int_t)c->n_sink, "rotation", !c->no_rotation, "stock", c->stock, "added",
                  c->added, "default", strcmp(c->label, CONFIG_DEFAULT) == 0);
    json_t *speeds =
        json_pack("{s:o, s:o}", "prefill", speed_json(r->sum.n_prefill, r->sum.prefill_seconds),
                  "decode", speed_json(r->sum.n_decode, r->sum.decode_seconds));
    json_t *json = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:I, s:I, s:I}", "config", config,
        "bytes", bytes_json(r), "all", statistics_json(&r->all), "by_text", texts, "by_position",
        places_json(o, r, false), "by_distance", places_json(o, r, true), "speed", speeds,
        "on_front", r->on_front, "same_bytes", beside_json(results, r, r->same_bytes),
        "next_uniform", beside_json(results, r, r->next_uniform), "attention_nodes",
        (json_int_t)r->sum.attention_nodes, "rows_missed", (json_int_t)r->sum.rows_missed,
        "rows_evicted", (json_int_t)r->sum.twins_evicted);
    if (eval_options_has_tasks(o)) {
        json_object_set_new(json, "tasks", tasks_json(o, r->tasks));
    }
    return json;
}

/* As Linux has it on x86, NULL elsewhere. */
static const char *cpu_name(void) {
    static char line[128];
    char *name = NULL;
    FILE *info = fopen("/proc/cpuinfo", "re");
    while (info != NULL && name == NULL && fgets(line, sizeof(line), info) != NULL) {
        if (strncmp(line, "model name", 10) == 0 && strstr(line, ": ") != NULL) {
            name = strstr(line, ": ") + 2;
            name[strcspn(name, "\n")] = '\0';
        }
    }
    if (info != NULL) {
        fclose(info);
    }
    return name;
}

static json_t *machine_json(const struct eval_options *o) {
    struct utsname name = {0};
    struct varve_context *context = NULL; /* on the level that is used unless one is named */
    uname(&name);
    const char *isa =
        varve_context_create(NULL, &context) == VARVE_OK ? varve_context_isa(context) : "";
    varve_context_destroy(context);
    return json_pack("{s:s*, s:s, s:s, s:I}", "cpu", cpu_name(), "architecture", name.machine,
                     "isa", isa, "threads", (json_int_t)o->n_threads);
}

json_t *figures_json(const struct eval_options *o, const struct eval_text *texts, int32_t n_text,
                     const json_t *reference, const struct task_result reference_tasks[n_task],
                     const struct eval_result *results, int32_t n) {
    json_t *names = json_array(), *list = json_array();
    for (int32_t t = 0; t < n_text; t++) {
        json_array_append_new(names, json_file_text(texts[t].name));
    }
    for (int32_t i = 0; i < n; i++) {
        json_array_append_new(list, result_json(o, n_text, results, &results[i]));
    }
    json_t *settings = json_pack("{s:o, s:I, s:I, s:s, s:I, s:I}", "model",
                                 json_file_text(o->model), "context", (json_int_t)o->n_ctx, "from",
                                 (json_int_t)o->from, "mode", o->decode ? "decode" : "prefill",
                                 "top_k", (json_int_t)o->top_k, "seed", (json_int_t)o->seed);
    json_t *root = json_pack("{s:s, s:o, s:o, s:o, s:O, s:O, s:O, s:O, s:o}", "version",
                             varve_version(), "settings", settings, "machine", machine_json(o),
                             "texts", names, "chunks", json_object_get(reference, "chunks"),
                             "model", json_object_get(reference, "model"), "random_weights",
                             json_object_get(reference, "random_weights"), "vocabulary",
                             json_object_get(reference, "vocabulary"), "results", list);
    if (eval_options_has_tasks(o)) {
        json_object_set_new(root, "reference_tasks", tasks_json(o, reference_tasks));
    }
    return root;
}
