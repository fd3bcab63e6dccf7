#include "tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const double task_depths[task_n_depth] = {0.1, 0.3, 0.5, 0.7, 0.9};

static const char *const names[n_task] = {"passkey", "copy"};

static const char *const people[] = {"Anna",  "Bob",  "Carl", "Dora", "Emma",  "Frank", "Grace",
                                     "Henry", "Iris", "Jack", "Karl", "Laura", "Mary",  "Nora",
                                     "Oscar", "Paul", "Rosa", "Sam",  "Tom",   "Vera"};
enum { n_person = sizeof(people) / sizeof(people[0]) };

static const char *const filler[] = {" The grass is green.", " The sky is blue.",
                                     " The sun is yellow.", " Here we go.",
                                     " There and back again."};
enum { n_filler = sizeof(filler) / sizeof(filler[0]) };

const char *task_name(enum task_kind kind) { return names[kind]; }

bool task_parse_list(const char *list, bool chosen[n_task]) {
    for (int k = 0; k < n_task; k++) {
        chosen[k] = false;
    }
    for (const char *at = list;; at++) {
        const size_t n = strcspn(at, ",");
        int k = 0;
        while (k < n_task && (strlen(names[k]) != n || strncmp(names[k], at, n) != 0)) {
            k++;
        }
        if (k == n_task) {
            return false;
        }
        chosen[k] = true;
        at += n;
        if (*at == '\0') {
            return true;
        }
    }
}

/* ---- a sequence ----------------------------------------------------------------------------- */

struct maker {
    const struct task_source *source;
    struct task_sequence *out;
    uint64_t random;
    bool full; /* something did not fit */
};

static int32_t below(struct maker *m, int32_t n) {
    return (int32_t)(statistics_random(&m->random) % (uint64_t)n);
}

/* Appends a text; with `is_answer` it is the next item. */
static void append(struct maker *m, const char *text, bool is_answer) {
    struct task_sequence *s = m->out;
    const int32_t n = m->full ? -1
                              : m->source->tokenize(m->source->data, text, s->tokens + s->n,
                                                    m->source->n_ctx - s->n);
    if (n < 0) {
        m->full = true;
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        s->items[s->n++] = is_answer ? s->n_item : -1;
    }
    s->n_item += is_answer;
}

/* Tokens of a text, all of n_ctx when it does not fit. */
static int32_t length(const struct maker *m, const char *text, int32_t *scratch) {
    const int32_t n = m->source->tokenize(m->source->data, text, scratch, m->source->n_ctx);
    return n < 0 ? m->source->n_ctx : n;
}

/* ---- pass keys ------------------------------------------------------------------------------ */

struct key {
    char fact[64], question[48], answer[16];
};

static void make_keys(struct maker *m, struct key keys[task_n_depth]) {
    bool used[n_person] = {false};
    for (int i = 0; i < task_n_depth; i++) {
        int32_t p = below(m, n_person);
        while (used[p]) {
            p = (p + 1) % n_person;
        }
        used[p] = true;
        const int value = 10000 + below(m, 90000);
        snprintf(keys[i].fact, sizeof(keys[i].fact), " The pass key of %s is %d.", people[p],
                 value);
        snprintf(keys[i].question, sizeof(keys[i].question), "\nThe pass key of %s is", people[p]);
        snprintf(keys[i].answer, sizeof(keys[i].answer), " %d", value);
    }
}

/* Sentences of filler beside the keys and their questions. */
static int32_t count_filler(const struct maker *m, const struct key keys[task_n_depth],
                            int32_t *scratch) {
    int32_t left = m->source->n_ctx - m->out->n, n = 0;
    for (int i = 0; i < task_n_depth; i++) {
        left -= length(m, keys[i].fact, scratch) + length(m, keys[i].question, scratch) +
                length(m, keys[i].answer, scratch) + length(m, ".", scratch);
    }
    int32_t each[n_filler];
    for (int f = 0; f < n_filler; f++) {
        each[f] = length(m, filler[f], scratch);
    }
    for (; left >= each[n % n_filler] && each[n % n_filler] > 0; n++) {
        left -= each[n % n_filler];
    }
    return n;
}

