#include "session.h"

#include "args.h"
#include "back_ends.h"
#include "log.h"
#include "prompt.h"
#include "stop.h"

#include <inttypes.h>
#include <stdlib.h>

enum { n_batch = 512 };

/* ---- context -------------------------------------------------------------------------------- */

/* How much is generated, and into what: the tokens that the context must hold, 0 after a line. */
static int64_t fit_context(struct session *s, const struct run_job *job) {
    const int64_t n_train = llama_model_n_ctx_train(s->model);
    const int64_t n_ctx = job->options->n_ctx;
    const int64_t n_most = n_ctx > 0 ? n_ctx : n_train;
    int64_t n_predict = job->options->n_predict;
    if (s->n_prompt >= n_most || (n_ctx > 0 && s->n_prompt + n_predict > n_ctx)) {
        cli_say("the prompt has %d tokens and -n asks for %" PRId64 " more, but %s %" PRId64
                ": shorten the prompt%s -c %" PRId64 " or more",
                s->n_prompt, n_predict,
                n_ctx > 0 ? "the context given with -c holds" : "the model was trained for", n_most,
                n_ctx > 0 ? ", lower -n or give" : " or give", s->n_prompt + n_predict);
        return 0;
    }
    if (n_ctx == 0 && s->n_prompt + n_predict > n_train) {
        n_predict = n_train - s->n_prompt;
        if (job->warns) {
            cli_say("the model was trained for %" PRId64 " tokens, so at most %" PRId64
                    " are generated; -c overrides that",
                    n_train, n_predict);
        }
    } else if (n_ctx > n_train && job->warns) {
        cli_say("-c %" PRId64 " is more than the %" PRId64 " tokens that the model was trained for",
                n_ctx, n_train);
    }
    s->n_predict = (int32_t)n_predict;
    return n_ctx > 0 ? n_ctx : s->n_prompt + n_predict;
}

static bool on_node(void *data) {
    progress_tick(data);
    return stop_requested();
}

static bool create_context(struct session *s, const struct run_job *job, int64_t n_token) {
    /* The text of the f16 run is read behind the same prompt, in a second sequence. */
    const bool forks = job->options->compare; /* the same cells in all runs */
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)((n_token + (forks ? s->n_predict : 0) + 255) / 256 * 256);
    params.n_batch = params.n_ubatch = n_batch;
    params.n_seq_max = forks ? 2 : 1;
    params.kv_unified = true;
    params.n_threads = params.n_threads_batch = (int32_t)job->options->n_threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.offload_kqv = false;
    params.type_k = back_ends_type(job->type_k);
    params.type_v = back_ends_type(job->type_v);
    params.cb_eval = kv_size_see;
    params.cb_eval_user_data = &s->kv;
    params.abort_callback = on_node;
    params.abort_callback_data = &s->progress;
    s->context = llama_init_from_model(s->model, params);
    if (s->context == NULL) {
        cli_say("no context of %u tokens with a cache of type %s and %s: %s; if it is memory, "
                "lower -c or take smaller types",
                params.n_ctx, job->type_k, job->type_v, log_take_error());
        return false;
    }
    s->batch = llama_batch_init(n_batch, 0, 1);
    return true;
}

static struct llama_sampler *create_sampler(const struct run_options *o) {
    struct llama_sampler *chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    if (o->temp > 0) {
        llama_sampler_chain_add(chain, llama_sampler_init_temp((float)o->temp));
        llama_sampler_chain_add(chain, llama_sampler_init_dist((uint32_t)o->seed));
    } else {
        llama_sampler_chain_add(chain, llama_sampler_init_greedy());
    }
    return chain;
}

/* ---- the whole ------------------------------------------------------------------------------ */

enum engine_status session_open(struct session *s, const struct run_job *job) {
    log_begin();
    if (!back_ends_load(job->plugin)) {
        return ENGINE_FAILED;
    }
    const enum engine_status status = engine_load_model(job->options->model, &s->model);
    if (status != ENGINE_OK) {
        return status;
    }
    s->vocab = llama_model_get_vocab(s->model);
    s->n_vocab = llama_vocab_n_tokens(s->vocab);
    s->n_prompt = prompt_tokens(s->model, job->prompt, job->options->chat, &s->prompt);
    const int64_t n_token = s->n_prompt > 0 ? fit_context(s, job) : 0;
    if (n_token == 0 || !create_context(s, job, n_token)) {
        return ENGINE_FAILED;
    }
    s->sampler = create_sampler(job->options);
    return ENGINE_OK;
}

void session_close(struct session *s) {
    if (s->context != NULL) {
        llama_batch_free(s->batch);
    }
    llama_sampler_free(s->sampler);
    llama_free(s->context);
    llama_model_free(s->model);
    free(s->prompt);
    kv_size_free(&s->kv);
}

enum engine_status session_evaluate(struct session *s, const llama_token *tokens, int32_t n,
                                    llama_pos at, llama_seq_id sequence) {
    for (int32_t i = 0; i < n; i++) {
        s->batch.token[i] = tokens[i];
        s->batch.pos[i] = at + i;
        s->batch.n_seq_id[i] = 1;
        s->batch.seq_id[i][0] = sequence;
        s->batch.logits[i] = i == n - 1;
    }
    s->batch.n_tokens = n;
    const int32_t status = llama_decode(s->context, s->batch);
    if (status == 0) {
        s->kv.complete = true;
        return ENGINE_OK;
    }
    if (stop_requested()) {
        return ENGINE_STOPPED;
    }
    progress_end(&s->progress); /* the line that it may have left on the terminal */
    cli_say("llama.cpp could not evaluate the tokens (status %d): %s; if it is memory, lower -c",
            status, log_take_error());
    return ENGINE_FAILED;
}

enum engine_status session_read_prompt(struct session *s) {
    enum engine_status status = ENGINE_OK;
    progress_begin(&s->progress, PROGRESS_PROMPT, s->n_prompt);
    for (int32_t at = 0; at < s->n_prompt && status == ENGINE_OK;) {
        const int32_t rest = s->n_prompt - at;
        const int32_t n = rest < n_batch ? rest : n_batch;
        progress_batch(&s->progress, n);
        status = session_evaluate(s, s->prompt + at, n, at, 0);
        if (status == ENGINE_OK) {
            progress_advance(&s->progress);
            at += n;
        }
    }
    progress_end(&s->progress);
    return status;
}
