/* The library's only use of threads of its own: a loop over independent tasks. */
#ifndef VARVE_BASE_PARALLEL_H
#define VARVE_BASE_PARALLEL_H

#include <stdint.h>

typedef void varve_task_fn(void *arg, int64_t task, int32_t worker);

/* Runs task 0 .. n_task - 1, each once, on at most n_thread threads of the caller's OpenMP team (so
 * that a host that uses OpenMP too shares its team with us), or on this thread alone in a build
 * without OpenMP. Returns when all have ended. worker < n_thread. */
void varve_parallel(int64_t n_task, int32_t n_thread, varve_task_fn *run, void *arg);

#endif
