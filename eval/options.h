/* Command line of `varve eval`. */
#ifndef VARVE_EVAL_OPTIONS_H
#define VARVE_EVAL_OPTIONS_H

#include "tasks.h"

#include <stdbool.h>
#include <stdint.h>

struct eval_options {
    const char *model;  /* path */
    const char **files; /* n_file paths of -f; owned */
    int32_t n_file;
    const char *configs; /* list or file */
    const char *json;    /* paths, or NULL: this and the next three */
    const char *report, *plot, *from_json;
    const char *work;       /* folder of what is not finished yet */
    int64_t n_ctx, n_chunk; /* n_chunk of each text, 0: all */
    int64_t from;           /* first position that is scored, -1: half of n_ctx */
    int64_t top_k;
    int64_t n_threads;
    int64_t seed;
    bool tasks[n_task];
    int64_t n_task_item; /* of each task, at least */
    bool decode;         /* what is scored is fed token by token */
    bool resume;
    bool keep;  /* the folder */
    bool alone; /* without configurations of the same bytes */
};

/* As options_parse of varve run; the caller frees `files` in any case. */
bool eval_options_parse(int argc, char **argv, struct eval_options *options);

bool eval_options_has_tasks(const struct eval_options *options);

#endif
