/* The files that figures go to. */
#ifndef VARVE_EVAL_OUTPUTS_H
#define VARVE_EVAL_OUTPUTS_H

#include "options.h"

#include <jansson.h>

struct eval_outputs {
    int json, report; /* file descriptors, -1: not wanted */
    bool plot;
};

/* Before the long run, so that a path that cannot be written is an error at once. False after a
 * line; outputs_close is due in any case. */
bool outputs_open(const struct eval_options *options, struct eval_outputs *outputs);

/* root: what figures_json gives. False after a line. */
bool outputs_write(const struct eval_options *options, const struct eval_outputs *outputs,
                   json_t *root);

/* False after a line. */
bool outputs_close(const struct eval_options *options, struct eval_outputs *outputs);

/* --from-json: the figures of an earlier run go to --report and --plot. False after a line. */
bool outputs_again(const struct eval_options *options);

#endif
