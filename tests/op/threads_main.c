/* test-op-threads: the op's nodes on threads of the test's own, with a barrier between nodes as
 * ggml has one, so that ThreadSanitizer sees all of it. The bits must be those of one thread. */
#include <pthread.h>

#include "hand.h"

enum { THREADS = 12, CALLS = 3 };

struct crew {
    const struct hand_nodes *nodes;
    pthread_barrier_t barrier;
};
struct member {
    struct crew *crew;
    int ith;
};

static void *work(void *arg) {
    const struct member *const member = arg;
    for (int i = 0; i < member->crew->nodes->n; i++) {
        hand_run(member->crew->nodes->node[i], member->ith, THREADS);
        pthread_barrier_wait(&member->crew->barrier);
    }
    return NULL;
}

static void run_on_threads(const struct hand_nodes *nodes) {
    struct crew crew = {.nodes = nodes};
    struct member members[THREADS];
    pthread_t threads[THREADS];
    if (pthread_barrier_init(&crew.barrier, NULL, THREADS) != 0) abort();
    for (int i = 0; i < THREADS; i++) {
        members[i] = (struct member){&crew, i};
        if (pthread_create(&threads[i], NULL, work, &members[i]) != 0) abort();
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&crew.barrier);
}

struct shape {
    enum ggml_type type;
    int64_t dk, dv, n_query, n_head, n_head_kv, n_batch, n_row[CALLS], n_row_quant[CALLS];
    bool with_o, shared, partials, normalise;
};

static const struct shape shapes[] = {
    {GGML_TYPE_Q8_0, 32, 32, 7, 32, 8, 1, {512, 0, 1}, {5, 512, 0}, false, true, false, false},
    {GGML_TYPE_Q4_0, 64, 32, 1, 8, 2, 2, {600, 1, 700}, {0, 640, 64}, true, false, false, false},
    {GGML_TYPE_F16, 33, 65, 2, 6, 3, 1, {100, 0, 7}, {0, 1, 90}, false, true, false, true},
    {GGML_TYPE_BF16, 64, 96, 40, 4, 2, 1, {300, 20, 1}, {10, 0, 70}, true, true, false, false},
    {GGML_TYPE_Q5_1, 32, 64, 3, 5, 1, 1, {70, 1, 200}, {64, 300, 0}, true, false, true, false},
};
enum { N_SHAPE = sizeof shapes / sizeof shapes[0] };

/* A chain over one state, or a state for each call; all share q and take rows of their own. */
static struct ggml_tensor *build(struct hand *hand, const struct shape *s) {
    struct ggml_tensor *states[CALLS], *after[CALLS], *y = NULL, *output = NULL;
    struct ggml_tensor *const q =
        hand_rows(hand, GGML_TYPE_F32, s->dk, s->n_query, s->n_head, s->n_batch);
    struct ggml_tensor *const sinks = hand_rows(hand, GGML_TYPE_F32, s->n_head, 1, 1, 1);
    if (s->shared) {
        output = hand_tensor(hand, GGML_TYPE_F32, s->dv, s->n_head, s->n_query, s->n_batch, 4);
    }
    for (int i = 0; i < CALLS; i++) {
        states[i] = i > 0 && !s->partials
                        ? states[0]
                        : hand_tensor(hand, GGML_TYPE_F32, s->with_o ? 2 + s->dv : 2, s->n_head,
                                      s->n_query, s->n_batch, 20);
        struct ggml_tensor *rows[4];
        for (int j = 0; j < 4; j++) {
            rows[j] = hand_rows(hand, j < 2 ? GGML_TYPE_F16 : s->type, j % 2 ? s->dv : s->dk,
                                j < 2 ? s->n_row[i] : s->n_row_quant[i], s->n_head_kv, s->n_batch);
        }
        const struct varve_ggml_state_params params = {.struct_bytes = sizeof params,
                                                       .first = i == 0 || s->partials,
                                                       .final = i == CALLS - 1 && !s->partials,
                                                       .normalise = s->normalise,
                                                       .previous = s->partials ? NULL : y,
                                                       .output = output,
                                                       .sinks = sinks};
        y = after[i] =
            varve_ggml_flash_attn_ext_with_state(hand->ctx, q, rows[0], rows[1], NULL, rows[2],
                                                 rows[3], NULL, states[i], 0.2f, 0, 0, &params);
    }
    if (!s->partials) return y;
    for (int i = 1; i < CALLS; i++) {
        after[0] = varve_ggml_state_merge(hand->ctx, states[0], after[0], states[i], after[i]);
    }
    return varve_ggml_state_finish(hand->ctx, states[0], after[0], sinks, true);
}

/* The result on all threads and on one must be the same, bit for bit. */
static bool check(const struct shape *s, int number) {
    struct hand hands[2];
    struct hand_nodes nodes[2];
    struct ggml_tensor *y[2];
    for (int i = 0; i < 2; i++) {
        hand_begin(&hands[i]);
        y[i] = build(&hands[i], s);
        if (y[i] == NULL) abort();
        hand_nodes_of(&hands[i], y[i], 16, &nodes[i]);
    }
    run_on_threads(&nodes[0]);
    for (int i = 0; i < nodes[1].n; i++) hand_run(nodes[1].node[i], 0, 1);
    bool good = memcmp(y[0]->data, y[1]->data, ggml_nbytes(y[0])) == 0;
    const float *const x = y[0]->data;
    for (int64_t i = 0; i < ggml_nelements(y[0]); i++) good = good && isfinite(x[i]);
    if (!good) printf("shape %d: other bits on %d threads than on one\n", number, THREADS);
    for (int i = 0; i < 2; i++) hand_end(&hands[i]);
    return good;
}

int main(void) {
    int n_failed = 0;
    for (int i = 0; i < N_SHAPE; i++) n_failed += !check(&shapes[i], i);
    printf("%d passed, %d failed\n", N_SHAPE - n_failed, n_failed);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
