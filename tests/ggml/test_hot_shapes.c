/* The rule of the hot tier (docs/DESIGN.md 9) where a cache has more than one sequence, stream or
 * layer: results and counters against the model. */
#include "hot_cells.h"
#include "hot_replay.h"

enum { MAX_STREAM = 4, MAX_LAYER = 3, MAX_BATCH = 600 };

/* A back end, the caches of some layers, and who is in their cells. */
struct setting {
    struct hot_rig rig;
    struct hot_layer layers[MAX_LAYER];
    struct hot_cells cells[MAX_STREAM];
    int n_layer;
    int64_t n_stream;
    uint64_t next_token;
};

static void open_setting(struct setting *s, struct hot_shape shape, int64_t window, int64_t n_sink,
                         int64_t n_seq, int n_layer) {
    *s = (struct setting){.n_layer = n_layer, .n_stream = shape.n_stream};
    hot_rig_open(&s->rig, window, n_sink, 0, 2);
    for (int i = 0; i < n_layer; i++) {
        s->layers[i] = hot_layer_new(shape, (uint64_t)i);
        hot_rig_add(&s->rig, &s->layers[i], n_seq);
    }
    for (int64_t i = 0; i < s->n_stream; i++) {
        s->cells[i] = hot_cells_new(shape.n_cell);
    }
}

static void close_setting(struct setting *s) {
    hot_rig_close(&s->rig);
    for (int i = 0; i < s->n_layer; i++) {
        hot_layer_free(&s->layers[i]);
    }
    for (int64_t i = 0; i < s->n_stream; i++) {
        hot_cells_free(&s->cells[i]);
    }
}

/* One node for tokens [n_stream][n_query] of these sequences, each at the end of its own. */
static void step(struct setting *s, int64_t stream0, int64_t n_stream, const int64_t *seqs,
                 int64_t n_query, struct hot_layer *reader, bool one_graph) {
    static struct hot_token tokens[MAX_BATCH];
    int64_t end[8] = {0};
    assert_true(n_stream * n_query <= MAX_BATCH);
    for (int64_t i = 0; i < n_stream * n_query; i++) {
        const int64_t seq = seqs[i];
        if (end[seq] == 0) {
            end[seq] = 1 + hot_cells_end(&s->cells[stream0 + i / n_query], seq);
        }
        tokens[i] = (struct hot_token){seq, end[seq]++ - 1, s->next_token++};
    }
    struct hot_ubatch u = hot_ubatch_new(s->cells, stream0, n_stream, tokens, n_query, 0, 0);
    if (!hot_layers_step(&s->rig, s->layers, s->n_layer, reader, &u.batch, one_graph)) {
        fail_msg("W %d, S %d, token %d: %s", (int)s->rig.model.window, (int)s->rig.model.n_sink,
                 (int)s->next_token, s->rig.why);
    }
    hot_ubatch_free(&u);
}

static void prompt(struct setting *s, int64_t stream, int64_t seq, int64_t n) {
    int64_t seqs[MAX_BATCH];
    for (int64_t i = 0; i < n; i++) {
        seqs[i] = seq;
    }
    step(s, stream, 1, seqs, n, NULL, true);
}

/* ---- sequences ------------------------------------------------------------------------------ */

/* Prompts of several lengths, then all sequences in each node. With few cells all twins stay; with
 * many there is less room than rows, and rows must leave without a window being torn. */
static void pitfall_09_sequences_in_one_cache(void **state) {
    (void)state;
    static const int64_t turn[] = {0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3};
    for (int64_t i = 0; i < 12; i++) {
        struct setting s;
        struct hot_shape shape = hot_mixed(i);
        const int64_t n_seq = 2 + i % 3, length = i % 2 == 0 ? 30 : 200;
        shape.n_cell = n_seq * 2 * length;
        open_setting(&s, shape, 1 + 7 * (i % 4), i % 5, n_seq, 2);
        for (int64_t seq = 0; seq < n_seq; seq++) {
            prompt(&s, 0, seq, length - 7 * seq);
        }
        int64_t seqs[12];
        for (int64_t n = 0; n < length / 4; n++) {
            int64_t n_query = 0;
            for (int64_t j = 0; j < 12; j++) {
                if (turn[j] < n_seq && (n % 3 == 0 || j < 4)) {
                    seqs[n_query++] = turn[j];
                }
            }
            step(&s, 0, 1, seqs, n_query, NULL, n % 2 == 0);
        }
        close_setting(&s);
    }
}

/* A sequence that waits keeps its window and its sinks while others write many times the room. */
static void a_waiting_sequence_keeps_its_twins(void **state) {
    (void)state;
    for (int64_t i = 0; i < 6; i++) {
        struct setting s;
        struct hot_shape shape = hot_mixed(i + 7);
        shape.n_cell = 1500;
        open_setting(&s, shape, 5 + 6 * i, 4, 3, 1);
        prompt(&s, 0, 0, 90);
        for (int64_t n = 0; n < 12; n++) {
            prompt(&s, 0, 1 + n % 2, 1 + 19 * n % 110);
        }
        prompt(&s, 0, 0, 1); /* the model has forgotten nothing of it */
        close_setting(&s);
    }
}

