/* Figures as a table and as JSON. */
#ifndef VARVE_BENCH_REPORT_H
#define VARVE_BENCH_REPORT_H

#include "case.h"

#include <jansson.h>

void report_head(const struct bench_case *c, const char *isa);
void report_line(const struct bench_result *result);

/* NULL when memory is out. */
json_t *report_json(const struct bench_result *result);

#endif
