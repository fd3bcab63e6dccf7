/* Which rows the queries of an attention read hot: they walk the runs from the newest to the
 * oldest, and compare fingerprints on the way. */
#include "cache/view.h"

#include <string.h>

#include "base/checked.h"
#include "base/mask.h"
#include "cache/age.h"
#include "format/format.h"
#include "kernel/context.h"

uint64_t varve_look_visible(const struct varve_look *look, int64_t q, int64_t row, int32_t n) {
    const uint16_t *const mask = varve_look_mask(look, q);
    return mask != NULL ? varve_mask_bits(mask + row, n) : varve_low_bits(n);
}

/* ---- one side ----------------------------------------------------------------------------- */

/* Rows of a run that query q sees. A run may reach over the ends of the node's rows. */
static uint64_t see_run(const struct varve_look *look, const struct varve_side *side,
                        const struct varve_run *run, int64_t q) {
    const int64_t row = run->cell - side->cell0;
    const int64_t first = row < 0 ? -row : 0;
    const int64_t end = row + run->n > look->n_row ? look->n_row - row : run->n;
    if (first >= end) return 0;
    return varve_look_visible(look, q, row + first, (int32_t)(end - first)) << first & run->live;
}

static void see_all(const struct varve_look *look, struct varve_side *side) {
    for (int64_t q = 0; q < look->n_query; q++) {
        for (int32_t r = 0; r < side->n_run; r++) {
            side->seen[q * side->n_run + r] = see_run(look, side, &side->twins->run[r], q);
        }
    }
}

/* Compares fingerprints that were not compared in this view yet; drops what is stale. A node that
 * defers takes them to be fresh and only notes which ones it relies on. */
static void check_rows(const struct varve_look *look, struct varve_twins *twins,
                       struct varve_run *run, uint64_t rows) {
    rows &= run->live & ~run->checked;
    run->checked |= rows;
    if (look->node->defer) return;
    for (; rows != 0; rows &= rows - 1) {
        const int32_t row = __builtin_ctzll(rows);
        if (varve_twins_fresh(twins, run, row)) continue;
        twins->account.twins_stale++;
        varve_twins_drop(twins, run, UINT64_C(1) << row);
    }
}

/* Rule 4: the first rows of a sequence. A cache that owns its rows knows them when they come. */
static void pin(const struct varve_look *look, struct varve_side *side) {
    if (side->twins->owned) return;
    for (int64_t q = 0; q < look->n_query; q++) {
        if (look->n_visible[q] > look->hot->p.n_sink) continue;
        for (int32_t r = 0; r < side->n_run; r++) {
            struct varve_run *const run = &side->twins->run[r];
            const uint64_t seen = side->seen[q * side->n_run + r];
            check_rows(look, side->twins, run, seen);
            run->pinned |= seen & run->live;
            run->left &= ~run->pinned;
        }
    }
}

/* Rules 3 and 5 for one query. */
static void walk(const struct varve_look *look, struct varve_side *side, int64_t q) {
    struct varve_twins *const twins = side->twins;
    const int64_t window = look->hot->p.window;
    int64_t n_newer = 0, n_hot = 0, n_sink = 0;
    for (int32_t r = side->n_run - 1; r >= 0; r--) {
        struct varve_run *const run = &twins->run[r];
        uint64_t *const seen = &side->seen[q * side->n_run + r];
        uint64_t by_age, sinks;
        do { /* a stale row makes room for an older one */
            *seen &= run->live;
            by_age = varve_age_step(*seen, n_newer, window).window;
            sinks = *seen & run->pinned & ~by_age;
            check_rows(look, twins, run, by_age | sinks);
        } while (((by_age | sinks) & ~run->live) != 0);
        side->hot[q * side->n_run + r] = by_age | sinks;
        n_newer += __builtin_popcountll(*seen);
        n_hot += __builtin_popcountll(by_age);
        n_sink += __builtin_popcountll(sinks);
    }
    const int64_t n_visible = look->n_visible[q];
    side->n_hot += n_hot;
    side->n_sink += n_sink;
    side->n_missed += (n_visible < window ? n_visible : window) - n_hot;
}

/* Rows are counted as they will be read: all cold where there is no memory for segments. */
static struct varve_twins_account count_side(const struct varve_look *look,
                                             const struct varve_side *side, bool cold) {
    int64_t n_visible = 0;
    for (int64_t q = 0; q < look->n_query; q++) n_visible += look->n_visible[q];
    const int64_t n_hot = cold ? 0 : side->n_hot, n_sink = cold ? 0 : side->n_sink;
    return (struct varve_twins_account){
        .rows_hot = (uint64_t)n_hot,
        .rows_sink = (uint64_t)n_sink,
        .rows_cold = (uint64_t)(n_visible - n_hot - n_sink),
        .rows_missed = (uint64_t)(side->n_missed + side->n_hot - n_hot),
    };
}

