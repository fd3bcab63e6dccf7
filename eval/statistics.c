#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t statistics_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

double statistics_uniform(uint64_t *state) {
    return (double)(statistics_random(state) >> 11) * 0x1p-53;
}

double statistics_quantile(const double *sorted, int64_t n, double part) {
    const double at = part * (double)(n - 1);
    const int64_t i = (int64_t)at;
    const double above = i + 1 < n ? sorted[i + 1] : sorted[i];
    return sorted[i] + (at - (double)i) * (above - sorted[i]);
}

/* ---- one sample ----------------------------------------------------------------------------- */

enum { MEAN, MEDIAN, P99, P999, SAME_TOP, LOG_PPL, RMS_DP, n_figure };
enum { n_quantile = 3 };
static const double quantile_parts[n_quantile] = {0.5, 0.99, 0.999};

/* Sums over a block, or over a sample of blocks. */
struct sums {
    int64_t n;
    double kl, same_top, log_ratio, dp2;
};

struct block {
    int32_t text;
    struct sums sums;
};

/* The points in order of their divergence, for quantiles of samples. */
struct sorted {
    double kl;
    int32_t block;
};

struct work {
    int64_t n_point;
    int32_t n_block;
    struct block *blocks;  /* this and the next three are owned */
    struct sorted *sorted; /* n_point */
    int32_t *weights;      /* how often a block was drawn */
    double *replicates;    /* n_figure times n_replicate */
};

static struct sums add(struct sums a, const struct sums *b, double weight) {
    return (struct sums){a.n + (int64_t)weight * b->n, a.kl + weight * b->kl,
                         a.same_top + weight * b->same_top, a.log_ratio + weight * b->log_ratio,
                         a.dp2 + weight * b->dp2};
}

/* Quantiles of the points, each taken as often as its block was drawn: one walk. */
static void quantiles(const struct work *w, int64_t n, double *out) {
    int64_t seen = 0;
    int next = 0;
    double last = 0;
    bool half = false; /* the lower order statistic of the next quantile is in `last` */
    for (int64_t i = 0; i < w->n_point && next < n_quantile; i++) {
        seen += w->weights[w->sorted[i].block];
        while (next < n_quantile) {
            const double at = quantile_parts[next] * (double)(n - 1);
            const int64_t lower = (int64_t)at;
            if (!half && seen > lower) {
                last = w->sorted[i].kl;
                half = true;
            }
            const int64_t upper = lower + 1 < n ? lower + 1 : lower;
            if (!half || seen <= upper) {
                break;
            }
            out[next++] = last + (at - (double)lower) * (w->sorted[i].kl - last);
            half = false;
        }
    }
}

static void measure(const struct work *w, double figures[n_figure]) {
    struct sums total = {0};
    for (int32_t b = 0; b < w->n_block; b++) {
        total = add(total, &w->blocks[b].sums, w->weights[b]);
    }
    const double n = (double)total.n;
    figures[MEAN] = total.kl / n;
    figures[SAME_TOP] = total.same_top / n;
    figures[LOG_PPL] = total.log_ratio / n;
    figures[RMS_DP] = sqrt(total.dp2 / n);
    quantiles(w, total.n, figures + MEDIAN);
}

/* ---- replicates ----------------------------------------------------------------------------- */

