/* What a back end may compute that is free to read each row in F16 or cold: the least and the
 * largest value. For budgets, where which twin is given up is not part of the rule. */
#ifndef VARVE_TEST_HOT_ENVELOPE_H
#define VARVE_TEST_HOT_ENVELOPE_H

#include "hot_model.h"

/* For each row that query i sees: the weight and the value of dimension d in either tier. Where no
 * valid twin exists both are those of the cold row. */
struct hot_choice {
    double weight[2], value[2];
};

static inline bool hot_may_be_hot(const struct hot_view *w, int64_t r) {
    const struct hot_side *s = w->side;
    const int64_t cell = hot_cell(w, r);
    return ggml_is_quantized(s->cache->type) &&
           memcmp(s->bytes + (size_t)cell * s->row_bytes, hot_cold_row(s, cell), s->row_bytes) == 0;
}

/* sum w v / sum w at its largest: at the optimum t each row takes the larger value, and the larger
 * weight if the value is above t, else the smaller one. Each round raises t until nothing changes.
 */
static inline double hot_largest(const struct hot_choice *rows, int64_t n, double sign) {
    double t = -INFINITY;
    for (;;) {
        double sum = 0.0;
        double weights = 0.0;
        for (int64_t r = 0; r < n; r++) {
            const struct hot_choice *c = &rows[r];
            const double v = fmax(sign * c->value[0], sign * c->value[1]);
            const double p =
                v > t ? fmax(c->weight[0], c->weight[1]) : fmin(c->weight[0], c->weight[1]);
            sum += p * v;
            weights += p;
        }
        if (!(sum / weights > t)) {
            return sign * t;
        }
        t = sum / weights;
    }
}

/* Reads all rows of a side in one tier, as far as they have both; `kept` gets what was there. */
static inline void hot_force(struct hot_view *w, int64_t i, enum hot_tier tier,
                             unsigned char *kept) {
    unsigned char *now = w->tier + i * w->t->ne[1];
    memcpy(kept, now, (size_t)w->t->ne[1]);
    for (int64_t r = 0; r < w->t->ne[1]; r++) {
        if (now[r] != HOT_HIDDEN) {
            now[r] = hot_may_be_hot(w, r) ? (unsigned char)tier : HOT_COLD;
        }
    }
}

/* Weights of the rows that query i sees, relative to the largest of either tier. */
static inline struct hot_query hot_both_weights(struct hot_node *n, int64_t i, int64_t h,
                                                struct hot_choice *rows, unsigned char *kept) {
    const int64_t n_kv = n->k.t->ne[1];
    const unsigned char *tier = n->k.tier + i * n_kv;
    struct hot_query q = hot_query_new(n, i, h);
    for (int t = 0; t < 2; t++) {
        hot_force(&n->k, i, t == 0 ? HOT_COLD : HOT_RECENT, kept);
        q.n_seen = 0;
        for (int64_t r = 0; r < n_kv; r++) {
            if (tier[r] != HOT_HIDDEN) {
                const int64_t at = q.n_seen;
                hot_logit(n, &q, i, h / hot_group(n), r);
                rows[at].weight[t] = q.logit[r];
            }
        }
        memcpy(n->k.tier + i * n_kv, kept, (size_t)n_kv);
    }
    for (int64_t at = 0; at < q.n_seen; at++) {
        rows[at].weight[0] = exp(rows[at].weight[0] - q.max);
        rows[at].weight[1] = exp(rows[at].weight[1] - q.max);
    }
    return q;
}

/* Whether a result for query i and head h may come from some choice of tiers. */
static inline bool hot_in_envelope(struct hot_node *n, int64_t i, int64_t h, const float *got) {
    const int64_t n_kv = n->k.t->ne[1];
    unsigned char *kept = hot_alloc(n_kv, 1);
    struct hot_choice *rows = hot_alloc(n_kv, sizeof(*rows));
    const struct hot_query q = hot_both_weights(n, i, h, rows, kept);
    bool good = true;
    for (int64_t d = 0; d < n->v.t->ne[0] && good; d++) {
        double largest = 0.0;
        for (int t = 0; t < 2; t++) {
            hot_force(&n->v, i, t == 0 ? HOT_COLD : HOT_RECENT, kept);
            for (int64_t r = 0, at = 0; r < n_kv; r++) {
                if (kept[r] != HOT_HIDDEN) {
                    rows[at].value[t] = (double)hot_row(&n->v, i, h / hot_group(n), r)[d];
                    largest = fmax(largest, fabs(rows[at++].value[t]));
                }
            }
            memcpy(n->v.tier + i * n_kv, kept, (size_t)n_kv);
        }
        const double slack = tol_output(q.n_seen, q.error, largest);
        good = q.n_seen == 0 ? got[d] == 0.0f
                             : (double)got[d] <= hot_largest(rows, q.n_seen, 1.0) + slack &&
                                   (double)got[d] >= hot_largest(rows, q.n_seen, -1.0) - slack;
    }
    hot_query_free(&q);
    free(rows);
    free(kept);
    return good;
}

#endif
