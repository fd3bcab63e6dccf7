#include "worker.h"

#include "args.h"
#include "back_ends.h"
#include "engine.h"
#include "kv_size.h"
#include "launch.h"
#include "log.h"
#include "model_file.h"
#include "progress.h"
#include "stop.h"
#include "store.h"
#include "task_run.h"
#include "tokens.h"
#include "statistics.h"

#include "varve/ggml.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum {
    n_sample = 16,           /* of the remainder, for each position */
    n_batch_most = 512,      /* tokens */
    logits_most = 256 << 20, /* bytes of one batch */
    n_decode_probe = 16,     /* tokens, for the speed of decode in the mode prefill */
};

struct worker {
    const struct eval_job *job;
    struct llama_model *model; /* this and the next five are owned */
    struct llama_context *context;
    struct llama_batch batch;
    struct eval_tokens tokens;
    struct task_run tasks;
    struct topk_row *row;
    struct topk topk;
    struct store reference, points; /* points is not open for the reference itself */
    struct kv_size kv;
    struct eval_progress progress;
    struct eval_chunk figures; /* of the chunk at hand */
    int32_t n_vocab, n_batch;
    bool refused; /* llama.cpp makes no context of this configuration */
};

/* ---- context -------------------------------------------------------------------------------- */

static bool on_node(void *data) {
    (void)data;
    return stop_requested();
}

static bool open_context(struct worker *w) {
    const struct eval_options *o = w->job->options;
    const struct eval_config *config = w->job->config;
    const char *type_k = config != NULL ? config->type_k : "f16";
    const char *type_v = config != NULL ? config->type_v : "f16";
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)((o->n_ctx + 255) / 256 * 256);
    params.n_batch = params.n_ubatch = (uint32_t)w->n_batch;
    params.n_seq_max = 1;
    params.n_threads = params.n_threads_batch = (int32_t)o->n_threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.offload_kqv = false;
    params.type_k = back_ends_type(type_k);
    params.type_v = back_ends_type(type_v);
    params.cb_eval = kv_size_see;
    params.cb_eval_user_data = &w->kv;
    params.abort_callback = on_node;
    w->context = llama_init_from_model(w->model, params);
    if (w->context == NULL) {
        cli_say("no context of %u tokens with a cache of type %s and %s: %s; if it is memory, "
                "lower --ctx",
                params.n_ctx, type_k, type_v, log_take_error());
    }
    return w->context != NULL;
}

static void close_context(struct worker *w) {
    llama_free(w->context);
    w->context = NULL;
    kv_size_free(&w->kv);
    w->kv = (struct kv_size){0};
}

/* ---- tokens --------------------------------------------------------------------------------- */

/* Whether the token behind a position is scored. */
typedef bool (*is_scored)(const struct worker *w, int32_t position);

static bool in_text(const struct worker *w, int32_t position) {
    return position >= w->job->options->from;
}

/* Evaluates tokens from a position on; those that are scored leave logits. */
static enum engine_status evaluate(struct worker *w, const llama_token *tokens, is_scored scored,
                                   int32_t at, int32_t n, double *seconds) {
    const double began = stop_clock();
    for (int32_t i = 0; i < n; i++) {
        w->batch.token[i] = tokens[at + i];
        w->batch.pos[i] = at + i;
        w->batch.n_seq_id[i] = 1;
        w->batch.seq_id[i][0] = 0;
        w->batch.logits[i] = scored(w, at + i);
    }
    w->batch.n_tokens = n;
    const int32_t status = llama_decode(w->context, w->batch);
    llama_synchronize(w->context);
    *seconds += stop_clock() - began;
    if (status == 0) {
        w->kv.complete = true;
        return ENGINE_OK;
    }
    if (stop_requested()) {
        return ENGINE_STOPPED;
    }
    eval_progress_end(&w->progress);
    cli_say("llama.cpp could not evaluate the tokens (status %d): %s; if it is memory, lower --ctx",
            status, log_take_error());
    return ENGINE_FAILED;
}

