/* The sequences of the tasks and the file with a run's answers to them. */
#ifndef VARVE_EVAL_TASK_RUN_H
#define VARVE_EVAL_TASK_RUN_H

#include "options.h"
#include "store.h"

#include "llama.h"

struct task_run {
    struct task_sequence *sequences; /* n_sequence, owned */
    int32_t n_sequence, n_row;       /* n_row: items of the longest one */
    int64_t n_token;                 /* of all */
    struct store store;
};

/* True without sequences when no task is chosen. False after a line; task_run_free is due in any
 * case. */
bool task_run_make(const struct llama_model *model, const struct eval_options *options,
                   struct task_run *run);
void task_run_free(struct task_run *run);

/* key: of all that the answers depend on, but for the sequences. */
bool task_run_open(struct task_run *run, const char *path, uint64_t key);

/* Tokens of the first n sequences. */
int64_t task_run_tokens(const struct task_run *run, int32_t n);

/* The most likely token behind position `at` of a sequence is compared with the one that follows.
 */
void task_run_score(const struct task_sequence *sequence, int32_t at, const float *logits,
                    int32_t n_vocab, struct task_answer *answers);

/* Answers of a sequence before any is scored, and the end of one: from here on they stay. */
void task_run_begin(const struct task_run *run, int32_t number, struct task_answer *answers);
bool task_run_end(struct task_run *run, int32_t number, const struct task_answer *answers);

/* Counts for each chosen task from the files of a run and of the reference. False after a line. */
bool task_run_count(const char *path, const char *reference, struct task_result results[n_task]);

#endif
