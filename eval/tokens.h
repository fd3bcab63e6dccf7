/* Texts as chunks of tokens. */
#ifndef VARVE_EVAL_TOKENS_H
#define VARVE_EVAL_TOKENS_H

#include "texts.h"

#include "llama.h"

struct eval_tokens {
    llama_token *tokens; /* n_chunk times n_ctx; owned, as the next one */
    int32_t *n_of_text;  /* chunks */
    int32_t n_chunk;
};

/* False after a line; tokens_free is due in any case. Each chunk begins with the token that begins
 * texts, where the model wants one. `says`: what is cut off is said. */
bool tokens_make(const struct llama_model *model, const struct eval_options *options,
                 const struct eval_text *texts, int32_t n_text, bool says, struct eval_tokens *out);
void tokens_free(struct eval_tokens *tokens);

#endif