/* Stores or compares what was predicted behind a position. */
static bool score(struct worker *w, int32_t chunk, const llama_token *tokens, int32_t position,
                  const float *logits) {
    const int32_t row = position - (int32_t)w->job->options->from;
    struct topk_point point;
    bool finite = logits != NULL;
    if (finite && w->job->config == NULL) {
        uint64_t random = (uint64_t)chunk << 32 | (uint32_t)position;
        finite =
            topk_store(&w->topk, logits, tokens[position + 1], statistics_uniform(&random), w->row);
        if (finite) {
            return store_write_row(&w->reference, chunk, row, w->row);
        }
    } else if (finite) {
        if (!store_read_rows(&w->reference, chunk, row, 1, w->row)) {
            return false;
        }
        finite = topk_compare(&w->topk, w->row, logits, tokens[position + 1], &point);
        if (finite) {
            return store_write_row(&w->points, chunk, row, &point);
        }
    }
    eval_progress_end(&w->progress);
    cli_say("chunk %d, position %d: the model gave no finite logits", chunk + 1, position);
    return false;
}

static enum engine_status read_tokens(struct worker *w, int32_t chunk) {
    const struct eval_options *o = w->job->options;
    const llama_token *tokens = w->tokens.tokens + chunk * o->n_ctx;
    enum engine_status status = ENGINE_OK;
    for (int32_t at = 0; at < o->n_ctx && status == ENGINE_OK;) {
        const bool one = o->decode && at >= o->from;
        const int32_t end = o->decode && at < o->from ? (int32_t)o->from : (int32_t)o->n_ctx;
        const int32_t n = one ? 1 : end - at < w->n_batch ? end - at : w->n_batch;
        status = evaluate(w, tokens, in_text, at, n,
                          one ? &w->figures.decode_seconds : &w->figures.prefill_seconds);
        if (status != ENGINE_OK) {
            break;
        }
        *(one ? &w->figures.n_decode : &w->figures.n_prefill) += n;
        for (int32_t i = 0; i < n && status == ENGINE_OK; i++) {
            const int32_t position = at + i;
            if (position >= o->from && position + 1 < o->n_ctx &&
                !score(w, chunk, tokens, position, llama_get_logits_ith(w->context, i))) {
                status = ENGINE_FAILED;
            }
        }
        eval_progress_advance(&w->progress, n);
        at += n;
    }
    return status;
}

/* The last tokens once more, one by one. */
static enum engine_status probe_decode(struct worker *w, int32_t chunk) {
    const int32_t n_ctx = (int32_t)w->job->options->n_ctx;
    const llama_token *tokens = w->tokens.tokens + (int64_t)chunk * n_ctx;
    const int32_t n = n_decode_probe < n_ctx / 2 ? n_decode_probe : n_ctx / 2;
    enum engine_status status = ENGINE_OK;
    if (!llama_memory_seq_rm(llama_get_memory(w->context), 0, n_ctx - n, -1)) {
        return ENGINE_OK; /* a model whose state cannot be cut: no figure */
    }
    for (int32_t i = n_ctx - n; i < n_ctx && status == ENGINE_OK; i++) {
        status = evaluate(w, tokens, in_text, i, 1, &w->figures.decode_seconds);
        w->figures.n_decode += status == ENGINE_OK;
    }
    return status;
}

/* ---- chunks --------------------------------------------------------------------------------- */

static uint64_t attention_nodes(void) {
    varve_ggml_counters_fn counters = (varve_ggml_counters_fn)back_ends_varve(VARVE_GGML_COUNTERS);
    struct varve_ggml_counters c = {0};
    if (counters != NULL) {
        counters(&c, sizeof(c));
    }
    return c.attention_nodes;
}

