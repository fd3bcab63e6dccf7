/* The tasks as a table on stdout. */
#ifndef VARVE_EVAL_TASK_TABLE_H
#define VARVE_EVAL_TASK_TABLE_H

#include "result.h"

/* Nothing when no task was chosen. */
void task_table_show(const struct eval_options *options, const struct task_result reference[n_task],
                     const struct eval_result *results, int32_t n);

#endif
