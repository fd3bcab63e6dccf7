/* The prompt as tokens. */
#ifndef VARVE_RUN_PROMPT_H
#define VARVE_RUN_PROMPT_H

#include "job.h"

#include "llama.h"

/* The number of tokens, which the caller frees; 0 after a line. With chat, the text is the user's
 * first message in the chat template of the model. */
int32_t prompt_tokens(const struct llama_model *model, struct run_text text, bool chat,
                      llama_token **tokens);

#endif
