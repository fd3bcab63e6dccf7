/* Stock ggml on the same memory: one layer's attention, or the write of its new rows, as a graph
 * for ggml's CPU back end. */
#ifndef VARVE_BENCH_STOCK_H
#define VARVE_BENCH_STOCK_H

#include "problem.h"

enum stock_form {
    STOCK_FLASH,    /* FLASH_ATTN_EXT */
    STOCK_PRODUCTS, /* MUL_MAT, SOFT_MAX, MUL_MAT over the turned V, as llama.cpp with -fa off */
    STOCK_WRITE,    /* SET_ROWS of K and of V */
};

struct stock;
struct stock *stock_create(const struct bench_problem *problem, enum stock_form form);
void stock_destroy(struct stock *stock);

/* Seconds of one layer, from a walk over all of them. */
double stock_walk(struct stock *stock);

/* [query][head][DV] of the last layer. */
const float *stock_output(const struct stock *stock);

/* ggml-cpu's quantizer of a format, which is what SET_ROWS calls; for F32 rows a copy. */
typedef void (*stock_from_float_fn)(const float *values, void *row, int64_t n);
stock_from_float_fn stock_from_float(enum varve_format format);

/* The version of ggml that runs. */
const char *stock_version(void);

#endif
