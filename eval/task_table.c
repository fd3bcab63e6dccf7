#include "task_table.h"

#include <stdio.h>

static void show_rate(const struct task_count *c) {
    char text[48];
    snprintf(text, sizeof(text), "%.1f [%.1f, %.1f]", 100 * c->rate.value, 100 * c->rate.low,
             100 * c->rate.high);
    printf("  %-20s", text);
}

static void show_row(enum task_kind kind, const char *label, const struct task_result *r) {
    printf("%-28s%6lld of %-6lld", label, (long long)r->items.right, (long long)r->items.of);
    show_rate(&r->items);
    printf("%6lld%6lld%8.2g", (long long)r->lost, (long long)r->won, r->p);
    if (kind == TASK_PASSKEY) {
        for (int d = 0; d < task_n_depth; d++) {
            printf("%7.0f", 100 * r->by_depth[d].count.rate.value);
        }
    } else {
        show_rate(&r->tokens);
    }
    printf("\n");
}

static void show_head(enum task_kind kind) {
    printf("\n%-28s%16s  %-20s%6s%6s%8s", kind == TASK_PASSKEY ? "pass keys" : "lines copied",
           "right", "  %, 95 % interval", "lost", "won", "p");
    if (kind == TASK_PASSKEY) {
        for (int d = 0; d < task_n_depth; d++) {
            printf("%4s%.1f", "@", task_depths[d]);
        }
    } else {
        printf("  %s", "tokens right, %");
    }
    printf("\n");
}

void task_table_show(const struct eval_options *o, const struct task_result reference[n_task],
                     const struct eval_result *results, int32_t n) {
    for (int k = 0; k < n_task; k++) {
        const enum task_kind kind = (enum task_kind)k;
        if (!o->tasks[k]) {
            continue;
        }
        show_head(kind);
        show_row(kind, "reference", &reference[k]);
        for (int32_t i = 0; i < n; i++) {
            show_row(kind, results[i].config.label, &results[i].tasks[k]);
        }
    }
    fflush(stdout);
}
