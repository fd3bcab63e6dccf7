/* The picture of the report through gnuplot: mean divergence over bytes per token. */
#ifndef VARVE_EVAL_PICTURE_H
#define VARVE_EVAL_PICTURE_H

#include <jansson.h>
#include <stdbool.h>

/* root: what figures_json gives. False after a line. */
bool picture_draw(const char *path, const json_t *root);

#endif
