/* What twins will take, added up by the functions that lay them out. */
#include <string.h>

#include "cache/age.h"
#include "cache/twins.h"
#include "cache/view.h"
#include "format/format.h"
#include "kernel/context.h"

/* What a write stages; a few rows go to their places at once. */
static int64_t staged_rows(int64_t n_step) { return n_step > VARVE_AGE_ROOM ? n_step : 0; }

static struct varve_size staged_bytes(size_t row_bytes, int64_t n_step) {
    return varve_size_round(varve_slots_bytes(row_bytes, staged_rows(n_step)), VARVE_ALIGN);
}

struct varve_twins_need varve_twins_need(int64_t n_value, int64_t n_cell, int64_t ring_rows,
                                         int64_t n_step) {
    const size_t row_bytes = varve_twins_row_bytes(n_value);
    const int64_t n_slot = ring_rows < n_cell ? ring_rows : n_cell;
    const int64_t n_live = n_slot + n_step;
    struct varve_size tables = varve_hot_grown(varve_size_of(sizeof(struct varve_slab *)));
    tables = varve_size_add(tables, sizeof(struct varve_twins));
    tables = varve_size_sum(
        tables, varve_size_mul(varve_size_of((size_t)n_live), sizeof(struct varve_run)));
    tables = varve_size_sum(
        tables, varve_size_mul(varve_size_of((size_t)n_step), sizeof(struct varve_place)));
    return (struct varve_twins_need){varve_slab_bytes(row_bytes, n_slot), tables,
                                     staged_bytes(row_bytes, n_step), n_live};
}

/* Bytes of n rows in rings of a tensor. */
static struct varve_size rings_bytes(size_t row_bytes, int64_t ring_rows, int64_t n) {
    const struct varve_size whole = varve_slab_bytes(row_bytes, ring_rows);
    const struct varve_size rings = varve_size_mul(whole, (size_t)(n / ring_rows));
    const int64_t rest = n % ring_rows;
    return rest == 0 ? rings : varve_size_sum(rings, varve_slab_bytes(row_bytes, rest));
}

/* Runs of n rows in order, one more where a ring or a write begins. */
static int64_t runs_in_order(int64_t n) { return n / 64 + 2; }

enum varve_status varve_twins_plan(const struct varve_context *context,
                                   const struct varve_hot_params *tier,
                                   const struct varve_twins_params *params, int64_t n_sequence,
                                   int64_t n_step, struct varve_twins_bytes *bytes) {
    if (context == NULL || tier == NULL || params == NULL || bytes == NULL || n_sequence < 1 ||
        n_step < 0 || n_step > INT32_MAX || n_sequence > INT32_MAX) {
        return VARVE_ERROR_ARGUMENT;
    }
    const struct varve_host *const host = &context->host;
    struct varve_hot_params known;
    struct varve_twins_params p;
    size_t cold_bytes = 0;
    enum varve_status status = varve_hot_read_params(host, tier, &known);
    if (status != VARVE_OK) return status;
    const int64_t ring = varve_hot_ring_rows(known.window, known.n_sink);
    status = varve_twins_read_params(host, ring, params, &p, &cold_bytes);
    if (status != VARVE_OK) return status;
    const size_t row_bytes = varve_twins_row_bytes(p.n_value);
    /* Rows that sequences may share are kept while there is room: it fills up. */
    const int64_t wanted = p.shared ? p.n_row_max : n_sequence * ring;
    const int64_t n_row = wanted < p.n_row_max ? wanted : p.n_row_max;
    const int64_t n_sink = n_sequence * known.n_sink < n_row ? n_sequence * known.n_sink : n_row;
    const struct varve_size hot = rings_bytes(row_bytes, ring, n_row);
    const struct varve_size staging = staged_bytes(row_bytes, n_step);
    const struct varve_size runs =
        varve_size_mul(varve_size_of((size_t)runs_in_order(n_row + staged_rows(n_step))),
                       sizeof(struct varve_run));
    const struct varve_size places =
        varve_size_mul(varve_size_of((size_t)n_step), sizeof(struct varve_place));
    const struct varve_size tables =
        varve_size_add(varve_size_sum(runs, varve_hot_grown(places)), sizeof(struct varve_twins));
    if (hot.overflow || staging.overflow || tables.overflow) {
        return varve_fail(host, VARVE_ERROR_OVERFLOW, "the twins are too large");
    }
    *bytes = (struct varve_twins_bytes){
        .hot = hot.value,
        .sinks = varve_slots_bytes(row_bytes, n_sink).value,
        .staging = staging.value,
        .tables = tables.value,
    };
    return VARVE_OK;
}

enum varve_status varve_hot_view_plan(int64_t n_query, int64_t n_row,
                                      struct varve_hot_view_bytes *bytes) {
    if (bytes == NULL || n_query < 0 || n_row < 0) return VARVE_ERROR_ARGUMENT;
    /* From query to query one row leaves the window. All rows that have left it at the end are read
     * hot by the first queries that see them and cold by the last: in two ways. */
    const int64_t n_apart = n_query > 1 ? 2 * (n_query - 1) : 0;
    const struct varve_size mask = varve_look_mask_bytes(n_query, n_apart);
    const struct varve_size words = varve_size_of(1 + 4 * (size_t)runs_in_order(n_row));
    const struct varve_size work =
        varve_size_mul(varve_size_mul(words, (size_t)n_query + 1), sizeof(uint64_t));
    if (mask.overflow || work.overflow) return VARVE_ERROR_OVERFLOW;
    *bytes = (struct varve_hot_view_bytes){mask.value, work.value};
    return VARVE_OK;
}
