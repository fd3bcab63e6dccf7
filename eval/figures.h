/* The results as JSON. */
#ifndef VARVE_EVAL_FIGURES_H
#define VARVE_EVAL_FIGURES_H

#include "result.h"

#include <jansson.h>

/* What --json gets; reference: the report of its run. The caller's; NULL when memory is out. */
json_t *figures_json(const struct eval_options *options, const struct eval_text *texts,
                     int32_t n_text, const json_t *reference,
                     const struct task_result reference_tasks[n_task],
                     const struct eval_result *results, int32_t n);

#endif
