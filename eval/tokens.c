#include "tokens.h"

#include "args.h"
#include "prompt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Appends the chunks of one text. */
static bool append(const struct eval_text *text, const struct eval_options *o,
                   const llama_token *tokens, int32_t n, bool says, struct eval_tokens *out,
                   int32_t *n_of_text) {
    const int64_t n_there = n / o->n_ctx;
    const int64_t n_chunk = o->n_chunk > 0 && o->n_chunk < n_there ? o->n_chunk : n_there;
    if (n_there == 0) {
        cli_say("the text %s has %d tokens, too few for one chunk of %" PRId64
                ": give a longer text or a smaller --ctx",
                text->name, n, o->n_ctx);
        return false;
    }
    if (o->n_chunk > n_there && says) {
        cli_say("the text %s has %" PRId64 " chunks of %" PRId64 " tokens, not %" PRId64,
                text->name, n_there, o->n_ctx, o->n_chunk);
    }
    llama_token *more =
        realloc(out->tokens, (size_t)((out->n_chunk + n_chunk) * o->n_ctx) * sizeof(*more));
    if (more == NULL) {
        cli_say("no memory for the text %s; lower --chunks", text->name);
        return false;
    }
    out->tokens = more;
    memcpy(more + out->n_chunk * o->n_ctx, tokens, (size_t)(n_chunk * o->n_ctx) * sizeof(*more));
    out->n_chunk += (int32_t)n_chunk;
    *n_of_text = (int32_t)n_chunk;
    return true;
}

bool tokens_make(const struct llama_model *model, const struct eval_options *o,
                 const struct eval_text *texts, int32_t n_text, bool says,
                 struct eval_tokens *out) {
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    *out = (struct eval_tokens){.n_of_text = calloc((size_t)n_text, sizeof(*out->n_of_text))};
    bool ok = out->n_of_text != NULL;
    for (int32_t i = 0; i < n_text && ok; i++) {
        llama_token *tokens = NULL;
        const int32_t n = prompt_tokens(model, texts[i].text, false, &tokens);
        ok = n > 0 && append(&texts[i], o, tokens, n, says, out, &out->n_of_text[i]);
        free(tokens);
    }
    for (int32_t c = 0; ok && c < out->n_chunk && llama_vocab_get_add_bos(vocab); c++) {
        out->tokens[c * o->n_ctx] = llama_vocab_bos(vocab);
    }
    return ok;
}

void tokens_free(struct eval_tokens *tokens) {
    free(tokens->tokens);
    free(tokens->n_of_text);
}
