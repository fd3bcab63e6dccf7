/* Wrong arguments of the functions on states, and sizes: what is said to be taken is taken. */
#include "bad_input.h"

static struct ggml_context *new_context(bool no_alloc) {
    struct ggml_context *const ctx =
        ggml_init((struct ggml_init_params){.mem_size = 8 << 20, .no_alloc = no_alloc});
    assert_non_null(ctx);
    return ctx;
}

static struct ggml_tensor *new_state(struct ggml_context *ctx, int64_t ne0) {
    return ggml_new_tensor_4d(ctx, GGML_TYPE_F32, ne0, N_HEAD, N_QUERY, N_BATCH);
}

/* ---- init ----------------------------------------------------------------------------------- */

static void check_init(struct ggml_tensor *state, const char *words) {
    struct log log;
    log_start(&log);
    assert_false(varve_ggml_state_init(state));
    log_stop();
    if (!log_says(&log, words)) fail_msg("no '%s' in: %s", words, log.text);
}

static void init_makes_a_state_empty(void **unused) {
    (void)unused;
    struct ggml_context *const ctx = new_context(false);
    for (int64_t ne0 = 2; ne0 <= 2 + DV; ne0 += DV) {
        struct ggml_tensor *const state = new_state(ctx, ne0);
        memset(state->data, 0xFF, ggml_nbytes(state));
        assert_true(varve_ggml_state_init(state));
        const float *const x = state->data;
        for (int64_t i = 0; i < ggml_nelements(state); i++) {
            assert_true(x[i] == (i % ne0 == 0 ? -INFINITY : 0));
        }
    }
    ggml_free(ctx);
}

static void init_refuses(void **unused) {
    (void)unused;
    struct ggml_context *const ctx = new_context(false), *const bare = new_context(true);
    struct ggml_tensor f16 = *new_state(ctx, 2), gaps = *new_state(ctx, 2), one = gaps;
    f16.type = GGML_TYPE_F16;
    gaps.nb[1] += 4;
    one.ne[0] = 1;
    check_init(NULL, "state:|NULL");
    check_init(new_state(bare, 2), "state:|memory");
    check_init(&f16, "state:|expected");
    check_init(&gaps, "state:|contiguous");
    check_init(&one, "state:|expected");
    ggml_free(bare);
    ggml_free(ctx);
}

/* ---- merge and finish ----------------------------------------------------------------------- */

static void check_merge(struct ggml_context *ctx, struct ggml_tensor *into,
                        struct ggml_tensor *from, const char *words) {
    struct log log;
    const size_t used = ctx != NULL ? ggml_used_mem(ctx) : 0;
    log_start(&log);
    assert_null(varve_ggml_state_merge(ctx, into, NULL, from, NULL));
    log_stop();
    if (!log_says(&log, words)) fail_msg("no '%s' in: %s", words, log.text);
    if (ctx != NULL) assert_int_equal(ggml_used_mem(ctx), used);
}

static void merge_refuses(void **unused) {
    (void)unused;
    struct ggml_context *const ctx = new_context(false);
    struct ggml_tensor *const into = new_state(ctx, 2 + DV), *const from = new_state(ctx, 2 + DV);
    struct ggml_tensor *const alone = new_state(ctx, 2);
    struct ggml_tensor other = *from, type = *from, gaps = *from, near = *from;
    other.ne[2]--;
    type.type = GGML_TYPE_BF16;
    gaps.nb[1] += 4;
    near.data = (char *)into->data + 4;
    check_merge(NULL, into, from, "ctx:|NULL");
    check_merge(ctx, NULL, from, "into:|NULL");
    check_merge(ctx, into, NULL, "from:|NULL");
    check_merge(ctx, alone, alone, "into:|2");
    check_merge(ctx, into, alone, "from:|2|98");
    check_merge(ctx, into, &other, "from:|4|5");
    check_merge(ctx, into, &type, "from:|bf16|f32");
    check_merge(ctx, &gaps, from, "into:|expected");
    check_merge(ctx, into, into, "into:|from");
    check_merge(ctx, into, &near, "into:|from");
    assert_non_null(varve_ggml_state_merge(ctx, into, NULL, from, NULL));
    ggml_free(ctx);
}

