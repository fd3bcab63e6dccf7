#include "log.h"

#include "args.h"

#include "ggml.h"
#include "llama.h"

#include <stdio.h>
#include <string.h>

static char first_error[512];

/* The text without the name of the function that llama.cpp puts before it. */
static const char *without_function(const char *text) {
    const size_t n = strcspn(text, ": ");
    return n > 0 && text[n] == ':' && text[n + 1] == ' ' ? text + n + 2 : text;
}

static void on_log(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (strncmp(text, "varve:", strlen("varve:")) == 0) {
        fputs(text, stderr); /* what is left to ggml is never left silently */
    } else if (level == GGML_LOG_LEVEL_ERROR && first_error[0] == '\0') {
        snprintf(first_error, sizeof(first_error), "%s", without_function(text));
        first_error[strcspn(first_error, "\n")] = '\0';
    }
}

static void on_abort(const char *message) { cli_say("llama.cpp gave up: %s", message); }

void log_begin(void) {
    llama_log_set(on_log, NULL);
    ggml_set_abort_callback(on_abort);
}

const char *log_take_error(void) {
    static char taken[sizeof(first_error)];
    memcpy(taken, first_error, sizeof(taken));
    first_error[0] = '\0';
    return taken[0] != '\0' ? taken : "no reason given";
}
