/* Bad arguments of plans and runs: the status, the line that names the argument, and nothing
 * written. */
#include "unit/watch.h"

enum { DK = 64, DV = 32, N_HEAD = 4, N_HEAD_KV = 2, N_QUERY = 3, N_BATCH = 2, N_ROW = 40 };
enum { N_OUT = N_BATCH * N_QUERY * N_HEAD * DV, N_LSE = N_BATCH * N_QUERY * N_HEAD };

/* ---- a problem that works ------------------------------------------------------------------- */

static float query[N_BATCH * N_QUERY * N_HEAD * DK];
static float out[N_OUT];
static float lse[N_LSE];
static float sinks[N_HEAD];
static uint16_t mask[N_QUERY * N_ROW];
static _Alignas(64) char k_rows[N_ROW * N_HEAD_KV * DK * 2];
static _Alignas(64) char v_rows[N_ROW * N_HEAD_KV * DV * 4];

struct problem {
    struct varve_attention attention;
    struct varve_segment segments[2];
    int64_t n_segment;
    struct varve_mask mask;
    struct varve_state state;
    struct varve_io io;
};

/* Two segments of K in F16 and V in F32; both batch entries share the rows. */
static void make_problem(struct problem *p) {
    memset(p, 0, sizeof *p);
    p->attention = (struct varve_attention){.head_dim_k = DK,
                                            .head_dim_v = DV,
                                            .n_head = N_HEAD,
                                            .n_head_kv = N_HEAD_KV,
                                            .n_query = N_QUERY,
                                            .n_batch = N_BATCH,
                                            .scale = 0.125f};
    for (int i = 0; i < 2; i++) {
        p->segments[i] = (struct varve_segment){.k_format = VARVE_FORMAT_F16,
                                                .v_format = VARVE_FORMAT_F32,
                                                .k = k_rows,
                                                .v = v_rows,
                                                .n_rows = i == 0 ? 30 : N_ROW - 30,
                                                .k_row_stride = N_HEAD_KV * DK * 2,
                                                .k_head_stride = DK * 2,
                                                .v_row_stride = N_HEAD_KV * DV * 4,
                                                .v_head_stride = DV * 4,
                                                .mask_column = i == 0 ? 0 : 30,
                                                .pos = i == 0 ? 0 : 30};
    }
    p->n_segment = 2;
    p->mask = (struct varve_mask){.data = mask,
                                  .n_column = N_ROW,
                                  .n_query = N_QUERY,
                                  .n_head = 1,
                                  .n_batch = 1,
                                  .row_stride = 2 * N_ROW};
    p->io =
        (struct varve_io){.query = {query, N_HEAD * DK * 4, DK * 4, N_QUERY * N_HEAD * DK * 4},
                          .segments = p->segments,
                          .n_segment = 2,
                          .mask = &p->mask,
                          .sinks = sinks,
                          .output = {out, N_HEAD * DV * 4, DV * 4, N_QUERY * N_HEAD * DV * 4, lse}};
}

/* One field of the problem is overwritten, everything else is right. */
struct spoiled {
    const char *word; /* in the log line */
    enum varve_status status;
    size_t offset, bytes;
    int64_t value; /* floats by their bits */
};
#define AT(member) offsetof(struct problem, member), sizeof(((struct problem *)0)->member)
enum { FLOAT_NAN = 0x7FC00000, FLOAT_INFINITY = 0x7F800000, FLOAT_MINUS_ONE = -0x40800000 };

static void spoil(struct problem *p, const struct spoiled *spoiled) {
    const int32_t narrow = (int32_t)spoiled->value;
    char *const at = (char *)p + spoiled->offset;
    assert_true(spoiled->bytes == 4 || spoiled->bytes == 8);
    if (spoiled->bytes == 4)
        memcpy(at, &narrow, 4);
    else
        memcpy(at, &spoiled->value, 8);
}

/* ---- plan ----------------------------------------------------------------------------------- */

