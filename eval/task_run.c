#include "task_run.h"

#include "args.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static int32_t tokenize(void *data, const char *text, int32_t *tokens, int32_t capacity) {
    return llama_tokenize(data, text, (int32_t)strlen(text), tokens, capacity, false, true);
}

/* ---- sequences ------------------------------------------------------------------------------ */

static bool add_sequence(struct task_run *run, enum task_kind kind, int32_t number,
                         const struct task_source *source) {
    struct task_sequence *more =
        realloc(run->sequences, ((size_t)run->n_sequence + 1) * sizeof(*more));
    if (more == NULL) {
        cli_say("no memory for the task %s; lower --task-items", task_name(kind));
        return false;
    }
    run->sequences = more;
    struct task_sequence *s = &more[run->n_sequence++];
    if (!task_make(kind, number, source, s)) {
        cli_say("--ctx %d is too short for the task %s with this model; 512 are enough for most",
                source->n_ctx, task_name(kind));
        return false;
    }
    run->n_token += s->n;
    run->n_row = s->n_item > run->n_row ? s->n_item : run->n_row;
    return true;
}

bool task_run_make(const struct llama_model *model, const struct eval_options *o,
                   struct task_run *run) {
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    const struct task_source source = {tokenize, (void *)(uintptr_t)vocab,
                                       llama_vocab_get_add_bos(vocab) ? llama_vocab_bos(vocab) : -1,
                                       (int32_t)o->n_ctx, (uint64_t)o->seed};
    *run = (struct task_run){.store.fd = -1};
    for (int k = 0; k < n_task; k++) {
        int64_t n_item = 0;
        for (int32_t number = 0; o->tasks[k] && n_item < o->n_task_item; number++) {
            if (!add_sequence(run, (enum task_kind)k, number, &source)) {
                return false;
            }
            n_item += run->sequences[run->n_sequence - 1].n_item;
        }
    }
    return true;
}

void task_run_free(struct task_run *run) {
    for (int32_t i = 0; i < run->n_sequence; i++) {
        task_free(&run->sequences[i]);
    }
    free(run->sequences);
    if (run->n_sequence > 0) {
        store_close(&run->store);
    }
}

int64_t task_run_tokens(const struct task_run *run, int32_t n) {
    int64_t sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += run->sequences[i].n;
    }
    return sum;
}

/* ---- answers -------------------------------------------------------------------------------- */

/* What a sequence leaves beside its answers. */
struct done {
    int32_t kind, n_item;
};

bool task_run_open(struct task_run *run, const char *path, uint64_t key) {
    for (int32_t i = 0; i < run->n_sequence; i++) {
        const struct task_sequence *s = &run->sequences[i];
        key = XXH3_64bits_withSeed(s->tokens, (size_t)s->n * sizeof(*s->tokens), key);
    }
    const struct store_shape shape = {.key = key,
                                      .figures_bytes = sizeof(struct done),
                                      .row_bytes = sizeof(struct task_answer),
                                      .n_chunk = run->n_sequence,
                                      .n_row = run->n_row};
    return store_open(&run->store, path, &shape);
}

void task_run_begin(const struct task_run *run, int32_t number, struct task_answer *answers) {
    const struct task_sequence *s = &run->sequences[number];
    for (int32_t i = 0; i < run->n_row; i++) {
        const bool is_key = s->kind == TASK_PASSKEY && i < s->n_item;
        answers[i] =
            (struct task_answer){.kind = (int32_t)s->kind, .depth = is_key ? s->depths[i] : -1};
    }
}

void task_run_score(const struct task_sequence *s, int32_t at, const float *logits, int32_t n_vocab,
                    struct task_answer *answers) {
    struct task_answer *a = &answers[s->items[at + 1]];
    int32_t best = 0;
    for (int32_t j = 1; j < n_vocab; j++) {
        best = logits[j] > logits[best] ? j : best;
    }
    a->n_token++;
    a->n_right += best == s->tokens[at + 1];
}

bool task_run_end(struct task_run *run, int32_t number, const struct task_answer *answers) {
    const struct task_sequence *s = &run->sequences[number];
    const struct done done = {(int32_t)s->kind, s->n_item};
    bool ok = true;
    for (int32_t i = 0; i < run->n_row && ok; i++) {
        ok = store_write_row(&run->store, number, i, &answers[i]);
    }
    return ok && store_end_chunk(&run->store, &done);
}

/* ---- counts --------------------------------------------------------------------------------- */

/* All answers of a file, the caller's; NULL after a line. */
static struct task_answer *read_answers(const char *path, int64_t *n) {
    struct store store;
    struct task_answer *answers = NULL;
    bool ok = store_open_read(&store, path);
    const struct store_shape *shape = &store.shape;
    *n = (int64_t)shape->n_chunk * shape->n_row;
    if (ok && (answers = malloc((size_t)*n * sizeof(*answers))) == NULL) {
        cli_say("out of memory");
    }
    for (int32_t c = 0; c < shape->n_chunk && ok && answers != NULL; c++) {
        ok = store_read_rows(&store, c, 0, shape->n_row, answers + (int64_t)c * shape->n_row);
    }
    store_close(&store);
    if (!ok) {
        free(answers);
        answers = NULL;
    }
    return answers;
}

bool task_run_count(const char *path, const char *reference, struct task_result results[n_task]) {
    int64_t n = 0, n_reference = 0;
    struct task_answer *theirs = read_answers(reference, &n_reference);
    struct task_answer *ours = theirs != NULL ? read_answers(path, &n) : NULL;
    const bool ok = ours != NULL && n == n_reference;
    for (int k = 0; k < n_task && ok; k++) {
        results[k] = task_count_answers((enum task_kind)k, ours, theirs, n);
    }
    free(theirs);
    free(ours);
    return ok;
}
