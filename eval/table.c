#include "table.h"

#include <math.h>
#include <stdio.h>

static double speed(int64_t n_token, double seconds) {
    return n_token > 0 && seconds > 0 ? (double)n_token / seconds : NAN;
}

static void cell(const char *format, int width, double value) {
    char text[48] = "-";
    if (!isnan(value)) {
        snprintf(text, sizeof(text), format, value);
    }
    printf("%*s", width, text);
}

/* The mean with half of its interval's width. */
static void with_interval(const struct statistics_figure *f) {
    char text[48];
    if (isnan(f->low)) {
        snprintf(text, sizeof(text), "%.3g", f->value);
    } else {
        snprintf(text, sizeof(text), "%.3g [%.3g, %.3g]", f->value, f->low, f->high);
    }
    printf("  %-30s", text);
}

static void show_row(const struct eval_result *r) {
    const struct statistics *s = &r->all;
    printf("%-28s%8.2f%10.0f", r->config.label, r->bits_per_value, r->bytes_per_token);
    with_interval(&s->mean);
    cell("%.2g", 9, s->median.value);
    cell("%.3g", 9, s->p99.value);
    cell("%.3g", 9, s->p999.value);
    cell("%.3g", 9, s->max);
    cell("%.2f", 8, 100 * s->same_top.value);
    cell("%.4f", 9, s->ppl_ratio.value);
    cell("%.2f", 8, 100 * s->rms_dp.value);
    cell("%.1f", 9, speed(r->sum.n_prefill, r->sum.prefill_seconds));
    cell("%.1f", 8, speed(r->sum.n_decode, r->sum.decode_seconds));
    printf("%s\n", r->on_front ? "  front" : "");
}

static void show_all(const struct eval_result *results, const int32_t *order, int32_t n) {
    printf("\n%-28s%8s%10s  %-30s%9s%9s%9s%9s%8s%9s%8s%9s%8s\n", "configuration", "bits/", "bytes/",
           "KL divergence, nats", "", "", "", "", "same", "ppl", "RMS", "prefill", "decode");
    printf("%-28s%8s%10s  %-30s%9s%9s%9s%9s%8s%9s%8s%9s%8s\n", "", "value", "token",
           "mean [95 % interval]", "median", "99 %", "99.9 %", "max", "top, %", "ratio", "dp, %",
           "tok/s", "tok/s");
    for (int32_t i = 0; i < n; i++) {
        show_row(&results[order[i]]);
    }
}

static void show_beside(const char *what, const struct eval_result *r,
                        const struct eval_result *other) {
    if (other == NULL) {
        printf("  %-26snot run\n", what);
        return;
    }
    const bool differs = result_difference(r, other) > RESULT_SAME_BYTES;
    printf("  %-26s%-26s%10.0f", what, other->config.label, other->bytes_per_token);
    with_interval(&other->all.mean);
    cell("%.2f", 8, 100 * other->all.same_top.value);
    if (differs) {
        printf("  warning: %+.1f %% bytes",
               100 * (other->bytes_per_token / r->bytes_per_token - 1));
    }
    printf("\n");
}

/* A window is judged by what its bytes buy elsewhere. */
static void show_windows(const struct eval_result *results, const int32_t *order, int32_t n) {
    bool any = false;
    for (int32_t i = 0; i < n; i++) {
        const struct eval_result *r = &results[order[i]];
        if (r->config.window == 0) {
            continue;
        }
        if (!any) {
            printf("\n%-54s%10s  %-30s%8s\n", "windows beside what their bytes buy without",
                   "bytes/tok", "mean KL divergence", "top, %");
        }
        any = true;
        printf("%-54s%10.0f", r->config.label, r->bytes_per_token);
        with_interval(&r->all.mean);
        cell("%.2f", 8, 100 * r->all.same_top.value);
        printf("\n");
        show_beside("same bytes", r, r->same_bytes >= 0 ? &results[r->same_bytes] : NULL);
        show_beside("next larger uniform type", r,
                    r->next_uniform >= 0 ? &results[r->next_uniform] : NULL);
    }
}

