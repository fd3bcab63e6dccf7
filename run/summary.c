#include "summary.h"

#include "model_file.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A line of the table, one column for each run. */
struct line {
    const char *title, *group, *name;
    const char *format;
    double unit;
};

#define MIB (1024.0 * 1024.0)

static const struct line lines[] = {
    {"prompt: tokens", "prompt", "read", "%.0f", 1},
    {"        seconds", "prompt", "seconds", "%.1f", 1},
    {"        tokens/s", "prompt", "tokens_per_second", "%.1f", 1},
    {"generated: tokens", "generated", "tokens", "%.0f", 1},
    {"        seconds", "generated", "seconds", "%.1f", 1},
    {"        tokens/s", "generated", "tokens_per_second", "%.1f", 1},
    {"KV cache, cells", "kv", "context", "%.0f", 1},
    {"        cold, MiB", "kv", "bytes_cold", "%.2f", MIB},
    {"        hot, MiB", "kv", "bytes_hot", "%.2f", MIB},
    {"        staging, MiB", "kv", "bytes_staging", "%.2f", MIB},
    {"        all as f16, MiB", "kv", "bytes_f16", "%.2f", MIB},
    {"KL divergence from f16, nats: mean", "divergence", "mean", "%.3g", 1},
    {"        max", "divergence", "max", "%.3g", 1},
    {"        same top token, %", "divergence", "same_top", "%.1f", 0.01},
};

/* A number at a place like "prompt", "seconds"; NaN where there is none. */
static double number(const json_t *report, const char *group, const char *name) {
    const json_t *value = json_object_get(json_object_get(report, group), name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *string(const json_t *report, const char *name) {
    return json_string_value(json_object_get(report, name));
}

static void cell(double value, const char *format, double unit, int width) {
    char text[32] = "-";
    if (!isnan(value)) {
        snprintf(text, sizeof(text), format, value / unit);
    }
    fprintf(stderr, "%*s", width, text);
}

static void show_head(const json_t *runs) {
    size_t i = 0;
    const json_t *report = NULL;
    fprintf(stderr, "\n%-35s", "");
    json_array_foreach(runs, i, report) { fprintf(stderr, "%14s", string(report, "name")); }
    fprintf(stderr, "\n%-35s", "cache type of K/V");
    json_array_foreach(runs, i, report) {
        char types[32];
        snprintf(types, sizeof(types), "%s/%s", string(report, "type_k"), string(report, "type_v"));
        fprintf(stderr, "%14s", types);
    }
    fputc('\n', stderr);
}

/* Lines that no run has anything for are left out. */
static void show_line(const struct line *line, const json_t *runs) {
    size_t i = 0;
    const json_t *report = NULL;
    bool any = false;
    json_array_foreach(runs, i, report) {
        any = any || !isnan(number(report, line->group, line->name));
    }
    if (!any) {
        return;
    }
    fprintf(stderr, "%-35s", line->title);
    json_array_foreach(runs, i, report) {
        cell(number(report, line->group, line->name), line->format, line->unit, 14);
    }
    fputc('\n', stderr);
}

static void show_rows(const json_t *report) {
    static const char *const names[] = {"hot", "sink", "cold", "missed", "stale", "evicted"};
    enum { n_name = sizeof(names) / sizeof(names[0]) };
    const json_t *rows = json_object_get(report, "rows");
    if (!json_is_object(rows)) {
        return; /* stock, or a plug-in without a hot tier */
    }
    fprintf(stderr, "%-5s", "rows");
    for (int i = 0; i < n_name; i++) {
        fprintf(stderr, "%12s", names[i]);
    }
    for (int side = 0; side < 2; side++) {
        fprintf(stderr, "\n%-5s", side == 0 ? "  K" : "  V");
        for (int i = 0; i < n_name; i++) {
            cell(number(rows, side == 0 ? "k" : "v", names[i]), "%.0f", 1, 12);
        }
    }
    fputc('\n', stderr);
}

static void show_unserved(const json_t *report) {
    const json_int_t n_node = json_integer_value(json_object_get(report, "attention_nodes"));
    if (strcmp(string(report, "name"), "varve") == 0 && n_node == 0 &&
        number(report, "generated", "tokens") > 0) {
        fputs("attention was left to stock llama.cpp: VARVE_DISABLE is set, or VARVE_TRACE=1 says "
              "why\n",
              stderr);
    }
}

static void show_stop(const json_t *report) {
    const char *reason = string(report, "stopped");
    if (reason != NULL) {
        fprintf(stderr,
                "%s, cache %s/%s: stopped (%s) after %.0f of %.0f tokens of the prompt and %.0f "
                "generated\n",
                string(report, "name"), string(report, "type_k"), string(report, "type_v"), reason,
                number(report, "prompt", "read"), number(report, "prompt", "tokens"),
                number(report, "generated", "tokens"));
    }
}

void summary_show(const json_t *runs) {
    size_t i = 0;
    const json_t *report = NULL;
    if (json_array_size(runs) == 0) {
        return;
    }
    show_head(runs);
    if (json_is_true(json_object_get(json_array_get(runs, 0), "random_weights"))) {
        fputs(MODEL_FILE_CAUTION "\n", stderr);
    }
    for (size_t n = 0; n < sizeof(lines) / sizeof(lines[0]); n++) {
        show_line(&lines[n], runs);
    }
    json_array_foreach(runs, i, report) { show_rows(report); }
    json_array_foreach(runs, i, report) {
        show_unserved(report);
        show_stop(report);
    }
}