/* Draws, for each text, as many of its blocks as it has, with replacement. */
static void draw(struct work *w, uint64_t *random) {
    memset(w->weights, 0, (size_t)w->n_block * sizeof(*w->weights));
    for (int32_t first = 0, end = 0; first < w->n_block; first = end) {
        while (end < w->n_block && w->blocks[end].text == w->blocks[first].text) {
            end++;
        }
        for (int32_t i = first; i < end; i++) {
            w->weights[first + (int32_t)(statistics_uniform(random) * (end - first))]++;
        }
    }
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int by_divergence(const void *a, const void *b) {
    const struct sorted *x = a, *y = b;
    return x->kl != y->kl ? (x->kl > y->kl) - (x->kl < y->kl)
                          : (x->block > y->block) - (x->block < y->block);
}

static void replicate(struct work *w, const struct statistics_layout *layout,
                      struct statistics_figure figures[n_figure]) {
    const int32_t n = layout->n_replicate;
    uint64_t random = layout->seed;
    for (int32_t r = 0; r < n; r++) {
        double one[n_figure];
        draw(w, &random);
        measure(w, one);
        for (int f = 0; f < n_figure; f++) {
            w->replicates[(int64_t)f * n + r] = one[f];
        }
    }
    for (int f = 0; f < n_figure; f++) {
        double *values = w->replicates + (int64_t)f * n;
        qsort(values, (size_t)n, sizeof(*values), by_value);
        figures[f].low = statistics_quantile(values, n, 0.025);
        figures[f].high = statistics_quantile(values, n, 0.975);
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

static bool allocate(struct work *w, const struct statistics_layout *layout) {
    const int64_t n_in_chunk = (layout->n_position + layout->block - 1) / layout->block;
    w->n_point = (int64_t)layout->n_chunk * layout->n_position;
    w->blocks = calloc((size_t)(layout->n_chunk * n_in_chunk), sizeof(*w->blocks));
    w->weights = malloc((size_t)(layout->n_chunk * n_in_chunk) * sizeof(*w->weights));
    w->sorted = malloc((size_t)w->n_point * sizeof(*w->sorted));
    w->replicates = malloc(n_figure * ((size_t)layout->n_replicate + 1) * sizeof(double));
    return w->blocks != NULL && w->weights != NULL && w->sorted != NULL && w->replicates != NULL;
}

static void take_points(struct work *w, const struct topk_point *points,
                        const struct statistics_layout *layout, struct statistics *out) {
    double log_p = 0, loss = 0, loss2 = 0;
    for (int64_t i = 0; i < w->n_point; i++) {
        const struct topk_point *point = &points[i];
        const int32_t position = (int32_t)(i % layout->n_position);
        w->n_block += position % layout->block == 0;
        struct block *block = &w->blocks[w->n_block - 1];
        block->text = layout->text_of_chunk[i / layout->n_position];
        const double dp = exp(point->log_q) - exp(point->log_p);
        const struct sums one = {1, point->kl, (double)point->same_top, point->log_p - point->log_q,
                                 dp * dp};
        block->sums = add(block->sums, &one, 1);
        w->sorted[i] = (struct sorted){point->kl, w->n_block - 1};
        log_p += point->log_p;
        loss += point->loss;
        loss2 += point->loss * point->loss;
    }
    const double n = (double)w->n_point, mean = loss / n;
    const double variance = loss2 / n - mean * mean;
    out->n = w->n_point;
    out->ppl_reference = exp(-log_p / n);
    out->loss = (mean > 0 ? mean : 0) + 3 * sqrt((variance > 0 ? variance : 0) / n);
}

static void fill(struct statistics *out, const struct statistics_figure figures[n_figure]) {
    out->mean = figures[MEAN];
    out->median = figures[MEDIAN];
    out->p99 = figures[P99];
    out->p999 = figures[P999];
    out->same_top = figures[SAME_TOP];
    out->rms_dp = figures[RMS_DP];
    out->ppl_ratio = (struct statistics_figure){
        exp(figures[LOG_PPL].value), exp(figures[LOG_PPL].low), exp(figures[LOG_PPL].high)};
}

bool statistics_compute(const struct topk_point *points, const struct statistics_layout *layout,
                        struct statistics *out) {
    struct work w = {0};
    const bool ok = allocate(&w, layout);
    if (ok) {
        struct statistics_figure figures[n_figure];
        double values[n_figure];
        take_points(&w, points, layout, out);
        qsort(w.sorted, (size_t)w.n_point, sizeof(*w.sorted), by_divergence);
        for (int32_t b = 0; b < w.n_block; b++) {
            w.weights[b] = 1;
        }
        measure(&w, values);
        for (int f = 0; f < n_figure; f++) {
            figures[f] = (struct statistics_figure){values[f], NAN, NAN};
        }
        if (w.n_block >= statistics_least_blocks && layout->n_replicate > 0) {
            replicate(&w, layout, figures);
        }
        fill(out, figures);
        out->max = w.sorted[w.n_point - 1].kl;
    }
    free(w.blocks);
    free(w.weights);
    free(w.sorted);
    free(w.replicates);
    return ok;
}
