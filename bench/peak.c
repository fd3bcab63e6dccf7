#include "peak.h"

#include "measure.h"

#include "varve/varve.h"

#include <stdbool.h>
#include <string.h>

struct level {
    const char *isa; /* from this level of varve/varve.h on, until the next line */
    int lanes;
    float (*run)(int64_t n);
};

static const struct level levels[] = {
    {"scalar", PEAK_LANES_SCALAR, peak_run_scalar},
#ifdef VARVE_X86
    {"avx2", 8, peak_run_avx2},
    {"avx512", 16, peak_run_avx512},
#endif
};

/* The last line that is not above the level. */
static const struct level *find_level(const char *isa) {
    const struct level *found = &levels[0];
    const char *name;
    for (int32_t i = 0; (name = varve_isa_name(i, NULL)) != NULL; i++) {
        for (size_t j = 0; j < sizeof levels / sizeof levels[0]; j++) {
            if (strcmp(levels[j].isa, name) == 0) found = &levels[j];
        }
        if (strcmp(name, isa) == 0) break;
    }
    return found;
}

double peak_gflops(const char *isa, int n_thread) {
    enum { N = 300000 };
    const struct level *const level = find_level(isa);
    float sum = 0;
    int n_run = 0;
    const double start = measure_seconds();
#pragma omp parallel num_threads(n_thread) reduction(+ : sum, n_run)
    {
        sum += level->run(N);
        n_run++;
    }
    const double end = measure_seconds();
    static volatile float keep;
    keep = sum;
    (void)keep;
    return 2e-9 * N * PEAK_CHAINS * level->lanes * n_run / (end - start);
}
