/* Random histories of a cache (hot_world.h), each attention compared with the model of the hot
 * tier: results and counters. A history that fails is shrunk and printed.
 *
 * Pitfalls of the project's list that the histories run into: 4 (rejected tokens), 8 (metadata of
 * rows that move), 9 (several sequences, unified and not), 10 (writes that are no SET_ROWS), 13 and
 * 27 (restored rows), 18 (NaN in cells that nobody sees), 28 (rows in other cells).
 *
 *     test-ggml-hot-ops [first seed [histories]] */
#include "hot_world.h"

static uint64_t first_seed = 1;
#ifdef __SANITIZE_ADDRESS__
static uint64_t n_history = 300; /* several times slower */
#else
static uint64_t n_history = 2000;
#endif

/* Shapes, each with caches of its own that all histories share. */
static const struct hot_shape shapes[] = {
    {GGML_TYPE_Q4_0, GGML_TYPE_Q4_0, 32, 32, 2, 2, 120, 1, false, GGML_TYPE_F32},
    {GGML_TYPE_Q8_0, GGML_TYPE_Q5_1, 32, 32, 4, 1, 120, 1, false, GGML_TYPE_F32},
    {GGML_TYPE_Q5_0, GGML_TYPE_F16, 32, 64, 2, 1, 120, 1, false, GGML_TYPE_F32},
    {GGML_TYPE_F16, GGML_TYPE_IQ4_NL, 64, 32, 2, 1, 120, 1, false, GGML_TYPE_F16},
    {GGML_TYPE_Q4_1, GGML_TYPE_Q4_1, 64, 32, 4, 1, 120, 1, true, GGML_TYPE_F32},
    {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, 32, 32, 2, 2, 40, 3, false, GGML_TYPE_F32},
    {GGML_TYPE_Q5_1, GGML_TYPE_Q5_0, 32, 32, 2, 1, 40, 4, false, GGML_TYPE_F16},
};
enum { N_SHAPE = sizeof(shapes) / sizeof(shapes[0]) };
static struct hot_layer layers[N_SHAPE][WORLD_LAYERS];

struct history {
    struct world_config config;
    struct world_op ops[WORLD_MAX_OPS];
    int shape, n_op;
};

/* Appending is as likely as all the rest, or caches would stay empty. */
static enum world_kind draw_kind(uint64_t *random) {
    const uint32_t r = random_u32(random);
    return r % 2 == 0 ? (r / 2 % 3 == 0 ? WORLD_APPEND_MANY : WORLD_APPEND)
                      : (enum world_kind)(r / 2 % WORLD_N_KIND);
}

/* Room for twins is 4 (W + 40 + S) rows: here never less than there are cells, so that a twin goes
 * by the rules only. */
static struct history draw_history(uint64_t seed) {
    static const int64_t windows[] = {1, 2, 3, 8, 17, 30, 200, 0};
    struct history h = {0};
    uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15);
    random_u32(&random);
    h.shape = (int)(random_u32(&random) % N_SHAPE);
    h.config.shape = shapes[h.shape];
    h.config.window = windows[random_u32(&random) % (random_u32(&random) % 4 == 0 ? 8 : 6)];
    h.config.n_sink = random_u32(&random) % 6;
    h.config.n_seq = h.config.shape.n_stream > 1 ? h.config.shape.n_stream
                                                 : 1 + random_u32(&random) % WORLD_MAX_SEQ;
    h.config.swa = random_u32(&random) % 4 == 0 ? 1 + random_u32(&random) % 50 : 0;
    h.config.n_thread = 1 + (int)(random_u32(&random) % 2);
    h.config.one_graph = random_u32(&random) % 2 == 0;
    h.n_op = 6 + (int)(random_u32(&random) % (WORLD_MAX_OPS - 6));
    for (int i = 0; i < h.n_op; i++) {
        h.ops[i].kind = draw_kind(&random);
        for (int j = 0; j < 4; j++) {
            h.ops[i].arg[j] = random_u32(&random);
        }
    }
    return h;
}

/* The operation that failed, or -1. */
static int run_history(const struct history *h, char why[512]) {
    struct world w;
    int failed = -1;
    world_open(&w, &h->config, layers[h->shape]);
    for (int i = 0; i < h->n_op && failed < 0; i++) {
        if (!world_apply(&w, &h->ops[i])) {
            failed = i;
            snprintf(why, 512, "%.250s%.250s", w.rig.why, w.other.why);
        }
    }
    world_close(&w);
    return failed;
}

/* Leaves out one operation after the other as long as some operation still fails. */
static void shrink_history(struct history *h, char why[512]) {
    for (int i = h->n_op - 1; i >= 0; i--) {
        struct history shorter = *h;
        memmove(&shorter.ops[i], &shorter.ops[i + 1],
                (size_t)(h->n_op - 1 - i) * sizeof(h->ops[0]));
        shorter.n_op--;
        const int failed = run_history(&shorter, why);
        if (failed >= 0) {
            shorter.n_op = failed + 1;
            *h = shorter;
            i = h->n_op; /* what was needed before may not be any more */
        }
    }
    run_history(h, why);
}

static void print_history(const struct history *h) {
    const struct world_config *c = &h->config;
    print_message("K %s, V %s, dk %d, dv %d, %d cells, %d streams, W %d, S %d, %d sequences, "
                  "sliding window %d, %d threads, %s\n",
                  ggml_type_name(c->shape.type_k), ggml_type_name(c->shape.type_v),
                  (int)c->shape.dk, (int)c->shape.dv, (int)c->shape.n_cell, (int)c->shape.n_stream,
                  (int)c->window, (int)c->n_sink, (int)c->n_seq, (int)c->swa, c->n_thread,
                  c->one_graph ? "one graph" : "a graph for each layer");
    for (int i = 0; i < h->n_op; i++) {
        print_message("  %-30s %u %u %u %u\n", world_names[h->ops[i].kind], h->ops[i].arg[0],
                      h->ops[i].arg[1], h->ops[i].arg[2], h->ops[i].arg[3]);
    }
}

static void histories_follow_the_rule(void **state) {
    (void)state;
    print_message("seeds %llu to %llu\n", (unsigned long long)first_seed,
                  (unsigned long long)(first_seed + n_history - 1));
    for (uint64_t seed = first_seed; seed < first_seed + n_history; seed++) {
        char why[512] = "";
        struct history h = draw_history(seed);
        const int failed = run_history(&h, why);
        if (failed >= 0) {
            print_message("seed %llu, operation %d: %s\n", (unsigned long long)seed, failed, why);
            h.n_op = failed + 1;
            shrink_history(&h, why);
            print_history(&h);
            fail_msg("seed %llu, shrunk: %s", (unsigned long long)seed, why);
        }
    }
}

static int set_up(void **state) {
    (void)state;
    for (int i = 0; i < N_SHAPE * WORLD_LAYERS; i++) {
        layers[i / WORLD_LAYERS][i % WORLD_LAYERS] =
            hot_layer_new(shapes[i / WORLD_LAYERS], (uint64_t)(i % WORLD_LAYERS));
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < N_SHAPE * WORLD_LAYERS; i++) {
        hot_layer_free(&layers[i / WORLD_LAYERS][i % WORLD_LAYERS]);
    }
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {HOT_TEST(histories_follow_the_rule)};
    first_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : first_seed;
    n_history = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : n_history;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