void varve_view_count(struct varve_hot_view *view) {
    for (int i = 0; i < 2; i++) {
        if (view->side[i] == NULL) continue;
        struct varve_twins_account *const account = &view->side[i]->account;
        account->rows_hot += view->counted[i].rows_hot;
        account->rows_sink += view->counted[i].rows_sink;
        account->rows_cold += view->counted[i].rows_cold;
        account->rows_missed += view->counted[i].rows_missed;
        view->side[i] = NULL;
    }
}

/* ---- what leaves the window --------------------------------------------------------------- */

/* Whether a later query sees the newest row of query q: then q is not the end of a sequence. */
static bool is_followed(const struct varve_look *look, const struct varve_side *side, int64_t q) {
    const int32_t n_run = side->n_run;
    int32_t r = n_run - 1;
    while (r >= 0 && side->seen[q * n_run + r] == 0) r--;
    if (r < 0) return true; /* it sees nothing and ends nothing */
    const uint64_t newest = UINT64_C(1) << (63 - __builtin_clzll(side->seen[q * n_run + r]));
    for (int64_t later = q + 1; later < look->n_query; later++) {
        if ((side->seen[later * n_run + r] & newest) != 0) return true;
    }
    return false;
}

/* Rule 6 for one end. */
static void age_rows(const struct varve_look *look, struct varve_side *side, int64_t q,
                     uint64_t *touched, uint64_t *kept) {
    int64_t n_newer = 0;
    for (int32_t r = side->n_run - 1; r >= 0; r--) {
        const uint64_t seen = side->seen[q * side->n_run + r] & side->twins->run[r].live;
        touched[r] |= seen;
        kept[r] |= varve_age_step(seen, n_newer, look->hot->p.window).kept;
        n_newer += __builtin_popcountll(seen);
    }
}

/* Rule 6. The words behind those of the queries are free for sums over the ends. */
static void age_all(const struct varve_look *look, struct varve_side *side) {
    uint64_t *const touched = side->seen + look->n_query * side->n_run;
    uint64_t *const kept = side->hot + look->n_query * side->n_run;
    memset(touched, 0, (size_t)side->n_run * sizeof *touched);
    memset(kept, 0, (size_t)side->n_run * sizeof *kept);
    for (int64_t q = 0; q < look->n_query; q++) {
        if (!is_followed(look, side, q)) age_rows(look, side, q, touched, kept);
    }
    for (int32_t r = 0; r < side->n_run; r++) {
        struct varve_run *const run = &side->twins->run[r];
        run->left = ((run->left & ~touched[r]) | (touched[r] & ~kept[r])) & ~run->pinned;
        varve_twins_want(side->twins, run, kept[r] | (touched[r] & run->pinned));
    }
}

static void look_at(const struct varve_look *look, struct varve_side *side) {
    if (side->twins == NULL) return;
    if (side->twins->stage != NULL) side->twins->stage->attended = true;
    for (int32_t r = 0; r < side->n_run; r++) side->twins->run[r].checked = 0;
    see_all(look, side);
    pin(look, side);
    for (int64_t q = 0; q < look->n_query; q++) walk(look, side, q);
    age_all(look, side);
}

/* ---- the node ----------------------------------------------------------------------------- */

/* Where the rows of the node lie inside the tensor; false: not in this tensor. */
static bool locate(struct varve_side *side, const void *data, int64_t row_stride,
                   int64_t head_stride, enum varve_format format, int64_t n_row) {
    const struct varve_twins_params *p = &side->twins->p;
    const struct varve_format_traits *traits = varve_format_traits(p->format);
    const int64_t offset = (const char *)data - (const char *)p->cold;
    if (format != p->format || offset < 0 || (row_stride != p->cold_stride && n_row > 1)) {
        return false;
    }
    side->cell0 = offset / p->cold_stride;
    const int64_t inside = offset % p->cold_stride;
    if (side->cell0 > p->n_cell - n_row || inside % traits->block_bytes != 0 ||
        head_stride % traits->block_bytes != 0) {
        return false;
    }
    side->value0 = inside / traits->block_bytes * traits->block_values;
    side->n_head_value = head_stride / traits->block_bytes * traits->block_values;
    side->n_run = side->twins->n_run;
    return side->value0 < p->n_value;
}