static const struct spoiled plan_cases[] = {
    {"head_dim_k", VARVE_ERROR_ARGUMENT, AT(attention.head_dim_k), 0},
    {"head_dim_k", VARVE_ERROR_ARGUMENT, AT(attention.head_dim_k), INT32_MAX},
    {"head_dim_v", VARVE_ERROR_ARGUMENT, AT(attention.head_dim_v), -1},
    {"n_head", VARVE_ERROR_ARGUMENT, AT(attention.n_head), 0},
    {"n_head_kv", VARVE_ERROR_ARGUMENT, AT(attention.n_head_kv), 0},
    {"n_head_kv", VARVE_ERROR_ARGUMENT, AT(attention.n_head_kv), 3},
    {"n_query", VARVE_ERROR_ARGUMENT, AT(attention.n_query), -1},
    {"n_query", VARVE_ERROR_OVERFLOW, AT(attention.n_query), INT64_MAX / 2},
    {"n_batch", VARVE_ERROR_ARGUMENT, AT(attention.n_batch), -1},
    {"window", VARVE_ERROR_ARGUMENT, AT(attention.window), -1},
    {"scale", VARVE_ERROR_ARGUMENT, AT(attention.scale), FLOAT_NAN},
    {"softcap", VARVE_ERROR_ARGUMENT, AT(attention.softcap), FLOAT_INFINITY},
    {"softcap", VARVE_ERROR_ARGUMENT, AT(attention.softcap), FLOAT_MINUS_ONE},
    {"max_bias", VARVE_ERROR_ARGUMENT, AT(attention.max_bias), FLOAT_MINUS_ONE},
    {"arithmetic", VARVE_ERROR_UNSUPPORTED, AT(attention.arithmetic), 7},
    {"n_segment", VARVE_ERROR_ARGUMENT, AT(n_segment), -1},
    {"segment 1", VARVE_ERROR_ARGUMENT, AT(segments[1].k_format), VARVE_FORMAT_COUNT},
    {"segment 1", VARVE_ERROR_ARGUMENT, AT(segments[1].v_format), -1},
    {"segment 1", VARVE_ERROR_ARGUMENT, AT(segments[1].n_rows), -1},
    {"n_rows", VARVE_ERROR_OVERFLOW, AT(segments[1].n_rows), INT64_MAX},
};

static void test_plan_arguments(void **state) {
    (void)state;
    struct host host = {0};
    struct varve_context *context = context_of(&host);
    struct problem p;
    struct varve_plan *plan = NULL;
    for (size_t i = 0; i < sizeof plan_cases / sizeof plan_cases[0]; i++) {
        make_problem(&p);
        spoil(&p, &plan_cases[i]);
        plan = (struct varve_plan *)(void *)&p; /* not NULL */
        const enum varve_status status =
            varve_plan_create(context, &p.attention, p.segments, p.n_segment, 1, &plan);
        if (status != plan_cases[i].status) {
            fail_msg("case %zu (%s): status %d", i, plan_cases[i].word, (int)status);
        }
        assert_null(plan);
        expect_line(&host, plan_cases[i].word);
        assert_int_equal(host.n_live, 1); /* the context alone */
    }
    varve_context_destroy(context);
    assert_int_equal(host.n_live, 0);
}

/* What one field alone cannot spoil. */
static void test_plan_more_arguments(void **state) {
    (void)state;
    struct host host = {0};
    struct varve_context *context = context_of(&host);
    struct problem p;
    struct varve_plan *plan = NULL;
    make_problem(&p);
    p.attention.head_dim_k = 80; /* not a multiple of 32 */
    p.segments[1].k_format = VARVE_FORMAT_Q8_0;
    assert_int_equal(varve_plan_create(context, &p.attention, p.segments, 2, 1, &plan),
                     VARVE_ERROR_ARGUMENT);
    expect_line(&host, "segment 1");
    make_problem(&p); /* every size fits, the partial states together do not */
    p.attention.head_dim_v = 1 << 20;
    p.attention.n_head = 1;
    p.attention.n_head_kv = 1;
    p.attention.n_query = 1;
    p.attention.n_batch = INT64_C(1) << 40;
    p.segments[0].n_rows = 100000;
    assert_int_equal(varve_plan_create(context, &p.attention, p.segments, 2, 1, &plan),
                     VARVE_ERROR_OVERFLOW);
    expect_line(&host, "scratch");
    make_problem(&p);
    const struct varve_attention *const a = &p.attention;
    const enum varve_status bad = VARVE_ERROR_ARGUMENT;
    assert_int_equal(varve_plan_create(context, a, p.segments, 2, 1, NULL), bad);
    assert_int_equal(varve_plan_create(NULL, a, p.segments, 2, 1, &plan), bad);
    assert_int_equal(varve_plan_create(context, NULL, p.segments, 2, 1, &plan), bad);
    host.n_line = 0;
    assert_int_equal(varve_plan_create(context, a, NULL, 2, 1, &plan), bad);
    expect_line(&host, "segments");
    assert_int_equal(varve_plan_create(context, a, p.segments, 2, 0, &plan), bad);
    expect_line(&host, "n_worker");
    host.fail_at = host.n_allocate + 1;
    assert_int_equal(varve_plan_create(context, a, p.segments, 2, 1, &plan), VARVE_ERROR_MEMORY);
    expect_line(&host, "memory");
    assert_null(plan);
    varve_context_destroy(context);
    assert_int_equal(host.n_live, 0);
}

