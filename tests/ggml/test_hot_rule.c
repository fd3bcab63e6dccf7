/* The rule of the hot tier (docs/DESIGN.md 9) for one sequence: which rows each query reads in F16,
 * under every cut into ubatches. Results and counters are those of a model in plain C. Tests that
 * guard against a bug seen elsewhere carry its number in the project's list of pitfalls. */
#include "hot_replay.h"
#include "thin.h"

/* ---- the tests themselves ------------------------------------------------------------------- */

/* The output of a query if one row were read in the other tier: is it out of bounds? */
static bool flip_shows(const struct hot_node *n, struct hot_view *w, int64_t i, int64_t r) {
    const int64_t dv = n->v.t->ne[0];
    double *out = hot_alloc(4 * dv, sizeof(double));
    unsigned char *tier = &w->tier[i * w->t->ne[1] + r];
    const unsigned char right = *tier;
    bool shows = false;
    for (int64_t h = 0; h < n->op->ne[1] && !shows; h++) {
        hot_result(n, i, h, out, out + dv);
        *tier = right == HOT_COLD ? HOT_RECENT : HOT_COLD;
        hot_result(n, i, h, out + 2 * dv, out + 3 * dv);
        *tier = right;
        for (int64_t d = 0; d < dv; d++) { /* twice: what is computed has an error of its own */
            shows = shows || fabs(out[2 * dv + d] - out[d]) > out[dv + d] + out[3 * dv + d];
        }
    }
    free(out);
    return shows;
}

static int64_t n_row, n_k_shown, n_v_shown;

static bool count_flips(struct hot_rig *rig, const struct hot_node *node, const uint64_t *token) {
    (void)rig;
    (void)token;
    const int64_t i = node->k.n_query - 1;
    for (int64_t r = 0; r < node->k.t->ne[1]; r++) {
        if (node->k.tier[i * node->k.t->ne[1] + r] != HOT_HIDDEN) {
            struct hot_node n = *node;
            n_row++;
            n_k_shown += flip_shows(&n, &n.k, i, r);
            n_v_shown += flip_shows(&n, &n.v, i, r);
        }
    }
    return true;
}

/* A row read in the wrong tier, on one side only, moves the result beyond the bound that the tests
 * below allow, at the lengths that they use. In K a row may happen to score the same in both tiers:
 * up to 1 of 12 among 400 rows, which the counters then have to tell. */
static void pitfall_03_one_wrong_row_shows(void **state) {
    (void)state;
    for (int64_t t = 0; t < HOT_N_TYPE; t++) {
        n_row = n_k_shown = n_v_shown = 0;
        replay_check((struct replay){.shape = hot_usual(hot_types[t], hot_types[t]),
                                     .window = 30,
                                     .n_sink = 4,
                                     .n_token = 400,
                                     .cut = {3, 37, 70, 145},
                                     .watch = count_flips});
        print_message("%-7s of %d single rows in the wrong tier, %d show in K, %d in V\n",
                      ggml_type_name(hot_types[t]), (int)n_row, (int)n_k_shown, (int)n_v_shown);
        assert_true(n_row > 0 && n_v_shown >= n_row - n_row / 100 &&
                    n_k_shown >= n_row - n_row / 12);
    }
}

static void pitfall_03_decoded_rows_differ_from_their_twins(void **state) {
    (void)state;
    float row[32], decoded[32];
    char bytes[256] = {0}, before[256] = {0};
    for (int64_t t = 0; t < HOT_N_TYPE; t++) {
        struct hot_shape s = hot_usual(hot_types[t], hot_types[t]);
        s.n_cell = 1;
        struct hot_layer l = hot_layer_new(s, 1);
        for (uint64_t token = 0; token < 500; token++) {
            hot_token_row(&l, token, HOT_ROLE_V, row);
            ggml_quantize_chunk(s.type_v, row, bytes, 0, 1, 32, NULL);
            ggml_get_type_traits(s.type_v)->to_float(bytes, decoded, 32);
            assert_true(memcmp(bytes, before, sizeof(bytes)) != 0); /* and from each other */
            memcpy(before, bytes, sizeof(bytes));
            int n_far = 0;
            for (int d = 0; d < 32; d++) {
                n_far += fabsf(decoded[d] - row[d]) > 0.1f * fabsf(row[d]);
            }
            assert_true(n_far >= 16);
        }
        hot_layer_free(&l);
    }
}

/* The model alone, against what its rules come to. */
static void the_model_is_right_for_one_sequence(void **state) {
    (void)state;
    for (int64_t window = 1; window <= 40; window += THIN(5)) {
        for (int64_t n_sink = 0; n_sink <= 5; n_sink += window % 3 + 1) {
            for (int64_t cut = 1; cut <= 100; cut += cut < 8 ? 1 : 17) {
                replay_check((struct replay){.shape = hot_usual(GGML_TYPE_Q4_0, GGML_TYPE_Q8_0),
                                             .window = window,
                                             .n_sink = n_sink,
                                             .n_token = 100,
                                             .cut = {cut, 7 * cut % 31 + 1, cut},
                                             .watch = replay_plain_rule});
            }
        }
    }
}

