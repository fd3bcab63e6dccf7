/* KL divergence of one run's probabilities from those of the f16 run, along the text that this one
 * wrote. The f16 run leaves its tokens and log-probabilities in a file, in F32. */
#ifndef VARVE_RUN_DIVERGENCE_H
#define VARVE_RUN_DIVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

struct divergence {
    int32_t n_position;
    int32_t n_same_top; /* positions where both have the same most likely token */
    double sum, max;    /* nats */
};

struct divergence_file {
    int fd; /* borrowed; accessed by offset, as parent and children share its position */
    int32_t n_vocab;
    int32_t n_token, n_row; /* of the f16 run; rows are fewer when it was stopped */
    int32_t *tokens;        /* owned */
    float *row;             /* n_vocab values; owned */
};

/* False after a line; divergence_close is due in any case. */
bool divergence_write(struct divergence_file *file, int fd, int32_t n_vocab, const int32_t *tokens,
                      int32_t n_token);
bool divergence_read(struct divergence_file *file, int fd, int32_t n_vocab);
void divergence_close(struct divergence_file *file);

/* The last step of writing: so many rows are there. */
bool divergence_finish(struct divergence_file *file, int32_t n_row);

/* Row i: stored from the f16 run's logits, or compared with those of another run. */
bool divergence_store(struct divergence_file *file, int32_t i, const float *logits);
bool divergence_add(struct divergence_file *file, int32_t i, const float *logits,
                    struct divergence *sum);

#endif
