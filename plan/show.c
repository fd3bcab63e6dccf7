/* The plan as tables on the terminal. */
#include "plan.h"

#include "model_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { n_text = 32 };

/* Bytes with three digits or more: "512 B", "3.20 MiB", "12.4 GiB". */
static const char *size_text(char text[n_text], uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    const int digits = unit == 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
    snprintf(text, n_text, "%.*f %s", digits, value, units[unit]);
    return text;
}

/* 32768 as "32,768". */
static const char *count_text(char text[n_text], int64_t count) {
    char digits[n_text];
    const int n = snprintf(digits, sizeof(digits), "%" PRId64, count);
    int at = 0;
    for (int i = 0; i < n && at + 2 < n_text; i++) {
        if (i > 0 && (n - i) % 3 == 0) {
            text[at++] = ',';
        }
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}

static void show_size(uint64_t bytes) {
    char text[n_text];
    printf("  %10s", bytes > 0 ? size_text(text, bytes) : "-");
}

/* ---- head ----------------------------------------------------------------------------------- */

static void show_head(const struct plan *plan) {
    const struct plan_options *o = plan->model->options;
    const struct plan_figures *f = &plan->figures;
    char n_ctx[n_text], n_seq[n_text];
    printf("%s%s%s\n", plan->model->name, o->model != NULL ? ", " : "",
           o->model != NULL ? o->model : "");
    if (plan->model->is_random) {
        puts(MODEL_FILE_CAUTION);
    }
    printf("Context of %s tokens", count_text(n_ctx, f->n_ctx));
    if (o->n_slot > 1) {
        printf(o->unified ? ", shared by %" PRId64 " slots" : ", %" PRId64 " slots of %s",
               o->n_slot, count_text(n_seq, f->n_ctx_seq));
    }
    printf("; cache K %s, V %s", o->type_k, o->type_v);
    if (f->hot > 0) {
        printf("; %s and %" PRId64 " sinks", o->tiers.tiers, o->tiers.n_sink);
    }
    printf("; ubatch %" PRId64 "\n", o->n_ubatch);
}

/* ---- layers --------------------------------------------------------------------------------- */

static bool alike(const struct plan_layer *a, const struct plan_layer *b) {
    return a->shares == b->shares && a->n_cell == b->n_cell && a->n_value_k == b->n_value_k &&
           a->n_value_v == b->n_value_v && a->is_latent == b->is_latent && a->cold_k == b->cold_k &&
           a->cold_v == b->cold_v && a->need.hot_k == b->need.hot_k &&
           a->need.hot_v == b->need.hot_v && a->need.work == b->need.work &&
           a->need.staging + a->need.staging_own == b->need.staging + b->need.staging_own;
}

/* Numbers of layers like the first one: "0-2,4-6,8". */
static int list_numbers(const struct plan_figures *f, size_t first, char *text, size_t bytes) {
    int n = 0;
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = first; i < f->n_layer; i++) {
        if (!alike(&f->layers[first], &f->layers[i])) {
            continue;
        }
        size_t end = i;
        while (end + 1 < f->n_layer && alike(&f->layers[first], &f->layers[end + 1])) {
            end++;
        }
        n += (int)(end - i + 1);
        if (used + 24 < bytes) {
            used +=
                (size_t)snprintf(text + used, bytes - used, end > i ? "%s%d-%d" : "%s%d",
                                 used > 0 ? "," : "", f->layers[i].number, f->layers[end].number);
        } else if (used + 4 < bytes && text[used - 1] != '.') {
            used += (size_t)snprintf(text + used, bytes - used, "...");
        }
        i = end;
    }
    return n;
}

static void show_layer(const struct plan_figures *f, size_t first) {
    const struct plan_layer *l = &f->layers[first];
    char numbers[64], cells[n_text], values[n_text];
    const int n = list_numbers(f, first, numbers, sizeof(numbers));
    if (l->is_latent) {
        snprintf(values, sizeof(values), "%" PRId64, l->n_value_k);
    } else {
        snprintf(values, sizeof(values), "%" PRId64 "+%" PRId64, l->n_value_k, l->n_value_v);
    }
    printf("%6d  %10s  %10s", n, count_text(cells, l->n_cell * l->n_stream), values);
    if (l->shares) {
        printf("  %10s  %10s  %10s", "shared", "-", "-");
    } else {
        show_size(l->cold_k + l->cold_v);
        show_size(l->need.hot_k + l->need.hot_v - l->need.sinks_k - l->need.sinks_v);
        show_size(l->need.sinks_k + l->need.sinks_v);
    }
    show_size(l->need.staging + l->need.staging_own + l->need.view);
    show_size(l->need.work + l->need.tables);
    printf("  %s\n", numbers);
}

