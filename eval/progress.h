/* How far an evaluation is, on stderr, with the time left of all configurations: one line that is
 * redrawn on a terminal, elsewhere one for each chunk and every 15 s. */
#ifndef VARVE_EVAL_PROGRESS_H
#define VARVE_EVAL_PROGRESS_H

#include "task_run.h"
#include "worker.h"

struct eval_progress {
    const struct eval_job *job;
    const struct task_run *tasks;
    int32_t n_chunk, chunk; /* sequences of tasks included */
    int64_t n_done;         /* tokens, of this configuration */
    int64_t n_there;        /* of these, found in the file */
    double began, drawn;
};

/* n_there: chunks, n_answered: sequences of the tasks that are in the files. */
void eval_progress_begin(struct eval_progress *p, const struct eval_job *job, int32_t n_chunk,
                         int32_t n_there, const struct task_run *tasks, int32_t n_answered);
void eval_progress_advance(struct eval_progress *p, int32_t n_token);
void eval_progress_chunk(struct eval_progress *p); /* one has ended */
void eval_progress_end(const struct eval_progress *p);

#endif