/* Sizes that fit into their types but not into what is computed from them: refused, or planned with
 * sane numbers. Under UBSan no overflow on the way. */
static void test_huge_plans(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {/* n_batch, n_query, n_rows */
                                       {1, 1, INT64_MAX},          {0, INT64_MAX, 64},
                                       {1, INT64_MAX / 4, 64},     {INT64_MAX / 4, 1, 64},
                                       {INT64_MAX / 4, 1, 100000}, {1, 0, INT64_MAX - 1}};
    struct host host = {0};
    struct varve_context *context = context_of(&host);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct problem p;
        make_problem(&p);
        p.attention.n_batch = sizes[i][0];
        p.attention.n_query = sizes[i][1];
        p.segments[0].n_rows = sizes[i][2];
        struct varve_plan *plan = NULL;
        const enum varve_status status =
            varve_plan_create(context, &p.attention, p.segments, 1, 1, &plan);
        if (status != VARVE_OK) {
            assert_null(plan);
            continue;
        }
        if (varve_plan_n_task(plan, 0) < 0 || varve_plan_n_task(plan, 1) < 0) {
            fail_msg("case %zu: a negative number of tasks", i);
        }
        varve_plan_destroy(plan);
    }
    varve_context_destroy(context);
}

static void test_plan_queries(void **state) {
    (void)state;
    struct host host = {0};
    struct varve_context *context = context_of(&host);
    struct problem p;
    make_problem(&p);
    struct varve_plan *plan = NULL;
    assert_int_equal(varve_plan_create(context, &p.attention, p.segments, 2, 3, &plan), VARVE_OK);
    assert_true(varve_plan_n_task(plan, 0) > 0);
    assert_int_equal(varve_plan_n_task(plan, -1), 0);
    assert_int_equal(varve_plan_n_task(plan, VARVE_PHASE_COUNT), 0);
    assert_true(varve_plan_work(plan) == (double)N_BATCH * N_QUERY * N_HEAD * N_ROW * (DK + DV));
    assert_true(varve_plan_scratch_bytes(plan) > 0);
    char text[1024];
    const int length = varve_plan_print(plan, text, sizeof text);
    assert_int_equal(length, strlen(text));
    assert_non_null(strstr(text, varve_context_isa(context)));
    for (size_t bytes = 1; bytes <= (size_t)length + 1; bytes++) {
        char part[1024];
        memset(part, 0x55, sizeof part);
        assert_int_equal(varve_plan_print(plan, part, bytes), length);
        assert_int_equal(strlen(part), bytes - 1);
        assert_memory_equal(part, text, bytes - 1);
        assert_int_equal(part[bytes], 0x55);
    }
    varve_plan_destroy(plan);
    varve_context_destroy(context);
    assert_int_equal(host.n_live, 0);
    assert_int_equal(host.live_bytes, 0);
}

/* ---- io ------------------------------------------------------------------------------------- */

