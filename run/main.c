/* varve run: one prompt through llama.cpp with varve, or through several settings side by side. */
#include "args.h"
#include "child.h"
#include "input.h"
#include "json_file.h"
#include "options.h"
#include "report.h"
#include "stop.h"
#include "summary.h"
#include "worker.h"

#include "varve/varve.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- runs ----------------------------------------------------------------------------------- */

static bool add_run(json_t *runs, const struct run_job *job) {
    json_t *report = child_run(worker_run, job, job->name);
    const char *stopped = json_string_value(json_object_get(report, "stopped"));
    const bool failed = stopped != NULL && strcmp(stopped, STOP_OUTPUT) == 0;
    return report != NULL && json_array_append_new(runs, report) == 0 && !failed;
}

static void announce(const struct run_job *job, int number, int n_run) {
    fprintf(stderr, "%s--- %d of %d: %s, cache %s/%s\n", number > 1 ? "\n" : "", number, n_run,
            job->plugin != NULL ? "varve" : "stock llama.cpp", job->type_k, job->type_v);
}

static bool wrote_reference(const json_t *runs) {
    return json_is_object(json_object_get(json_array_get(runs, 0), "divergence"));
}

/* Stock with f16, varve, stock with the same types: the slowest comes last. */
static bool run_comparison(const struct run_job *job, json_t *runs) {
    const struct run_options *o = job->options;
    struct run_job jobs[3] = {*job, *job, *job};
    jobs[0].type_k = jobs[0].type_v = "f16";
    jobs[0].name = jobs[2].name = "stock";
    jobs[0].plugin = jobs[2].plugin = NULL;
    jobs[1].warns = jobs[2].warns = false;
    const bool is_f16 = strcmp(o->type_k, "f16") == 0 && strcmp(o->type_v, "f16") == 0;
    const int n_run = is_f16 ? 2 : 3; /* the third would be the first again */
    const int file = input_temporary_file();
    bool ok = file >= 0;
    for (int i = 0; i < n_run && ok && child_signal() == 0; i++) {
        if (stop_requested()) {
            cli_say("no time is left for run %d of %d; give a larger --limit", i + 1, n_run);
            break;
        }
        announce(&jobs[i], i + 1, n_run);
        jobs[i].reference_file = file;
        jobs[i].reference = i == 0                  ? REFERENCE_WRITE
                            : wrote_reference(runs) ? REFERENCE_READ
                                                    : REFERENCE_NONE;
        ok = add_run(runs, &jobs[i]);
    }
    if (file >= 0) {
        close(file);
    }
    return ok;
}

static bool run_all(const struct run_options *options, struct run_text prompt, json_t *runs) {
    char plugin[PATH_MAX];
    if (!launch_find_library("libggml-varve.so", plugin, sizeof(plugin))) {
        return false;
    }
    const struct run_job job = {.options = options,
                                .name = "varve",
                                .type_k = options->type_k,
                                .type_v = options->type_v,
                                .plugin = plugin,
                                .prompt = prompt,
                                .reference_file = -1,
                                .warns = true};
    return options->compare ? run_comparison(&job, runs) : add_run(runs, &job);
}

/* ---- figures as JSON ------------------------------------------------------------------------ */

static json_t *figures(const struct run_options *o, json_t *runs) {
    return json_pack("{s:s, s:{s:o, s:o, s:I, s:I, s:I, s:s, s:I, s:I, s:f, s:I, s:b}, s:O}",
                     "version", varve_version(), "settings", "model", json_file_text(o->model),
                     "file", json_file_text(o->file), "predict", (json_int_t)o->n_predict,
                     "context", (json_int_t)o->n_ctx, "threads", (json_int_t)o->n_threads, "tiers",
                     o->tiers.tiers, "sinks", (json_int_t)o->tiers.n_sink, "hot_max",
                     (json_int_t)o->tiers.hot_max, "temp", o->temp, "seed", (json_int_t)o->seed,
                     "chat", o->chat, "runs", runs);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static bool run(const struct run_options *options, struct run_text prompt) {
    const int json = options->json != NULL ? json_file_open(options->json) : -1;
    json_t *runs = json_array();
    if (runs == NULL || (options->json != NULL && json < 0)) {
        json_decref(runs);
        return false;
    }
    child_catch_signals();
    if (options->limit > 0) {
        stop_after(options->limit);
    }
    bool ok = run_all(options, prompt, runs);
    summary_show(runs);
    if (json >= 0 && json_array_size(runs) > 0) {
        json_t *root = figures(options, runs);
        ok = json_file_write(options->json, json, root) && ok;
        json_decref(root);
    }
    if (json >= 0) {
        ok = json_file_close(options->json, json) && ok;
    }
    json_decref(runs);
    return ok;
}

int main(int argc, char **argv) {
    struct run_options options;
    if (!options_parse(argc, argv, &options)) {
        return 64; /* EX_USAGE, as argp has it */
    }
    struct run_text prompt;
    char *owned = NULL;
    const bool ok = input_prompt(&options, &prompt, &owned) && run(&options, prompt);
    free(owned);
    return child_signal() != 0 ? 128 + child_signal() : ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
