/* A decode step with a hot tier, as the plug-in makes it: rows are written with their twins, the
 * view is made, fingerprints are compared beside the attention. */
#ifndef VARVE_BENCH_MIXED_H
#define VARVE_BENCH_MIXED_H

#include "problem.h"

struct mixed;

struct mixed_times {
    double attend, twins, view; /* seconds of one layer; attend includes the fingerprints */
};

struct mixed *mixed_create(struct bench_problem *problem);
void mixed_destroy(struct mixed *mixed);

/* The mask of the next step: call once before the walks of a round, stock's included. */
void mixed_advance(struct mixed *mixed);

/* Times of one layer, from a walk over all of them. */
struct mixed_times mixed_walk(struct mixed *mixed);

/* Bytes that a step of a layer reads: rows in F16, rows read cold, cold rows for fingerprints. */
double mixed_bytes(const struct mixed *mixed);

double mixed_error(struct mixed *mixed);
void mixed_describe(const struct mixed *mixed, char *text, size_t text_bytes);

/* ---- writes alone --------------------------------------------------------------------------- */

/* Rows are quantized by ggml's function and their twins staged, as the plug-in does for SET_ROWS.
 * Seconds of one layer. */
double mixed_write_walk(struct mixed *mixed);

#endif
