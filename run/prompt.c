#include "prompt.h"

#include "args.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

static void say_no_memory(void) { cli_say("no memory for the prompt; shorten it"); }

/* The template with the text in it, as a string that the caller frees; NULL after a line. */
static char *apply_template(const struct llama_model *model, struct run_text text) {
    const char *template = llama_model_chat_template(model, NULL);
    if (template == NULL) {
        cli_say("this model has no chat template; leave out --chat");
        return NULL;
    }
    char *content = strndup(text.bytes, text.n);
    const int32_t capacity = (int32_t)text.n + 4096; /* templates add some dozens of bytes */
    char *out = malloc((size_t)capacity + 1);
    if (content == NULL || out == NULL) {
        say_no_memory();
        free(content);
        free(out);
        return NULL;
    }
    const struct llama_chat_message message = {"user", content};
    const int32_t n = llama_chat_apply_template(template, &message, 1, true, out, capacity);
    free(content);
    if (n < 0 || n > capacity) {
        cli_say("llama.cpp's C interface does not know the chat template of this model; leave out "
                "--chat and write it into the prompt");
        free(out);
        return NULL;
    }
    out[n] = '\0';
    return out;
}

static int32_t tokenize(const struct llama_vocab *vocab, struct run_text text,
                        llama_token **tokens) {
    const int32_t n_byte = (int32_t)text.n;
    const int32_t n = -llama_tokenize(vocab, text.bytes, n_byte, NULL, 0, true, true);
    if (n <= 0) {
        cli_say("the prompt is empty; give some text with -p or -f");
        return 0;
    }
    *tokens = malloc((size_t)n * sizeof(**tokens));
    if (*tokens == NULL) {
        say_no_memory();
        return 0;
    }
    return llama_tokenize(vocab, text.bytes, n_byte, *tokens, n, true, true);
}

int32_t prompt_tokens(const struct llama_model *model, struct run_text text, bool chat,
                      llama_token **tokens) {
    const size_t n_valid = utf8_prefix(text.bytes, text.n);
    if (n_valid < text.n) { /* llama.cpp throws an exception, which nobody would catch */
        cli_say("the text is not UTF-8: byte %zu is 0x%02x; give plain text, or convert it with "
                "iconv -t UTF-8",
                n_valid + 1, (unsigned)(unsigned char)text.bytes[n_valid]);
        return 0;
    }
    char *filled = chat ? apply_template(model, text) : NULL;
    if (chat && filled == NULL) {
        return 0;
    }
    if (chat) {
        text = (struct run_text){filled, strlen(filled)};
    }
    const int32_t n = tokenize(llama_model_get_vocab(model), text, tokens);
    free(filled);
    return n;
}
