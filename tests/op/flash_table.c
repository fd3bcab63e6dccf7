#include "flash_table.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flash_check.h"
#include "flash_run.h"

/* What test-backend-ops of ggml allows FLASH_ATTN_EXT on any back end: a normalised squared error.
 * Stock rounds Q to the type of K, and sums F16 V in F16 (docs/NUMERICS.md 6). */
#define STOCK_SQUARED 5e-4
/* On F32 rows it rounds no more than sums of F32 do: 1e-5 relative, squared, with a margin. */
#define STOCK_SQUARED_F32 1e-9

static const char *const way_names[FLASH_WAYS] = {"one call", "chain", "partials"};

struct row {
    const struct flash_case *c;
    struct flash_data data;
    struct flash_truth truth;      /* of all rows */
    struct flash_truth normalised; /* the same in a chain that stores divided states */
    struct flash_result results[FLASH_WAYS];
    struct flash_difference ways[FLASH_WAYS];
    float *stock;
    const char *stock_kind;
    struct flash_difference stock_difference;
    double worst; /* ratio */
    char failures[2048];
};

static void fail(struct row *row, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct row *row, const char *format, ...) {
    const size_t used = strlen(row->failures);
    va_list args;
    va_start(args, format);
    if (used + 2 < sizeof row->failures) {
        strcpy(row->failures + used, "\n    FAIL ");
        const size_t now = strlen(row->failures);
        vsnprintf(row->failures + now, sizeof row->failures - now, format, args);
    }
    va_end(args);
}

/* ---- the truth ------------------------------------------------------------------------------ */

static const float no_sink = -INFINITY; /* adds nothing */

/* Of a chain whose states are stored divided; of all other ways nothing is added. */
static bool stores_divided(const struct flash_case *c) { return c->normalise && !c->state_with_o; }

static void find_truth(struct row *row) {
    const struct flash_case *const c = row->c;
    flash_truth_of(&row->data, row->data.n_rows, &row->truth);
    flash_truth_with_sinks(&row->truth, &no_sink, 1, &row->normalised); /* a copy */
    if (stores_divided(c)) flash_truth_allow_normalised(&row->normalised, c->n_call);
}

/* What a result is compared with: with sinks, if it has them. The caller frees. */
static void truth_of_way(const struct row *row, int way, bool sinks, struct flash_truth *truth) {
    const struct flash_truth *const base = way == FLASH_CHAIN ? &row->normalised : &row->truth;
    const bool has_sinks = sinks && row->data.sinks != NULL;
    flash_truth_with_sinks(base, has_sinks ? row->data.sinks->data : &no_sink,
                           has_sinks ? row->c->n_head : 1, truth);
}

/* ---- checks --------------------------------------------------------------------------------- */

static void note_ratio(struct row *row, const char *what, int way, double ratio) {
    row->worst = fmax(row->worst, ratio);
    if (ratio <= 1) return;
    fail(row, "%s: %s off by %.3g times what rounding can do", way_names[way], what, ratio);
}

static void check_state(struct row *row, int way) {
    const struct flash_result *const r = &row->results[way];
    struct flash_truth truth;
    truth_of_way(row, way, r->lse_has_sinks, &truth);
    if (r->lse != NULL) {
        note_ratio(row, r->lse_has_sinks ? "the LSE" : "the state's LSE", way,
                   flash_compare_lse(&truth, r->lse));
    }
    if (r->from_state != NULL) {
        note_ratio(row, "the state's o", way, flash_compare(&truth, r->from_state).ratio);
    }
    flash_truth_free(&truth);
}

static void check_prefix(struct row *row) {
    const struct flash_result *const r = &row->results[FLASH_CHAIN];
    if (r->prefix == NULL) return;
    const int64_t n_rows[FLASH_PARTS] = {flash_case_rows(row->c, 0, r->n_prefix),
                                         flash_case_rows(row->c, 1, r->n_prefix)};
    struct flash_truth truth;
    flash_truth_of(&row->data, n_rows, &truth);
    if (stores_divided(row->c)) flash_truth_allow_normalised(&truth, r->n_prefix);
    note_ratio(row, "the divided result of an earlier call", FLASH_CHAIN,
               flash_compare(&truth, r->prefix).ratio);
    flash_truth_free(&truth);
}

static void check_output(struct row *row, int way) {
    struct flash_truth truth;
    truth_of_way(row, way, true, &truth);
    row->ways[way] = flash_compare(&truth, row->results[way].output);
    flash_truth_free(&truth);
    if (row->ways[way].all_zero) {
        fail(row, "%s: the output is all zero, the oracle's is not", way_names[way]);
    }
    note_ratio(row, "the output", way, row->ways[way].ratio);
    if (row->c->tolerance > 0 && !(row->ways[way].absolute <= row->c->tolerance)) {
        fail(row, "%s: %.3g from the oracle, at most %g", way_names[way], row->ways[way].absolute,
             row->c->tolerance);
    }
}

