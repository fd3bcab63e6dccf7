/* Rows of a cache that change behind the back end's back, and rows that are taken back: how many
 * rows the next token then reads in F16, in plain numbers, beside the comparison with the model
 * that each step makes (hot_world.h). */
#include "hot_world.h"

enum { WINDOW = 12, N_SINK = 3, PROMPT = 70, N_READER = WORLD_LAYERS + 1 };

static const struct hot_shape unified = {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, 32, 32, 2, 1, 190, 1,
                                         false,          GGML_TYPE_F32};
static const struct hot_shape streams = {GGML_TYPE_Q5_1, GGML_TYPE_Q4_0, 32, 32, 2, 1, 90, 2,
                                         false,          GGML_TYPE_F32};

struct scene {
    struct world w;
    struct hot_layer layers[WORLD_LAYERS];
};

static void open_scene(struct scene *s, struct hot_shape shape, int64_t n_seq, int64_t n_sink) {
    const struct world_config config = {
        .shape = shape, .window = WINDOW, .n_sink = n_sink, .n_seq = n_seq, .n_thread = 2};
    for (int i = 0; i < WORLD_LAYERS; i++) {
        s->layers[i] = hot_layer_new(shape, (uint64_t)i);
    }
    world_open(&s->w, &config, s->layers);
}

static void close_scene(struct scene *s) {
    world_close(&s->w);
    for (int i = 0; i < WORLD_LAYERS; i++) {
        hot_layer_free(&s->layers[i]);
    }
}

static void append(struct scene *s, int64_t seq, int64_t n) {
    if (!world_append(&s->w, &s->w.rig, seq, n, 30, 0)) {
        fail_msg("%s", s->w.rig.why);
    }
}

/* One more token: it is to read `k` and `v` rows in F16 in each layer that attends. */
static void expect_hot(struct scene *s, int64_t seq, int64_t k, int64_t v) {
    const struct varve_ggml_account a = hot_account(&s->w.rig);
    append(s, seq, 1);
    const struct varve_ggml_account b = hot_account(&s->w.rig);
    const uint64_t hot_k = b.k.rows_hot + b.k.rows_sink - a.k.rows_hot - a.k.rows_sink;
    const uint64_t hot_v = b.v.rows_hot + b.v.rows_sink - a.v.rows_hot - a.v.rows_sink;
    assert_int_equal((int64_t)hot_k, k * N_READER);
    assert_int_equal((int64_t)hot_v, v * N_READER);
}

static void remove_last(struct scene *s, int64_t seq, int64_t n) {
    struct hot_cells *c = world_cells(&s->w, seq);
    const int64_t end = hot_cells_end(c, seq);
    hot_cells_remove(c, seq, end - n, end);
}

/* ---- rows that are taken back --------------------------------------------------------------- */

/* Up to 32 rejected tokens leave a full window; with more the rows before are cold already. The
 * tokens that take their places, and their cells, are other ones. */
static void pitfall_04_rejected_tokens(void **state) {
    (void)state;
    for (int64_t n = 1; n <= HOT_SLACK + WINDOW + 2; n++) {
        struct scene s;
        open_scene(&s, unified, 1, 0);
        append(&s, 0, PROMPT);
        remove_last(&s, 0, n);
        const int64_t left = WINDOW + HOT_SLACK - n;
        const int64_t hot = left < 0 ? 1 : left + 1 < WINDOW ? left + 1 : WINDOW;
        expect_hot(&s, 0, hot, hot);
        close_scene(&s);
    }
}

/* Draft, reject, go on, as speculative decoding does it: the window is full at each step. */
static void pitfall_04_speculative_decoding(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, unified, 1, N_SINK);
    append(&s, 0, PROMPT);
    for (int64_t n = 0; n < 60; n++) {
        append(&s, 0, 1 + n * 7 % HOT_SLACK);
        remove_last(&s, 0, n * 7 % HOT_SLACK);
        if (n % 2 == 0) {
            world_poison(&s.w);
        }
        expect_hot(&s, 0, WINDOW + N_SINK, WINDOW + N_SINK);
        if (hot_cells_n_free(s.w.cells) < 2 * HOT_SLACK) { /* begin again, from two rows on */
            hot_cells_remove(s.w.cells, 0, 2, INT64_MAX);
            append(&s, 0, PROMPT);
        }
    }
    close_scene(&s);
}

/* ---- rows that change ----------------------------------------------------------------------- */

static void pitfall_10_context_shift(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, unified, 1, N_SINK);
    append(&s, 0, PROMPT);
    world_shift(&s.w, 0, UINT32_MAX);
    expect_hot(&s, 0, 1, WINDOW + N_SINK); /* all of K but the new row; V has not moved */
    for (int64_t n = 2; n <= WINDOW + 3; n++) {
        expect_hot(&s, 0, n < WINDOW ? n : WINDOW, WINDOW + N_SINK);
    }
    close_scene(&s);
}

