#include "worker.h"

#include "args.h"
#include "back_ends.h"
#include "model_file.h"
#include "report.h"
#include "session.h"
#include "stop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct worker {
    const struct run_job *job;
    struct session session;
    struct run_result result;
    llama_token *tokens; /* generated; owned, as the next two */
    float *first_logits; /* those behind the prompt */
    char *text;
    FILE *writer; /* into text */
};

/* ---- generation ----------------------------------------------------------------------------- */

/* Shows a piece of text as soon as it is there and keeps it. */
static void emit(struct worker *w, llama_token token) {
    char piece[512];
    const int32_t n = llama_token_to_piece(w->session.vocab, token, piece, sizeof(piece), 0, false);
    if (n <= 0) {
        return;
    }
    fwrite(piece, 1, (size_t)n, w->writer);
    fwrite(piece, 1, (size_t)n, stdout);
    if (fflush(stdout) != 0) {
        cli_say("cannot write the text to stdout: %s", strerror(errno));
        stop_because(STOP_OUTPUT);
    }
}

static enum engine_status generate(struct worker *w) {
    struct session *s = &w->session;
    struct run_result *r = &w->result;
    enum engine_status status = ENGINE_OK;
    const double began = stop_clock();
    while (status == ENGINE_OK && r->n_token < s->n_predict) {
        const llama_token token = llama_sampler_sample(s->sampler, s->context, -1);
        w->tokens[r->n_token++] = token;
        if (llama_vocab_is_eog(s->vocab, token)) {
            break;
        }
        emit(w, token);
        if (stop_requested()) {
            status = ENGINE_STOPPED;
        } else if (r->n_token < s->n_predict) {
            status = session_evaluate(s, &token, 1, s->n_prompt + r->n_step, 0);
            r->n_step += status == ENGINE_OK;
        }
    }
    r->step_seconds = stop_clock() - began;
    fflush(w->writer);
    if (w->result.text.n > 0 && w->text[w->result.text.n - 1] != '\n') {
        puts("");
        fflush(stdout);
    }
    return status;
}

/* ---- the same text as the f16 run ----------------------------------------------------------- */

/* The logits at each position of the f16 run's text, one token at a time, as they are when text is
 * generated. Sequence 1 has the prompt of sequence 0, but not what was generated behind it. */
static enum engine_status follow(struct worker *w, struct divergence_file *file) {
    struct session *s = &w->session;
    struct divergence *d = &w->result.divergence;
    const bool writes = w->job->reference == REFERENCE_WRITE;
    const float *logits = w->first_logits;
    enum engine_status status = ENGINE_OK;
    progress_begin(&s->progress, PROGRESS_COMPARISON, file->n_row - 1); /* tokens to evaluate */
    for (int32_t i = 0; i < file->n_row && status == ENGINE_OK; i++) {
        if (i > 0) {
            progress_batch(&s->progress, 1);
            status = session_evaluate(s, file->tokens + i - 1, 1, s->n_prompt + i - 1, 1);
            logits = status == ENGINE_OK ? llama_get_logits_ith(s->context, -1) : NULL;
        }
        if (logits == NULL) {
            break;
        }
        if (!(writes ? divergence_store(file, i, logits) : divergence_add(file, i, logits, d))) {
            status = ENGINE_FAILED;
            break;
        }
        d->n_position = i + 1;
        d->n_same_top += writes;
        if (i > 0) {
            progress_advance(&s->progress);
        }
    }
    progress_end(&s->progress);
    if (writes && status != ENGINE_FAILED && !divergence_finish(file, d->n_position)) {
        return ENGINE_FAILED;
    }
    return status;
}

static enum engine_status compare(struct worker *w) {
    struct divergence_file file = {0};
    const int fd = w->job->reference_file;
    const bool ready =
        w->job->reference == REFERENCE_WRITE
            ? divergence_write(&file, fd, w->session.n_vocab, w->tokens, w->result.n_token)
            : divergence_read(&file, fd, w->session.n_vocab);
    const enum engine_status status = ready ? follow(w, &file) : ENGINE_FAILED;
    divergence_close(&file);
    return status;
}

/* ---- figures -------------------------------------------------------------------------------- */

static void take_figures(struct worker *w) {
    const struct session *s = &w->session;
    struct run_result *r = &w->result;
    r->n_prompt = s->n_prompt;
    r->n_read = s->progress.n_done;
    r->prompt_seconds = progress_seconds(&s->progress);
    r->n_ctx = llama_n_ctx(s->context);
    r->bytes_cold = s->kv.bytes;
    r->bytes_f16 = s->kv.bytes_f16;
    varve_ggml_counters_fn counters = (varve_ggml_counters_fn)back_ends_varve(VARVE_GGML_COUNTERS);
    varve_ggml_account_fn account = (varve_ggml_account_fn)back_ends_varve(VARVE_GGML_ACCOUNT);
    if (counters != NULL) {
        counters(&r->counters, sizeof(r->counters));
    }
    r->random_weights = model_file_is_random(s->model);
    r->has_account = account != NULL && account(-1, &r->account, sizeof(r->account));
}

/* ---- the whole ------------------------------------------------------------------------------ */

static bool allocate(struct worker *w) {
    const struct session *s = &w->session;
    w->tokens = malloc((size_t)s->n_predict * sizeof(*w->tokens));
    w->first_logits = malloc((size_t)s->n_vocab * sizeof(*w->first_logits));
    w->writer = open_memstream(&w->text, &w->result.text.n);
    if (w->tokens == NULL || w->first_logits == NULL || w->writer == NULL) {
        cli_say("no memory for the text; lower -n");
        return false;
    }
    return true;
}

static enum engine_status work(struct worker *w) {
    struct session *s = &w->session;
    enum engine_status status = session_open(s, w->job);
    if (status != ENGINE_OK) {
        return status;
    }
    if (!allocate(w)) {
        return ENGINE_FAILED;
    }
    status = session_read_prompt(s);
    if (status == ENGINE_OK) {
        memcpy(w->first_logits, llama_get_logits_ith(s->context, -1),
               (size_t)s->n_vocab * sizeof(float));
        if (w->job->reference != REFERENCE_NONE) {
            llama_memory_seq_cp(llama_get_memory(s->context), 0, 1, -1, -1);
        }
        status = generate(w);
    }
    take_figures(w);
    if (status == ENGINE_OK && w->job->reference != REFERENCE_NONE) {
        status = compare(w);
    }
    return status;
}

static bool hand_over(struct worker *w, int report) {
    w->result.text.bytes = w->text;
    w->result.stopped = stop_reason();
    json_t *json = report_json(w->job, &w->result);
    const bool ok = json != NULL && json_dumpfd(json, report, JSON_COMPACT) == 0;
    json_decref(json);
    if (!ok) {
        cli_say("the figures could not be handed on: no memory");
    }
    return ok;
}

static bool set_environment(const struct run_job *job) {
    unsetenv("GGML_BACKEND_PATH"); /* ggml would load what it names, whatever the run is */
    return job->plugin != NULL ? launch_set_tiers(&job->options->tiers)
                               : launch_set("VARVE_DISABLE", "1");
}

int worker_run(const void *data, int report) {
    const struct run_job *job = data;
    struct worker w = {.job = job};
    const bool ok = set_environment(job) && work(&w) != ENGINE_FAILED && hand_over(&w, report);
    if (w.writer != NULL) {
        fclose(w.writer);
    }
    session_close(&w.session);
    free(w.tokens);
    free(w.first_logits);
    free(w.text);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
