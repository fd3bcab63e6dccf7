/* What runs and how long it will take, on stderr: one line that is redrawn on a terminal, elsewhere
 * a line for each case. */
#ifndef VARVE_BENCH_PROGRESS_H
#define VARVE_BENCH_PROGRESS_H

void progress_total(int n_case, double seconds);
void progress_next(void);                              /* the next case begins */
void progress_case(const char *title, double seconds); /* NaN: not known yet (warm-up) */
void progress_round(int n_done, double seconds_left);
void progress_clear(void);

#endif
