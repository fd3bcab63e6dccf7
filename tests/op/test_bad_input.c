/* Every wrong argument: NULL, one line to the log that names it, its value and what was expected,
 * and nothing added to the context. */
#include "bad_input.h"

/* One thing wrong, and words of the line that says so. */
struct wrong {
    const char *name;
    void (*put)(struct arguments *a);
    const char *words;
};

#define WRONG(name, words, statement)                         \
    static void put_##name(struct arguments *a) { statement } \
    static const struct wrong wrong_##name = {#name, put_##name, words};

static void make_m_and_s_alone(struct arguments *a) {
    a->t_state.ne[0] = 2;
    for (int d = 1; d < 4; d++) a->t_state.nb[d] = a->t_state.nb[d] / (2 + DV) * 2;
}

/* ---- q -------------------------------------------------------------------------------------- */

WRONG(q_null, "q:|NULL", a->q = NULL;)
WRONG(q_type, "q:|f16|f32", a->t_q.type = GGML_TYPE_F16;)
WRONG(q_empty_head, "q:|0", a->t_q.ne[0] = 0;)
WRONG(q_negative, "q:|-1", a->t_q.ne[1] = -1;)
WRONG(q_no_heads, "q:|0", a->t_q.ne[2] = 0;)
WRONG(q_stride, "q:|8|4", a->t_q.nb[0] = 8;)
WRONG(q_other_size, "64|32", a->t_q.ne[0] = 32;)
WRONG(q_heads_of_no_group, "k:|2|9", a->t_q.ne[2] = 9;)
WRONG(q_2_31_queries, "2147483648", a->t_q.ne[1] = INT64_C(1) << 31;)
WRONG(q_2_62_queries, "q:|4611686018427387904", a->t_q.ne[1] = INT64_C(1) << 62;)
WRONG(q_2_31_heads, "q:|2147483648", a->t_q.ne[2] = INT64_C(1) << 31;)
WRONG(q_2_62_batches, "4611686018427387904", a->t_q.ne[3] = INT64_C(1) << 62;)
WRONG(q_huge_stride, "q:", a->t_q.nb[3] = (size_t)1 << 62;)

/* ---- K and V -------------------------------------------------------------------------------- */

WRONG(k_null, "k:|NULL|v", a->k = NULL;)
WRONG(v_null, "v:|NULL|k", a->v = NULL;)
WRONG(kq_null, "k_quant:|NULL|v_quant", a->kq = NULL;)
WRONG(vq_null, "v_quant:|NULL|k_quant", a->vq = NULL;)
WRONG(k_type, "k:|i32|f16", a->t_k.type = GGML_TYPE_I32;)
WRONG(k_type_q6_k, "k_quant:|q6_K|q8_0", a->t_kq.type = GGML_TYPE_Q6_K;)
WRONG(v_type, "v:|q2_K|f16", a->t_v.type = GGML_TYPE_Q2_K;)
WRONG(k_type_unknown, "k:|expected", a->t_k.type = GGML_TYPE_COUNT;)
WRONG(k_type_negative, "k:|expected", a->t_k.type = (enum ggml_type) - 1;)
WRONG(k_other_size, "k:|32|64", a->t_k.ne[0] = 32;)
WRONG(k_no_block, "k_quant:|40|32", a->t_kq.ne[0] = 40;)
WRONG(v_no_block, "v_quant:|100|32", a->t_vq.ne[0] = 100;)
WRONG(v_other_size, "v_quant:|64|96", a->t_vq.ne[0] = 64;)
WRONG(k_stride, "k:|4|2", a->t_k.nb[0] = 4;)
WRONG(kq_stride, "k_quant:|35|34", a->t_kq.nb[0] = 35;)
WRONG(v_longer, "v:|8|7", a->t_v.ne[1] = N_KV + 1;)
WRONG(vq_shorter, "v_quant:|3|9", a->t_vq.ne[1] = 3;)
WRONG(k_negative, "k:|-5", a->t_k.ne[1] = -5;)
WRONG(k_no_heads, "k:|0", a->t_k.ne[2] = 0;)
WRONG(k_heads, "k:|3|8", a->t_k.ne[2] = a->t_v.ne[2] = 3;)
WRONG(k_more_heads, "k:|16", a->t_k.ne[2] = a->t_v.ne[2] = 16;)
WRONG(v_other_heads, "v:|1|2", a->t_v.ne[2] = 1;)
WRONG(parts_other_heads, "k_quant:|1|2", a->t_kq.ne[2] = a->t_vq.ne[2] = 1;)
WRONG(k_batch, "k:|2|3", a->t_k.ne[3] = 2;)
WRONG(vq_batch, "v_quant:|2|3", a->t_vq.ne[3] = 2;)
WRONG(k_2_62_rows, "k:|4611686018427387904", a->t_k.ne[1] = a->t_v.ne[1] = INT64_C(1) << 62;)
WRONG(k_huge_stride, "k:", a->t_k.nb[1] = SIZE_MAX / 2 + 2;)
WRONG(k_odd_stride, "k:|129", a->t_k.nb[1] = 129;)

