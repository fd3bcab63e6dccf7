#include "report.h"

#include "stock.h"

#include <math.h>
#include <stdio.h>

void report_head(const struct bench_case *c, const char *isa) {
    printf("varve %s, %s; ggml %s; %d %s; head size %d/%d, %d heads over %d KV heads\n",
           varve_version(), isa, stock_version(), c->n_thread,
           c->n_thread == 1 ? "thread" : "threads", c->head_dim_k, c->head_dim_v, c->n_head,
           c->n_head_kv);
    printf("medians for one layer; GB/s of a plain read and GFLOPS of F32 multiply-adds beside "
           "them\n\n");
    printf("%-8s %-13s %7s %7s %10s %10s %8s %7s %6s %7s %8s %7s %8s %9s %s\n", "case", "K/V",
           "rows", "queries", "varve ms", "stock ms", "speedup", "GB/s", "read", "of read",
           "GFLOPS", "peak", "of peak", "error", "rounds (stock), layers");
}

static void print_or_dash(int width, int digits, double value) {
    if (isnan(value)) {
        printf(" %*s", width, "-");
    } else {
        printf(" %*.*f", width, digits, value);
    }
}

static void report_notes(const struct bench_result *r) {
    if (!isnan(r->cold_ms)) {
        printf("%9s%.3f x all cold (%.3f ms); of it twins %.1f us, view %.1f us\n", "",
               r->cold_ratio, r->cold_ms, 1e3 * r->twins_ms, 1e3 * r->view_ms);
    }
    if (!isnan(r->full_ms)) {
        printf("%9s%.3f x all rows visible (%.3f ms); by positions %.3f x (%.3f ms)\n", "",
               r->full_ratio, r->full_ms, r->position_ratio, r->position_ms);
    }
    if (!isnan(r->pages_ms)) {
        printf("%9s%.3f ms as pages of %lld rows, %.3f x one segment\n", "", r->pages_ms,
               (long long)r->c.page_rows, r->pages_ratio);
    }
}

void report_line(const struct bench_result *r) {
    char types[32];
    snprintf(types, sizeof types, "%s/%s", varve_format_name(r->c.type_k),
             varve_format_name(r->c.type_v));
    printf("%-8s %-13s %7lld %7lld %10.3f %10.3f %7.2fx %7.1f %6.1f %7.2f",
           bench_kind_name(r->c.kind), types, (long long)r->c.n_row, (long long)r->c.n_query, r->ms,
           r->stock_ms, r->speedup, r->gbps, r->read_gbps, r->read_ratio);
    print_or_dash(8, 1, r->gflops);
    print_or_dash(7, 0, r->peak_gflops);
    print_or_dash(8, 2, r->peak_ratio);
    printf(" %9.1e %d (%d), %lld; %s\n", r->max_rel_err, r->n_round, r->n_stock_round,
           (long long)r->c.n_layer, r->stock);
    report_notes(r);
    fflush(stdout);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *number(double value) { return isnan(value) ? json_null() : json_real(value); }

static json_t *tiers_json(const struct bench_case *c) {
    return c->window > 0 ? json_sprintf("f16:%d", c->window) : json_string("none");
}

static json_t *case_json(const struct bench_result *r) {
    const struct bench_case *const c = &r->c;
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:s, s:s, s:o, s:i, s:i, s:s, s:s, s:s, "
                     "s:I, s:s}",
                     "case", bench_kind_name(c->kind), "head_dim", c->head_dim_k, "head_dim_v",
                     c->head_dim_v, "kv_heads", c->n_head_kv, "q_heads", c->n_head, "kv",
                     (json_int_t)c->n_row, "queries", (json_int_t)c->n_query, "type_k",
                     varve_format_name(c->type_k), "type_v", varve_format_name(c->type_v), "tiers",
                     tiers_json(c), "sinks", c->n_sink, "threads", c->n_thread, "isa", r->isa,
                     "class", r->arithmetic, "kernel", r->kernel, "layers", (json_int_t)c->n_layer,
                     "layout", c->heads_apart ? "heads" : "rows");
}

static json_t *figures_json(const struct bench_result *r) {
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:i, s:i}",
        "ms", number(r->ms), "ms_min", number(r->ms_min), "stock_ms", number(r->stock_ms),
        "stock_flash_ms", number(r->stock_flash_ms), "speedup", number(r->speedup), "bytes",
        number(r->bytes), "gbps", number(r->gbps), "read_gbps", number(r->read_gbps), "read_ratio",
        number(r->read_ratio), "gflops", number(r->gflops), "peak_gflops", number(r->peak_gflops),
        "peak_ratio", number(r->peak_ratio), "max_rel_err", number(r->max_rel_err), "stock_rel_err",
        number(r->stock_rel_err), "stock", r->stock, "rounds", r->n_round, "stock_rounds",
        r->n_stock_round);
}

static json_t *notes_json(const struct bench_result *r) {
    return json_pack("{s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "cold_ms",
                     number(r->cold_ms), "cold_ratio", number(r->cold_ratio), "twins_ms",
                     number(r->twins_ms), "view_ms", number(r->view_ms), "page_rows",
                     (json_int_t)r->c.page_rows, "pages_ms", number(r->pages_ms), "pages_ratio",
                     number(r->pages_ratio), "full_ms", number(r->full_ms), "full_ratio",
                     number(r->full_ratio), "position_ms", number(r->position_ms), "position_ratio",
                     number(r->position_ratio));
}

json_t *report_json(const struct bench_result *r) {
    json_t *const root = case_json(r);
    if (root == NULL || json_object_update_new(root, figures_json(r)) != 0 ||
        json_object_update_new(root, notes_json(r)) != 0) {
        json_decref(root);
        return NULL;
    }
    return root;
}
