/* Fingerprints compared beside the attention that reads the twins: a view lists what it relies on,
 * tasks compare it, and whoever ran them learns at the end whether the result stands. Stale twins
 * are rare and comparing waits for memory, so the work is spread over threads and only a view that
 * was wrong pays twice. */
#include "base/checked.h"
#include "cache/view.h"

/* Rows of one run. */
struct check {
    struct varve_twins *twins;
    int32_t run;
    uint64_t rows;
    uint64_t stale; /* all of them until they are compared */
};

/* Adds the rows of a side to the list; without one, counts them. */
static int64_t add_side(struct varve_twins *twins, struct check *out) {
    int64_t n = 0;
    for (int32_t r = 0; twins != NULL && r < twins->n_run; r++) {
        const uint64_t rows = twins->run[r].checked;
        if (rows == 0) continue;
        if (out != NULL) out[n] = (struct check){twins, r, rows, rows};
        n++;
    }
    return n;
}

enum varve_status varve_look_checks(const struct varve_look *look, struct varve_hot_view *view) {
    struct varve_twins *const k = look->k.twins;
    struct varve_twins *const v = look->v.twins != k ? look->v.twins : NULL;
    const int64_t n = add_side(k, NULL) + add_side(v, NULL);
    const struct varve_size size = varve_size_mul(varve_size_of((size_t)n), sizeof(struct check));
    if (size.overflow || !varve_hot_grow(look->hot, &view->block[VARVE_VIEW_CHECKS],
                                         &view->block_bytes[VARVE_VIEW_CHECKS], size.value)) {
        return VARVE_ERROR_MEMORY;
    }
    if (n > 0) {
        struct check *const check = view->block[VARVE_VIEW_CHECKS];
        (void)add_side(v, check + add_side(k, check));
    }
    view->n_check = n;
    return VARVE_OK;
}

void varve_hot_check(struct varve_hot_view *view, int64_t i) {
    struct check *const check = (struct check *)view->block[VARVE_VIEW_CHECKS] + i;
    const struct varve_run *const run = &check->twins->run[check->run];
    uint64_t stale = 0;
    for (uint64_t rows = check->rows; rows != 0; rows &= rows - 1) {
        if (!varve_twins_fresh(check->twins, run, __builtin_ctzll(rows))) stale |= rows & -rows;
    }
    check->stale = stale;
}

bool varve_hot_settle(struct varve_hot_view *view) {
    bool fresh = true;
    for (int64_t i = 0; i < view->n_check; i++) {
        const struct check *const check = (struct check *)view->block[VARVE_VIEW_CHECKS] + i;
        if (check->stale == 0) continue;
        fresh = false;
        check->twins->account.twins_stale += (uint64_t)__builtin_popcountll(check->stale);
        varve_twins_drop(check->twins, &check->twins->run[check->run], check->stale);
    }
    view->n_check = 0;
    if (fresh) varve_view_count(view);
    view->side[0] = view->side[1] = NULL;
    return fresh;
}
