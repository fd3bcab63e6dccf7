/* Random histories of a cache: everything that llama.cpp does to one, with several layers, several
 * sequences and two back ends, in any order. A history is a list of operations whose arguments are
 * taken modulo what is there, so any part of it is a history too and failures can be shrunk. */
#ifndef VARVE_TEST_HOT_WORLD_H
#define VARVE_TEST_HOT_WORLD_H

#include "hot_cells.h"

enum { WORLD_LAYERS = 2, WORLD_MAX_SEQ = 4, WORLD_MAX_OPS = 48, WORLD_MAX_TOKENS = 160 };

enum world_kind {
    WORLD_APPEND,       /* one sequence, one or several ubatches */
    WORLD_APPEND_MANY,  /* several sequences in each ubatch */
    WORLD_APPEND_OTHER, /* through the second back end */
    WORLD_COPY,         /* a sequence: shared cells, or bytes between streams */
    WORLD_REMOVE,       /* any positions */
    WORLD_ROLLBACK,     /* up to 32 rejected tokens, then others */
    WORLD_ROLLBACK_FAR, /* more than the slack */
    WORLD_SHIFT,        /* other bytes in some rows of K */
    WORLD_SAVE,         /* bytes of a sequence are copied away... */
    WORLD_RESTORE,      /* ...and back, into other cells or the same */
    WORLD_CLEAR,
    WORLD_REBORN, /* the back end is freed, and a new one finds the cache */
    WORLD_N_KIND
};

static const char *const world_names[WORLD_N_KIND] = {
    "append",       "append many", "append by the other back end",
    "copy",         "remove",      "rollback",
    "rollback far", "shift",       "save",
    "restore",      "clear",       "reborn"};

struct world_op {
    enum world_kind kind;
    uint32_t arg[4];
};

struct world_config {
    struct hot_shape shape;
    int64_t window, n_sink, n_seq, swa, hot_max;
    int n_thread;
    bool one_graph, any_tier;
};

/* The bytes of a sequence. */
struct world_saved {
    int64_t n;
    int64_t pos[WORLD_MAX_TOKENS];
    unsigned char *bytes[WORLD_LAYERS][2]; /* K and V */
};

struct world {
    struct world_config config;
    struct hot_layer layers[WORLD_LAYERS], reader;
    struct hot_cells *cells; /* for each stream */
    struct hot_rig rig, other;
    uint64_t next_token;
    struct world_saved saved;
};

/* ---- bytes ---------------------------------------------------------------------------------- */

static inline struct ggml_tensor *world_cache(struct world *w, int layer, int side) {
    return side == 0 ? w->layers[layer].k : w->layers[layer].v;
}

static inline int world_n_side(const struct world *w) { return w->config.shape.v_in_k ? 1 : 2; }

static inline unsigned char *world_row(const struct ggml_tensor *cache, int64_t stream,
                                       int64_t cell) {
    return (unsigned char *)cache->data + (size_t)stream * cache->nb[2] +
           (size_t)cell * cache->nb[1];
}

static inline int64_t world_stream(const struct world *w, int64_t seq) {
    return w->config.shape.n_stream > 1 ? seq : 0;
}

static inline struct hot_cells *world_cells(struct world *w, int64_t seq) {
    return &w->cells[world_stream(w, seq)];
}

/* Rows that nobody sees may hold anything (pitfall 18). */
static inline void world_poison(struct world *w) {
    for (int64_t j = 0; j < w->config.shape.n_stream * w->config.shape.n_cell; j++) {
        const int64_t stream = j / w->config.shape.n_cell, cell = j % w->config.shape.n_cell;
        for (int i = 0; i < WORLD_LAYERS * 2 && w->cells[stream].seqs[cell] == 0; i++) {
            const struct ggml_tensor *cache = world_cache(w, i / 2, i % 2);
            memset(world_row(cache, stream, cell), 0xff, cache->nb[1]);
        }
    }
}

/* ---- life ----------------------------------------------------------------------------------- */

static inline void world_open_rig(struct world *w, struct hot_rig *rig) {
    const struct world_config *c = &w->config;
    hot_rig_open(rig, c->window, c->n_sink, c->hot_max, c->n_thread);
    rig->any_tier = c->any_tier;
    for (int i = 0; i < WORLD_LAYERS; i++) {
        hot_rig_add(rig, &w->layers[i], c->n_seq);
    }
}

/* `layers` stay the caller's: histories use the same memory again, as a process does. */
static inline void world_open(struct world *w, const struct world_config *config,
                              const struct hot_layer *layers) {
    *w = (struct world){.config = *config, .next_token = 1};
    memcpy(w->layers, layers, sizeof(w->layers));
    w->reader = hot_layer_sharing(&w->layers[0], 77);
    w->cells = hot_alloc(config->shape.n_stream, sizeof(*w->cells));
    for (int64_t i = 0; i < config->shape.n_stream; i++) {
        w->cells[i] = hot_cells_new(config->shape.n_cell);
    }
    for (int i = 0; i < WORLD_LAYERS * 2; i++) {
        const struct ggml_tensor *cache = world_cache(w, i / 2, i % 2);
        w->saved.bytes[i / 2][i % 2] = hot_alloc(WORLD_MAX_TOKENS, cache->nb[1]);
    }
    world_poison(w);
    world_open_rig(w, &w->rig);
    world_open_rig(w, &w->other);
}