/* Some rows of the window changed: older ones, within the slack, take their places. */
static void pitfall_10_some_rows_shift(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, unified, 1, 0);
    append(&s, 0, PROMPT);
    world_shift(&s.w, 0, UINT32_C(0x55555555));
    const struct varve_ggml_account a = hot_account(&s.w.rig);
    expect_hot(&s, 0, WINDOW, WINDOW);
    const struct varve_ggml_account b = hot_account(&s.w.rig);
    assert_true(b.k.twins_stale > a.k.twins_stale && b.v.twins_stale == 0);
    close_scene(&s);
}

static void pitfall_10_clear(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, unified, 1, N_SINK);
    append(&s, 0, PROMPT);
    world_clear(&s.w, true);
    expect_hot(&s, 0, 1, 1);
    append(&s, 0, PROMPT);
    expect_hot(&s, 0, WINDOW + N_SINK, WINDOW + N_SINK);
    close_scene(&s);
}

static void pitfall_10_stream_copy(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, streams, 2, N_SINK);
    append(&s, 0, 30);
    append(&s, 1, 40);
    world_copy(&s.w, 0, 1);
    expect_hot(&s, 1, 1, 1); /* nobody wrote these rows into stream 1 */
    expect_hot(&s, 0, WINDOW + N_SINK, WINDOW + N_SINK);
    close_scene(&s);
}

/* Shared cells are the same rows: a copy of a sequence in one cache keeps its twins. */
static void pitfall_08_sequences_that_share_rows(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, unified, 4, N_SINK);
    append(&s, 0, 40);
    for (int64_t seq = 1; seq < 4; seq++) {
        world_copy(&s.w, 0, seq);
    }
    append(&s, 0, 50); /* the shared rows leave this sequence's window, but no other's */
    for (int64_t seq = 0; seq < 4; seq++) {
        expect_hot(&s, seq, WINDOW + N_SINK, WINDOW + N_SINK);
    }
    close_scene(&s);
}

/* Restored rows are cold until others have taken their places in the window. In their own cells
 * they are the rows that were written. */
static void pitfall_13_27_restored_rows(void **state) {
    (void)state;
    for (int own_cells = 0; own_cells < 2; own_cells++) {
        struct scene s;
        open_scene(&s, unified, 1, 0);
        append(&s, 0, 40);
        world_save(&s.w, 0);
        world_restore(&s.w, 0, own_cells == 1 ? 0 : 100);
        const int64_t most = own_cells == 1 ? WINDOW : 1;
        expect_hot(&s, 0, most, most);
        append(&s, 0, WINDOW);
        expect_hot(&s, 0, WINDOW, WINDOW);
        close_scene(&s);
    }
}

/* Rows that move to other cells leave their twins behind: the cell is not the row. */
static void pitfall_28_rows_move_to_other_cells(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, unified, 1, 0);
    append(&s, 0, 60);
    world_save(&s.w, 0);
    world_restore(&s.w, 0, 5); /* each row into the cell five further on, over another's bytes */
    expect_hot(&s, 0, 1, 1);
    close_scene(&s);
}

/* ---- other back ends ------------------------------------------------------------------------ */

static void another_back_end_writes(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, unified, 1, 0);
    append(&s, 0, PROMPT);
    remove_last(&s, 0, 5);
    if (!world_append(&s.w, &s.w.other, 0, 5, 5, 0)) { /* into the same five cells */
        fail_msg("%s", s.w.other.why);
    }
    expect_hot(&s, 0, WINDOW, WINDOW); /* its own older rows; the five are stale, and go */
    assert_int_equal(hot_account(&s.w.rig).k.twins_stale, 5 * WORLD_LAYERS);
    close_scene(&s);
}

static void a_new_back_end_begins_cold(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, unified, 1, N_SINK);
    append(&s, 0, PROMPT);
    hot_rig_close(&s.w.rig);
    world_open_rig(&s.w, &s.w.rig);
    for (int64_t n = 1; n <= WINDOW + 2; n++) {
        expect_hot(&s, 0, n < WINDOW ? n : WINDOW, n < WINDOW ? n : WINDOW);
    }
    close_scene(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        HOT_TEST(pitfall_04_rejected_tokens),
        HOT_TEST(pitfall_04_speculative_decoding),
        HOT_TEST(pitfall_08_sequences_that_share_rows),
        HOT_TEST(pitfall_10_context_shift),
        HOT_TEST(pitfall_10_some_rows_shift),
        HOT_TEST(pitfall_10_clear),
        HOT_TEST(pitfall_10_stream_copy),
        HOT_TEST(pitfall_13_27_restored_rows),
        HOT_TEST(pitfall_28_rows_move_to_other_cells),
        HOT_TEST(another_back_end_writes),
        HOT_TEST(a_new_back_end_begins_cold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
