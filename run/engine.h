/* llama.cpp's models, with errors in one line. */
#ifndef VARVE_RUN_ENGINE_H
#define VARVE_RUN_ENGINE_H

#include "llama.h"

enum engine_status {
    ENGINE_OK,
    ENGINE_STOPPED, /* see stop_reason */
    ENGINE_FAILED,  /* a line has been said */
};

/* The model is the caller's, also after a failure; NULL: none. */
enum engine_status engine_load_model(const char *path, struct llama_model **model);

#endif
