/* No two threads write one cache line: of states, results or scratch, wherever these begin. Which
 * bytes a thread writes is found by running the nodes' functions one thread after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "hand.h"

enum { LINE = 64, THREADS_MAX = 17, AREAS_MAX = 16 };

/* Memory that nodes write, with what is known of each line: 0, or 1 + the thread that wrote it. */
struct area {
    const char *name;
    char *begin;
    size_t bytes;
    char *before;
    unsigned char *owner;
    size_t n_written;
};

struct areas {
    int n;
    struct area area[AREAS_MAX];
};

static void watch(struct areas *areas, const char *name, const struct ggml_tensor *t) {
    struct area *const a = &areas->area[areas->n++];
    assert_true(areas->n <= AREAS_MAX);
    /* whole lines, from the one in which the tensor begins: blocks are aligned and have room */
    const size_t past = (uintptr_t)t->data % LINE;
    *a = (struct area){.name = name,
                       .begin = (char *)t->data - past,
                       .bytes = (past + ggml_nbytes(t) + LINE - 1) / LINE * LINE};
    a->before = malloc(a->bytes);
    a->owner = calloc(a->bytes / LINE, 1);
    assert_true(a->before != NULL && a->owner != NULL);
}

static void forget(struct areas *areas) {
    for (int i = 0; i < areas->n; i++) {
        free(areas->area[i].before);
        free(areas->area[i].owner);
    }
}

/* Lines that differ from what they were before this thread. */
static void note_writes(struct area *a, int thread, int n_thread, size_t offset) {
    for (size_t i = 0; i < a->bytes / LINE; i++) {
        if (memcmp(a->begin + i * LINE, a->before + i * LINE, LINE) == 0) continue;
        if (a->owner[i] != 0) {
            fail_msg("%s at offset %zu: threads %d and %d of %d both write line %zu of %zu",
                     a->name, offset, a->owner[i] - 1, thread, n_thread, i, a->bytes / LINE);
        }
        a->owner[i] = (unsigned char)(thread + 1);
        a->n_written++;
    }
}

/* Runs a node thread by thread. Lines may change hands between nodes: there is a barrier. */
static void run_node(struct areas *areas, struct ggml_tensor *node, int n_thread, size_t offset) {
    for (int i = 0; i < areas->n; i++) {
        memset(areas->area[i].owner, 0, areas->area[i].bytes / LINE);
    }
    for (int thread = 0; thread < n_thread; thread++) {
        for (int i = 0; i < areas->n; i++) {
            memcpy(areas->area[i].before, areas->area[i].begin, areas->area[i].bytes);
        }
        hand_run(node, thread, n_thread);
        for (int i = 0; i < areas->n; i++) {
            note_writes(&areas->area[i], thread, n_thread, offset);
        }
    }
}

struct shape {
    int32_t dk, dv, n_query, n_head, n_head_kv, n_batch;
    int64_t n_row, n_row_quant;
    bool with_o, normalise;
};

static struct ggml_tensor *build(struct hand *hand, const struct shape *s, int n_thread,
                                 size_t offset, struct ggml_tensor **state,
                                 struct ggml_tensor **output) {
    struct ggml_tensor *const q =
        hand_rows(hand, GGML_TYPE_F32, s->dk, s->n_query, s->n_head, s->n_batch);
    struct ggml_tensor *const k =
        hand_rows(hand, GGML_TYPE_F16, s->dk, s->n_row, s->n_head_kv, s->n_batch);
    struct ggml_tensor *const v =
        hand_rows(hand, GGML_TYPE_F16, s->dv, s->n_row, s->n_head_kv, s->n_batch);
    struct ggml_tensor *const kq =
        hand_rows(hand, GGML_TYPE_BF16, s->dk, s->n_row_quant, s->n_head_kv, s->n_batch);
    struct ggml_tensor *const vq =
        hand_rows(hand, GGML_TYPE_F32, s->dv, s->n_row_quant, s->n_head_kv, s->n_batch);
    *state = hand_tensor(hand, GGML_TYPE_F32, s->with_o ? 2 + s->dv : 2, s->n_head, s->n_query,
                         s->n_batch, offset);
    *output =
        hand_tensor(hand, GGML_TYPE_F32, s->dv, s->n_head, s->n_query, s->n_batch, offset * 3 % 64);
    struct varve_ggml_state_params params = {.struct_bytes = sizeof params,
                                             .first = true,
                                             .normalise = s->normalise,
                                             .output = *output,
                                             .n_thread_max = n_thread};
    struct ggml_tensor *const y = varve_ggml_flash_attn_ext_with_state(
        hand->ctx, q, k, v, NULL, kq, vq, NULL, *state, 0.2f, 0, 0, &params);
    assert_non_null(y);
    params.first = false;
    params.final = true;
    params.previous = y;
    struct ggml_tensor *const z = varve_ggml_flash_attn_ext_with_state(
        hand->ctx, q, k, v, NULL, NULL, NULL, NULL, *state, 0.3f, 0, 0, &params);
    assert_non_null(z);
    return z;
}

