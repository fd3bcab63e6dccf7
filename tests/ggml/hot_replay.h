/* One sequence of tokens, written and attended to under any cut into ubatches. */
#ifndef VARVE_TEST_HOT_REPLAY_H
#define VARVE_TEST_HOT_REPLAY_H

#include "hot_host.h"

enum { HOT_NAN_CELLS = 5 }; /* that the node is shown and nobody has written */

struct replay {
    struct hot_shape shape; /* n_cell 0: enough for all tokens */
    int64_t window, n_sink, n_token;
    int64_t cut[4];    /* lengths of the ubatches; from the first zero on, the last one counts */
    int64_t swa;       /* how far a query sees; 0: back to the first token */
    int64_t n_ring;    /* cells are used in turn; 0: each token has its own */
    int64_t seen_from; /* queries before this token see nothing */
    bool no_mask;      /* single queries that see all there is */
    int n_thread;      /* 0: the model alone */
    bool (*watch)(struct hot_rig *rig, const struct hot_node *node, const uint64_t *token);
    uint64_t digest;                   /* out: of the bits of all results */
    struct varve_ggml_account account; /* out */
    char why[512];                     /* out */
};

static inline struct hot_shape hot_usual(enum ggml_type type_k, enum ggml_type type_v) {
    return (struct hot_shape){.type_k = type_k,
                              .type_v = type_v,
                              .dk = 32,
                              .dv = 32,
                              .n_head = 2,
                              .n_head_kv = 1,
                              .n_stream = 1,
                              .source = GGML_TYPE_F32};
}

static const enum ggml_type hot_types[] = {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_Q4_1,
                                           GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL};
enum { HOT_N_TYPE = 6 };

/* The formats in turn, K and V in different ones. */
static inline struct hot_shape hot_mixed(int64_t i) {
    return hot_usual(hot_types[i % HOT_N_TYPE], hot_types[(i / HOT_N_TYPE + i) % HOT_N_TYPE]);
}

static inline int64_t hot_min(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t replay_length(const struct replay *r, int64_t i) {
    int64_t length = r->cut[0];
    for (int64_t j = 1; j < 4 && j <= i && r->cut[j] > 0; j++) {
        length = r->cut[j];
    }
    return length;
}

/* The token in a cell when all before `end` are written, or -1. */
static inline int64_t replay_token(const struct replay *r, int64_t cell, int64_t end) {
    if (r->n_ring == 0) {
        return cell < end ? cell : -1;
    }
    const int64_t round = (end - 1 - cell) / r->n_ring;
    return cell < r->n_ring && cell < end ? cell + round * r->n_ring : -1;
}

static inline bool replay_sees(const struct replay *r, int64_t query, int64_t token) {
    return token >= 0 && token <= query && query >= r->seen_from &&
           (r->swa == 0 || query - token < r->swa);
}

/* Tokens first..first+n-1 as one ubatch. */
static inline bool replay_ubatch(const struct replay *r, struct hot_rig *rig, struct hot_layer *l,
                                 int64_t first, int64_t n) {
    const int64_t n_used = r->n_ring != 0 ? hot_min(r->n_ring, first + n) : first + n;
    struct hot_batch b = {.n_stream = 1, .n_query = n};
    b.n_kv = r->no_mask ? n_used : hot_min(l->shape.n_cell, n_used + HOT_NAN_CELLS);
    uint64_t *token = hot_alloc(n, sizeof(uint64_t));
    int64_t *cell = hot_alloc(n, sizeof(int64_t));
    bool *visible = hot_alloc(n * b.n_kv, sizeof(bool));
    for (int64_t i = 0; i < n; i++) {
        token[i] = (uint64_t)(first + i);
        cell[i] = r->n_ring != 0 ? (first + i) % r->n_ring : first + i;
        for (int64_t c = 0; c < b.n_kv; c++) {
            visible[i * b.n_kv + c] = replay_sees(r, first + i, replay_token(r, c, first + n));
        }
    }
    b.token = token;
    b.cell = cell;
    b.visible = r->no_mask ? NULL : visible;
    const bool good = hot_step(rig, l, &b);
    free(token);
    free(cell);
    free(visible);
    return good;
}

/* All tokens. False: see why. */
static inline bool replay_run(struct replay *r) {
    struct hot_shape shape = r->shape;
    struct hot_rig rig;
    const int64_t n_own = r->n_ring != 0 ? r->n_ring : r->n_token;
    shape.n_cell = shape.n_cell > 0 ? shape.n_cell : n_own + 2 * HOT_NAN_CELLS;
    struct hot_layer l = hot_layer_new(shape, 1);
    hot_rig_open(&rig, r->window, r->n_sink, 0, r->n_thread);
    rig.watch = r->watch;
    rig.user = r;
    hot_rig_add(&rig, &l, 1);
    bool good = true;
    int64_t first = 0;
    for (int64_t i = 0; first < r->n_token && good; i++) {
        const int64_t n = hot_min(replay_length(r, i), r->n_token - first);
        good = replay_ubatch(r, &rig, &l, first, n);
        first += n;
    }
    if (!good) {
        snprintf(r->why, sizeof(r->why),
                 "K %s, V %s, W %d, S %d, %d tokens, ubatches %d %d %d %d, before token %d: %.300s",
                 ggml_type_name(shape.type_k), ggml_type_name(shape.type_v), (int)r->window,
                 (int)r->n_sink, (int)r->n_token, (int)r->cut[0], (int)r->cut[1], (int)r->cut[2],
                 (int)r->cut[3], (int)first, rig.why);
    }
    r->digest = rig.digest;
    if (rig.backend != NULL && rig.model.window > 0) {
        r->account = hot_account(&rig);
    }
    hot_rig_close(&rig);
    hot_layer_free(&l);
    return good;
}

static inline void replay_check(struct replay r) {
    if (!replay_run(&r)) {
        fail_msg("%s", r.why);
    }
}

/* What rule 3 comes to for a plain sequence with a cell for each token: the last W positions and
 * the first S. */
static inline bool replay_plain_rule(struct hot_rig *rig, const struct hot_node *node,
                                     const uint64_t *token) {
    const struct replay *r = rig->user;
    for (int64_t j = 0; j < node->k.n_query * node->k.t->ne[1]; j++) {
        const int64_t row = j % node->k.t->ne[1];
        const int64_t query = (int64_t)token[j / node->k.t->ne[1]];
        const int64_t age = query - row;
        const enum hot_tier want = !replay_sees(r, query, row) ? HOT_HIDDEN
                                   : age < r->window           ? HOT_RECENT
                                   : row < r->n_sink           ? HOT_SINK
                                                               : HOT_COLD;
        if (node->k.tier[j] != want || node->v.tier[j] != want) {
            snprintf(rig->why, sizeof(rig->why), "row %d of query %d: tiers %d and %d, not %d",
                     (int)row, (int)query, node->k.tier[j], node->v.tier[j], (int)want);
            return false;
        }
    }
    return true;
}

#endif
