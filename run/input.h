/* Files at the edges of a run. Failures are said in one line. */
#ifndef VARVE_RUN_INPUT_H
#define VARVE_RUN_INPUT_H

#include "job.h"

#include <stdbool.h>

/* The prompt of -p, or of the file of -f; *owned is to be freed. */
bool input_prompt(const struct run_options *options, struct run_text *prompt, char **owned);

/* All of a file, - is stdin; `what` it is, for messages. *owned is to be freed in any case. */
bool input_file(const char *what, const char *path, struct run_text *text, char **owned);

/* A file without a name for what the runs of a comparison share, -1 on failure. */
int input_temporary_file(void);

#endif