static void make_passkey(struct maker *m, int32_t *scratch) {
    struct key keys[task_n_depth];
    int32_t order[task_n_depth];
    make_keys(m, keys);
    const int32_t n = count_filler(m, keys, scratch);
    m->full = m->full || n < 2 * task_n_depth; /* the depths would be the same */
    for (int32_t i = 0, next = 0; i < n; i++) {
        append(m, filler[i % n_filler], false);
        while (next < task_n_depth && (int32_t)(task_depths[next] * n) == i) {
            append(m, keys[next++].fact, false);
        }
    }
    for (int32_t i = 0; i < task_n_depth; i++) { /* asked in a random order */
        const int32_t j = below(m, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (int32_t i = 0; i < task_n_depth; i++) {
        append(m, keys[order[i]].question, false);
        append(m, keys[order[i]].answer, true);
        append(m, ".", false);
        m->out->depths[i] = order[i];
    }
}

/* ---- copy ----------------------------------------------------------------------------------- */

/* The number of a line tells where it is; nothing but the list tells how it goes on. */
static void make_line(struct maker *m, int32_t number, char *line, size_t bytes) {
    int32_t words[3];
    for (int i = 0; i < 3; i++) {
        words[i] = 100 + below(m, 900);
    }
    snprintf(line, bytes, "\n%d: %d %d %d", number + 1, words[0], words[1], words[2]);
}

static void make_copy(struct maker *m, int32_t *scratch) {
    enum { line_bytes = 32 };
    static const char head[] = "Here is a list:", again[] = "\n\nHere is the same list again:";
    const int32_t room = m->source->n_ctx;
    char *lines = malloc((size_t)room * line_bytes);
    int32_t left = room - m->out->n - length(m, head, scratch) - length(m, again, scratch), n = 0;
    for (; lines != NULL && n < room; n++) {
        make_line(m, n, lines + (size_t)n * line_bytes, line_bytes);
        left -= 2 * length(m, lines + (size_t)n * line_bytes, scratch);
        if (left < 0) {
            break;
        }
    }
    m->full = m->full || lines == NULL || n < 2;
    append(m, head, false);
    for (int32_t i = 0; i < 2 * n && lines != NULL; i++) {
        if (i == n) {
            append(m, again, false);
        }
        append(m, lines + (size_t)(i % n) * line_bytes, i >= n);
    }
    free(lines);
}

bool task_make(enum task_kind kind, int32_t number, const struct task_source *source,
               struct task_sequence *out) {
    const size_t n = (size_t)source->n_ctx;
    int32_t *scratch = malloc(n * sizeof(*scratch));
    *out = (struct task_sequence){.kind = kind,
                                  .tokens = malloc(n * sizeof(*out->tokens)),
                                  .items = malloc(n * sizeof(*out->items))};
    struct maker m = {source, out, source->seed, false};
    m.random = statistics_random(&m.random) + (uint64_t)kind;
    m.random = statistics_random(&m.random) + (uint64_t)number;
    const bool ok = scratch != NULL && out->tokens != NULL && out->items != NULL;
    if (ok && source->first >= 0) {
        out->tokens[0] = source->first;
        out->items[0] = -1;
        out->n = 1;
    }
    if (ok && kind == TASK_PASSKEY) {
        make_passkey(&m, scratch);
    } else if (ok) {
        make_copy(&m, scratch);
    }
    free(scratch);
    return ok && !m.full;
}

void task_free(struct task_sequence *s) {
    free(s->tokens);
    free(s->items);
    *s = (struct task_sequence){0};
}

/* ---- scores --------------------------------------------------------------------------------- */

/* Wilson's interval of a rate that n independent draws gave. */
static struct statistics_figure wilson(double p, double n) {
    const double z = 1.959963984540054; /* 97.5 % of the normal distribution lie below */
    const double z2 = z * z / n, middle = (p + z2 / 2) / (1 + z2);
    const double half = z / (1 + z2) * sqrt(p * (1 - p) / n + z2 / (4 * n));
    return (struct statistics_figure){p, p == 0 ? 0 : middle - half, p == 1 ? 1 : middle + half};
}

struct statistics_figure task_rate(int64_t right, int64_t of) {
    return of > 0 ? wilson((double)right / (double)of, (double)of)
                  : (struct statistics_figure){NAN, NAN, NAN};
}

/* Tokens of an item fail together: Wilson's interval for as many independent ones as would vary as
 * much as the items do, and no more than there are. */
static struct statistics_figure token_rate(enum task_kind kind, const struct task_answer *answers,
                                           int64_t n, const struct task_result *r) {
    const double all = (double)r->tokens.of, k = (double)r->items.of;
    if (k < 2) {
        return task_rate(r->tokens.right, r->tokens.of);
    }
    const double p = (double)r->tokens.right / all;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (answers[i].kind == (int32_t)kind) {
            sum += pow(answers[i].n_right - p * answers[i].n_token, 2);
        }
    }
    const double variance = k / (k - 1) * sum / (all * all);
    const double effective = variance > 0 ? p * (1 - p) / variance : k;
    return wilson(p, effective < all ? effective : all);
}

double task_mcnemar(int64_t lost, int64_t won) {
    const int64_t n = lost + won, least = lost < won ? lost : won;
    double p = 0;
    for (int64_t k = 0; k <= least; k++) {
        p += exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) -
                 (double)n * log(2));
    }
    return 2 * p < 1 ? 2 * p : 1;
}

static bool is_right(const struct task_answer *a) { return a->n_right == a->n_token; }

struct task_result task_count_answers(enum task_kind kind, const struct task_answer *answers,
                                      const struct task_answer *reference, int64_t n) {
    struct task_result r = {0};
    for (int64_t i = 0; i < n; i++) {
        const struct task_answer *a = &answers[i];
        if (a->kind != (int32_t)kind || a->n_token == 0) {
            continue;
        }
        const bool right = is_right(a), was = is_right(&reference[i]);
        r.items.right += right;
        r.items.of++;
        r.tokens.right += a->n_right;
        r.tokens.of += a->n_token;
        r.lost += was && !right;
        r.won += right && !was;
        if (a->depth >= 0) {
            r.by_depth[a->depth].count.right += right;
            r.by_depth[a->depth].count.of++;
        }
    }
    r.items.rate = task_rate(r.items.right, r.items.of);
    r.tokens.rate = token_rate(kind, answers, n, &r);
    for (int d = 0; d < task_n_depth; d++) {
        struct task_count *c = &r.by_depth[d].count;
        c->rate = task_rate(c->right, c->of);
        r.by_depth[d].depth = task_depths[d];
    }
    r.p = task_mcnemar(r.lost, r.won);
    return r;
}