static const struct spoiled io_cases[] = {
    {"segments", VARVE_ERROR_ARGUMENT, AT(io.segments), 0},
    {"n_segment", VARVE_ERROR_ARGUMENT, AT(io.n_segment), -1},
    {"rows", VARVE_ERROR_ARGUMENT, AT(io.n_segment), 1},
    {"segment 0", VARVE_ERROR_ARGUMENT, AT(segments[0].n_rows), -1},
    {"k is NULL", VARVE_ERROR_ARGUMENT, AT(segments[1].k), 0},
    {"v is NULL", VARVE_ERROR_ARGUMENT, AT(segments[1].v), 0},
    {"formats", VARVE_ERROR_ARGUMENT, AT(segments[1].k_format), VARVE_FORMAT_BF16},
    {"formats", VARVE_ERROR_ARGUMENT, AT(segments[1].v_format), -5},
    {"segment 0", VARVE_ERROR_ARGUMENT, AT(segments[0].mask_column), -1},
    {"segment 1", VARVE_ERROR_ARGUMENT, AT(segments[1].mask_column), N_ROW - 5},
    {"segment 1", VARVE_ERROR_ARGUMENT, AT(segments[1].mask_column), INT64_MAX},
    {"mask.data", VARVE_ERROR_ARGUMENT, AT(mask.data), 0},
    {"mask", VARVE_ERROR_ARGUMENT, AT(mask.row_stride), 2 * N_ROW + 1},
    {"mask", VARVE_ERROR_ARGUMENT, AT(mask.n_query), N_QUERY - 1},
    {"mask", VARVE_ERROR_ARGUMENT, AT(mask.n_head), 3},
    {"mask", VARVE_ERROR_ARGUMENT, AT(mask.n_head), 0},
    {"mask", VARVE_ERROR_ARGUMENT, AT(mask.n_batch), 3},
    {"mask", VARVE_ERROR_ARGUMENT, AT(mask.n_batch), 0},
    {"mask", VARVE_ERROR_ARGUMENT, AT(mask.n_column), N_ROW - 1},
    {"query.data", VARVE_ERROR_ARGUMENT, AT(io.query.data), 0},
    {"query.data", VARVE_ERROR_ARGUMENT, AT(io.query.head_stride), DK * 4 + 2},
    {"output.data", VARVE_ERROR_ARGUMENT, AT(io.output.query_stride), DV * 4 + 2},
};

/* What one field alone cannot spoil; false behind the last case. */
static bool spoil_result(struct problem *p, int number, const char **word) {
    *word = "state";
    if (number >= 3) { /* a state alone, as it should be */
        p->state = (struct varve_state){out, N_BATCH, N_QUERY, N_HEAD, DV};
        p->io.state = &p->state;
        p->io.output = (struct varve_output){0};
        p->io.sinks = NULL;
    }
    switch (number) {
    case 0: /* nothing wanted */
        p->io.output.data = NULL;
        p->io.output.lse = NULL;
        *word = "output.data";
        return true;
    case 1:
        p->io.output.data = (float *)(void *)((char *)out + 2);
        *word = "output.data";
        return true;
    case 2: /* together with an output */ p->io.state = &p->state; return true;
    case 3: p->state.head_dim_v++; return true;
    case 4: p->state.data = NULL; return true;
    case 5:
        p->io.sinks = sinks;
        *word = "sinks";
        return true;
    default: return false;
    }
}

static void expect_untouched(void) {
    const unsigned char *const a = (const unsigned char *)out;
    const unsigned char *const b = (const unsigned char *)lse;
    for (size_t i = 0; i < sizeof out; i++) assert_int_equal(a[i], 0x55);
    for (size_t i = 0; i < sizeof lse; i++) assert_int_equal(b[i], 0x55);
}

/* Check and run refuse it with one line each, and nothing is written. */
static void expect_refused(struct host *host, const struct varve_plan *plan,
                           const struct problem *p, void *scratch, const char *word) {
    if (varve_io_check(plan, &p->io) != VARVE_ERROR_ARGUMENT) fail_msg("accepted: %s", word);
    expect_line(host, word);
    assert_int_equal(varve_run(plan, &p->io, scratch, 1), VARVE_ERROR_ARGUMENT);
    expect_line(host, word);
    expect_untouched();
}