static bool equal_floats(const float *a, const float *b, int64_t n) {
    if (a == NULL || b == NULL) return a == b;
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

static void check_threads(struct row *row, int way) {
    const struct flash_result *const first = &row->results[way];
    struct flash_result again;
    flash_run(&row->data, (enum flash_way)way, row->c->n_thread_again, &again);
    if (again.error != NULL || !equal_floats(first->output, again.output, first->n_output) ||
        !equal_floats(first->lse, again.lse, first->n_record) ||
        !equal_floats(first->from_state, again.from_state, first->n_output)) {
        fail(row, "%s: other bits with %d threads than with %d", way_names[way],
             row->c->n_thread_again, row->c->n_thread);
    }
    flash_result_free(&again);
}

static void run_way(struct row *row, int way) {
    flash_run(&row->data, (enum flash_way)way, row->c->n_thread, &row->results[way]);
    if (row->results[way].error != NULL || row->results[way].output == NULL) {
        fail(row, "%s: %s", way_names[way],
             row->results[way].error != NULL ? row->results[way].error : "no result");
        row->ways[way].absolute = row->ways[way].relative = INFINITY;
        return;
    }
    check_output(row, way);
    check_state(row, way);
    if (way == FLASH_CHAIN) check_prefix(row);
    check_threads(row, way);
}

/* ---- stock ---------------------------------------------------------------------------------- */

static double stock_limit(const struct row *row) {
    for (int p = 0; p < FLASH_PARTS; p++) {
        if (row->data.n_rows[p] == 0) continue;
        const bool f32 = row->c->k_type[p] == GGML_TYPE_F32 && row->c->v_type[p] == GGML_TYPE_F32;
        if (!f32) return STOCK_SQUARED;
    }
    return STOCK_SQUARED_F32;
}

static void run_stock(struct row *row) {
    row->stock = flash_run_stock(&row->data, 2, &row->stock_kind);
    if (row->stock == NULL) return;
    struct flash_truth truth;
    truth_of_way(row, FLASH_ONE_CALL, true, &truth);
    row->stock_difference = flash_compare(&truth, row->stock);
    flash_truth_free(&truth);
    if (!(row->stock_difference.squared <= stock_limit(row))) {
        fail(row, "stock ggml and the oracle differ: squared error %.3g, at most %g",
             row->stock_difference.squared, stock_limit(row));
    }
}

/* Where a tolerance is given it holds between each way and stock too. */
static double distance_to_stock(struct row *row, int way) {
    const struct flash_result *const r = &row->results[way];
    if (row->stock == NULL || r->output == NULL) return 0;
    const double distance = flash_distance(row->stock, r->output, r->n_output);
    if (row->c->tolerance > 0 && !(distance <= row->c->tolerance)) {
        fail(row, "%s: %.3g from stock ggml, at most %g", way_names[way], distance,
             row->c->tolerance);
    }
    return distance;
}

/* ---- printing ------------------------------------------------------------------------------- */

void flash_table_head(void) {
    printf("largest differences from the oracle (absolute, and relative to the largest value); "
           "`bound`: the worst in units of what rounding can do\n"
           "%-24s %-9s %-17s  %-17s  %-17s  %-17s  %-8s %-5s %s\n",
           "case", "stock on", "stock", "one call", "chain", "partials", "to stock", "bound", "");
}

static void print_row(struct row *row) {
    char text[512];
    double to_stock = 0;
    for (int way = 0; way < FLASH_WAYS; way++) {
        to_stock = fmax(to_stock, distance_to_stock(row, way));
    }
    flash_case_describe(row->c, text, sizeof text);
    printf("%-24s %-9s ", row->c->name, row->stock_kind);
    if (row->stock != NULL) {
        printf("%8.2e %8.2e  ", row->stock_difference.absolute, row->stock_difference.relative);
    } else {
        printf("%8s %8s  ", "-", "-");
    }
    for (int way = 0; way < FLASH_WAYS; way++) {
        printf("%8.2e %8.2e  ", row->ways[way].absolute, row->ways[way].relative);
    }
    printf("%8.2e %5.2f %s | %s%s\n", to_stock, row->worst,
           row->failures[0] != '\0' ? "FAIL" : "ok  ", text, row->failures);
    fflush(stdout);
}

void flash_table_row(const struct flash_case *c, struct flash_totals *totals) {
    struct row row = {.c = c};
    flash_data_create(&row.data, c);
    find_truth(&row);
    run_stock(&row);
    if (c->poison) flash_data_poison(&row.data); /* stock may read rows that nobody sees */
    for (int way = 0; way < FLASH_WAYS; way++) run_way(&row, way);
    print_row(&row);
    *(row.failures[0] != '\0' ? &totals->n_failed : &totals->n_passed) += 1;
    for (int way = 0; way < FLASH_WAYS; way++) flash_result_free(&row.results[way]);
    free(row.stock);
    flash_truth_free(&row.truth);
    flash_truth_free(&row.normalised);
    flash_data_destroy(&row.data);
}
