/* llama.cpp's back ends and models, with errors in one line. */
#ifndef VARVE_RUN_ENGINE_H
#define VARVE_RUN_ENGINE_H

#include "llama.h"

#include <stdbool.h>

enum engine_status {
    ENGINE_OK,
    ENGINE_STOPPED, /* see stop_reason */
    ENGINE_FAILED,  /* a line has been said */
};

/* Those of llama.cpp, and the plug-in unless it is NULL. */
bool engine_load_back_ends(const char *plugin);

/* The model is the caller's, also after a failure; NULL: none. */
enum engine_status engine_load_model(const char *path, struct llama_model **model);

/* GGML_TYPE_COUNT, which llama.cpp refuses, when there is none of that name. */
enum ggml_type engine_type(const char *name);

#endif
