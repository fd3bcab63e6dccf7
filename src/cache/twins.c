#include "cache/twins.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "cache/age.h"
#include "format/format.h"
#include "kernel/context.h"

/* ---- cold rows ---------------------------------------------------------------------------- */

static const char *cold_row(const struct varve_twins *twins, int64_t cell) {
    return (const char *)twins->p.cold + cell * twins->p.cold_stride;
}

static uint64_t fingerprint(const struct varve_twins *twins, int64_t cell) {
    const struct varve_fingerprint_args args = {(const uint8_t *)cold_row(twins, cell),
                                                twins->cold_bytes};
    return twins->hot->context->kernels.fingerprint.run(&args);
}

bool varve_twins_fresh(const struct varve_twins *twins, const struct varve_run *run, int32_t row) {
    return run->slab->print[run->slot + row] == fingerprint(twins, run->cell + row);
}

/* ---- slots -------------------------------------------------------------------------------- */

static void free_slots(struct varve_twins *twins, struct varve_slab *slab, int32_t slot,
                       uint64_t rows) {
    if (slab->used == NULL) return;
    for (; rows != 0; rows &= rows - 1) {
        const int32_t at = slot + __builtin_ctzll(rows);
        slab->used[at / 64] &= ~(UINT64_C(1) << at % 64);
        twins->n_free++;
    }
}

void varve_twins_drop(struct varve_twins *twins, struct varve_run *run, uint64_t rows) {
    rows &= run->live;
    free_slots(twins, run->slab, run->slot, rows);
    run->live &= ~rows;
    run->pinned &= ~rows;
    run->left &= ~rows;
}

/* Takes runs without twins out of the list. */
static void sweep(struct varve_twins *twins) {
    int32_t n = 0;
    for (int32_t i = 0; i < twins->n_run; i++) {
        if (twins->run[i].live != 0) twins->run[n++] = twins->run[i];
    }
    twins->n_run = n;
}

static struct varve_slab slab_at(const struct varve_twins *twins, char *data, int64_t n) {
    uint64_t *const print = (uint64_t *)(void *)(data + (size_t)n * twins->row_bytes);
    return (struct varve_slab){
        .data = data, .print = print, .wanted = print + n, .n_slot = (int32_t)n};
}

/* One more ring, or as much of one as the limit leaves. */
static bool add_slab(struct varve_twins *twins) {
    struct varve_hot *hot = twins->hot;
    const int64_t room = twins->p.n_row_max - twins->n_slot;
    const int64_t n = room < twins->ring_rows ? room : twins->ring_rows;
    if (n <= 0 || !varve_hot_grow(hot, (void **)&twins->slab, &twins->slab_bytes,
                                  (size_t)(twins->n_slab + 1) * sizeof *twins->slab)) {
        return false;
    }
    const size_t n_word = (size_t)(n + 63) / 64;
    const struct varve_size size = varve_slab_bytes(twins->row_bytes, n);
    if (size.overflow || !varve_hot_take(hot, &hot->bytes.hot, size.value)) return false;
    char *const data = varve_host_allocate(&hot->context->host, size.value);
    if (data == NULL) {
        varve_hot_give(hot, &hot->bytes.hot, size.value);
        return false;
    }
    struct varve_slab made = slab_at(twins, data, n);
    made.used = made.wanted + n;
    made.block_bytes = size.value;
    memset(made.used, 0, n_word * 8);
    struct varve_slab *const slab = (struct varve_slab *)(void *)(made.used + n_word);
    *slab = made; /* it lies in its own block */
    twins->slab[twins->n_slab++] = slab;
    twins->n_slot += n;
    twins->n_free += n;
    return true;
}

/* The free slot at or after the place where the last one was found, so that rows written one after
 * the other lie one after the other. There must be one. */
static struct varve_slab *take_slot(struct varve_twins *twins, int32_t *slot) {
    for (;;) {
        struct varve_slab *const slab = twins->slab[twins->at_slab];
        for (int32_t at = twins->at_slot; at < slab->n_slot;) {
            const uint64_t free_bits = ~slab->used[at / 64] & ~varve_low_bits(at % 64);
            if (free_bits == 0) {
                at = (at / 64 + 1) * 64;
                continue;
            }
            at = at / 64 * 64 + __builtin_ctzll(free_bits);
            if (at >= slab->n_slot) break;
            slab->used[at / 64] |= UINT64_C(1) << at % 64;
            twins->n_free--;
            twins->at_slot = at + 1;
            *slot = at;
            return slab;
        }
        twins->at_slab = (twins->at_slab + 1) % twins->n_slab;
        twins->at_slot = 0;
    }
}

