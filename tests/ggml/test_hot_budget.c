/* VARVE_HOT_MAX: whatever happens to a cache, no more bytes are taken, and results stay those of
 * some choice of tiers (hot_envelope.h). Which twins are given up is the implementation's choice.
 */
#include "hot_world.h"

static const struct hot_shape shape = {GGML_TYPE_Q4_0, GGML_TYPE_Q5_0, 32, 32, 2, 2, 120, 1,
                                       false,          GGML_TYPE_F32};
static struct hot_layer layers[WORLD_LAYERS];

static struct varve_ggml_account total_account(void) {
    struct varve_ggml_account account;
    assert_true(hot_read_account(-1, &account));
    return account;
}

static uint64_t bytes_now(const struct varve_ggml_account *account) {
    return account->bytes_hot + account->bytes_staging;
}

/* One random history: appended tokens for the most part, so that the budget binds. */
static void run_history(const struct world_config *config, uint64_t seed) {
    struct world w;
    world_open(&w, config, layers);
    for (int i = 0; i < 30; i++) {
        const uint32_t kind = random_u32(&seed);
        struct world_op op = {.kind = kind % 3 != 0 ? WORLD_APPEND
                                                    : (enum world_kind)(kind / 3 % WORLD_N_KIND)};
        for (int j = 0; j < 4; j++) {
            op.arg[j] = random_u32(&seed);
        }
        if (!world_apply(&w, &op)) {
            fail_msg("limit %d, operation %d (%s): %s%s", (int)config->hot_max, i,
                     world_names[op.kind], w.rig.why, w.other.why);
        }
        const struct varve_ggml_account account = total_account();
        assert_true(bytes_now(&account) <= (uint64_t)config->hot_max);
        assert_true(account.bytes_limit == (uint64_t)config->hot_max);
    }
    world_close(&w);
}

/* Limits ascend, as the peak is that of the process. */
static void pitfall_07_bytes_never_exceed_the_limit(void **state) {
    (void)state;
    static const int64_t limits[] = {1, 1000, 6000, 12000, 20000, 40000, 80000};
    for (int i = 0; i < 7; i++) {
        for (uint64_t seed = 1; seed <= 10; seed++) {
            const struct world_config config = {.shape = shape,
                                                .window = 1 + (int64_t)(seed * 13 % 90),
                                                .n_sink = (int64_t)(seed % 5),
                                                .n_seq = 1 + (int64_t)(seed % 4),
                                                .hot_max = limits[i],
                                                .n_thread = 2,
                                                .one_graph = seed % 2 == 0,
                                                .any_tier = true};
            run_history(&config, seed * 1000003 + (uint64_t)i);
        }
        assert_true(total_account().bytes_hot_peak <= (uint64_t)limits[i]);
    }
    const struct varve_ggml_account account = total_account();
    assert_true(account.k.twins_evicted > 0 && account.v.twins_evicted > 0);
    assert_true(account.k.rows_hot > 0 && account.v.rows_hot > 0);
    assert_true(bytes_now(&account) == 0); /* all back ends have gone */
}

/* A limit that is never reached changes nothing, and nothing is evicted. */
static void a_limit_out_of_reach_changes_nothing(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 15; seed++) {
        const struct world_config config = {.shape = shape,
                                            .window = 1 + (int64_t)(seed * 7 % 40),
                                            .n_sink = 4,
                                            .n_seq = 1 + (int64_t)(seed % 4),
                                            .hot_max = INT64_C(1) << 40,
                                            .n_thread = 2};
        run_history(&config, seed);
    }
}

static int set_up(void **state) {
    (void)state;
    for (int i = 0; i < WORLD_LAYERS; i++) {
        layers[i] = hot_layer_new(shape, (uint64_t)i);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < WORLD_LAYERS; i++) {
        hot_layer_free(&layers[i]);
    }
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        HOT_TEST(pitfall_07_bytes_never_exceed_the_limit),
        HOT_TEST(a_limit_out_of_reach_changes_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
