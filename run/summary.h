/* What is shown at the end, from the reports of the runs. */
#ifndef VARVE_RUN_SUMMARY_H
#define VARVE_RUN_SUMMARY_H

#include <jansson.h>

/* Of one run, or of several side by side. */
void summary_show(const json_t *runs);

#endif