/* ---- masks ---------------------------------------------------------------------------------- */

WRONG(mask_type, "mask:|f32|f16", a->t_mask.type = GGML_TYPE_F32;)
WRONG(mask_narrow, "mask:|6|7", a->t_mask.ne[0] = N_KV - 1;)
WRONG(mask_short, "mask:|4|5", a->t_mask.ne[1] = N_QUERY - 1;)
WRONG(mask_heads, "mask:|2|8", a->t_mask.ne[2] = 2;)
WRONG(mask_batches, "mask:|2|3", a->t_mask.ne[3] = 2;)
WRONG(mask_stride, "mask:|4|2", a->t_mask.nb[0] = 4;)
WRONG(maskq_type, "mask_quant:|f32|f16", a->t_maskq.type = GGML_TYPE_F32;)
WRONG(maskq_narrow, "mask_quant:|8|9", a->t_maskq.ne[0] = N_KV2 - 1;)
WRONG(maskq_short, "mask_quant:|1|5", a->t_maskq.ne[1] = 1;)
WRONG(maskq_no_heads, "mask_quant:|0", a->t_maskq.ne[2] = 0;)

/* ---- state, output, sinks, previous --------------------------------------------------------- */

WRONG(state_null, "state:|NULL", a->state = NULL;)
WRONG(state_type, "state:|f16|f32", a->t_state.type = GGML_TYPE_F16;)
WRONG(state_of_three, "state:|3", a->t_state.ne[0] = 3;)
WRONG(state_other_head_size, "state:|97|98", a->t_state.ne[0] = DV + 1;)
WRONG(state_heads, "state:|7|8", a->t_state.ne[1] = 7;)
WRONG(state_queries, "state:|4|5", a->t_state.ne[2] = 4;)
WRONG(state_batches, "state:|1|3", a->t_state.ne[3] = 1;)
WRONG(state_gaps, "state:", a->t_state.nb[1] += 4;)
WRONG(state_in_output, "state:|output", a->t_state.data = a->t_output.data;)
WRONG(state_in_q, "state:|q", a->t_state.data = a->t_q.data;)
WRONG(state_in_k, "state:|k", a->t_state.data = a->t_k.data;)
WRONG(state_in_mask, "state:|mask_quant", a->t_state.data = a->t_maskq.data;)
WRONG(state_in_sinks, "state:|sinks", a->t_state.data = a->t_sinks.data;)
WRONG(output_in_sinks, "output:|sinks", a->t_output.data = a->t_sinks.data;)
WRONG(state_of_previous, "state:|previous", make_m_and_s_alone(a);
      a->t_state.data = (char *)a->t_previous.data + 64;)
WRONG(output_type, "output:|f16|f32", a->t_output.type = GGML_TYPE_F16;)
WRONG(output_size, "output:|95|96", a->t_output.ne[0] = DV - 1;)
WRONG(output_queries, "output:|6|5", a->t_output.ne[2] = 6;)
WRONG(output_stride, "output:|8|4", a->t_output.nb[0] = 8;)
WRONG(previous_missing, "previous:|NULL", make_m_and_s_alone(a); a->params.previous = NULL;
      a->params.output = NULL;)
WRONG(previous_other_shape, "previous:|7|8", make_m_and_s_alone(a); a->t_previous.ne[1] = 7;)
WRONG(previous_type, "previous:|f16|f32", make_m_and_s_alone(a);
      a->t_previous.type = GGML_TYPE_F16;)
