/* Pictures of results, by gnuplot. */
#ifndef VARVE_BENCH_PLOT_H
#define VARVE_BENCH_PLOT_H

#include "case.h"

/* Each false after a line. */
bool plot_sweep(const char *path, const struct bench_result *results, int n);    /* over length */
bool plot_times(const char *path, const struct bench_result *results, int n);    /* bars */
bool plot_roofline(const char *path, const struct bench_result *results, int n); /* with limits */

#endif
