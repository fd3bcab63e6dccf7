/* Cells as llama.cpp keeps them: who is where, and what a token may see. All layers share them. */
#ifndef VARVE_TEST_HOT_CELLS_H
#define VARVE_TEST_HOT_CELLS_H

#include "hot_host.h"

/* The cells of one stream. */
struct hot_cells {
    int64_t n_cell;
    int64_t *pos;
    uint32_t *seqs; /* a bit for each sequence that sees the cell; 0: free */
};

struct hot_token {
    int64_t seq, pos;
    uint64_t token;
};

/* A batch with the memory that it points to. */
struct hot_ubatch {
    struct hot_batch batch;
    uint64_t *token;
    int64_t *cell;
    bool *visible;
};

static inline struct hot_cells hot_cells_new(int64_t n_cell) {
    return (struct hot_cells){.n_cell = n_cell,
                              .pos = hot_alloc(n_cell, sizeof(int64_t)),
                              .seqs = hot_alloc(n_cell, sizeof(uint32_t))};
}

static inline void hot_cells_free(struct hot_cells *c) {
    free(c->pos);
    free(c->seqs);
}

static inline int64_t hot_cells_n_free(const struct hot_cells *c) {
    int64_t n = 0;
    for (int64_t i = 0; i < c->n_cell; i++) {
        n += c->seqs[i] == 0;
    }
    return n;
}

/* The next free cell from `start` on, around the end; -1: none. */
static inline int64_t hot_cells_find(const struct hot_cells *c, int64_t start) {
    for (int64_t i = 0; i < c->n_cell; i++) {
        const int64_t cell = (start + i) % c->n_cell;
        if (c->seqs[cell] == 0) {
            return cell;
        }
    }
    return -1;
}

/* The position after the last one of a sequence. */
static inline int64_t hot_cells_end(const struct hot_cells *c, int64_t seq) {
    int64_t end = 0;
    for (int64_t i = 0; i < c->n_cell; i++) {
        if ((c->seqs[i] >> seq & 1) != 0 && c->pos[i] >= end) {
            end = c->pos[i] + 1;
        }
    }
    return end;
}

/* A sequence forgets its positions in [from, to). */
static inline void hot_cells_remove(struct hot_cells *c, int64_t seq, int64_t from, int64_t to) {
    for (int64_t i = 0; i < c->n_cell; i++) {
        if (c->pos[i] >= from && c->pos[i] < to) {
            c->seqs[i] &= ~(UINT32_C(1) << seq);
        }
    }
}

static inline bool hot_cells_see(const struct hot_cells *c, int64_t cell,
                                 const struct hot_token *token, int64_t swa) {
    const int64_t distance = token->pos - c->pos[cell];
    return (c->seqs[cell] >> token->seq & 1) != 0 && distance >= 0 && (swa == 0 || distance < swa);
}

/* Gives cells to tokens [n_stream][n_query] and says what each of them sees: all of its sequence up
 * to itself. Cells are taken from `start` on; there must be enough. */
static inline struct hot_ubatch hot_ubatch_new(struct hot_cells *cells, int64_t stream0,
                                               int64_t n_stream, const struct hot_token *tokens,
                                               int64_t n_query, int64_t start, int64_t swa) {
    const int64_t n = n_stream * n_query, n_kv = cells->n_cell;
    struct hot_ubatch u = {.token = hot_alloc(n, sizeof(uint64_t)),
                           .cell = hot_alloc(n, sizeof(int64_t)),
                           .visible = hot_alloc(n * n_kv, sizeof(bool))};
    for (int64_t i = 0; i < n; i++) {
        struct hot_cells *c = &cells[stream0 + i / n_query];
        u.token[i] = tokens[i].token;
        u.cell[i] = hot_cells_find(c, start);
        assert_true(u.cell[i] >= 0);
        c->pos[u.cell[i]] = tokens[i].pos;
        c->seqs[u.cell[i]] = UINT32_C(1) << tokens[i].seq;
    }
    for (int64_t j = 0; j < n * n_kv; j++) {
        const int64_t i = j / n_kv;
        u.visible[j] = hot_cells_see(&cells[stream0 + i / n_query], j % n_kv, &tokens[i], swa);
    }
    u.batch = (struct hot_batch){.stream0 = stream0,
                                 .n_stream = n_stream,
                                 .n_query = n_query,
                                 .n_kv = n_kv,
                                 .token = u.token,
                                 .cell = u.cell,
                                 .visible = u.visible};
    return u;
}

static inline void hot_ubatch_free(struct hot_ubatch *u) {
    free(u->token);
    free(u->cell);
    free(u->visible);
}

/* Another layer that reads the cache of this one. Its queries are its own; it writes nothing. */
static inline struct hot_layer hot_layer_sharing(const struct hot_layer *l, uint64_t id) {
    struct hot_layer reader = *l;
    reader.id = id;
    return reader;
}

/* One ubatch through all layers in llama.cpp's order: each layer writes and reads, and the reader
 * (or NULL) comes last and looks once more at the rows of layer 0. Each layer is a graph of its
 * own, as with splits between back ends, or all are in one. */
static inline bool hot_layers_step(struct hot_rig *rig, struct hot_layer *layers, int n_layer,
                                   struct hot_layer *reader, const struct hot_batch *b,
                                   bool one_graph) {
    bool good = true;
    struct hot_graph g;
    const int n_step = n_layer + (reader != NULL);
    for (int i = 0; i < n_step && good; i++) {
        if (i == 0 || !one_graph) {
            g = hot_graph_new(rig);
        }
        if (i < n_layer) {
            hot_add_write(&g, &layers[i], b);
            hot_add_attention(&g, &layers[i], b);
        } else {
            hot_add_attention(&g, reader, b);
        }
        if (i + 1 == n_step || !one_graph) {
            good = hot_graph_run(&g);
        }
    }
    return good;
}

#endif
