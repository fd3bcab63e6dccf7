/* Pictures by gnuplot, as SVG or, by the name of the file, as PNG. */
#ifndef VARVE_RUN_GNUPLOT_H
#define VARVE_RUN_GNUPLOT_H

#include <stdbool.h>
#include <stdio.h>

enum { GNUPLOT_N_COLOUR = 9 };
extern const char *const gnuplot_colours[GNUPLOT_N_COLOUR];

/* Says in a line that there will be no picture. */
bool gnuplot_possible(const char *option);

/* A stream of gnuplot's commands for one picture, width by height pixels; NULL after a line. */
FILE *gnuplot_open(const char *path, int width, int height);
bool gnuplot_close(const char *path, FILE *to); /* false after a line */

/* A text within quotes, whatever it holds. */
void gnuplot_put_quoted(FILE *to, const char *text);

#endif
