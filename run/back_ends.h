/* ggml's back ends of this process. */
#ifndef VARVE_RUN_BACK_ENDS_H
#define VARVE_RUN_BACK_ENDS_H

#include "ggml.h"

#include <stdbool.h>

/* Loads what a build of llama.cpp keeps apart, and the plug-in at this path; NULL: no plug-in.
 * False after a line. */
bool back_ends_load(const char *plugin);

/* A function of the plug-in, by its name in varve/ggml.h; NULL: no plug-in, or none of that name.
 */
void *back_ends_varve(const char *name);

/* GGML_TYPE_COUNT for a name that ggml does not know. */
enum ggml_type back_ends_type(const char *name);

#endif