static enum varve_status check_node(const struct varve_look *look, struct varve_side *k,
                                    struct varve_side *v) {
    const struct varve_host *host = &look->hot->context->host;
    const struct varve_segment *cold = &look->node->cold;
    const struct varve_mask *mask = look->node->mask;
    if (look->n_query < 0 || look->n_row < 0 ||
        (look->n_row > 0 && (cold->k == NULL || cold->v == NULL))) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "n_query, cold: negative sizes or NULL rows");
    }
    if (mask != NULL &&
        (mask->data == NULL || mask->n_head != 1 || mask->n_batch != 1 || cold->mask_column < 0 ||
         mask->n_query < look->n_query || look->n_row > mask->n_column ||
         cold->mask_column > mask->n_column - look->n_row)) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "mask: expected one for all heads that covers %lld queries and %lld rows",
                          (long long)look->n_query, (long long)look->n_row);
    }
    if ((k->twins != NULL && !locate(k, cold->k, cold->k_row_stride, cold->k_head_stride,
                                     cold->k_format, look->n_row)) ||
        (v->twins != NULL && !locate(v, cold->v, cold->v_row_stride, cold->v_head_stride,
                                     cold->v_format, look->n_row))) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "cold: not rows of the tensor with twins");
    }
    return VARVE_OK;
}

/* Words for all queries, and one row of them for sums. */
static bool lay_out(struct varve_look *look, struct varve_hot_view *view) {
    struct varve_side *const sides[] = {&look->k, &look->v};
    const size_t n_line = (size_t)look->n_query + 1;
    struct varve_size size = varve_size_of(n_line);
    for (int i = 0; i < 2; i++) {
        size = varve_size_add(size, n_line * 2 * (size_t)sides[i]->n_run);
    }
    size = varve_size_mul(size, sizeof(uint64_t));
    if (size.overflow || !varve_hot_renew(look->hot, &view->block[VARVE_VIEW_WORK],
                                          &view->block_bytes[VARVE_VIEW_WORK], size.value)) {
        return false;
    }
    uint64_t *at = view->block[VARVE_VIEW_WORK];
    look->n_visible = (int64_t *)(void *)at;
    at += n_line;
    for (int i = 0; i < 2; i++) {
        sides[i]->seen = at;
        sides[i]->hot = at + n_line * (size_t)sides[i]->n_run;
        at += n_line * 2 * (size_t)sides[i]->n_run;
    }
    return true;
}

static void count_visible(struct varve_look *look) {
    for (int64_t q = 0; q < look->n_query; q++) {
        const uint16_t *const mask = varve_look_mask(look, q);
        look->n_visible[q] = mask != NULL ? varve_mask_count(mask, look->n_row) : look->n_row;
    }
}

enum varve_status varve_hot_view(struct varve_hot *hot, const struct varve_hot_node *node,
                                 struct varve_hot_view *view) {
    if (hot == NULL || node == NULL || view == NULL) return VARVE_ERROR_ARGUMENT;
    view->hot = hot;
    view->segments = NULL;
    view->n_segment = 0;
    view->n_row = 0;
    view->n_check = 0;
    view->side[0] = view->side[1] = NULL;
    struct varve_look look = {
        .hot = hot, .node = node, .n_query = node->n_query, .n_row = node->cold.n_rows};
    look.k.twins = node->k;
    look.v.twins = node->v;
    enum varve_status status = check_node(&look, &look.k, &look.v);
    if (status != VARVE_OK) return status;
    const bool same = node->k == node->v && node->k != NULL && look.k.cell0 == look.v.cell0;
    if (same) look.v.n_run = 0; /* needs no words of its own */
    if (!lay_out(&look, view)) return VARVE_ERROR_MEMORY;
    hot->n_view++;
    count_visible(&look);
    look_at(&look, &look.k);
    if (same) {
        look.v.n_run = look.k.n_run;
        look.v.seen = look.k.seen;
        look.v.hot = look.k.hot;
    } else {
        look_at(&look, &look.v);
    }
    status = varve_look_segments(&look, view);
    if (status == VARVE_OK && node->defer) status = varve_look_checks(&look, view);
    if (status != VARVE_OK) view->n_segment = view->n_row = 0;
    view->counted[0] = count_side(&look, &look.k, status != VARVE_OK);
    view->counted[1] = count_side(&look, &look.v, status != VARVE_OK);
    view->side[0] = node->k;
    view->side[1] = same ? NULL : node->v;
    if (status != VARVE_OK || !node->defer) varve_view_count(view);
    return status;
}

void varve_hot_view_release(struct varve_hot_view *view) {
    for (int i = 0; i < N_VARVE_VIEW; i++) {
        if (view->block[i] == NULL) continue;
        struct varve_hot *const hot = view->hot;
        varve_host_release(&hot->context->host, view->block[i], view->block_bytes[i]);
        if (i == VARVE_VIEW_MASK) varve_hot_give(hot, &hot->bytes.staging, view->block_bytes[i]);
    }
    memset(view, 0, sizeof *view);
}
