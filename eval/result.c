#include "result.h"

#include "args.h"
#include "store.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    block = 32, /* positions: docs/EVAL.md 4 */
    n_replicate = 1000,
};

struct eval_cell result_cell(const struct eval_result *r) {
    const double n = (double)r->sum.n_cell;
    return (struct eval_cell){(double)r->sum.values_k / n, (double)r->sum.values_v / n};
}

/* ---- figures -------------------------------------------------------------------------------- */

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static bool add_chunks(struct eval_result *r, const struct store *store) {
    struct eval_chunk *s = &r->sum;
    for (int32_t c = 0; c < store->n_done; c++) {
        struct eval_chunk f;
        if (!store_read_figures(store, c, &f)) {
            return false;
        }
        s->prefill_seconds += f.prefill_seconds;
        s->decode_seconds += f.decode_seconds;
        s->n_prefill += f.n_prefill;
        s->n_decode += f.n_decode;
        s->n_cell = f.n_cell;
        s->values_k = f.values_k;
        s->values_v = f.values_v;
        s->bytes_cold = larger(s->bytes_cold, f.bytes_cold);
        s->bytes_hot = larger(s->bytes_hot, f.bytes_hot);
        s->bytes_staging = larger(s->bytes_staging, f.bytes_staging);
        s->bytes_hot_peak = larger(s->bytes_hot_peak, f.bytes_hot_peak);
        s->attention_nodes += f.attention_nodes;
        s->rows_missed += f.rows_missed;
        s->twins_evicted += f.twins_evicted;
    }
    const double n = (double)s->n_cell, bytes = (double)(s->bytes_cold + s->bytes_hot_peak);
    r->cold_bytes_per_token = (double)s->bytes_cold / n;
    r->bytes_per_token = bytes / n;
    r->bits_per_value = 8 * bytes / (double)(s->values_k + s->values_v);
    return true;
}

/* Means over positions first to end of each chunk, with an interval by whole chunks where there
 * are enough of them. */
static bool part_mean(const struct topk_point *points, const struct statistics_layout *layout,
                      int32_t first, int32_t end, struct statistics_figure *mean) {
    const int32_t n = end - first;
    struct topk_point *some = malloc((size_t)layout->n_chunk * (size_t)n * sizeof(*some));
    struct statistics s;
    struct statistics_layout part = *layout;
    part.n_position = n;
    for (int32_t c = 0; c < layout->n_chunk && some != NULL; c++) {
        memcpy(some + (int64_t)c * n, points + (int64_t)c * layout->n_position + first,
               (size_t)n * sizeof(*some));
    }
    const bool ok = some != NULL && statistics_compute(some, &part, &s);
    *mean = ok ? s.mean : (struct statistics_figure){NAN, NAN, NAN};
    free(some);
    return ok;
}

static bool by_place(struct eval_result *r, const struct topk_point *points,
                     const struct statistics_layout *layout) {
    const int32_t n = layout->n_position;
    bool ok = true;
    for (int32_t i = 0; i < n_part; i++) {
        const int32_t first = (int32_t)((int64_t)n * i / n_part);
        const int32_t end = (int32_t)((int64_t)n * (i + 1) / n_part);
        r->by_part[i] = (struct statistics_figure){NAN, NAN, NAN};
        ok = ok && (first == end || part_mean(points, layout, first, end, &r->by_part[i]));
    }
    for (int32_t i = 0; i < n_distance_most; i++) {
        const int32_t near = 1 << i, far = 2 * near - 1 < n ? 2 * near - 1 : n;
        r->by_distance[i] = (struct statistics_figure){NAN, NAN, NAN};
        ok = ok &&
             (near > n || part_mean(points, layout, n - far, n - near + 1, &r->by_distance[i]));
    }
    return ok;
}

