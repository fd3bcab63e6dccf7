/* Log-probabilities of one position in few bytes: the k most likely tokens, what remains as one
 * sum, and a sample of the remainder, which tells what the sum hides (docs/EVAL.md 3). */
#ifndef VARVE_EVAL_TOPK_H
#define VARVE_EVAL_TOPK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct topk {
    int32_t n_vocab, k, n_sample;
    int32_t *order; /* n_vocab tokens; this and the next are owned */
    uint8_t *kept;  /* n_vocab flags, zeros between two calls */
};

/* One position, as in a file: behind it k + n_sample entries. */
struct topk_row {
    double log_sum;  /* of all exp(logit) */
    double log_rest; /* log-probability of the remainder; -inf: nothing remains */
    float target;    /* logit of the token that followed */
    uint32_t reserved;
    struct topk_entry {
        int32_t token; /* -1: no sample, as nothing remains */
        float logit;
    } entries[]; /* most likely first; then the sample */
};

/* What a run makes of a position of the reference. Logarithms are natural. */
struct topk_point {
    double kl;   /* from the k tokens and the remainder as one; no larger than the true one */
    double loss; /* unbiased estimate, from the sample, of what is missing */
    double log_p, log_q; /* of the token that followed: reference, run */
    int64_t same_top;    /* 1: both have the same most likely token */
};

/* False when memory is out; topk_free is due in any case. k is at most n_vocab. */
bool topk_init(struct topk *topk, int32_t n_vocab, int32_t k, int32_t n_sample);
void topk_free(struct topk *topk);

size_t topk_row_bytes(const struct topk *topk);

/* From n_vocab logits; uniform: a random number in [0, 1) for the sample. False when the logits are
 * not finite. */
bool topk_store(struct topk *topk, const float *logits, int32_t target, double uniform,
                struct topk_row *row);
bool topk_compare(struct topk *topk, const struct topk_row *row, const float *logits,
                  int32_t target, struct topk_point *point);

#endif