static void take_bytes(struct worker *w) {
    struct eval_chunk *f = &w->figures;
    f->n_cell = llama_n_ctx(w->context);
    f->values_k = w->kv.values_k;
    f->values_v = w->kv.values_v;
    f->bytes_cold = w->kv.bytes;
    varve_ggml_account_fn account = (varve_ggml_account_fn)back_ends_varve(VARVE_GGML_ACCOUNT);
    struct varve_ggml_account a = {0};
    if (account != NULL && account(0, &a, sizeof(a))) { /* the only context that is alive */
        f->bytes_hot = a.bytes_hot;
        f->bytes_staging = a.bytes_staging;
        f->bytes_hot_peak = a.bytes_hot_peak;
        f->rows_missed = a.k.rows_missed + a.v.rows_missed;
        f->twins_evicted = a.k.twins_evicted + a.v.twins_evicted;
    }
}

/* A context of its own, so that nothing depends on earlier chunks or on where a run went on. */
static enum engine_status do_chunk(struct worker *w, int32_t chunk) {
    struct store *out = w->job->config != NULL ? &w->points : &w->reference;
    w->figures = (struct eval_chunk){0};
    if (!open_context(w)) {
        return ENGINE_FAILED;
    }
    const uint64_t n_node = attention_nodes();
    enum engine_status status = read_tokens(w, chunk);
    if (status == ENGINE_OK) {
        take_bytes(w);
        w->figures.attention_nodes = attention_nodes() - n_node;
    }
    if (status == ENGINE_OK && !w->job->options->decode) {
        status = probe_decode(w, chunk);
    }
    close_context(w);
    if (status == ENGINE_OK && !store_end_chunk(out, &w->figures)) {
        status = ENGINE_FAILED;
    }
    if (status == ENGINE_OK) {
        eval_progress_chunk(&w->progress);
    }
    return status;
}

/* ---- tasks ---------------------------------------------------------------------------------- */

static bool in_answer(const struct worker *w, int32_t position) {
    const struct task_sequence *s = &w->tasks.sequences[w->tasks.store.n_done];
    return position + 1 < s->n && s->items[position + 1] >= 0;
}

/* In mode decode, from the first answer on token by token. */
static enum engine_status read_sequence(struct worker *w, const struct task_sequence *s,
                                        struct task_answer *answers) {
    enum engine_status status = ENGINE_OK;
    double seconds = 0;
    int32_t first = 0; /* that is scored */
    while (!in_answer(w, first)) {
        first++;
    }
    for (int32_t at = 0; at < s->n && status == ENGINE_OK;) {
        const bool one = w->job->options->decode && at >= first;
        const int32_t end = w->job->options->decode && at < first ? first : s->n;
        const int32_t n = one ? 1 : end - at < w->n_batch ? end - at : w->n_batch;
        status = evaluate(w, s->tokens, in_answer, at, n, &seconds);
        for (int32_t i = 0; i < n && status == ENGINE_OK; i++) {
            if (in_answer(w, at + i)) {
                task_run_score(s, at + i, llama_get_logits_ith(w->context, i), w->n_vocab, answers);
            }
        }
        if (status == ENGINE_OK) {
            eval_progress_advance(&w->progress, n);
        }
        at += n;
    }
    return status;
}

/* The next sequence, in a context of its own. */
static enum engine_status do_sequence(struct worker *w) {
    const int32_t number = w->tasks.store.n_done;
    struct task_answer *answers = malloc((size_t)w->tasks.n_row * sizeof(*answers));
    enum engine_status status = ENGINE_FAILED;
    if (answers == NULL) {
        cli_say("out of memory");
    } else if (open_context(w)) {
        task_run_begin(&w->tasks, number, answers);
        status = read_sequence(w, &w->tasks.sequences[number], answers);
        close_context(w);
    }
    if (status == ENGINE_OK && !task_run_end(&w->tasks, number, answers)) {
        status = ENGINE_FAILED;
    }
    if (status == ENGINE_OK) {
        eval_progress_chunk(&w->progress);
    }
    free(answers);
    return status;
}

/* ---- all ------------------------------------------------------------------------------------ */