/* ---- room --------------------------------------------------------------------------------- */

/* The row in a ring, of those that have left or of all, that was wanted longest ago; the oldest of
 * several. NULL: there is none. */
static struct varve_run *longest_ago(struct varve_twins *twins, bool left, uint64_t *row) {
    struct varve_run *found = NULL;
    uint64_t least = UINT64_MAX;
    for (int32_t i = 0; i < twins->n_run; i++) {
        struct varve_run *const run = &twins->run[i];
        if (run->slab->used == NULL) continue;
        for (uint64_t rows = left ? run->left : run->live; rows != 0; rows &= rows - 1) {
            const uint64_t wanted = run->slab->wanted[run->slot + __builtin_ctzll(rows)];
            if (wanted >= least) continue;
            least = wanted;
            found = run;
            *row = rows & -rows;
        }
    }
    return found;
}

void varve_twins_want(struct varve_twins *twins, const struct varve_run *run, uint64_t rows) {
    for (; rows != 0; rows &= rows - 1) {
        run->slab->wanted[run->slot + __builtin_ctzll(rows)] = twins->hot->n_view;
    }
}

/* Free slots for n rows: new memory first where rows may be shared by sequences, then rows that
 * left the window, then, counted, others. */
static bool make_room(struct varve_twins *twins, int64_t n) {
    while (twins->n_free < n) {
        uint64_t row = 0;
        struct varve_run *run = longest_ago(twins, true, &row);
        if ((run == NULL || twins->p.shared) && add_slab(twins)) continue;
        if (run == NULL) {
            run = longest_ago(twins, false, &row);
            if (run == NULL) return false;
            twins->account.twins_evicted++;
        }
        varve_twins_drop(twins, run, row);
    }
    return true;
}

static void drop_left(struct varve_twins *twins) {
    for (int32_t i = 0; i < twins->n_run; i++) {
        varve_twins_drop(twins, &twins->run[i], twins->run[i].left);
    }
}

/* Rule 6 for one end that sees all rows. */
static void age_at_end(struct varve_twins *twins) {
    int64_t n_newer = 0;
    for (int32_t r = twins->n_run - 1; r >= 0; r--) {
        struct varve_run *const run = &twins->run[r];
        const uint64_t kept = varve_age_step(run->live, n_newer, twins->hot->p.window).kept;
        run->left = run->live & ~kept & ~run->pinned;
        n_newer += __builtin_popcountll(run->live);
    }
}

/* ---- runs --------------------------------------------------------------------------------- */

static bool follows(const struct varve_run *run, const struct varve_run *row) {
    return run->n < 64 && run->slab == row->slab && run->cell + run->n == row->cell &&
           run->slot + run->n == row->slot;
}

/* Adds a run of one row at the new end. Room for it in the table was made before. */
static void append(struct varve_twins *twins, const struct varve_run *row) {
    struct varve_run *const last = twins->n_run > 0 ? &twins->run[twins->n_run - 1] : NULL;
    if (last == NULL || !follows(last, row)) {
        twins->run[twins->n_run++] = *row;
        return;
    }
    last->live |= row->live << last->n;
    last->pinned |= row->pinned << last->n;
    last->left |= row->left << last->n;
    last->n++;
}

static bool reserve_runs(struct varve_twins *twins, int64_t n_more) {
    struct varve_size size = varve_size_of((size_t)(twins->n_run + n_more));
    size = varve_size_mul(size, sizeof *twins->run);
    return !size.overflow &&
           varve_hot_grow(twins->hot, (void **)&twins->run, &twins->run_bytes, size.value);
}

/* ---- stage -------------------------------------------------------------------------------- */

static struct varve_run one_row(const struct varve_run *run, int32_t i) {
    struct varve_run row = *run;
    row.cell += i;
    row.slot += i;
    row.n = 1;
    row.live = 1;
    row.pinned = run->pinned >> i & 1;
    row.left = run->left >> i & 1;
    return row;
}

static void move_row(struct varve_twins *twins, struct varve_run row) {
    const char *const from = varve_run_row(twins, &row, 0);
    const uint64_t print = row.slab->print[row.slot], wanted = row.slab->wanted[row.slot];
    row.slab = take_slot(twins, &row.slot);
    row.slab->print[row.slot] = print;
    row.slab->wanted[row.slot] = wanted;
    memcpy(row.slab->data + (size_t)row.slot * twins->row_bytes, from, twins->row_bytes);
    append(twins, &row);
}

