#include "input.h"

#include "args.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { text_max = 1 << 28 }; /* bytes; llama.cpp counts them with 32 bits */

/* All of a stream, in memory that the caller frees; *n is text_max + 1 when there is more. */
static char *read_all(FILE *file, size_t *n) {
    char *text = NULL;
    size_t capacity = 0;
    *n = 0;
    do {
        capacity = capacity > 0 ? 2 * capacity : 1 << 16;
        char *more = realloc(text, capacity);
        if (more == NULL) {
            free(text);
            return NULL;
        }
        text = more;
        *n += fread(text + *n, 1, capacity - *n, file);
    } while (*n == capacity && *n <= text_max);
    return text;
}

bool input_file(const char *what, const char *path, struct run_text *text, char **owned) {
    const bool is_stdin = strcmp(path, "-") == 0;
    errno = 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    size_t n = 0;
    *owned = file != NULL ? read_all(file, &n) : NULL;
    const bool ok = *owned != NULL && !ferror(file);
    if (!ok) {
        cli_say("cannot read the %s from %s: %s", what, path, strerror(errno));
    }
    if (file != NULL && !is_stdin) {
        fclose(file);
    }
    if (ok && n > text_max) {
        cli_say("the %s in %s is larger than %d MiB; shorten it", what, path, text_max >> 20);
        return false;
    }
    *text = (struct run_text){*owned, n};
    return ok;
}

bool input_prompt(const struct run_options *options, struct run_text *prompt, char **owned) {
    *owned = NULL;
    if (options->file != NULL) {
        return input_file("prompt", options->file, prompt, owned);
    }
    *prompt = (struct run_text){options->prompt, strlen(options->prompt)};
    return true;
}

int input_temporary_file(void) {
    const char *folder = getenv("TMPDIR");
    char *path = NULL;
    if (asprintf(&path, "%s/varve-XXXXXX", folder != NULL && folder[0] != '\0' ? folder : "/tmp") <
        0) {
        cli_say("out of memory");
        return -1;
    }
    const int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        cli_say("cannot make the temporary file %s: %s; set TMPDIR to another folder", path,
                strerror(errno));
    } else {
        unlink(path); /* it goes with the last process that has it open */
    }
    free(path);
    return fd;
}