/* Two sequences begin with the same rows. One goes on, many times the room; the other looks at the
 * shared rows from time to time. For the first they have left the window, for the second not: of
 * what has left, rows that were wanted longer ago go first. */
static void shared_rows_stay_while_they_are_wanted(void **state) {
    (void)state;
    for (int64_t i = 0; i < 6; i++) {
        struct setting s;
        struct hot_shape shape = hot_mixed(i + 3);
        shape.n_cell = 900;
        open_setting(&s, shape, 3 + 7 * i, i % 5, 2, 1);
        prompt(&s, 0, 0, 50);
        for (int64_t cell = 0; cell < 50; cell++) {
            s.cells[0].seqs[cell] = 3;
        }
        for (int64_t n = 0; n < 14; n++) {
            prompt(&s, 0, 1, 1); /* its window holds shared rows and these few */
            prompt(&s, 0, 0, 1 + n % 30);
            prompt(&s, 0, 0, 29);
        }
        close_setting(&s);
    }
}

/* Caches with a stream for each sequence; nodes take any range of them (pitfall 9). */
static void pitfall_09_streams(void **state) {
    (void)state;
    for (int64_t i = 0; i < 12; i++) {
        struct setting s;
        struct hot_shape shape = hot_mixed(i);
        shape.n_stream = MAX_STREAM;
        shape.n_cell = 90;
        open_setting(&s, shape, 1 + 9 * (i % 5), i % 5, MAX_STREAM, 2);
        for (int64_t stream = 0; stream < MAX_STREAM; stream++) {
            prompt(&s, stream, stream, 5 + 17 * stream);
        }
        for (int64_t n = 0; n < 10; n++) {
            const int64_t first = n % MAX_STREAM, n_stream = 1 + n % (MAX_STREAM - first);
            const int64_t n_query = 1 + n % 3;
            int64_t seqs[MAX_STREAM * 3];
            for (int64_t j = 0; j < n_stream * n_query; j++) {
                seqs[j] = first + j / n_query;
            }
            step(&s, first, n_stream, seqs, n_query, NULL, n % 2 == 0);
        }
        close_setting(&s);
    }
}

/* More streams than the four rings that are the usual room. */
static void many_streams_have_a_ring_each(void **state) {
    (void)state;
    enum { n_stream = 7, n_cell = 130, window = 9 };
    struct hot_rig rig;
    struct hot_shape shape = hot_usual(GGML_TYPE_Q8_0, GGML_TYPE_Q4_0);
    struct hot_cells cells[n_stream];
    struct hot_token tokens[n_stream];
    shape.n_stream = n_stream;
    shape.n_cell = n_cell;
    struct hot_layer l = hot_layer_new(shape, 0);
    hot_rig_open(&rig, window, 3, 0, 2);
    hot_rig_add(&rig, &l, n_stream);
    for (int64_t i = 0; i < n_stream; i++) {
        cells[i] = hot_cells_new(n_cell);
    }
    for (int64_t pos = 0; pos < n_cell; pos++) {
        for (int64_t i = 0; i < n_stream; i++) {
            tokens[i] = (struct hot_token){i, pos, (uint64_t)(pos * n_stream + i)};
        }
        struct hot_ubatch u = hot_ubatch_new(cells, 0, n_stream, tokens, 1, 0, 0);
        if (!hot_step(&rig, &l, &u.batch)) {
            fail_msg("position %d: %s", (int)pos, rig.why);
        }
        hot_ubatch_free(&u);
    }
    for (int64_t i = 0; i < n_stream; i++) {
        hot_cells_free(&cells[i]);
    }
    hot_rig_close(&rig);
    hot_layer_free(&l);
}

/* ---- layers --------------------------------------------------------------------------------- */

/* The scheduler's questions of one graph: write and use of layer 0, its second reader at the end.
 */
static void ask_about_reader(struct setting *s, struct hot_layer *reader) {
    const uint64_t token = 0;
    const int64_t cell = 0;
    const struct hot_batch b = {.n_stream = 1,
                                .n_query = 1,
                                .n_kv = s->layers[0].shape.n_cell,
                                .token = &token,
                                .cell = &cell};
    struct hot_graph g = hot_graph_new(&s->rig);
    hot_add_write(&g, &s->layers[0], &b);
    hot_add_attention(&g, &s->layers[0], &b);
    hot_add_attention(&g, reader, &b);
    hot_alloc_graph(&g);
    ggml_backend_dev_t dev = ggml_backend_get_device(s->rig.backend);
    assert_true(ggml_backend_dev_supports_op(dev, g.items[0].op));
    assert_true(ggml_backend_dev_supports_op(dev, g.items[0].op_v));
    assert_true(ggml_backend_dev_supports_op(dev, g.items[1].op));
    assert_true(ggml_backend_dev_supports_op(dev, g.items[2].op));
    hot_graph_free(&g);
}