static int64_t count(const struct varve_run *run, int32_t n_run, bool left) {
    int64_t n = 0;
    for (int32_t i = 0; i < n_run; i++) {
        n += __builtin_popcountll(left ? run[i].live : run[i].live & ~run[i].left);
    }
    return n;
}

/* Takes the staged runs, which are the newest, out of the table into scratch. Returns their number.
 */
static int32_t unstage(struct varve_twins *twins) {
    struct varve_hot *hot = twins->hot;
    int32_t first = twins->n_run;
    while (first > 0 && twins->run[first - 1].slab == &twins->staged) first--;
    const int32_t n = twins->n_run - first;
    const int64_t n_row = count(twins->run + first, n, true);
    const size_t bytes = (size_t)n * sizeof *twins->run;
    if (!varve_hot_grow(hot, &hot->scratch, &hot->scratch_bytes, bytes) ||
        !reserve_runs(twins, n_row)) {
        twins->account.twins_evicted += (uint64_t)n_row;
        twins->n_run = first;
        return 0;
    }
    memcpy(hot->scratch, twins->run + first, bytes);
    twins->n_run = first;
    return n;
}

/* Rows that have left the window are worth free memory, but no other row. */
static void commit(struct varve_twins *twins) {
    if (twins->owned) age_at_end(twins);
    if (!twins->p.shared) drop_left(twins);
    const int32_t n_run = unstage(twins);
    sweep(twins);
    const struct varve_run *const staged = twins->hot->scratch;
    int64_t n_to_go = count(staged, n_run, false);
    for (int32_t i = 0; i < n_run; i++) {
        for (uint64_t rows = staged[i].live; rows != 0; rows &= rows - 1) {
            const struct varve_run row = one_row(&staged[i], __builtin_ctzll(rows));
            if (row.left != 0) {
                if (twins->n_free <= n_to_go && !add_slab(twins)) continue;
            } else {
                n_to_go--;
                if (!make_room(twins, 1)) {
                    twins->account.twins_evicted++;
                    continue;
                }
            }
            move_row(twins, row);
        }
    }
    sweep(twins);
}

/* Moves what is worth it from a stage to the rings of its tensors, and empties it. */
static void commit_stage(struct varve_stage *stage) {
    while (stage->twins != NULL) {
        struct varve_twins *const twins = stage->twins;
        commit(twins);
        stage->twins = twins->next_staged;
        twins->stage = NULL;
    }
    varve_stage_clear(stage);
}

/* Slots of their own for n rows in the staging buffer. */
static bool stage_rows(struct varve_twins *twins, int64_t n) {
    struct varve_stage *const stage = twins->p.reread ? &twins->own : &twins->hot->stage;
    if (stage->attended) commit_stage(stage);
    const struct varve_size size = varve_slots_bytes(twins->row_bytes, n);
    char *const data = size.overflow ? NULL : varve_stage_allocate(stage, size.value);
    if (data == NULL) return false;
    twins->staged = slab_at(twins, data, n); /* nothing is marked as used: they go all at once */
    twins->stage = stage;
    twins->next_staged = stage->twins;
    stage->twins = twins;
    return true;
}

/* ---- writing ------------------------------------------------------------------------------ */

