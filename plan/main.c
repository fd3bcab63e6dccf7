/* varve plan: memory of a context before it is made. llama.cpp reads the file, which may be damaged
 * in ways that end a process, so it does so in a child. */
#include "args.h"
#include "back_ends.h"
#include "json_file.h"
#include "log.h"
#include "plan.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- settings ------------------------------------------------------------------------------- */

/* The tiers as the plug-in has them, from options, environment and defaults. */
static bool take_settings(struct plan_options *o) {
    static char tiers[32] = "none";
    struct varve_ggml_account now = {0};
    varve_ggml_account_fn account = (varve_ggml_account_fn)back_ends_varve(VARVE_GGML_ACCOUNT);
    if (account == NULL || !account(-1, &now, sizeof(now))) {
        cli_say("plan: the plug-in does not answer; unset VARVE_DISABLE, or build it anew");
        return false;
    }
    if (now.window > 0) {
        snprintf(tiers, sizeof(tiers), "f16:%d", (int)now.window);
    }
    o->tiers = (struct launch_tiers){tiers, now.n_sink, (int64_t)now.bytes_limit};
    return true;
}

static bool prepare(struct plan_options *o) {
    char plugin[PATH_MAX];
    unsetenv("GGML_BACKEND_PATH"); /* ggml would load what it names */
    log_begin();
    return launch_find_library("libggml-varve.so", plugin, sizeof(plugin)) &&
           launch_set_tiers(&o->tiers) && back_ends_load(plugin) && take_settings(o);
}

/* ---- the plan ------------------------------------------------------------------------------- */

static void plan_row(const struct plan *plan, struct plan_row *row) {
    struct plan_figures f;
    const char *reason = NULL;
    bool ok =
        probe_context(plan->model, row->type_k, row->type_v, plan->figures.n_ctx, &f, &reason);
    if (ok) {
        row->cache = f.cold + f.hot + f.sinks + f.staging + f.state;
        row->total = f.total + plan->model->weights;
        plan_figures_free(&f);
        row->longest = longest_context(plan->model, row->type_k, row->type_v, plan->ram, &reason);
        ok = row->longest >= 0;
    }
    if (!ok) {
        row->longest = 0;
        snprintf(row->refused, sizeof(row->refused), "%s", reason);
    }
}

static bool plan_rows(struct plan *plan) {
    static const char *const types[] = {"f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"};
    enum { n_type = sizeof(types) / sizeof(types[0]) };
    const struct plan_options *o = plan->model->options;
    bool has_chosen = false;
    plan->rows = calloc(n_type + 1, sizeof(*plan->rows));
    if (plan->rows == NULL) {
        return false;
    }
    for (int i = 0; i <= n_type; i++) {
        const bool extra = i == n_type;
        if (extra && has_chosen) {
            break;
        }
        struct plan_row *row = &plan->rows[plan->n_row++];
        row->type_k = extra ? o->type_k : types[i];
        row->type_v = extra ? o->type_v : types[i];
        row->chosen = strcmp(row->type_k, o->type_k) == 0 && strcmp(row->type_v, o->type_v) == 0;
        has_chosen |= row->chosen;
        plan_row(plan, row);
    }
    return true;
}

static int64_t default_context(const struct plan_model *m) {
    const int64_t n_slot = m->options->unified ? 1 : m->options->n_slot;
    const int64_t most = most_tokens(m);
    return most < 8192 * n_slot ? most : 8192 * n_slot;
}

static bool make_plan(struct plan *plan, struct plan_model *model, struct plan_options *o) {
    const char *reason = NULL;
    if (!prepare(o) || !model_open(model, o)) {
        return false;
    }
    plan->model = model;
    plan->ram_given = o->ram > 0;
    plan->ram = plan->ram_given ? (uint64_t)o->ram : (uint64_t)cli_available_memory();
    const int64_t n_ctx = o->n_ctx > 0 ? o->n_ctx : default_context(model);
    if (!probe_context(model, o->type_k, o->type_v, n_ctx, &plan->figures, &reason)) {
        cli_say("llama.cpp makes no context of %lld tokens with a cache of type %s and %s: %s",
                (long long)n_ctx, o->type_k, o->type_v, reason);
        return false;
    }
    if (!plan_rows(plan)) {
        cli_say("no memory for the table");
        return false;
    }
    return true;
}

static bool work(struct plan_options *o, int json) {
    struct plan plan = {0};
    struct plan_model model = {0};
    bool ok = make_plan(&plan, &model, o);
    if (ok) {
        show_plan(&plan);
        const bool fits = plan.figures.total + model.weights <= plan.ram;
        if (o->n_ctx > 0 && plan.ram_given && !fits) {
            cli_say("this does not fit into the memory given with --ram; lower -c or take smaller "
                    "cache types");
        }
        ok = json < 0 || write_plan(&plan, json);
        ok = ok && (o->n_ctx == 0 || !plan.ram_given || fits);
    }
    free(plan.rows);
    plan_figures_free(&plan.figures);
    llama_model_free(model.model);
    return ok;
}

/* ---- the child ------------------------------------------------------------------------------ */

/* A damaged header may ask for any amount; a whole one needs far less than this. */
static void limit_memory(void) {
#ifndef VARVE_SANITIZED
    const struct rlimit limit = {(rlim_t)8 << 30, (rlim_t)8 << 30};
    (void)setrlimit(RLIMIT_DATA, &limit);
#endif
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
}

static int run_child(struct plan_options *o, int json) {
    const pid_t parent = getpid();
    fflush(NULL);
    const pid_t pid = fork();
    if (pid < 0) {
        cli_say("cannot start a process: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        limit_memory();
        exit(getppid() == parent && work(o, json) ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (WIFSIGNALED(status)) {
        cli_say(
            "llama.cpp could not read %s: it ended with signal %d (%s); the file is damaged, or "
            "no model that this llama.cpp knows: fetch it again",
            o->model != NULL ? o->model : "these dimensions", WTERMSIG(status),
            strsignal(WTERMSIG(status)));
        return EXIT_FAILURE;
    }
    return WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    struct plan_options options;
    if (!options_parse(argc, argv, &options)) {
        return 64; /* EX_USAGE, as argp has it */
    }
    const int json = options.json != NULL ? json_file_open(options.json) : -1;
    if (options.json != NULL && json < 0) {
        return EXIT_FAILURE;
    }
    const int code = run_child(&options, json);
    return json >= 0 && !json_file_close(options.json, json) ? EXIT_FAILURE : code;
}
