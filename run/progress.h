/* How far tokens have been read, on stderr: one line that is redrawn on a terminal, elsewhere a
 * line about every 10 %, but no more often than on a terminal. */
#ifndef VARVE_RUN_PROGRESS_H
#define VARVE_RUN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* What is read. */
enum progress_kind {
    PROGRESS_PROMPT,     /* in large batches */
    PROGRESS_COMPARISON, /* token by token */
};

/* What a token cost, and where in the prompt. */
struct progress_cost {
    double seconds;
    double at;
};

struct progress {
    enum progress_kind kind;
    int32_t n_total, n_done; /* tokens */
    int32_t n_batch;         /* tokens of the batch at hand */
    int64_t n_tick;          /* of the batch at hand */
    int64_t n_tick_batch;    /* of a whole batch, 0: not known yet */
    double began, batch_began;
    struct progress_cost first, last;
    double drawn;      /* when */
    int32_t n_percent; /* next line, elsewhere */
    bool terminal;
};

void progress_begin(struct progress *p, enum progress_kind kind, int32_t n_total);
void progress_batch(struct progress *p, int32_t n_token); /* before a batch */
void progress_tick(struct progress *p);                   /* about as often in every batch */
void progress_advance(struct progress *p);                /* after a batch */
void progress_end(struct progress *p);

/* Seconds that the batches took, without one that was broken off. */
double progress_seconds(const struct progress *p);

#endif
