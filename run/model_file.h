/* The first look at a model file, for messages that say what to do: what llama.cpp says about files
 * that are none is hard to read. */
#ifndef VARVE_RUN_MODEL_FILE_H
#define VARVE_RUN_MODEL_FILE_H

#include <stdbool.h>

struct llama_model;

/* False after a line: not a file, not GGUF, of a version that is not read, or with counts that the
 * file cannot hold. */
bool model_file_check(const char *path);

/* Whether tools/random_model.py made it: figures are shown with the caution below then. */
bool model_file_is_random(const struct llama_model *model);

#define MODEL_FILE_CAUTION \
    "random weights: figures of quality and the text mean nothing; bytes and speeds are real"

#endif