/* Two calls over one state. Bytes that get the value they had cannot be told from bytes that are
 * not written; so a node that writes nothing at all fails, and different data follow from each
 * shape. */
static void check_shape(const struct shape *s, int n_thread, size_t offset) {
    struct hand hand;
    struct hand_nodes nodes;
    struct areas areas = {0};
    struct ggml_tensor *state, *output;
    hand_begin(&hand);
    struct ggml_tensor *const z = build(&hand, s, n_thread, offset, &state, &output);
    hand_nodes_of(&hand, z, offset / 16 * 16, &nodes);
    watch(&areas, "state", state);
    watch(&areas, "output", output);
    for (int i = 0; i < nodes.n; i++) {
        if (nodes.node[i]->view_src == NULL) watch(&areas, "scratch", nodes.node[i]);
    }
    for (int i = 0; i < nodes.n; i++) {
        size_t before = 0, after = 0;
        for (int j = 0; j < areas.n; j++) before += areas.area[j].n_written;
        run_node(&areas, nodes.node[i], n_thread, offset);
        for (int j = 0; j < areas.n; j++) after += areas.area[j].n_written;
        assert_true(after > before);
    }
    assert_true(areas.area[0].n_written > 0 && areas.area[1].n_written > 0);
    for (int64_t i = 0; i < ggml_nelements(output); i++) {
        assert_true(isfinite(((const float *)output->data)[i]));
    }
    forget(&areas);
    hand_end(&hand);
}

static void threads_write_lines_of_their_own(void **unused) {
    (void)unused;
    static const struct shape shapes[] = {
        {32, 32, 7, 8, 2, 1, 70, 33, true, false},   {32, 32, 7, 8, 2, 1, 70, 33, false, false},
        {33, 65, 3, 5, 5, 2, 20, 1, true, true},     {33, 65, 3, 5, 5, 2, 20, 1, false, true},
        {40, 7, 1, 3, 1, 1, 300, 300, true, false},  {40, 7, 1, 3, 1, 1, 300, 300, false, true},
        {16, 1, 5, 4, 2, 3, 9, 0, true, false},      {16, 1, 5, 4, 2, 3, 9, 0, false, false},
        {64, 64, 33, 4, 1, 1, 700, 100, true, false}};
    static const int threads[] = {2, 3, 5, 12, THREADS_MAX};
    static const size_t offsets[] = {0, 4, 16, 32, 12, 60};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
            for (size_t o = 0; o < sizeof offsets / sizeof offsets[0]; o++) {
                check_shape(&shapes[s], threads[t], offsets[o]);
            }
        }
    }
}

/* Merge and finish write as calls do. */
static void merges_write_lines_of_their_own(void **unused) {
    (void)unused;
    for (size_t offset = 0; offset < 64; offset += 20) {
        for (int dv = 1; dv <= 34; dv += 11) {
            struct hand hand;
            struct hand_nodes nodes;
            struct areas areas = {0};
            hand_begin(&hand);
            struct ggml_tensor *const a =
                hand_tensor(&hand, GGML_TYPE_F32, 2 + dv, 6, 7, 2, offset);
            struct ggml_tensor *const b =
                hand_tensor(&hand, GGML_TYPE_F32, 2 + dv, 6, 7, 2, offset / 2 / 4 * 4);
            hand_fill(&hand, a);
            hand_fill(&hand, b);
            for (int64_t r = 0; r < ggml_nrows(a); r++) { /* sums are positive */
                ((float *)a->data)[r * (2 + dv) + 1] = ((float *)b->data)[r * (2 + dv) + 1] = 1;
            }
            struct ggml_tensor *const m = varve_ggml_state_merge(hand.ctx, a, NULL, b, NULL);
            struct ggml_tensor *const y = varve_ggml_state_finish(hand.ctx, a, m, NULL, true);
            assert_non_null(y);
            hand_nodes_of(&hand, y, 16, &nodes);
            watch(&areas, "state", a);
            watch(&areas, "other state", b);
            for (int i = 0; i < nodes.n; i++) {
                if (nodes.node[i]->view_src == NULL) watch(&areas, "node", nodes.node[i]);
            }
            for (int i = 0; i < nodes.n; i++) run_node(&areas, nodes.node[i], 7, offset);
            assert_true(areas.area[0].n_written > 0);
            assert_int_equal(areas.area[1].n_written, 0); /* `from` is not changed */
            forget(&areas);
            hand_end(&hand);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_write_lines_of_their_own),
        cmocka_unit_test(merges_write_lines_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
