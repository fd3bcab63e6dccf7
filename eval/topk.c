#include "topk.h"

#include <math.h>
#include <stdlib.h>

bool topk_init(struct topk *topk, int32_t n_vocab, int32_t k, int32_t n_sample) {
    *topk = (struct topk){.n_vocab = n_vocab, .k = k, .n_sample = n_sample};
    topk->order = malloc((size_t)n_vocab * sizeof(*topk->order));
    topk->kept = calloc((size_t)n_vocab, 1);
    return topk->order != NULL && topk->kept != NULL;
}

void topk_free(struct topk *topk) {
    free(topk->order);
    free(topk->kept);
}

size_t topk_row_bytes(const struct topk *topk) {
    return sizeof(struct topk_row) +
           ((size_t)topk->k + (size_t)topk->n_sample) * sizeof(struct topk_entry);
}

/* ---- selection ------------------------------------------------------------------------------ */

/* A strict order, so that ties do not depend on how they were met. */
static bool before(const float *logits, int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void swap(int32_t *order, int32_t i, int32_t j) {
    const int32_t token = order[i];
    order[i] = order[j];
    order[j] = token;
}

/* Puts the k first of order[0..n) into its first k places (Hoare's selection). */
static void select_first(const float *logits, int32_t *order, int32_t n, int32_t k) {
    int32_t low = 0, high = n - 1;
    while (low < high) {
        const int32_t pivot = order[low + (high - low) / 2];
        int32_t i = low, j = high;
        while (i <= j) {
            while (before(logits, order[i], pivot)) i++;
            while (before(logits, pivot, order[j])) j--;
            if (i <= j) {
                swap(order, i++, j--);
            }
        }
        if (k - 1 <= j) {
            high = j;
        } else if (k - 1 >= i) {
            low = i;
        } else {
            return;
        }
    }
}

static int by_logit(const void *a, const void *b) {
    const struct topk_entry *x = a, *y = b;
    if (x->logit != y->logit) {
        return x->logit > y->logit ? -1 : 1;
    }
    return (x->token > y->token) - (x->token < y->token);
}

/* ---- sums ----------------------------------------------------------------------------------- */

struct sums {
    double max, all, rest; /* of exp(logit - max): all tokens, those that are not kept */
    int32_t top;           /* the first of the most likely tokens */
};

/* What remains is summed by itself: as a difference it would drown in roundings. */
static bool add_up(const struct topk *topk, const float *logits, struct sums *sums) {
    *sums = (struct sums){.max = logits[0]};
    for (int32_t j = 1; j < topk->n_vocab; j++) {
        if (logits[j] > logits[sums->top]) {
            sums->top = j;
        }
    }
    sums->max = logits[sums->top];
    double kept = 0;
    for (int32_t j = 0; j < topk->n_vocab; j++) {
        const double e = exp(logits[j] - sums->max);
        kept += topk->kept[j] ? e : 0;
        sums->rest += topk->kept[j] ? 0 : e;
    }
    sums->all = kept + sums->rest;
    return isfinite(sums->max) && isfinite(sums->all);
}

static void mark(struct topk *topk, const struct topk_row *row, uint8_t flag) {
    for (int32_t i = 0; i < topk->k; i++) {
        topk->kept[row->entries[i].token] = flag;
    }
}

/* ---- the reference -------------------------------------------------------------------------- */

/* Tokens of the remainder in proportion to their probabilities, at equal steps of their sum. */
static void sample(const struct topk *topk, const float *logits, const struct sums *sums,
                   double uniform, struct topk_entry *entries) {
    int32_t n = 0;
    double sum = 0;
    struct topk_entry last = {-1, 0};
    for (int32_t j = 0; j < topk->n_vocab && n < topk->n_sample; j++) {
        if (topk->kept[j]) {
            continue;
        }
        const double e = exp(logits[j] - sums->max);
        sum += e;
        last = e > 0 ? (struct topk_entry){j, logits[j]} : last;
        while (n < topk->n_sample && (n + uniform) / topk->n_sample * sums->rest < sum) {
            entries[n++] = last;
        }
    }
    while (n < topk->n_sample) { /* nothing remains, or the last step fell victim to rounding */
        entries[n++] = last;
    }
}

bool topk_store(struct topk *topk, const float *logits, int32_t target, double uniform,
                struct topk_row *row) {
    for (int32_t j = 0; j < topk->n_vocab; j++) {
        if (isnan(logits[j])) {
            return false;
        }
        topk->order[j] = j;
    }
    select_first(logits, topk->order, topk->n_vocab, topk->k);
    for (int32_t i = 0; i < topk->k; i++) {
        row->entries[i] = (struct topk_entry){topk->order[i], logits[topk->order[i]]};
    }
    qsort(row->entries, (size_t)topk->k, sizeof(row->entries[0]), by_logit);
    mark(topk, row, 1);
    struct sums sums;
    const bool ok = add_up(topk, logits, &sums);
    row->log_sum = sums.max + log(sums.all);
    row->log_rest = log(sums.rest / sums.all);
    row->target = logits[target];
    row->reserved = 0;
    sample(topk, logits, &sums, uniform, row->entries + topk->k);
    mark(topk, row, 0);
    return ok;
}

/* ---- a run ---------------------------------------------------------------------------------- */

bool topk_compare(struct topk *topk, const struct topk_row *row, const float *logits,
                  int32_t target, struct topk_point *point) {
    struct sums sums;
    mark(topk, row, 1);
    const bool ok = add_up(topk, logits, &sums);
    mark(topk, row, 0);
    const double log_sum = sums.max + log(sums.all);
    double kl = 0;
    for (int32_t i = 0; i < topk->k; i++) {
        const struct topk_entry *entry = &row->entries[i];
        const double log_p = entry->logit - row->log_sum;
        const double p = exp(log_p);
        kl += p > 0 ? p * (log_p - (logits[entry->token] - log_sum)) : 0;
    }
    double sampled = 0;
    const double rest = exp(row->log_rest);
    const bool remains = rest > 0;
    const double of_sum = remains ? row->log_rest - log(sums.rest / sums.all) : 0;
    for (int32_t i = 0; i < topk->n_sample && remains; i++) {
        const struct topk_entry *entry = &row->entries[topk->k + i];
        sampled += (entry->logit - row->log_sum) - (logits[entry->token] - log_sum);
    }
    kl += remains ? rest * of_sum : 0;
    *point = (struct topk_point){
        .kl = kl < 0 ? 0 : kl, /* by rounding only; NaN stays */
        .loss = remains && topk->n_sample > 0 ? rest * (sampled / topk->n_sample - of_sum) : 0,
        .log_p = row->target - row->log_sum,
        .log_q = logits[target] - log_sum,
        .same_top = sums.top == row->entries[0].token,
    };
    return ok && isfinite(kl);
}
