/* varve eval: what configurations of a KV cache do to a model's predictions, and what they take. */
#include "args.h"
#include "child.h"
#include "figures.h"
#include "launch.h"
#include "model_file.h"
#include "outputs.h"
#include "table.h"
#include "task_run.h"
#include "task_table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct evaluation {
    const struct eval_options *options;
    struct eval_text *texts; /* this and the next three are owned */
    struct eval_config *configs;
    struct eval_result *results;
    json_t *reference; /* report of its run */
    int32_t n_text, n_config, n_result;
    int32_t *chunks; /* of each text; owned */
    char plugin[PATH_MAX], reference_path[PATH_MAX], reference_answers[PATH_MAX];
    struct task_result reference_tasks[n_task];
    int folder; /* held by one evaluation at a time */
    double spent;
    int64_t n_token;
};

/* ---- the folder ----------------------------------------------------------------------------- */

static const char reference_name[] = "reference.varve-eval", suffix[] = ".varve-eval";

static bool is_ours(const char *name) {
    const size_t n = strlen(name), n_suffix = strlen(suffix);
    return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

/* Removes our files, and the folder if nothing else is in it. */
static void remove_folder(const char *path) {
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (is_ours(entry->d_name)) {
            unlinkat(dirfd(folder), entry->d_name, 0);
        }
    }
    closedir(folder);
    rmdir(path);
}

/* The file of answers beside one of points. */
static bool answers_path(const char *points, char *path, size_t path_bytes) {
    const int n_stem = (int)(strlen(points) - strlen(suffix));
    const int n = snprintf(path, path_bytes, "%.*s.tasks%s", n_stem, points, suffix);
    return n > 0 && n < (int)path_bytes;
}

static bool open_folder(struct evaluation *e) {
    const char *path = e->options->work;
    struct stat info;
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        cli_say("--work %s: cannot be made: %s", path, strerror(errno));
        return false;
    }
    e->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (e->folder < 0) {
        cli_say("--work %s: cannot be used: %s", path, strerror(errno));
        return false;
    }
    if (flock(e->folder, LOCK_EX | LOCK_NB) != 0) {
        cli_say("--work %s: another evaluation uses it; give another folder", path);
        return false;
    }
    if (fstatat(e->folder, reference_name, &info, 0) == 0 && !e->options->resume) {
        cli_say("%s holds the work of an earlier evaluation: go on with --resume, or remove that "
                "folder, or give another one with --work",
                path);
        return false;
    }
    return snprintf(e->reference_path, sizeof(e->reference_path), "%s/%s", path, reference_name) <
               (int)sizeof(e->reference_path) &&
           answers_path(e->reference_path, e->reference_answers, sizeof(e->reference_answers));
}

