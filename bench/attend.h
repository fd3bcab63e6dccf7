/* varve on the memory of a case: attention over the cold rows, as one segment or as pages. */
#ifndef VARVE_BENCH_ATTEND_H
#define VARVE_BENCH_ATTEND_H

#include "problem.h"

struct attend;

/* What hides rows from queries: the mask, their positions, or nothing. */
enum attend_sight { ATTEND_MASK, ATTEND_POSITIONS, ATTEND_ALL };

/* page_rows 0: one segment. Ends the program after a line when there is no plan. */
struct attend *attend_create(struct bench_problem *problem, int64_t page_rows,
                             enum attend_sight sight);
void attend_destroy(struct attend *attend);

/* Seconds of one layer, from a walk over all of them. */
double attend_walk(struct attend *attend);

const struct varve_plan *attend_plan(const struct attend *attend);

/* Kernels and path of a plan. */
void attend_describe(const struct varve_plan *plan, char *text, size_t text_bytes);

/* Largest difference of the values of some queries and heads from attention in double, relative to
 * the largest value of the head. `values` is [query][head][DV]. */
double attend_error(const struct bench_problem *problem, const struct varve_io *io,
                    const float *values);

/* Ends the program with a line unless all is well. */
void attend_must(enum varve_status status, const char *what);

#endif
