/* A clock, medians, memory that ends the program when there is none, a plain read. */
#ifndef VARVE_BENCH_MEASURE_H
#define VARVE_BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>

double measure_seconds(void);

/* Median of the values that are not NaN; NaN when there are none. */
double measure_median(const double *values, int n);
double measure_least(const double *values, int n);

/* On a 64-byte boundary. Without memory the program ends with a line. */
void *measure_allocate(size_t bytes);

/* Sums the bytes as 8-byte words: the fastest plain read that the compiler makes. */
void measure_read(const void *data, size_t bytes, int n_thread);

/* Last-level cache of the CPUs that this process may use, in bytes (all instances). */
int64_t measure_last_level_cache(void);

#endif