static inline void world_close(struct world *w) {
    hot_rig_close(&w->rig);
    hot_rig_close(&w->other);
    for (int64_t i = 0; i < w->config.shape.n_stream; i++) {
        hot_cells_free(&w->cells[i]);
    }
    for (int i = 0; i < WORLD_LAYERS * 2; i++) {
        free(w->saved.bytes[i / 2][i % 2]);
    }
    free(w->cells);
}

/* ---- tokens --------------------------------------------------------------------------------- */

static inline bool world_compute(struct world *w, struct hot_rig *rig, int64_t stream0,
                                 int64_t n_stream, const struct hot_token *tokens, int64_t n_query,
                                 uint32_t start) {
    struct hot_ubatch u = hot_ubatch_new(w->cells, stream0, n_stream, tokens, n_query,
                                         (int64_t)start % w->config.shape.n_cell, w->config.swa);
    const bool good =
        hot_layers_step(rig, w->layers, WORLD_LAYERS, &w->reader, &u.batch, w->config.one_graph);
    hot_ubatch_free(&u);
    return good;
}

/* n tokens for one sequence in ubatches of up to n_ubatch, as far as there is room. */
static inline bool world_append(struct world *w, struct hot_rig *rig, int64_t seq, int64_t n,
                                int64_t n_ubatch, uint32_t start) {
    struct hot_token tokens[WORLD_MAX_TOKENS];
    bool good = true;
    while (n > 0 && good) {
        const int64_t n_free = hot_cells_n_free(world_cells(w, seq));
        int64_t n_now = n < n_ubatch ? n : n_ubatch;
        n_now = n_now < n_free ? n_now : n_free;
        if (n_now == 0) {
            break;
        }
        const int64_t pos = hot_cells_end(world_cells(w, seq), seq);
        for (int64_t i = 0; i < n_now; i++) {
            tokens[i] = (struct hot_token){seq, pos + i, w->next_token++};
        }
        good = world_compute(w, rig, world_stream(w, seq), 1, tokens, n_now, start);
        n -= n_now;
    }
    return good;
}

/* The same number of tokens for each of some sequences in one ubatch: in turn in a unified cache,
 * side by side where each has a stream. */
static inline bool world_append_many(struct world *w, int64_t seq0, int64_t n_seq, int64_t n,
                                     uint32_t start) {
    struct hot_token tokens[WORLD_MAX_TOKENS];
    const bool streams = w->config.shape.n_stream > 1;
    int64_t end[WORLD_MAX_SEQ];
    for (int64_t s = 0; s < n_seq; s++) {
        const struct hot_cells *c = world_cells(w, seq0 + s);
        end[s] = hot_cells_end(c, seq0 + s);
        if (hot_cells_n_free(c) < (streams ? n : n * n_seq)) {
            return true;
        }
    }
    for (int64_t i = 0; i < n * n_seq; i++) {
        const int64_t s = streams ? i / n : i % n_seq;
        const int64_t at = streams ? i % n : i / n_seq;
        tokens[i] = (struct hot_token){seq0 + s, end[s] + at, w->next_token++};
    }
    return streams ? world_compute(w, &w->rig, seq0, n_seq, tokens, n, start)
                   : world_compute(w, &w->rig, 0, 1, tokens, n * n_seq, start);
}

/* ---- operations ----------------------------------------------------------------------------- */

static inline void world_copy(struct world *w, int64_t from, int64_t to) {
    struct hot_cells *a = world_cells(w, from), *b = world_cells(w, to);
    hot_cells_remove(b, to, 0, INT64_MAX);
    if (a == b) {
        for (int64_t i = 0; i < a->n_cell; i++) {
            a->seqs[i] |= (a->seqs[i] >> from & 1) << to;
        }
        return;
    }
    for (int64_t i = 0; i < a->n_cell; i++) {
        b->pos[i] = a->pos[i];
        b->seqs[i] = (a->seqs[i] >> from & 1) << to;
    }
    for (int i = 0; i < WORLD_LAYERS * world_n_side(w); i++) {
        const struct ggml_tensor *cache = world_cache(w, i % WORLD_LAYERS, i / WORLD_LAYERS);
        memcpy(world_row(cache, to, 0), world_row(cache, from, 0), cache->nb[2]);
    }
}

/* As a context shift or any other code that knows nothing of twins. */
static inline void world_shift(struct world *w, int64_t seq, uint32_t which) {
    const struct hot_cells *c = world_cells(w, seq);
    float row[4096];
    for (int64_t j = 0; j < WORLD_LAYERS * c->n_cell; j++) {
        const int64_t cell = j % c->n_cell;
        const struct hot_layer *l = &w->layers[j / c->n_cell];
        if ((c->seqs[cell] >> seq & 1) != 0 && (which >> cell % 32 & 1) != 0) {
            assert_true(l->k->ne[0] <= 4096);
            hot_token_row(l, w->next_token++, HOT_ROLE_K, row);
            ggml_quantize_chunk(l->k->type, row, world_row(l->k, world_stream(w, seq), cell), 0, 1,
                                l->k->ne[0], NULL);
        }
    }
}

