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

#endif