WRONG(sinks_type, "sinks:|f16|f32", a->t_sinks.type = GGML_TYPE_F16;)
WRONG(sinks_count, "sinks:|7|8", a->t_sinks.ne[0] = 7;)

/* ---- numbers, parameters, context ----------------------------------------------------------- */

WRONG(scale_nan, "scale:|nan", a->scale = NAN;)
WRONG(scale_inf, "scale:|inf", a->scale = INFINITY;)
WRONG(bias_inf, "max_bias:|inf", a->max_bias = INFINITY;)
WRONG(softcap_nan, "logit_softcap:|nan", a->softcap = NAN;)
WRONG(struct_bytes_zero, "struct_bytes|0", a->params.struct_bytes = 0;)
WRONG(struct_bytes_small, "struct_bytes|3", a->params.struct_bytes = 3;)
WRONG(threads_negative, "n_thread_max|-1", a->params.n_thread_max = -1;)
WRONG(ctx_null, "ctx:|NULL", a->ctx = NULL;)

static const struct wrong *const all_wrong[] = {
    &wrong_q_null,
    &wrong_q_type,
    &wrong_q_empty_head,
    &wrong_q_negative,
    &wrong_q_no_heads,
    &wrong_q_stride,
    &wrong_q_other_size,
    &wrong_q_heads_of_no_group,
    &wrong_q_2_31_queries,
    &wrong_q_2_62_queries,
    &wrong_q_2_31_heads,
    &wrong_q_2_62_batches,
    &wrong_q_huge_stride,
    &wrong_k_null,
    &wrong_v_null,
    &wrong_kq_null,
    &wrong_vq_null,
    &wrong_k_type,
    &wrong_k_type_q6_k,
    &wrong_v_type,
    &wrong_k_type_unknown,
    &wrong_k_type_negative,
    &wrong_k_other_size,
    &wrong_k_no_block,
    &wrong_v_no_block,
    &wrong_v_other_size,
    &wrong_k_stride,
    &wrong_kq_stride,
    &wrong_v_longer,
    &wrong_vq_shorter,
    &wrong_k_negative,
    &wrong_k_no_heads,
    &wrong_k_heads,
    &wrong_k_more_heads,
    &wrong_v_other_heads,
    &wrong_parts_other_heads,
    &wrong_k_batch,
    &wrong_vq_batch,
    &wrong_k_2_62_rows,
    &wrong_k_huge_stride,
    &wrong_k_odd_stride,
    &wrong_mask_type,
    &wrong_mask_narrow,
    &wrong_mask_short,
    &wrong_mask_heads,
    &wrong_mask_batches,
    &wrong_mask_stride,
    &wrong_maskq_type,
    &wrong_maskq_narrow,
    &wrong_maskq_short,
    &wrong_maskq_no_heads,
    &wrong_state_null,
    &wrong_state_type,
    &wrong_state_of_three,
    &wrong_state_other_head_size,
    &wrong_state_heads,
    &wrong_state_queries,
    &wrong_state_batches,
    &wrong_state_gaps,
    &wrong_state_in_output,
    &wrong_state_in_q,
    &wrong_state_in_k,
    &wrong_state_in_mask,
    &wrong_state_in_sinks,
    &wrong_output_in_sinks,
    &wrong_state_of_previous,
    &wrong_output_type,
    &wrong_output_size,
    &wrong_output_queries,
    &wrong_output_stride,
    &wrong_previous_missing,
    &wrong_previous_other_shape,
    &wrong_previous_type,
    &wrong_sinks_type,
    &wrong_sinks_count,
    &wrong_scale_nan,
    &wrong_scale_inf,
    &wrong_bias_inf,
    &wrong_softcap_nan,
    &wrong_struct_bytes_zero,
    &wrong_struct_bytes_small,
    &wrong_threads_negative,
    &wrong_ctx_null,
};

/* ---- tests of the call ---------------------------------------------------------------------- */