static inline void world_move(struct world *w, int64_t stream, int64_t cell, int64_t at,
                              bool save) {
    for (int i = 0; i < WORLD_LAYERS * world_n_side(w); i++) {
        const struct ggml_tensor *cache = world_cache(w, i % WORLD_LAYERS, i / WORLD_LAYERS);
        unsigned char *row = world_row(cache, stream, cell);
        unsigned char *kept =
            w->saved.bytes[i % WORLD_LAYERS][i / WORLD_LAYERS] + (size_t)at * cache->nb[1];
        memcpy(save ? kept : row, save ? row : kept, cache->nb[1]);
    }
}

static inline void world_save(struct world *w, int64_t seq) {
    const struct hot_cells *c = world_cells(w, seq);
    w->saved.n = 0;
    for (int64_t cell = 0; cell < c->n_cell && w->saved.n < WORLD_MAX_TOKENS; cell++) {
        if ((c->seqs[cell] >> seq & 1) != 0) {
            w->saved.pos[w->saved.n] = c->pos[cell];
            world_move(w, world_stream(w, seq), cell, w->saved.n++, true);
        }
    }
}

static inline void world_restore(struct world *w, int64_t seq, uint32_t start) {
    struct hot_cells *c = world_cells(w, seq);
    hot_cells_remove(c, seq, 0, INT64_MAX);
    for (int64_t i = 0; i < w->saved.n; i++) {
        const int64_t cell = hot_cells_find(c, (int64_t)start % c->n_cell);
        if (cell < 0) {
            break;
        }
        c->pos[cell] = w->saved.pos[i];
        c->seqs[cell] = UINT32_C(1) << seq;
        world_move(w, world_stream(w, seq), cell, i, false);
    }
}

static inline void world_clear(struct world *w, bool bytes_too) {
    for (int64_t s = 0; s < w->config.shape.n_stream; s++) {
        memset(w->cells[s].seqs, 0, (size_t)w->cells[s].n_cell * sizeof(uint32_t));
    }
    for (int i = 0; i < WORLD_LAYERS * 2 && bytes_too; i++) {
        struct ggml_tensor *cache = world_cache(w, i / 2, i % 2);
        memset(cache->data, 0, ggml_nbytes(cache));
    }
}

/* The last n tokens are rejected, and others take their place, and maybe their cells. */
static inline bool world_rollback(struct world *w, int64_t seq, int64_t n, int64_t n_new,
                                  const uint32_t *arg) {
    struct hot_cells *c = world_cells(w, seq);
    const int64_t end = hot_cells_end(c, seq);
    hot_cells_remove(c, seq, end - n, end);
    if (arg[3] % 3 == 0) {
        world_poison(w);
    }
    return world_append(w, &w->rig, seq, n_new, 1 + arg[2] % 8, arg[3]);
}

/* False: rig.why or other.why says what is wrong. */
static inline bool world_apply(struct world *w, const struct world_op *op) {
    const uint32_t *a = op->arg;
    const int64_t n_seq = w->config.n_seq, seq = a[0] % n_seq, second = a[1] % n_seq;
    struct hot_cells *c = world_cells(w, seq);
    switch (op->kind) {
    case WORLD_APPEND:
        return world_append(w, &w->rig, seq, 1 + a[1] % (a[3] % 4 == 0 ? 60 : 9), 1 + a[2] % 33,
                            a[3]);
    case WORLD_APPEND_MANY:
        return world_append_many(w, seq, 1 + a[1] % (n_seq - seq), 1 + a[2] % 5, a[3]);
    case WORLD_APPEND_OTHER: return world_append(w, &w->other, seq, 1 + a[1] % 6, 3, a[3]);
    case WORLD_COPY:
        if (seq != second) {
            world_copy(w, seq, second);
        }
        return true;
    case WORLD_REMOVE:
        hot_cells_remove(c, seq, a[1] % 50, a[1] % 50 + a[2] % 50);
        if (a[3] % 3 == 0) {
            world_poison(w);
        }
        return true;
    case WORLD_ROLLBACK: return world_rollback(w, seq, 1 + a[1] % HOT_SLACK, a[2] % 40, a);
    case WORLD_ROLLBACK_FAR: return world_rollback(w, seq, HOT_SLACK + 1 + a[1] % 40, a[2] % 60, a);
    case WORLD_SHIFT: world_shift(w, seq, a[1] | (a[2] % 2 == 0 ? UINT32_MAX : 0)); return true;
    case WORLD_SAVE: world_save(w, seq); return true;
    case WORLD_RESTORE: world_restore(w, seq, a[1] % 2 == 0 ? 0 : a[2]); return true;
    case WORLD_CLEAR: world_clear(w, a[0] % 2 == 0); return true;
    default:
        hot_rig_close(&w->rig);
        world_open_rig(w, &w->rig);
        return true;
    }
}

#endif