static void check_finish(struct ggml_context *ctx, struct ggml_tensor *state,
                         struct ggml_tensor *sinks, const char *words) {
    struct log log;
    const size_t used = ctx != NULL ? ggml_used_mem(ctx) : 0;
    log_start(&log);
    assert_null(varve_ggml_state_finish(ctx, state, NULL, sinks, true));
    log_stop();
    if (!log_says(&log, words)) fail_msg("no '%s' in: %s", words, log.text);
    if (ctx != NULL) assert_int_equal(ggml_used_mem(ctx), used);
}

static void finish_refuses(void **unused) {
    (void)unused;
    struct ggml_context *const ctx = new_context(false);
    struct ggml_tensor *const state = new_state(ctx, 2 + DV), *const alone = new_state(ctx, 2);
    struct ggml_tensor *const sinks = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, N_HEAD);
    struct ggml_tensor few = *sinks, half = *sinks, huge = *state;
    few.ne[0]--;
    half.type = GGML_TYPE_F16;
    huge.ne[3] = INT64_C(1) << 62;
    check_finish(NULL, state, sinks, "ctx:|NULL");
    check_finish(ctx, NULL, sinks, "state:|NULL");
    check_finish(ctx, alone, sinks, "state:|2");
    check_finish(ctx, state, &few, "sinks:|7|8");
    check_finish(ctx, state, &half, "sinks:|f16|f32");
    check_finish(ctx, &huge, sinks, "state:|4611686018427387904");
    assert_non_null(varve_ggml_state_finish(ctx, state, NULL, sinks, true));
    ggml_free(ctx);
}

static void full_contexts_are_errors_here_too(void **unused) {
    (void)unused;
    struct ggml_context *const ctx = new_context(false);
    struct ggml_tensor *const into = new_state(ctx, 2 + DV), *const from = new_state(ctx, 2 + DV);
    for (size_t bytes = 64; bytes < 4096; bytes += 16) {
        struct log log;
        struct ggml_context *const small =
            ggml_init((struct ggml_init_params){.mem_size = bytes, .no_alloc = false});
        log_start(&log);
        struct ggml_tensor *const merged = varve_ggml_state_merge(small, into, NULL, from, NULL);
        struct ggml_tensor *const divided = varve_ggml_state_finish(small, into, NULL, NULL, false);
        log_stop();
        assert_null(merged);
        assert_null(divided);
        assert_int_equal(log.n_line, 2);
        assert_int_equal(ggml_used_mem(small), 0);
        ggml_free(small);
    }
    ggml_free(ctx);
}

/* ---- sizes ---------------------------------------------------------------------------------- */

/* A chain of calls with all options takes what the sizes say, no more than 3 tensors each. */
static void check_sizes(struct arguments *a, int32_t n_thread_max) {
    struct varve_ggml_state_sizes sizes = {0};
    assert_true(varve_ggml_state_sizes(a->q, a->k, a->v, a->kq, a->vq, n_thread_max, &sizes));
    const size_t used = ggml_used_mem(a->ctx);
    a->params.output = NULL;
    a->params.n_thread_max = n_thread_max;
    struct ggml_tensor *const y = call_with(a);
    assert_non_null(y);
    assert_int_equal(ggml_nbytes(y), sizes.output_bytes);
    if (a->state != NULL) assert_int_equal(ggml_nbytes(a->state), sizes.state_bytes);
    int n_tensor = 0;
    size_t n_byte = 0;
    for (struct ggml_tensor *t = ggml_get_first_tensor(a->ctx); t != NULL;
         t = ggml_get_next_tensor(a->ctx, t)) {
        n_tensor++;
        n_byte += t->view_src == NULL ? ggml_nbytes(t) : 0;
    }
    assert_in_range(n_tensor, 1, 3);
    assert_in_range(n_byte, sizes.output_bytes + sizes.scratch_bytes,
                    sizes.output_bytes + sizes.scratch_bytes + 15);
    assert_true(ggml_used_mem(a->ctx) - used <=
                3 * (ggml_tensor_overhead() + 16) + sizes.output_bytes + sizes.scratch_bytes);
}