static void show_places(const struct eval_options *o, const struct eval_result *results,
                        const int32_t *order, int32_t n) {
    const int32_t n_position = (int32_t)(o->n_ctx - 1 - o->from);
    printf("\n%-28s", "mean KL, by position");
    for (int32_t p = 0; p < n_part; p++) {
        printf("%5d-%-5d", (int)(o->from + (int64_t)n_position * p / n_part),
               (int)(o->from + (int64_t)n_position * (p + 1) / n_part - 1));
    }
    for (int32_t i = 0; i < n; i++) {
        printf("\n%-28s", results[order[i]].config.label);
        for (int32_t p = 0; p < n_part; p++) {
            cell("%.3g", 11, results[order[i]].by_part[p].value);
        }
    }
    printf("\n\n%-28s", "by distance from the end");
    for (int32_t d = 0; d < n_distance_most && 1 << d <= n_position; d++) {
        printf("%7d..", 1 << d);
    }
    for (int32_t i = 0; i < n; i++) {
        printf("\n%-28s", results[order[i]].config.label);
        for (int32_t d = 0; d < n_distance_most && 1 << d <= n_position; d++) {
            cell("%.2g", 9, results[order[i]].by_distance[d].value);
        }
    }
    printf("\n");
}

static void show_texts(const struct eval_text *texts, int32_t n_text,
                       const struct eval_result *results, const int32_t *order, int32_t n) {
    printf("\n%-28s", "mean KL, by text");
    for (int32_t t = 0; t < n_text; t++) {
        printf("  %-30.30s", texts[t].name);
    }
    for (int32_t i = 0; i < n; i++) {
        printf("\n%-28s", results[order[i]].config.label);
        for (int32_t t = 0; t < n_text; t++) {
            with_interval(&results[order[i]].by_text[t].mean);
        }
    }
    printf("\n");
}

static void show_notes(const struct eval_result *results, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const struct eval_result *r = &results[i];
        if (!r->config.stock && r->sum.attention_nodes == 0) {
            printf("%s: attention was left to stock llama.cpp; VARVE_TRACE=1 says why\n",
                   r->config.label);
        }
        if (r->sum.twins_evicted > 0) {
            printf("%s: %llu rows in F16 were lost for want of room\n", r->config.label,
                   (unsigned long long)r->sum.twins_evicted);
        }
    }
}

/* Numbers of the results in order of their bytes; better ones first among equals. */
static void sort(const struct eval_result *results, int32_t *order, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        int32_t at = i;
        for (; at > 0; at--) {
            const struct eval_result *before = &results[order[at - 1]];
            const double bytes = results[i].bytes_per_token - before->bytes_per_token;
            if (bytes > 0 || (bytes == 0 && results[i].all.mean.value >= before->all.mean.value)) {
                break;
            }
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

void table_show(const struct eval_options *o, const struct eval_text *texts, int32_t n_text,
                const struct eval_result *results, int32_t n) {
    int32_t order[3 * CONFIG_LIST_MOST]; /* two are added for each of the list at most */
    double loss = 0;
    for (int32_t i = 0; i < n; i++) {
        loss = results[i].all.loss > loss ? results[i].all.loss : loss;
    }
    sort(results, order, n);
    printf("%lld positions from %d of %d on, mode %s; perplexity of the reference %.4f\n"
           "divergences are too small by %.2g nats at most (docs/EVAL.md 3)\n",
           n > 0 ? (long long)results[0].all.n : 0, (int)o->from, (int)o->n_ctx,
           o->decode ? "decode" : "prefill", n > 0 ? results[0].all.ppl_reference : NAN, loss);
    show_all(results, order, n);
    show_windows(results, order, n);
    show_places(o, results, order, n);
    if (n_text > 1) {
        show_texts(texts, n_text, results, order, n);
    }
    show_notes(results, n);
    fflush(stdout);
}