/* As in Gemma 3n: a later layer reads the rows of an earlier one when other layers have written and
 * read theirs. Long ubatches too: rows that only the first queries want are there for it as well,
 * since what has left the window goes with the next write only. */
static void layers_that_share_a_cache(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 7, 150, 1, 70, 33, 300, 2, 1};
    for (int64_t i = 0; i < 12; i++) {
        struct setting s;
        int64_t seqs[MAX_BATCH] = {0};
        struct hot_shape shape = hot_mixed(i);
        shape.n_cell = 600;
        open_setting(&s, shape, 1 + 11 * (i % 6), i % 5, 1, 3);
        struct hot_layer reader = hot_layer_sharing(&s.layers[0], 77);
        ask_about_reader(&s, &reader);
        for (int64_t n = 0; n < 9; n++) {
            step(&s, 0, 1, seqs, lengths[(n + i) % 9], &reader, i % 2 == 0);
        }
        close_setting(&s);
    }
}

/* ---- masks ---------------------------------------------------------------------------------- */

/* A mask for each head has no single answer to what a query sees: such a node reads all rows cold,
 * and what is known of the twins stays for nodes with one mask. */
static void masks_by_head_read_cold(void **state) {
    (void)state;
    struct hot_rig rig;
    struct hot_shape shape = hot_mixed(4);
    struct hot_token tokens[20];
    shape.n_cell = 100;
    struct hot_cells cells = hot_cells_new(shape.n_cell);
    struct hot_layer l = hot_layer_new(shape, 0);
    hot_rig_open(&rig, 10, 2, 0, 2);
    hot_rig_add(&rig, &l, 1);
    for (int64_t n = 0; n < 5; n++) {
        for (int64_t i = 0; i < 20; i++) {
            tokens[i] = (struct hot_token){0, 20 * n + i, (uint64_t)(20 * n + i)};
        }
        struct hot_ubatch u = hot_ubatch_new(&cells, 0, 1, tokens, 20, 0, 0);
        u.batch.n_mask_head = n % 2 == 0 ? 1 : shape.n_head;
        if (!hot_step(&rig, &l, &u.batch)) {
            fail_msg("ubatch %d: %s", (int)n, rig.why);
        }
        hot_ubatch_free(&u);
    }
    hot_rig_close(&rig);
    hot_layer_free(&l);
    hot_cells_free(&cells);
}

/* ---- one node with the same row twice ------------------------------------------------------- */

enum { WRITES = 512, SLOTS = 129, ROW_VALUES = 1024 };

struct last_writer {
    struct hot_rig rig;
    struct hot_layer layer;
    struct hot_batch write, read;
    uint64_t token[WRITES];
    int64_t cell[WRITES];
};

static uint64_t run_last_writer(struct last_writer *w, int n_thread, int64_t window) {
    hot_rig_open(&w->rig, window, 0, 0, n_thread);
    hot_rig_add(&w->rig, &w->layer, 1);
    struct hot_graph g = hot_graph_new(&w->rig);
    hot_add_write(&g, &w->layer, &w->write);
    hot_add_attention(&g, &w->layer, &w->read);
    if (!hot_graph_run(&g)) {
        fail_msg("%d threads, W %d: %s", n_thread, (int)window, w->rig.why);
    }
    hot_rig_close(&w->rig);
    return w->rig.digest;
}

static void pitfall_01_last_writer_has_the_twin(void **state) {
    (void)state;
    struct hot_shape shape = hot_usual(GGML_TYPE_Q4_0, GGML_TYPE_Q8_0);
    uint64_t random = 9;
    shape.dk = shape.dv = 128;
    shape.n_head = shape.n_head_kv = ROW_VALUES / 128;
    shape.n_cell = SLOTS;
    struct last_writer w = {.layer = hot_layer_new(shape, 0)};
    w.write = (struct hot_batch){
        .n_stream = 1, .n_query = WRITES, .n_kv = SLOTS, .token = w.token, .cell = w.cell};
    w.read = w.write;
    w.read.n_query = 1;
    for (int64_t i = 0; i < WRITES; i++) { /* each slot once, the rest anywhere, in no order */
        w.token[i] = (uint64_t)i;
        w.cell[i] = i % 4 == 1 ? i / 4 : random_u32(&random) % SLOTS;
    }
    w.cell[0] = SLOTS - 1;
    for (int64_t window = 1; window <= SLOTS; window += 64) {
        uint64_t digest = 0;
        for (int n = 0; n < 100; n++) {
            const uint64_t now = run_last_writer(&w, 1 + n % 8, window);
            assert_true(n == 0 || now == digest);
            digest = now;
        }
    }
    hot_layer_free(&w.layer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        HOT_TEST(pitfall_09_sequences_in_one_cache),
        HOT_TEST(a_waiting_sequence_keeps_its_twins),
        HOT_TEST(shared_rows_stay_while_they_are_wanted),
        HOT_TEST(pitfall_09_streams),
        HOT_TEST(many_streams_have_a_ring_each),
        HOT_TEST(layers_that_share_a_cache),
        HOT_TEST(masks_by_head_read_cold),
        HOT_TEST(pitfall_01_last_writer_has_the_twin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
