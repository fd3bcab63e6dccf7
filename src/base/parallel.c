#include "base/parallel.h"

#ifdef _OPENMP
#include <omp.h>
#endif

void varve_parallel(int64_t n_task, int32_t n_thread, varve_task_fn *run, void *arg) {
#ifdef _OPENMP
    if (n_thread > 1 && n_task > 1) {
        /* Dynamic, because masked tasks cost less than full ones; results do not depend on it. */
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_thread)
        for (int64_t task = 0; task < n_task; task++) run(arg, task, omp_get_thread_num());
        return;
    }
#endif
    (void)n_thread;
    for (int64_t task = 0; task < n_task; task++) run(arg, task, 0);
}