static void sizes_are_what_nodes_take(void **unused) {
    (void)unused;
    static const int32_t threads[] = {0, 1, 2, 17, 64, 1000};
    for (int i = 0; i < 12; i++) {
        struct arguments a;
        struct ggml_context *const inputs = arguments_init(&a, i % 2 == 1);
        if (i % 3 == 1) a.k = a.v = a.mask = NULL;
        if (i % 3 == 2) a.kq = a.vq = a.maskq = NULL;
        check_sizes(&a, threads[i / 2]);
        ggml_free(a.ctx);
        ggml_free(inputs);
    }
}

static void check_sizes_refused(struct arguments *a, int32_t n_thread, const char *words) {
    struct log log;
    struct varve_ggml_state_sizes sizes = {1, 2, 3};
    log_start(&log);
    assert_false(varve_ggml_state_sizes(a->q, a->k, a->v, a->kq, a->vq, n_thread, &sizes));
    log_stop();
    if (!log_says(&log, words)) fail_msg("no '%s' in: %s", words, log.text);
    assert_true(sizes.state_bytes == 1 && sizes.scratch_bytes == 2 && sizes.output_bytes == 3);
}

/* Tensors without memory, as shapes of any size need; what does not fit into size_t is said so. */
static void sizes_refuse(void **unused) {
    (void)unused;
    struct arguments a;
    struct log log;
    struct ggml_context *const inputs = arguments_init(&a, true);
    check_sizes_refused(&a, -1, "n_thread_max|-1");
    a.t_k.ne[0] = 32;
    check_sizes_refused(&a, 0, "k:|32|64");
    a.t_k.ne[0] = DK;
    a.vq = NULL;
    check_sizes_refused(&a, 0, "v_quant:|NULL");
    a.vq = &a.t_vq;
    a.q = NULL;
    check_sizes_refused(&a, 0, "q:|NULL");
    a.q = &a.t_q;
    for (int shift = 31; shift <= 62; shift++) {
        struct ggml_tensor *const t = ggml_new_tensor_4d(a.ctx, GGML_TYPE_F32, 1, 1, 1, 1);
        *t = a.t_q;
        t->data = NULL;
        t->ne[1] = INT64_C(1) << shift;
        t->nb[2] = t->nb[1]; /* rows may overlap: only the count is large */
        t->nb[3] = t->nb[1];
        t->nb[1] = 0;
        a.q = t;
        struct varve_ggml_state_sizes sizes = {0};
        log_start(&log);
        const bool fits = varve_ggml_state_sizes(a.q, a.k, a.v, a.kq, a.vq, 0, &sizes);
        log_stop();
        assert_int_equal(log.n_line, fits ? 0 : 1);
        const double want = (double)t->ne[1] * N_HEAD * N_BATCH * (2 + DV) * 4;
        if (fits) assert_true((double)sizes.state_bytes == want);
        if (shift >= 60) assert_false(fits);
    }
    log_start(&log);
    assert_false(varve_ggml_state_sizes(&a.t_q, a.k, a.v, a.kq, a.vq, 0, NULL));
    log_stop();
    assert_true(log_says(&log, "sizes|NULL"));
    ggml_free(a.ctx);
    ggml_free(inputs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_makes_a_state_empty),
        cmocka_unit_test(init_refuses),
        cmocka_unit_test(merge_refuses),
        cmocka_unit_test(finish_refuses),
        cmocka_unit_test(full_contexts_are_errors_here_too),
        cmocka_unit_test(sizes_are_what_nodes_take),
        cmocka_unit_test(sizes_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
