/* The arithmetic peak of an ISA level: F32 multiply-adds from registers, as fast as they go. */
#ifndef VARVE_BENCH_PEAK_H
#define VARVE_BENCH_PEAK_H

#include <stdint.h>

/* n rounds of PEAK_CHAINS independent vectors, each x = x * a + b. The result only keeps the
 * compiler from leaving the work out. The scalar one is what the compiler makes of plain C. */
enum { PEAK_CHAINS = 12, PEAK_LANES_SCALAR = 4 };
float peak_run_scalar(int64_t n);
float peak_run_avx2(int64_t n);
float peak_run_avx512(int64_t n);

/* Seconds and GFLOPS of a run of some milliseconds on all threads at the level. */
double peak_gflops(const char *isa, int n_thread);

#endif