static int compare_places(const void *a, const void *b) {
    const struct varve_place *const x = a, *const y = b;
    if (x->cell != y->cell) return x->cell < y->cell ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* Copies the cells; those that a later row writes again become -1. Returns the number of others. */
static int64_t set_cells(struct varve_twins *twins, const int64_t *cells, int64_t n) {
    struct varve_place *const place = twins->place;
    bool ascending = true;
    for (int64_t i = 0; i < n; i++) {
        place[i] = (struct varve_place){NULL, (int32_t)i, cells[i]};
        ascending &= i == 0 || cells[i] > cells[i - 1];
    }
    if (ascending) return n;
    qsort(place, (size_t)n, sizeof *place, compare_places);
    int64_t n_kept = n;
    for (int64_t i = 0; i + 1 < n; i++) {
        if (place[i].cell == place[i + 1].cell) place[i].cell = -1, n_kept--;
    }
    /* back into the order of writing, which slot still holds */
    for (int64_t i = 0; i < n; i++) {
        while (place[i].slot != i) {
            const struct varve_place other = place[place[i].slot];
            place[place[i].slot] = place[i];
            place[i] = other;
        }
    }
    return n_kept;
}

/* Ends the twins of cells first .. first + n - 1. */
static void drop_cells(struct varve_twins *twins, int64_t first, int64_t n) {
    for (int32_t i = 0; i < twins->n_run; i++) {
        struct varve_run *const run = &twins->run[i];
        if (run->cell >= first + n || run->cell + run->n <= first) continue;
        const uint64_t below = varve_low_bits(first - run->cell);
        varve_twins_drop(twins, run, varve_low_bits(first + n - run->cell) & ~below);
    }
}

static void drop_written(struct varve_twins *twins) {
    const struct varve_place *const place = twins->place;
    for (int64_t i = 0; i < twins->n_place;) {
        int64_t n = 1;
        while (i + n < twins->n_place && place[i + n].cell == place[i].cell + n) n++;
        drop_cells(twins, place[i].cell, n);
        i += n;
    }
    sweep(twins);
}

/* Slots for the newest n_place rows of the write: staged, or in the rings. */
static void set_slots(struct varve_twins *twins, int64_t n_kept) {
    const bool staged = n_kept > VARVE_AGE_ROOM && stage_rows(twins, n_kept);
    int64_t n = n_kept;
    if (!staged) { /* never more than there are slots: rows of one write do not evict each other */
        while (twins->n_slot < n && add_slab(twins)) {}
        n = twins->n_slot < n ? twins->n_slot : n;
        if (!make_room(twins, n)) n = 0;
        twins->account.twins_evicted += (uint64_t)(n_kept - n);
    }
    int32_t at = 0;
    int64_t skip = n_kept - n;
    for (int64_t i = 0; i < twins->n_place; i++) {
        struct varve_place *const place = &twins->place[i];
        if (place->cell < 0 || skip-- > 0) continue;
        place->slab = staged ? &twins->staged : take_slot(twins, &place->slot);
        if (staged) place->slot = at++;
        place->slab->wanted[place->slot] = twins->hot->n_view + 1;
        const struct varve_run row = {
            .cell = place->cell, .slab = place->slab, .slot = place->slot, .n = 1, .live = 1};
        append(twins, &row);
    }
    twins->account.twins_written += (uint64_t)n;
}

enum varve_status varve_twins_write(struct varve_twins *twins, const int64_t *cells, int64_t n) {
    if (twins == NULL || (cells == NULL && n > 0)) return VARVE_ERROR_ARGUMENT;
    const struct varve_host *host = &twins->hot->context->host;
    if (n < 0 || n > INT32_MAX) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "n is %lld, expected 0 to 2^31 - 1",
                          (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        if (cells[i] < 0 || cells[i] >= twins->p.n_cell) {
            return varve_fail(host, VARVE_ERROR_ARGUMENT, "cells[%lld] is %lld, expected 0 to %lld",
                              (long long)i, (long long)cells[i], (long long)twins->p.n_cell - 1);
        }
    }
    twins->n_place = 0;
    if (twins->stage != NULL) commit_stage(twins->stage);
    if (!twins->p.shared) drop_left(twins);
    const size_t bytes = (size_t)n * sizeof *twins->place;
    const bool room =
        varve_hot_grow(twins->hot, (void **)&twins->place, &twins->place_bytes, bytes);
    if (!room || !reserve_runs(twins, n)) {
        /* The cells are about to change, and the fingerprints will tell. */
        return VARVE_ERROR_MEMORY;
    }
    twins->n_place = n;
    const int64_t n_kept = set_cells(twins, cells, n);
    drop_written(twins);
    set_slots(twins, n_kept);
    return VARVE_OK;
}

void varve_twins_write_row(struct varve_twins *twins, int64_t i, const float *values) {
    if (i >= twins->n_place || twins->place[i].slab == NULL) return;
    const struct varve_place *const place = &twins->place[i];
    struct varve_slab *const slab = place->slab;
    char *const row = slab->data + (size_t)place->slot * twins->row_bytes;
    const struct varve_narrow_args args = {twins->p.n_value, values, (uint16_t *)(void *)row};
    /* A value beyond F16 has no twin: with a fingerprint that is wrong on purpose it is stale. */
    const bool fits = twins->hot->context->kernels.narrow.run(&args);
    const uint64_t print = fingerprint(twins, place->cell);
    slab->print[place->slot] = fits ? print : ~print;
}

/* ---- a cache that owns its cold rows ------------------------------------------------------ */

enum varve_status varve_twins_reserve(struct varve_twins *twins, int64_t n_step) {
    const struct varve_host *host = &twins->hot->context->host;
    const struct varve_twins_need need =
        varve_twins_need(twins->p.n_value, twins->p.n_cell, twins->ring_rows, n_step);
    const size_t run_bytes = (size_t)need.n_live * sizeof *twins->run;
    const size_t place_bytes = (size_t)n_step * sizeof *twins->place;
    twins->owned = true;
    twins->run = varve_host_allocate(host, run_bytes);
    if (twins->run == NULL) return VARVE_ERROR_MEMORY;
    twins->run_bytes = run_bytes;
    twins->place = varve_host_allocate(host, place_bytes);
    if (twins->place == NULL) return VARVE_ERROR_MEMORY;
    twins->place_bytes = place_bytes;
    if (!add_slab(twins)) {
        return varve_fail(host, VARVE_ERROR_MEMORY,
                          "hot tier: no memory or no budget for %zu bytes", need.hot.value);
    }
    return VARVE_OK;
}

void varve_twins_prune(struct varve_twins *twins) {
    age_at_end(twins);
    drop_left(twins);
    sweep(twins);
}

void varve_twins_pin(struct varve_twins *twins, int64_t cell) {
    for (int32_t r = twins->n_run - 1; r >= 0; r--) {
        struct varve_run *const run = &twins->run[r];
        if (cell < run->cell || cell >= run->cell + run->n) continue;
        const uint64_t row = run->live & UINT64_C(1) << (cell - run->cell);
        run->pinned |= row;
        run->left &= ~row;
    }
}

/* Takes the first n rows of a run away; others are left. */
static void skip_rows(struct varve_run *run, int32_t n) {
    run->cell += n;
    run->slot += n;
    run->n -= n;
    run->live >>= n;
    run->pinned >>= n;
    run->left >>= n;
}

/* Takes all but the first n rows of a run away. */
static void keep_rows(struct varve_run *run, int32_t n) {
    run->n = n;
    run->live &= varve_low_bits(n);
    run->pinned &= varve_low_bits(n);
    run->left &= varve_low_bits(n);
}

/* New rows go into the slots behind the newest twin, so that a run goes on after a rollback. */
static void rewind_slots(struct varve_twins *twins) {
    twins->at_slab = twins->at_slot = 0;
    if (twins->n_run == 0) return;
    struct varve_run *const last = &twins->run[twins->n_run - 1];
    keep_rows(last, 64 - __builtin_clzll(last->live));
    for (int32_t i = 0; i < twins->n_slab; i++) {
        if (twins->slab[i] != last->slab) continue;
        twins->at_slab = i;
        twins->at_slot = last->slot + last->n;
    }
}

void varve_twins_cut(struct varve_twins *twins, int64_t first, int64_t n) {
    drop_cells(twins, first, n);
    sweep(twins);
    for (int32_t r = 0; r < twins->n_run; r++) {
        struct varve_run *run = &twins->run[r];
        if (run->cell + run->n <= first) continue;
        if (run->cell < first) {
            const int32_t n_before = (int32_t)(first - run->cell);
            const bool before = (run->live & varve_low_bits(n_before)) != 0;
            const bool behind = (run->live & ~varve_low_bits(n_before)) != 0;
            if (before && behind) { /* there is room: a row of the run was dropped, or is live */
                memmove(run + 1, run, (size_t)(twins->n_run++ - r) * sizeof *run);
                keep_rows(run, n_before);
                skip_rows(++run, n_before);
                r++;
            } else if (before) {
                keep_rows(run, n_before);
                continue;
            } else {
                skip_rows(run, n_before);
            }
        }
        if (run->cell < first + n) skip_rows(run, (int32_t)(first + n - run->cell));
        run->cell -= n;
    }
    rewind_slots(twins);
}

void varve_twins_copy(struct varve_twins *to, const struct varve_twins *from) {
    int64_t n_newer = 0;
    for (int32_t r = 0; r < from->n_run; r++) n_newer += __builtin_popcountll(from->run[r].live);
    for (int32_t r = 0; r < from->n_run; r++) {
        const struct varve_run *const run = &from->run[r];
        n_newer -= __builtin_popcountll(run->live);
        const uint64_t kept = varve_age_step(run->live, n_newer, to->hot->p.window).kept;
        for (uint64_t rows = kept | run->pinned; rows != 0; rows &= rows - 1) {
            if (to->n_free == 0) {
                to->account.twins_evicted++;
                continue;
            }
            struct varve_run row = one_row(run, __builtin_ctzll(rows));
            row.left = row.checked = 0;
            move_row(to, row);
            const struct varve_run *const last = &to->run[to->n_run - 1];
            varve_twins_want(to, last, UINT64_C(1) << (last->n - 1));
            to->account.twins_written++;
        }
    }
}