static void check_wrong(const struct wrong *wrong, bool no_alloc) {
    struct arguments a;
    struct log log;
    struct ggml_context *const inputs = arguments_init(&a, no_alloc);
    struct ggml_context *const ctx = a.ctx;
    const size_t used = ggml_used_mem(ctx);
    wrong->put(&a);
    log_start(&log);
    struct ggml_tensor *const y = call_with(&a);
    log_stop();
    if (y != NULL) fail_msg("%s: a tensor, expected NULL", wrong->name);
    if (log.n_line != 1) fail_msg("%s: %d lines: %s", wrong->name, log.n_line, log.text);
    if (!log_says(&log, wrong->words)) {
        fail_msg("%s: no '%s' in: %s", wrong->name, wrong->words, log.text);
    }
    if (strstr(log.text, "expected") == NULL && strstr(log.text, "memory") == NULL &&
        strstr(log.text, "fit") == NULL) {
        fail_msg("%s: not said what was expected: %s", wrong->name, log.text);
    }
    assert_int_equal(ggml_used_mem(ctx), used);
    ggml_free(ctx);
    ggml_free(inputs);
}

static void each_wrong_argument_is_named(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof all_wrong / sizeof all_wrong[0]; i++) {
        check_wrong(all_wrong[i], false);
        check_wrong(all_wrong[i], true);
    }
}

/* What the table changes is right: without a change a call is built, silently. */
static void the_unchanged_call_is_built(void **state) {
    (void)state;
    for (int way = 0; way < 6; way++) {
        struct arguments a;
        struct log log;
        struct ggml_context *const inputs = arguments_init(&a, way % 2 == 1);
        if (way / 2 == 1) make_m_and_s_alone(&a);
        if (way / 2 == 2) { /* one complete call */
            a.no_params = true;
            a.state = NULL;
        }
        log_start(&log);
        struct ggml_tensor *const y = call_with(&a);
        log_stop();
        assert_non_null(y);
        assert_int_equal(log.n_line, 0);
        if (way / 2 != 2) assert_ptr_equal(y->data, a.t_output.data);
        ggml_free(a.ctx);
        ggml_free(inputs);
    }
}

/* Callers that were compiled against a later header, or against one without the last fields. */
static void other_struct_bytes_are_taken(void **state) {
    (void)state;
    struct {
        struct varve_ggml_state_params params;
        char more[64];
    } later;
    struct arguments a;
    struct log log;
    struct ggml_context *const inputs = arguments_init(&a, true);
    memset(&later, 0xAA, sizeof later);
    later.params = a.params;
    later.params.struct_bytes = sizeof later;
    log_start(&log);
    assert_non_null(varve_ggml_flash_attn_ext_with_state(
        a.ctx, a.q, a.k, a.v, a.mask, a.kq, a.vq, a.maskq, a.state, a.scale, 0, 0, &later.params));
    a.params.struct_bytes = offsetof(struct varve_ggml_state_params, n_thread_max);
    a.params.n_thread_max = -7; /* not there */
    assert_non_null(call_with(&a));
    log_stop();
    assert_int_equal(log.n_line, 0);
    ggml_free(a.ctx);
    ggml_free(inputs);
}

/* However little is left: NULL and a line, or room enough. Never ggml's abort. */
static void a_full_context_is_an_error(void **state) {
    (void)state;
    int n_built = 0, n_refused = 0;
    for (size_t bytes = 64; bytes < (1 << 19); bytes += bytes < 4096 ? 16 : bytes / 8) {
        for (int no_alloc = 0; no_alloc < 2; no_alloc++) {
            struct arguments a;
            struct log log;
            struct ggml_context *const inputs = arguments_init(&a, false);
            ggml_free(a.ctx);
            a.ctx = ggml_init(
                (struct ggml_init_params){.mem_size = bytes / 16 * 16, .no_alloc = no_alloc != 0});
            a.params.output = NULL;
            a.params.n_thread_max = 2;
            log_start(&log);
            struct ggml_tensor *const y = call_with(&a);
            log_stop();
            if (y == NULL) {
                assert_int_equal(ggml_used_mem(a.ctx), 0);
                assert_true(log_says(&log, "ctx:|expected"));
            } else {
                assert_int_equal(log.n_line, 0);
            }
            n_built += y != NULL;
            n_refused += y == NULL;
            ggml_free(a.ctx);
            ggml_free(inputs);
        }
    }
    assert_true(n_built > 0 && n_refused > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unchanged_call_is_built),
        cmocka_unit_test(each_wrong_argument_is_named),
        cmocka_unit_test(other_struct_bytes_are_taken),
        cmocka_unit_test(a_full_context_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