static bool points_path(const struct evaluation *e, const struct eval_config *config, char *path,
                        size_t path_bytes) {
    char name[sizeof(config->label)];
    snprintf(name, sizeof(name), "%s", config->label);
    for (char *at = strchr(name, '/'); at != NULL; at = strchr(at, '/')) {
        *at = '-';
    }
    const int n = snprintf(path, path_bytes, "%s/%s%s", e->options->work, name, suffix);
    return n > 0 && n < (int)path_bytes;
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* One run to its end; false after a line or when a signal came. */
static bool run(struct evaluation *e, const struct eval_config *config, const char *points,
                const char *answers, json_t **report) {
    const struct eval_job job = {.options = e->options,
                                 .texts = e->texts,
                                 .n_text = e->n_text,
                                 .config = config,
                                 .plugin = config != NULL && config->stock ? NULL : e->plugin,
                                 .reference = e->reference_path,
                                 .points = points,
                                 .answers = answers,
                                 .number = config != NULL ? e->n_result + 2 : 1,
                                 .n_run = e->n_config + 1,
                                 .spent = e->spent,
                                 .n_token = e->n_token};
    *report = child_run(eval_worker, &job, config != NULL ? config->label : "the reference");
    e->spent += json_number_value(json_object_get(*report, "seconds"));
    e->n_token += json_integer_value(json_object_get(*report, "tokens"));
    return *report != NULL && child_signal() == 0 &&
           json_string_value(json_object_get(*report, "stopped")) == NULL;
}

static bool run_reference(struct evaluation *e) {
    if (!run(e, NULL, NULL, e->reference_answers, &e->reference) ||
        (eval_options_has_tasks(e->options) &&
         !task_run_count(e->reference_answers, e->reference_answers, e->reference_tasks))) {
        return false;
    }
    e->chunks = calloc((size_t)e->n_text, sizeof(*e->chunks));
    for (int32_t t = 0; t < e->n_text && e->chunks != NULL; t++) {
        const json_t *chunks = json_object_get(e->reference, "chunks");
        e->chunks[t] = (int32_t)json_integer_value(json_array_get(chunks, (size_t)t));
    }
    return e->chunks != NULL;
}

static bool run_config(struct evaluation *e, const struct eval_config *config) {
    char points[PATH_MAX], answers[PATH_MAX];
    json_t *report = NULL;
    struct eval_result *more = realloc(e->results, ((size_t)e->n_result + 1) * sizeof(*e->results));
    if (more == NULL || !points_path(e, config, points, sizeof(points)) ||
        !answers_path(points, answers, sizeof(answers))) {
        cli_say("no memory, or a name that is too long");
        return false;
    }
    e->results = more;
    struct eval_result *result = &more[e->n_result];
    const bool ok = run(e, config, points, answers, &report);
    const bool is_refused = json_is_true(json_object_get(report, "refused"));
    json_decref(report);
    if (ok && is_refused) {
        cli_say("%s is left out", config->label);
        unlink(points);
        unlink(answers);
        return true;
    }
    return ok &&
           result_load(&more[e->n_result++], config, points, e->chunks, e->n_text,
                       (uint64_t)e->options->seed) &&
           (!eval_options_has_tasks(e->options) ||
            task_run_count(answers, e->reference_answers, result->tasks));
}

/* ---- configurations of the same bytes -------------------------------------------------------- */

static bool is_planned(const struct evaluation *e, const char *label) {
    for (int32_t i = 0; i < e->n_config; i++) {
        if (strcmp(e->configs[i].label, label) == 0) {
            return true;
        }
    }
    return false;
}

static bool plan(struct evaluation *e, const struct eval_config config) {
    if (is_planned(e, config.label)) {
        return true;
    }
    struct eval_config *more = realloc(e->configs, ((size_t)e->n_config + 1) * sizeof(*more));
    if (more == NULL) {
        cli_say("out of memory");
        return false;
    }
    e->configs = more;
    e->configs[e->n_config++] = config;
    return true;
}

/* The bytes of a window are known when it has run. */
static bool plan_partners(struct evaluation *e) {
    bool ok = true;
    for (int32_t i = 0; i < e->n_result && ok; i++) {
        const struct eval_result *r = &e->results[i];
        const struct eval_cell cell = result_cell(r);
        if (r->config.window > 0) {
            ok = plan(e, config_same_bytes(r->bytes_per_token, &cell)) &&
                 plan(e, config_next_uniform(r->bytes_per_token, &cell));
        }
    }
    return ok;
}

static bool run_all(struct evaluation *e) {
    bool ok = run_reference(e);
    for (int32_t i = 0; ok && i < e->n_config; i++) {
        const struct eval_config config = e->configs[i];
        ok = run_config(e, &config);
        if (ok && i + 1 == e->n_config && !e->options->alone) {
            ok = plan_partners(e); /* they have no windows, so this adds nothing the second time */
        }
    }
    if (ok && e->n_result == 0) {
        cli_say("no configuration is left; give others with --configs");
    }
    return ok && e->n_result > 0;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static bool show(struct evaluation *e, const struct eval_outputs *outputs) {
    const struct eval_options *o = e->options;
    result_compare(e->results, e->n_result);
    if (json_is_true(json_object_get(e->reference, "random_weights"))) {
        puts(MODEL_FILE_CAUTION);
    }
    table_show(o, e->texts, e->n_text, e->results, e->n_result);
    task_table_show(o, e->reference_tasks, e->results, e->n_result);
    json_t *root = figures_json(o, e->texts, e->n_text, e->reference, e->reference_tasks,
                                e->results, e->n_result);
    const bool ok = outputs_write(o, outputs, root);
    json_decref(root);
    return ok;
}

static bool evaluate(struct evaluation *e) {
    const struct eval_options *o = e->options;
    e->n_config = config_list(o->configs, &e->configs);
    if (e->n_config == 0 || !texts_read(o, &e->texts, &e->n_text) ||
        !launch_find_library("libggml-varve.so", e->plugin, sizeof(e->plugin)) || !open_folder(e)) {
        return false;
    }
    struct eval_outputs outputs;
    if (!outputs_open(o, &outputs)) {
        outputs_close(o, &outputs);
        remove_folder(o->work);
        return false;
    }
    child_catch_signals();
    bool ok = run_all(e);
    const bool is_done = ok;
    ok = ok && show(e, &outputs);
    ok = outputs_close(o, &outputs) && ok;
    if (is_done && ok && !o->keep) {
        remove_folder(o->work);
    } else if (!is_done && rmdir(o->work) == 0) { /* it failed before there was any work */
        return false;
    } else if (!is_done && child_signal() != 0) {
        cli_say("interrupted; the same command with --resume goes on (%s)", o->work);
    }
    return ok;
}

static void clean_up(struct evaluation *e) {
    for (int32_t i = 0; i < e->n_result; i++) {
        result_free(&e->results[i]);
    }
    if (e->folder >= 0) {
        close(e->folder);
    }
    texts_free(e->texts, e->n_text);
    json_decref(e->reference);
    free(e->configs);
    free(e->results);
    free(e->chunks);
}

int main(int argc, char **argv) {
    struct eval_options options;
    int code = 64; /* EX_USAGE, as argp has it */
    if (eval_options_parse(argc, argv, &options)) {
        struct evaluation e = {.options = &options, .folder = -1};
        const bool ok = options.from_json != NULL ? outputs_again(&options) : evaluate(&e);
        clean_up(&e);
        code = child_signal() != 0 ? 128 + child_signal() : ok ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    free(options.files);
    return code;
}