/* Pages of the weights that are not in memory yet would be counted as slow tokens. */
static enum engine_status warm_up(struct worker *w) {
    double seconds = 0;
    if (!open_context(w)) {
        w->refused = w->job->config != NULL; /* others may do */
        return w->refused ? ENGINE_STOPPED : ENGINE_FAILED;
    }
    const enum engine_status status = evaluate(w, w->tokens.tokens, in_text, 0, 1, &seconds);
    close_context(w);
    return status;
}

static enum engine_status do_chunks(struct worker *w) {
    const struct store *out = w->job->config != NULL ? &w->points : &w->reference;
    enum engine_status status = ENGINE_OK;
    eval_progress_begin(&w->progress, w->job, w->tokens.n_chunk, out->n_done, &w->tasks,
                        w->tasks.store.n_done);
    if (out->n_done < w->tokens.n_chunk) {
        status = warm_up(w);
    }
    for (int32_t c = out->n_done; c < w->tokens.n_chunk && status == ENGINE_OK; c++) {
        status = do_chunk(w, c);
    }
    while (w->tasks.store.n_done < w->tasks.n_sequence && status == ENGINE_OK) {
        status = do_sequence(w);
    }
    eval_progress_end(&w->progress);
    return status;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* A number for all that the reference depends on; of the model, its size and beginning. */
static bool reference_key(const struct worker *w, uint64_t *key) {
    const struct eval_options *o = w->job->options;
    enum { head_bytes = 1 << 20 };
    struct stat info;
    FILE *file = fopen(o->model, "rb");
    void *head = malloc(head_bytes);
    const bool ok = file != NULL && head != NULL && fstat(fileno(file), &info) == 0;
    if (ok) {
        const size_t n = fread(head, 1, head_bytes, file);
        const int64_t settings[] = {info.st_size, o->n_ctx,   o->from,  o->decode,
                                    o->top_k,     w->n_batch, n_sample, w->tokens.n_chunk};
        *key = XXH3_64bits(head, n);
        *key = XXH3_64bits_withSeed(settings, sizeof(settings), *key);
        *key = XXH3_64bits_withSeed(
            w->tokens.tokens, (size_t)(w->tokens.n_chunk * o->n_ctx) * sizeof(llama_token), *key);
    } else {
        cli_say("cannot read %s once more", o->model);
    }
    if (file != NULL) {
        fclose(file);
    }
    free(head);
    return ok;
}

static bool open_files(struct worker *w) {
    const struct eval_options *o = w->job->options;
    const struct eval_config *config = w->job->config;
    struct store_shape shape = {.figures_bytes = sizeof(struct eval_chunk),
                                .row_bytes = (uint32_t)topk_row_bytes(&w->topk),
                                .n_chunk = w->tokens.n_chunk,
                                .n_row = (int32_t)(o->n_ctx - 1 - o->from)};
    if (!reference_key(w, &shape.key) || !store_open(&w->reference, w->job->reference, &shape)) {
        return false;
    }
    const char *label = config != NULL ? config->label : "";
    if (w->tasks.n_sequence > 0 &&
        !task_run_open(&w->tasks, w->job->answers,
                       XXH3_64bits_withSeed(label, strlen(label), shape.key))) {
        return false;
    }
    if (config == NULL) {
        return true;
    }
    if (w->reference.n_done < shape.n_chunk) {
        cli_say("%s: the reference is not whole", w->job->reference);
        return false;
    }
    shape.key = XXH3_64bits_withSeed(config->label, strlen(config->label), shape.key);
    shape.row_bytes = sizeof(struct topk_point);
    return store_open(&w->points, w->job->points, &shape);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static enum engine_status prepare(struct worker *w) {
    const struct eval_options *o = w->job->options;
    log_begin();
    if (!back_ends_load(w->job->plugin)) {
        return ENGINE_FAILED;
    }
    const enum engine_status status = engine_load_model(o->model, &w->model);
    if (status != ENGINE_OK) {
        return status;
    }
    const bool is_first = w->job->config == NULL;
    w->n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(w->model));
    if (is_first && o->n_ctx > llama_model_n_ctx_train(w->model)) {
        cli_say("--ctx %d is more than the %d tokens that the model was trained for", (int)o->n_ctx,
                llama_model_n_ctx_train(w->model));
    }
    for (w->n_batch = n_batch_most;
         w->n_batch > 64 && (int64_t)w->n_batch * w->n_vocab * 4 > logits_most;) {
        w->n_batch /= 2;
    }
    if (!tokens_make(w->model, o, w->job->texts, w->job->n_text, is_first, &w->tokens) ||
        !task_run_make(w->model, o, &w->tasks)) {
        return ENGINE_FAILED;
    }
    const int32_t k = o->top_k < w->n_vocab ? (int32_t)o->top_k : w->n_vocab;
    w->batch = llama_batch_init(w->n_batch, 0, 1);
    if (!topk_init(&w->topk, w->n_vocab, k, n_sample) ||
        (w->row = malloc(topk_row_bytes(&w->topk))) == NULL) {
        cli_say("out of memory");
        return ENGINE_FAILED;
    }
    return open_files(w) ? ENGINE_OK : ENGINE_FAILED;
}

static bool hand_over(const struct worker *w, double seconds, int report) {
    json_t *chunks = json_array();
    for (int32_t i = 0; i < w->job->n_text && w->tokens.n_of_text != NULL; i++) {
        json_array_append_new(chunks, json_integer(w->tokens.n_of_text[i]));
    }
    char model[256] = "";
    if (w->model != NULL) {
        llama_model_desc(w->model, model, sizeof(model));
    }
    json_t *json = json_pack(
        "{s:o, s:I, s:i, s:s, s:b, s:b, s:I, s:f, s:s?}", "chunks", chunks, "positions",
        (json_int_t)(w->job->options->n_ctx - 1 - w->job->options->from), "vocabulary", w->n_vocab,
        "model", model, "random_weights", w->model != NULL && model_file_is_random(w->model),
        "refused", w->refused, "tokens", (json_int_t)(w->progress.n_done - w->progress.n_there),
        "seconds", seconds, "stopped", stop_reason());
    const bool ok = json != NULL && json_dumpfd(json, report, JSON_COMPACT) == 0;
    json_decref(json);
    return ok;
}

/* The plug-in and llama.cpp read their settings from the environment. */
static bool set_environment(const struct eval_job *job) {
    const struct eval_config *c = job->config;
    char tiers[32] = "none";
    if (c != NULL && c->window > 0) {
        snprintf(tiers, sizeof(tiers), "f16:%d", (int)c->window);
    }
    const struct launch_tiers settings = {tiers, c != NULL ? c->n_sink : 0, 0};
    unsetenv("GGML_BACKEND_PATH"); /* ggml would load what it names, whatever the run is */
    unsetenv("VARVE_DISABLE");
    return launch_set("LLAMA_ATTN_ROT_DISABLE", c != NULL && c->no_rotation ? "1" : "0") &&
           (job->plugin != NULL ? launch_set_tiers(&settings) : launch_set("VARVE_DISABLE", "1"));
}

int eval_worker(const void *data, int report) {
    struct worker w = {.job = data, .reference.fd = -1, .points.fd = -1};
    const double began = stop_clock();
    enum engine_status status = set_environment(w.job) ? prepare(&w) : ENGINE_FAILED;
    if (status == ENGINE_OK) {
        status = do_chunks(&w);
    }
    const bool ok = status != ENGINE_FAILED && hand_over(&w, stop_clock() - began, report);
    store_close(&w.reference);
    store_close(&w.points);
    if (w.batch.token != NULL) {
        llama_batch_free(w.batch);
    }
    llama_free(w.context);
    llama_model_free(w.model);
    tokens_free(&w.tokens);
    task_run_free(&w.tasks);
    topk_free(&w.topk);
    free(w.row);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
