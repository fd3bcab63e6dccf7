#include "cache/age.h"

/* The n newest rows of a word. */
static uint64_t newest(uint64_t rows, int64_t n) {
    if (n <= 0) return 0;
    for (int64_t excess = __builtin_popcountll(rows) - n; excess > 0; excess--) rows &= rows - 1;
    return rows;
}

struct varve_age varve_age_step(uint64_t seen, int64_t n_newer, int64_t window) {
    const struct varve_age age = {newest(seen, window - n_newer),
                                  newest(seen, window + VARVE_AGE_SLACK - n_newer)};
    return age;
}