static void without_tiers_all_is_cold(void **state) {
    (void)state;
    for (int64_t i = 0; i < HOT_N_TYPE * HOT_N_TYPE; i++) {
        replay_check((struct replay){
            .shape = hot_mixed(i), .n_token = 90, .cut = {1, 1, 2, 13}, .n_thread = 2});
    }
}

/* ---- cuts ----------------------------------------------------------------------------------- */

static struct replay usual_replay(int64_t i, int64_t window, int64_t n_sink, int64_t n_token) {
    return (struct replay){.shape = hot_mixed(i),
                           .window = window,
                           .n_sink = n_sink,
                           .n_token = n_token,
                           .cut = {1},
                           .n_thread = 2,
                           .watch = replay_plain_rule};
}

/* Token by token: each length from 1 to beyond 3 W is computed once, and a window that is moved in
 * groups, or flushed when full, shows (pitfalls 2 and 5). */
static void pitfall_02_every_length(void **state) {
    (void)state;
    for (int64_t window = 1; window <= 130; window += THIN(7)) {
        replay_check(usual_replay(window, window, window % 6, 3 * window + 3));
    }
}

static void pitfall_02_every_split(void **state) {
    (void)state;
    for (int64_t window = 1; window <= 20; window++) {
        const int64_t n_token = 3 * window + 2 * HOT_SLACK;
        for (int64_t split = 1; split <= n_token; split += THIN(5)) {
            struct replay r = usual_replay(split, window, (window + split) % 6, n_token);
            r.cut[0] = split;
            r.cut[1] = split % 3 == 0 ? 1 : n_token; /* a prompt, then its rest or decoding */
            replay_check(r);
        }
    }
}

/* Ubatches of each length up to 130 with windows of each length up to 130, so that each residue of
 * 64 meets tiles, blocks and ring borders. */
static void pitfall_05_every_residue(void **state) {
    (void)state;
    for (int64_t window = 1; window <= 130; window += THIN(7)) {
        for (int64_t c = 0; c < 3; c++) {
            struct replay r = usual_replay(window + c, window, 4, window + 150);
            r.cut[0] = (window * 37 + c * 43) % 130 + 1;
            r.cut[1] = c == 0 ? r.cut[0] : (window * 11 + c * 64) % 130 + 1;
            replay_check(r);
        }
    }
}

static void all_tokens_at_once(void **state) {
    (void)state;
    static const int64_t windows[] = {1, 2, 31, 32, 63, 64, 65, 127, 128, 256, 299, 300, 1000};
    for (int64_t i = 0; i < 13; i++) {
        struct replay r = usual_replay(i, windows[i], i % 5, 300);
        r.cut[0] = 300;
        replay_check(r);
        r.cut[0] = 1; /* and then one by one; a window beyond the context included */
        replay_check(r);
    }
}

/* ---- masks and cells ------------------------------------------------------------------------ */

static void no_mask_shows_all_rows(void **state) {
    (void)state;
    for (int64_t window = 1; window <= 66; window += 13) {
        struct replay r = usual_replay(window, window, 4, 140);
        r.no_mask = true;
        replay_check(r);
    }
}

/* Pinned rows slide out of sight too, and come back into no window. */
static void sliding_windows_hide_old_rows(void **state) {
    (void)state;
    for (int64_t swa = 1; swa <= 80; swa += swa < 10 ? 1 : 7) {
        for (int64_t i = 0; i < 6; i++) {
            static const int64_t windows[] = {1, 3, 16, 33, 64, 200};
            struct replay r = usual_replay(swa + i, windows[i], i, 160);
            r.watch = NULL; /* with swa <= S more rows are pinned than the first S */
            r.swa = swa;
            r.cut[0] = i % 2 == 0 ? 1 : 19;
            r.cut[1] = i % 3 == 0 ? 1 : 50;
            replay_check(r);
        }
    }
}

/* llama.cpp's caches of sliding-window layers: cells of rows out of sight are written anew. */
static void pitfall_08_cells_are_used_in_turn(void **state) {
    (void)state;
    for (int64_t swa = 5; swa <= 70; swa += 13) {
        for (int64_t cut = 1; cut <= 65; cut += 8) {
            struct replay r = usual_replay(cut, 1 + (swa * cut) % 50, 4, 4 * (swa + cut) + 3);
            r.watch = NULL; /* cells are not positions */
            r.swa = swa;
            r.n_ring = swa + cut;
            r.cut[0] = cut;
            replay_check(r);
        }
    }
}

static void pitfall_17_queries_that_see_nothing(void **state) {
    (void)state;
    static const int64_t from[] = {1, 7, 20, 50};
    for (int64_t i = 0; i < 4; i++) {
        struct replay r = usual_replay(i, 9, 4, 50);
        r.watch = NULL;
        r.seen_from = from[i];
        r.cut[0] = 20;
        replay_check(r); /* the bound of a query that sees nothing is zero, as is its result */
    }
}

