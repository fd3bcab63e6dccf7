/* The results as tables on stdout. */
#ifndef VARVE_EVAL_TABLE_H
#define VARVE_EVAL_TABLE_H

#include "result.h"

void table_show(const struct eval_options *options, const struct eval_text *texts, int32_t n_text,
                const struct eval_result *results, int32_t n);

#endif
