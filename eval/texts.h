/* The texts that are read: those of -f, or what the set-up has. */
#ifndef VARVE_EVAL_TEXTS_H
#define VARVE_EVAL_TEXTS_H

#include "options.h"

#include "job.h"

struct eval_text {
    const char *name; /* path of -f, or name of the domain */
    struct run_text text;
    char *owned;
};

/* False after a line; *texts is the caller's in any case. */
bool texts_read(const struct eval_options *options, struct eval_text **texts, int32_t *n_text);
void texts_free(struct eval_text *texts, int32_t n_text);

#endif
