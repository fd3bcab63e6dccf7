/* Pictures by gnuplot, as SVG. */
#ifndef VARVE_BENCH_PLOT_H
#define VARVE_BENCH_PLOT_H

#include "case.h"

/* Says in a line that there will be no picture. */
bool plot_possible(const char *option);

/* Each false after a line. */
bool plot_sweep(const char *path, const struct bench_result *results, int n);    /* over length */
bool plot_times(const char *path, const struct bench_result *results, int n);    /* bars */
bool plot_roofline(const char *path, const struct bench_result *results, int n); /* with limits */

#endif