static bool compute(struct eval_result *r, const struct topk_point *points, const int32_t *chunks,
                    int32_t n_text, struct statistics_layout *layout) {
    int32_t *texts = malloc((size_t)layout->n_chunk * sizeof(*texts));
    r->by_text = calloc((size_t)n_text, sizeof(*r->by_text));
    bool ok = texts != NULL && r->by_text != NULL;
    for (int32_t t = 0, c = 0; t < n_text && ok; t++) {
        struct statistics_layout one = *layout;
        one.n_chunk = chunks[t];
        one.text_of_chunk = texts + c;
        for (int32_t i = 0; i < chunks[t]; i++) {
            texts[c + i] = t;
        }
        ok = statistics_compute(points + (int64_t)c * layout->n_position, &one, &r->by_text[t]);
        c += chunks[t];
    }
    layout->text_of_chunk = texts;
    ok = ok && statistics_compute(points, layout, &r->all) && by_place(r, points, layout);
    free(texts);
    return ok;
}

bool result_load(struct eval_result *r, const struct eval_config *config, const char *path,
                 const int32_t *chunks, int32_t n_text, uint64_t seed) {
    struct store store;
    *r = (struct eval_result){.config = *config, .same_bytes = -1, .next_uniform = -1};
    bool ok = store_open_read(&store, path);
    struct statistics_layout layout = {
        store.shape.n_chunk, store.shape.n_row, NULL, block, n_replicate, seed};
    const size_t n_point = (size_t)layout.n_chunk * (size_t)layout.n_position;
    struct topk_point *points = ok ? malloc(n_point * sizeof(*points)) : NULL;
    for (int32_t c = 0; c < layout.n_chunk && ok && points != NULL; c++) {
        ok = store_read_rows(&store, c, 0, layout.n_position,
                             points + (int64_t)c * layout.n_position);
    }
    ok = ok && add_chunks(r, &store);
    if (ok && (points == NULL || !compute(r, points, chunks, n_text, &layout))) {
        cli_say("out of memory");
        ok = false;
    }
    store_close(&store);
    free(points);
    return ok;
}

void result_free(struct eval_result *r) { free(r->by_text); }

/* ---- comparison ----------------------------------------------------------------------------- */

double result_difference(const struct eval_result *a, const struct eval_result *b) {
    return fabs(a->bytes_per_token / b->bytes_per_token - 1);
}

/* A configuration without window that computes as those with windows do. */
static bool is_plain(const struct eval_config *c) {
    return c->window == 0 && !c->stock && !c->no_rotation;
}

static int32_t find(const struct eval_result *results, int32_t n, const char *label) {
    for (int32_t i = 0; i < n; i++) {
        if (strcmp(results[i].config.label, label) == 0) {
            return i;
        }
    }
    return -1;
}

/* The nearest in bytes of those that were run. */
static int32_t nearest(const struct eval_result *results, int32_t n, int32_t to) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++) {
        if (is_plain(&results[i].config) &&
            (best < 0 || fabs(results[i].bytes_per_token - results[to].bytes_per_token) <
                             fabs(results[best].bytes_per_token - results[to].bytes_per_token))) {
            best = i;
        }
    }
    return best;
}

static bool is_beaten(const struct eval_result *results, int32_t n, int32_t i) {
    for (int32_t j = 0; j < n; j++) {
        const double bytes = results[j].bytes_per_token - results[i].bytes_per_token;
        const double kl = results[j].all.mean.value - results[i].all.mean.value;
        if (bytes <= 0 && kl <= 0 && (bytes < 0 || kl < 0)) {
            return true;
        }
    }
    return false;
}

void result_compare(struct eval_result *results, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        struct eval_result *r = &results[i];
        r->on_front = !is_beaten(results, n, i);
        if (r->config.window > 0) {
            const struct eval_cell cell = result_cell(r);
            r->same_bytes = nearest(results, n, i);
            r->next_uniform =
                find(results, n, config_next_uniform(r->bytes_per_token, &cell).label);
        }
    }
}