static void test_io_arguments(void **state) {
    (void)state;
    struct host host = {0};
    struct varve_context *context = context_of(&host);
    struct problem p;
    make_problem(&p);
    struct varve_plan *plan = NULL;
    assert_int_equal(varve_plan_create(context, &p.attention, p.segments, 2, 2, &plan), VARVE_OK);
    const size_t bytes = varve_plan_scratch_bytes(plan);
    char *const scratch = aligned_alloc(64, (bytes + 127) / 64 * 64);
    memset(out, 0x55, sizeof out);
    memset(lse, 0x55, sizeof lse);
    for (size_t i = 0; i < sizeof io_cases / sizeof io_cases[0]; i++) {
        make_problem(&p);
        spoil(&p, &io_cases[i]);
        expect_refused(&host, plan, &p, scratch, io_cases[i].word);
    }
    const char *word = NULL;
    for (int i = 0; make_problem(&p), spoil_result(&p, i, &word); i++) {
        expect_refused(&host, plan, &p, scratch, word);
    }
    make_problem(&p);
    assert_int_equal(varve_io_check(NULL, &p.io), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_io_check(plan, NULL), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_run(NULL, &p.io, scratch, 1), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_run(plan, NULL, scratch, 1), VARVE_ERROR_ARGUMENT);
    host.n_line = 0;
    assert_int_equal(varve_run(plan, &p.io, scratch, 0), VARVE_ERROR_ARGUMENT);
    expect_line(&host, "n_thread");
    assert_int_equal(varve_run(plan, &p.io, scratch, 3), VARVE_ERROR_ARGUMENT);
    expect_line(&host, "n_thread");
    assert_int_equal(varve_run(plan, &p.io, NULL, 1), VARVE_ERROR_MEMORY);
    expect_line(&host, "scratch");
    assert_int_equal(varve_run(plan, &p.io, scratch + 32, 1), VARVE_ERROR_MEMORY);
    expect_line(&host, "scratch");
    expect_untouched();
    assert_int_equal(varve_run(plan, &p.io, scratch, 2), VARVE_OK);
    assert_int_equal(host.n_line, 0);
    free(scratch);
    varve_plan_destroy(plan);
    varve_context_destroy(context);
    assert_int_equal(host.n_live, 0);
}

/* Segments may name the columns of the mask in any order: pages of 10 rows in the order 0, 2, 1, 3
 * have their first and last column where consecutive ones would have them. */
static void test_columns_in_any_order(void **state) {
    (void)state;
    struct host host = {0};
    struct varve_context *context = context_of(&host);
    struct problem p;
    make_problem(&p);
    for (int i = 0; i < N_QUERY * N_ROW; i++) mask[i] = i % N_ROW / 10 == 1 ? 0xFC00 : 0;
    for (int r = 0; r < N_ROW; r++) { /* V tells its row: hidden ones count 1000, others 1 */
        float *const v = (float *)(void *)(v_rows + r * N_HEAD_KV * DV * 4);
        for (int d = 0; d < N_HEAD_KV * DV; d++) v[d] = r / 10 == 1 ? 1000 : 1;
    }
    struct varve_segment pages[4];
    static const int order[4] = {0, 2, 1, 3};
    for (int i = 0; i < 4; i++) {
        pages[i] = p.segments[0];
        pages[i].n_rows = 10;
        pages[i].mask_column = 10 * order[i];
        pages[i].k = k_rows + pages[i].mask_column * pages[i].k_row_stride;
        pages[i].v = v_rows + pages[i].mask_column * pages[i].v_row_stride;
    }
    /* one query may see the hidden page, so that its rows are in the block for the others */
    for (int c = 0; c < N_ROW; c++) mask[c] = 0;
    p.io.segments = pages;
    p.io.n_segment = 4;
    p.io.sinks = NULL;
    struct varve_plan *plan = NULL;
    assert_int_equal(varve_plan_create(context, &p.attention, pages, 4, 1, &plan), VARVE_OK);
    void *scratch = aligned_alloc(64, (varve_plan_scratch_bytes(plan) + 63) / 64 * 64);
    assert_int_equal(varve_run(plan, &p.io, scratch, 1), VARVE_OK);
    for (int i = 0; i < N_OUT; i++) {
        const bool sees_all = i / (N_HEAD * DV) % N_QUERY == 0;
        assert_float_equal(out[i], sees_all ? 250.75f : 1.0f, 1e-3f);
    }
    free(scratch);
    varve_plan_destroy(plan);
    varve_context_destroy(context);
    memset(mask, 0, sizeof mask);
    memset(v_rows, 0, sizeof v_rows);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_arguments), cmocka_unit_test(test_plan_more_arguments),
        cmocka_unit_test(test_huge_plans),     cmocka_unit_test(test_plan_queries),
        cmocka_unit_test(test_io_arguments),   cmocka_unit_test(test_columns_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
