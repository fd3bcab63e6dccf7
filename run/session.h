/* A model, a context and a prompt in it: what a child needs of llama.cpp. */
#ifndef VARVE_RUN_SESSION_H
#define VARVE_RUN_SESSION_H

#include "engine.h"
#include "job.h"
#include "kv_size.h"
#include "progress.h"

#include "llama.h"

struct session {
    struct llama_model *model; /* this and the next four are owned */
    struct llama_context *context;
    struct llama_sampler *sampler;
    struct llama_batch batch;
    llama_token *prompt;
    const struct llama_vocab *vocab;
    int32_t n_prompt, n_predict, n_vocab;
    struct progress progress;
    struct kv_size kv;
};

/* Fills a zeroed session; session_close is due in any case. */
enum engine_status session_open(struct session *s, const struct run_job *job);
void session_close(struct session *s);

/* Reads the prompt into sequence 0, with progress. */
enum engine_status session_read_prompt(struct session *s);

/* Evaluates tokens that follow at a position of a sequence, n up to n_batch; the logits of the last
 * one can be had from llama_get_logits_ith(s->context, -1). */
enum engine_status session_evaluate(struct session *s, const llama_token *tokens, int32_t n,
                                    llama_pos at, llama_seq_id sequence);

#endif