static void show_layers(const struct plan_figures *f) {
    printf("\nEach layer with attention\n");
    printf("%6s  %10s  %10s  %10s  %10s  %10s  %10s  %10s  %s\n", "layers", "cells", "K+V values",
           "cold", "hot", "sinks", "staging*", "scratch*", "numbers");
    for (size_t i = 0; i < f->n_layer; i++) {
        bool shown = false;
        for (size_t j = 0; j < i && !shown; j++) {
            shown = alike(&f->layers[j], &f->layers[i]);
        }
        if (!shown) {
            show_layer(f, i);
        }
    }
    printf("* one after the other in the same memory, except rows that later layers read again\n");
}

/* ---- total ---------------------------------------------------------------------------------- */

static void show_part(const char *name, uint64_t bytes, const char *what) {
    if (bytes > 0) {
        char text[n_text];
        printf("  %-10s %10s  %s\n", name, size_text(text, bytes), what);
    }
}

static void show_total(const struct plan *plan) {
    const struct plan_figures *f = &plan->figures;
    printf("\nIn all\n");
    show_part("weights", plan->model->weights, "of the model");
    show_part("cold", f->cold, "the KV cache itself");
    show_part("hot", f->hot, "recent rows in F16");
    show_part("sinks", f->sinks, "first rows in F16");
    show_part("staging", f->staging, "rows of one ubatch in F16, and masks where queries differ");
    show_part("state", f->state, "recurrent layers and other caches without attention");
    show_part("cells", f->cells, "llama.cpp's tables of what is in which cell, when full");
    show_part("graphs", f->graphs, "llama.cpp's graphs, scheduler and work buffer, about");
    show_part("mask", f->mask, "llama.cpp's masks for one ubatch");
    show_part("compute", f->compute, "the rest of llama.cpp's compute buffer");
    show_part("scratch", f->scratch, "varve's scratch and tables");
    show_part("output", f->output, "logits");
    show_part("total", f->total + plan->model->weights, "");
}

/* ---- what fits ------------------------------------------------------------------------------ */

static void show_row(const struct plan *plan, const struct plan_row *row) {
    char longest[n_text];
    const bool all = row->longest == most_tokens(plan->model);
    const bool fits = row->longest >= plan->figures.n_ctx || row->total <= plan->ram;
    printf("%c %-7s %-7s", row->chosen ? '>' : ' ', row->type_k, row->type_v);
    if (row->refused[0] != '\0') {
        printf("  refused: %s\n", row->refused);
        return;
    }
    show_size(row->cache);
    show_size(row->total);
    printf("  %-4s  %10s%s\n", fits ? "yes" : "no",
           row->longest > 0 ? count_text(longest, row->longest) : "none", all ? " (all)" : "");
}

static void show_rows(const struct plan *plan) {
    char ram[n_text], n_ctx[n_text];
    printf("\nOther cache types at %s tokens, and what fits into %s%s\n",
           count_text(n_ctx, plan->figures.n_ctx), size_text(ram, plan->ram),
           plan->ram_given ? "" : " (available now; --ram sets it)");
    printf("  %-7s %-7s  %10s  %10s  %-4s  %10s\n", "K", "V", "cache", "with all", "fits",
           "longest");
    for (size_t i = 0; i < plan->n_row; i++) {
        show_row(plan, &plan->rows[i]);
    }
    printf("longest: tokens of all slots together; (all): what the model was trained for\n");
}

void show_plan(const struct plan *plan) {
    show_head(plan);
    if (plan->figures.n_layer > 0) {
        show_layers(&plan->figures);
    }
    show_total(plan);
    show_rows(plan);
    if (plan->model->options->model == NULL) {
        printf("\nWeights are not counted: they are not known from dimensions.\n");
    }
    if (plan->figures.n_layer == 0) {
        printf("\nNo layer has attention that varve could serve.\n");
    } else if (plan->figures.declined != NULL) {
        printf("\nSome layers are left to llama.cpp: %s.\n", plan->figures.declined);
    }
}
