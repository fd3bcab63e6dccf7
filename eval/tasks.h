/* Tasks with exact answers, made from a seed: pass keys in filler, and a list to be repeated
 * (docs/EVAL.md 9). */
#ifndef VARVE_EVAL_TASKS_H
#define VARVE_EVAL_TASKS_H

#include "statistics.h"

#include <stdbool.h>

enum task_kind { TASK_PASSKEY, TASK_COPY, n_task };

enum { task_n_depth = 5 }; /* pass keys of a sequence, one at each depth */

/* Where the pass keys lie: 0 is the beginning of the sequence, 1 the questions. */
extern const double task_depths[task_n_depth];

const char *task_name(enum task_kind kind);

/* "passkey,copy" as flags. False when a name is none of a task. */
bool task_parse_list(const char *list, bool chosen[n_task]);

/* At most `capacity` tokens of a text that continues another one; their number, negative on
 * failure. */
typedef int32_t (*task_tokenize)(void *data, const char *text, int32_t *tokens, int32_t capacity);

struct task_source {
    task_tokenize tokenize;
    void *data;
    int32_t first; /* token that begins texts, -1: none */
    int32_t n_ctx; /* a sequence has at most so many tokens */
    uint64_t seed;
};

/* One text with its answers. The text is given whole: an answer is right when each of its tokens is
 * the most likely one behind those before, so when the model alone would have written it. */
struct task_sequence {
    enum task_kind kind;
    int32_t n, n_item;
    int32_t *tokens, *items;      /* n each, owned; item that a token belongs to, -1: none */
    int32_t depths[task_n_depth]; /* of items, for pass keys: numbers of task_depths */
};

/* Sequence `number` of a task; it depends on nothing but its arguments. False when the tokens do
 * not suffice or memory is out; task_free is due in any case. */
bool task_make(enum task_kind kind, int32_t number, const struct task_source *source,
               struct task_sequence *out);
void task_free(struct task_sequence *sequence);

/* What a run makes of one item. */
struct task_answer {
    int32_t n_token, n_right;
    int32_t kind, depth; /* number of task_depths, -1: not of a pass key */
};

struct task_count {
    int64_t right, of;
    struct statistics_figure rate; /* Wilson's interval, 95 % */
};

struct task_depth {
    double depth;
    struct task_count count;
};

struct task_result {
    struct task_count items, tokens;
    struct task_depth by_depth[task_n_depth];
    int64_t lost, won; /* items that the reference alone, the run alone has right */
    double p;          /* of lost and won, if both were as likely: exact McNemar test */
};

/* From all answers, those of other tasks included; reference: its answers to the same items. */
struct task_result task_count_answers(enum task_kind kind, const struct task_answer *answers,
                                      const struct task_answer *reference, int64_t n);

/* right of n as a rate, with Wilson's interval; NaN for n = 0. */
struct statistics_figure task_rate(int64_t right, int64_t n);

/* Two-sided exact test that two rare events are equally likely. */
double task_mcnemar(int64_t lost, int64_t won);

#endif