/* ---- what must not matter ------------------------------------------------------------------- */

static void threads_do_not_matter(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 16};
    static const int64_t cuts[] = {1, 6, 130};
    for (int64_t c = 0; c < 3 * HOT_N_TYPE; c++) {
        struct replay r = usual_replay(c, 70, 4, cuts[c % 3] == 1 ? 150 : 600);
        r.cut[0] = cuts[c % 3];
        r.shape.n_head = 4;
        r.watch = NULL;
        uint64_t digest = 0;
        for (int t = 0; t < 4; t++) {
            r.n_thread = threads[t];
            assert_true(replay_run(&r));
            assert_true(t == 0 || digest == r.digest);
            digest = r.digest;
        }
    }
}

static void pitfall_06_capacity_does_not_matter(void **state) {
    (void)state;
    uint64_t digest = 0;
    for (int64_t times = 1; times <= 8; times++) {
        struct replay r = usual_replay(3, 40, 4, 150);
        r.shape.n_cell = 160 * times;
        r.cut[0] = 10;
        r.cut[1] = 1;
        assert_true(replay_run(&r));
        assert_true(times == 1 || digest == r.digest);
        digest = r.digest;
    }
}

/* ---- sides ---------------------------------------------------------------------------------- */

static void each_side_has_twins_of_its_own(void **state) {
    (void)state;
    static const enum ggml_type plain[] = {GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_BF16};
    for (int64_t i = 0; i < 3 * HOT_N_TYPE; i++) {
        for (int side = 0; side < 2; side++) {
            struct replay r = usual_replay(i, 20, 4, 110);
            *(side == 0 ? &r.shape.type_k : &r.shape.type_v) = plain[i / HOT_N_TYPE];
            *(side == 0 ? &r.shape.type_v : &r.shape.type_k) = hot_types[i % HOT_N_TYPE];
            r.watch = NULL; /* the other side's rows are all "cold" */
            r.cut[0] = 1 + i;
            if (!replay_run(&r)) {
                fail_msg("%s", r.why);
            }
            const struct varve_ggml_side *none = side == 0 ? &r.account.k : &r.account.v;
            assert_true(none->twins_written == 0 && none->rows_hot == 0 && none->rows_sink == 0);
        }
    }
}

static void half_floats_are_their_own_twins(void **state) {
    (void)state;
    for (int64_t i = 0; i < HOT_N_TYPE; i++) {
        struct replay r = usual_replay(i, 20, 4, 110);
        r.shape.source = GGML_TYPE_F16;
        r.cut[0] = 40;
        r.cut[1] = 1;
        replay_check(r);
    }
}

static void heads_of_other_sizes(void **state) {
    (void)state;
    static const int64_t sizes[][4] = {/* dk, dv, heads, KV heads */
                                       {64, 64, 4, 4},
                                       {64, 32, 6, 2},
                                       {96, 128, 8, 1},
                                       {128, 64, 12, 3}};
    for (int64_t i = 0; i < 4; i++) {
        struct replay r = usual_replay(i, 33, 4, 120);
        r.shape.dk = sizes[i][0];
        r.shape.dv = sizes[i][1];
        r.shape.n_head = sizes[i][2];
        r.shape.n_head_kv = sizes[i][3];
        r.cut[0] = 70;
        r.cut[1] = 1;
        replay_check(r);
    }
}

static void v_in_k_has_one_twin(void **state) {
    (void)state;
    for (int64_t i = 0; i < HOT_N_TYPE; i++) {
        struct replay r = usual_replay(i, 11, 3, 100);
        r.shape.type_v = r.shape.type_k;
        r.shape.v_in_k = true;
        r.shape.dk = 96;
        r.shape.dv = 64;
        r.shape.n_head = 16;
        r.cut[0] = 1 + 17 * i;
        r.cut[1] = 1;
        replay_check(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        HOT_TEST(pitfall_03_decoded_rows_differ_from_their_twins),
        HOT_TEST(pitfall_03_one_wrong_row_shows),
        HOT_TEST(the_model_is_right_for_one_sequence),
        HOT_TEST(without_tiers_all_is_cold),
        HOT_TEST(pitfall_02_every_length),
        HOT_TEST(pitfall_02_every_split),
        HOT_TEST(pitfall_05_every_residue),
        HOT_TEST(all_tokens_at_once),
        HOT_TEST(no_mask_shows_all_rows),
        HOT_TEST(sliding_windows_hide_old_rows),
        HOT_TEST(pitfall_08_cells_are_used_in_turn),
        HOT_TEST(pitfall_17_queries_that_see_nothing),
        HOT_TEST(threads_do_not_matter),
        HOT_TEST(pitfall_06_capacity_does_not_matter),
        HOT_TEST(each_side_has_twins_of_its_own),
        HOT_TEST(half_floats_are_their_own_twins),
        HOT_TEST(heads_of_other_sizes),
        HOT_TEST(v_in_k_has_one_twin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
