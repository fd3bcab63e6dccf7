/* The edge of the library: bad arguments, the host's callbacks, and what is part of the ABI. Plans
 * and runs have a file of their own. */
#include "unit/watch.h"

#include <limits.h>
#include <math.h>

#include "varve/cache.h"

enum { DV = 32, N_HEAD = 4, N_QUERY = 3, N_BATCH = 2 };
enum { N_OUT = N_BATCH * N_QUERY * N_HEAD * DV, N_LSE = N_BATCH * N_QUERY * N_HEAD };

static float out[N_OUT];
static float lse[N_LSE];

/* ---- constants ------------------------------------------------------------------------------ */

static void test_versions(void **state) {
    (void)state;
    char expected[32];
    snprintf(expected, sizeof expected, "%d.%d.%d", VARVE_VERSION_MAJOR, VARVE_VERSION_MINOR,
             VARVE_VERSION_PATCH);
    assert_string_equal(varve_version(), expected);
}

static void test_status_texts(void **state) {
    (void)state;
    const char *const unknown = varve_status_text((enum varve_status)99);
    assert_string_equal(unknown, "unknown status");
    for (int i = VARVE_OK; i <= VARVE_ERROR_MEMORY; i++) {
        assert_string_not_equal(varve_status_text((enum varve_status)i), unknown);
    }
}

static void test_isa_names(void **state) {
    (void)state;
    bool available = false;
    assert_string_equal(varve_isa_name(0, &available), "scalar");
    assert_true(available);
    assert_null(varve_isa_name(-1, &available));
    assert_null(varve_isa_name(1000, NULL));
    /* Every level can be asked for by its name, if the CPU has it. The best is the default. */
    struct host host = {0};
    const char *best = NULL;
    const char *name = NULL;
    for (int32_t i = 0; (name = varve_isa_name(i, &available)) != NULL; i++) {
        struct varve_context_params params = params_of(&host);
        struct varve_context *context = NULL;
        params.isa = name;
        const enum varve_status status = varve_context_create(&params, &context);
        assert_int_equal(status, available ? VARVE_OK : VARVE_ERROR_UNSUPPORTED);
        if (available) {
            assert_string_equal(varve_context_isa(context), name);
            best = name;
        } else {
            expect_line(&host, name);
        }
        varve_context_destroy(context);
    }
    struct varve_context *context = context_of(&host);
    assert_string_equal(varve_context_isa(context), best);
    varve_context_destroy(context);
    assert_int_equal(host.n_live, 0);
}

/* docs/DESIGN.md 8: numbers and layouts that programs are compiled against. */
static void test_abi(void **state) {
    (void)state;
    assert_int_equal(VARVE_FORMAT_F32, 0);
    assert_int_equal(VARVE_FORMAT_IQ4_NL, 8);
    assert_int_equal(VARVE_FORMAT_COUNT, 9);
    assert_int_equal(VARVE_ERROR_MEMORY, 4);
    assert_int_equal(VARVE_ARITHMETIC_Q8, 2);
    assert_int_equal(VARVE_ARITHMETIC_FAST, 3);
    assert_string_equal(varve_arithmetic_name(VARVE_ARITHMETIC_FAST), "fast");
    assert_null(varve_arithmetic_name((enum varve_arithmetic)4));
    assert_int_equal(VARVE_LOG_INFO, 1);
    assert_int_equal(VARVE_PHASE_COUNT, 2);
    assert_int_equal(VARVE_ENCODER_NEON, 2);
    assert_int_equal(VARVE_ENCODER_COUNT, 3);
    if (sizeof(void *) != 8) skip();
    assert_int_equal(sizeof(struct varve_context_params), 48);
    assert_int_equal(sizeof(struct varve_attention), 80);
    assert_int_equal(sizeof(struct varve_segment), 104);
    assert_int_equal(sizeof(struct varve_mask), 64);
    assert_int_equal(sizeof(struct varve_query), 32);
    assert_int_equal(sizeof(struct varve_output), 40);
    assert_int_equal(sizeof(struct varve_io), 112);
    assert_int_equal(sizeof(struct varve_state), 32);
    assert_int_equal(sizeof(struct varve_cache_params), 48);
    assert_int_equal(sizeof(struct varve_cache_bytes), 48);
    assert_int_equal(sizeof(struct varve_cache_rows), 32);
    assert_int_equal(sizeof(struct varve_cache_node), 40);
    assert_int_equal(offsetof(struct varve_context_params, isa), 40);
    assert_int_equal(offsetof(struct varve_attention, arithmetic), 44);
    assert_int_equal(offsetof(struct varve_attention, window), 56);
    assert_int_equal(offsetof(struct varve_segment, mask_column), 80);
    assert_int_equal(offsetof(struct varve_io, output), 72);
}

/* ---- formats -------------------------------------------------------------------------------- */

static void test_formats(void **state) {
    (void)state;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        const enum varve_format format = (enum varve_format)i;
        enum varve_format parsed = (enum varve_format)77;
        char upper[16] = "";
        const char *const name = varve_format_name(format);
        for (size_t j = 0; name[j] != '\0'; j++) {
            upper[j] = (char)(name[j] >= 'a' && name[j] <= 'z' ? name[j] - 32 : name[j]);
        }
        assert_int_equal(varve_format_parse(upper, &parsed), VARVE_OK);
        assert_int_equal(parsed, format);
        assert_int_equal(varve_format_block_values(format), i < VARVE_FORMAT_Q8_0 ? 1 : 32);
    }
    static const int bad[] = {-1, VARVE_FORMAT_COUNT, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t bytes = 7;
        assert_null(varve_format_name((enum varve_format)bad[i]));
        assert_int_equal(varve_format_block_values((enum varve_format)bad[i]), 0);
        assert_int_equal(varve_format_row_bytes((enum varve_format)bad[i], 32, &bytes),
                         VARVE_ERROR_ARGUMENT);
        assert_int_equal(bytes, 7);
    }
}

static void test_format_arguments(void **state) {
    (void)state;
    enum varve_format format = (enum varve_format)77;
    static const char *const names[] = {NULL, "", "q4", "q4_00", " q4_0", "f16 "};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(varve_format_parse(names[i], &format), VARVE_ERROR_ARGUMENT);
        assert_int_equal(format, 77);
    }
    assert_int_equal(varve_format_parse("f16", NULL), VARVE_ERROR_ARGUMENT);

    size_t bytes = 7;
    static const int64_t counts[] = {0, -32, 31, 33, INT64_MIN};
    unsigned char dst[64];
    float values[32] = {0};
    memset(dst, 0x55, sizeof dst);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const enum varve_format q = VARVE_FORMAT_Q4_0;
        assert_int_equal(varve_format_row_bytes(q, counts[i], &bytes), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_encode(q, values, counts[i], dst), VARVE_ERROR_ARGUMENT);
        assert_int_equal(varve_format_decode(q, dst, counts[i], values), VARVE_ERROR_ARGUMENT);
    }
    assert_int_equal(varve_format_row_bytes(VARVE_FORMAT_F16, 8, NULL), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_format_row_bytes(VARVE_FORMAT_F32, INT64_MAX, &bytes),
                     VARVE_ERROR_OVERFLOW);
    assert_int_equal(bytes, 7);
    assert_int_equal(varve_format_encode(VARVE_FORMAT_F16, NULL, 8, dst), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_format_encode(VARVE_FORMAT_F16, values, 8, NULL), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_format_decode(VARVE_FORMAT_F16, NULL, 8, values), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_format_decode(VARVE_FORMAT_F16, dst, 8, NULL), VARVE_ERROR_ARGUMENT);
    for (size_t i = 0; i < sizeof dst; i++) assert_int_equal(dst[i], 0x55);
    for (size_t i = 0; i < 32; i++) assert_true(values[i] == 0);
}

/* ---- context -------------------------------------------------------------------------------- */

static void expect_no_context(const struct varve_context_params *params,
                              enum varve_status expected) {
    struct varve_context *context = (struct varve_context *)(void *)&expected; /* not NULL */
    assert_int_equal(varve_context_create(params, &context), expected);
    assert_null(context);
}

static void reference_encode(const float *src, void *dst, int64_t n) {
    varve_format_encode(VARVE_FORMAT_Q4_0, src, n, dst);
}

static void write_nothing(const float *src, void *dst, int64_t n) {
    (void)src;
    (void)dst;
    (void)n;
}

static void test_encode_arguments(void **state) {
    (void)state;
    enum { N = 96 };
    const enum varve_format q = VARVE_FORMAT_Q4_0;
    const enum varve_encoder reference = VARVE_ENCODER_REFERENCE;
    float x[N];
    uint8_t row[N * 4], want[N * 4];
    enum varve_encoder found = VARVE_ENCODER_NEON;
    struct varve_context *context = NULL;
    assert_int_equal(varve_context_create(NULL, &context), VARVE_OK);
    for (int i = 0; i < N; i++) x[i] = (float)(i - 40);
    assert_int_equal(varve_encode(NULL, q, reference, x, N, row), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encode(context, q, reference, NULL, N, row), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encode(context, q, reference, x, N, NULL), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encode(context, q, (enum varve_encoder)3, x, N, row),
                     VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encode(context, (enum varve_format)9, reference, x, N, row),
                     VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encode(context, q, reference, x, N - 1, row), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encoder_find(NULL, q, reference_encode, &found), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encoder_find(context, q, NULL, &found), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encoder_find(context, q, reference_encode, NULL), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_encoder_find(context, q, write_nothing, &found),
                     VARVE_ERROR_UNSUPPORTED);
    for (int f = 0; f < VARVE_FORMAT_COUNT; f++) {
        const enum varve_format format = (enum varve_format)f;
        size_t bytes = 0;
        varve_format_row_bytes(format, N, &bytes);
        assert_int_equal(varve_encode(context, format, reference, x, N, row), VARVE_OK);
        assert_int_equal(varve_format_encode(format, x, N, want), VARVE_OK);
        assert_memory_equal(row, want, bytes);
    }
    if (varve_encoder_find(context, q, reference_encode, &found) == VARVE_OK)
        assert_int_equal(found, reference);
    varve_context_destroy(context);
}

static void test_context_arguments(void **state) {
    (void)state;
    struct host host = {0};
    struct varve_context_params params = params_of(&host);
    assert_int_equal(varve_context_create(&params, NULL), VARVE_ERROR_ARGUMENT);
    params.struct_bytes = 0;
    expect_no_context(&params, VARVE_ERROR_ARGUMENT);
    params = params_of(&host);
    params.release = NULL;
    expect_no_context(&params, VARVE_ERROR_ARGUMENT);
    params = params_of(&host);
    params.allocate = NULL;
    expect_no_context(&params, VARVE_ERROR_ARGUMENT);
    host.n_line = 0;
    params = params_of(&host);
    params.isa = "altivec";
    expect_no_context(&params, VARVE_ERROR_UNSUPPORTED);
    expect_line(&host, "altivec");
    params.isa = NULL;
    host.fail_at = host.n_allocate + 1;
    expect_no_context(&params, VARVE_ERROR_MEMORY);
    expect_line(&host, "memory");
    assert_int_equal(host.n_live, 0);

    struct varve_context *context = NULL;
    assert_int_equal(varve_context_create(NULL, &context), VARVE_OK);
    varve_context_destroy(context);
    varve_context_destroy(NULL);
    varve_plan_destroy(NULL);
}

/* A caller compiled against a header with fewer fields, and one with more. */
static void test_struct_bytes(void **state) {
    (void)state;
    struct host host = {0};
    struct {
        struct varve_context_params params;
        void *future[4];
    } newer = {.params = params_of(&host)};
    memset(newer.future, 0x55, sizeof newer.future);
    newer.params.struct_bytes = sizeof newer;
    struct varve_context *context = NULL;
    assert_int_equal(varve_context_create(&newer.params, &context), VARVE_OK);
    varve_context_destroy(context);
    assert_int_equal(host.n_allocate, 1);

    struct varve_context_params older = params_of(&host);
    older.isa = (const char *)&host; /* beyond what this caller has: must not be read */
    older.struct_bytes = offsetof(struct varve_context_params, isa);
    assert_int_equal(varve_context_create(&older, &context), VARVE_OK);
    varve_context_destroy(context);
    older.struct_bytes = sizeof older.struct_bytes;
    assert_int_equal(varve_context_create(&older, &context), VARVE_OK);
    varve_context_destroy(context);
    assert_int_equal(host.n_allocate, 2); /* the last caller had no allocator */
    assert_int_equal(host.n_live, 0);
    assert_int_equal(host.live_bytes, 0);
}

/* ---- state ---------------------------------------------------------------------------------- */

static void test_state_sizes(void **state) {
    (void)state;
    struct varve_attention a = {
        .head_dim_v = DV, .n_head = N_HEAD, .n_query = N_QUERY, .n_batch = N_BATCH};
    size_t n = 7;
    assert_int_equal(varve_state_floats(NULL, &n), VARVE_ERROR_ARGUMENT);
    assert_int_equal(varve_state_floats(&a, NULL), VARVE_ERROR_ARGUMENT);
    a.n_query = -1;
    assert_int_equal(varve_state_floats(&a, &n), VARVE_ERROR_ARGUMENT);
    a.n_query = INT64_MAX;
    assert_int_equal(varve_state_floats(&a, &n), VARVE_ERROR_OVERFLOW);
    a.n_query = N_QUERY;
    a.head_dim_v = 0;
    assert_int_equal(varve_state_floats(&a, &n), VARVE_ERROR_ARGUMENT);
    a.head_dim_v = DV;
    a.n_head = -4;
    assert_int_equal(varve_state_floats(&a, &n), VARVE_ERROR_ARGUMENT);
    assert_int_equal(n, 7);
    a.n_head = N_HEAD;
    assert_int_equal(varve_state_floats(&a, &n), VARVE_OK);
    assert_int_equal(n, N_LSE * (2 + DV));
}

static void test_state_arguments(void **state) {
    (void)state;
    static float data[2][N_LSE * (2 + DV)];
    const size_t n = N_LSE * (2 + DV);
    const struct varve_attention a = {
        .head_dim_v = DV, .n_head = N_HEAD, .n_query = N_QUERY, .n_batch = N_BATCH};
    struct varve_state one = {NULL, 7, 7, 7, 7};
    struct varve_state two;
    const enum varve_status bad = VARVE_ERROR_ARGUMENT;
    data[0][0] = 7;
    assert_int_equal(varve_state_init(NULL, data[0], n, &one), bad);
    assert_int_equal(varve_state_init(&a, NULL, n, &one), bad);
    assert_int_equal(varve_state_init(&a, data[0], n, NULL), bad);
    assert_int_equal(varve_state_init(&a, data[0], n - 1, &one), VARVE_ERROR_MEMORY);
    assert_true(data[0][0] == 7 && one.data == NULL && one.n_batch == 7);
    assert_int_equal(varve_state_init(&a, data[0], n, &one), VARVE_OK);
    assert_int_equal(varve_state_init(&a, data[1], n, &two), VARVE_OK);
    assert_true(isinf(data[0][0]) && data[0][0] < 0 && data[0][1] == 0);

    assert_int_equal(varve_state_merge(NULL, &two), bad);
    assert_int_equal(varve_state_merge(&one, NULL), bad);
    for (int i = 0; i < 5; i++) {
        struct varve_state other = two;
        if (i == 0) other.n_batch = 1;
        if (i == 1) other.n_query = 1;
        if (i == 2) other.n_head = 1;
        if (i == 3) other.head_dim_v = 1;
        if (i == 4) other.data = NULL;
        assert_int_equal(varve_state_merge(&one, &other), bad);
    }
    const struct varve_output full = {out, N_HEAD * DV * 4, DV * 4, N_QUERY * N_HEAD * DV * 4, lse};
    struct varve_output half = full;
    assert_int_equal(varve_state_finish(NULL, NULL, &full), bad);
    assert_int_equal(varve_state_finish(&one, NULL, NULL), bad);
    assert_int_equal(varve_state_import(NULL, &full), bad);
    assert_int_equal(varve_state_import(&one, NULL), bad);
    half.lse = NULL;
    assert_int_equal(varve_state_import(&one, &half), bad);
    assert_int_equal(varve_state_finish(&one, NULL, &half), VARVE_OK);
    half = full;
    half.data = NULL;
    assert_int_equal(varve_state_import(&one, &half), bad);
    assert_int_equal(varve_state_finish(&one, NULL, &half), VARVE_OK);
    for (int i = 0; i < N_OUT; i++) assert_true(out[i] == 0);
    for (int i = 0; i < N_LSE; i++) assert_true(isinf(lse[i]) && lse[i] < 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),         cmocka_unit_test(test_status_texts),
        cmocka_unit_test(test_isa_names),        cmocka_unit_test(test_abi),
        cmocka_unit_test(test_formats),          cmocka_unit_test(test_format_arguments),
        cmocka_unit_test(test_encode_arguments), cmocka_unit_test(test_context_arguments),
        cmocka_unit_test(test_struct_bytes),     cmocka_unit_test(test_state_sizes),
        cmocka_unit_test(test_state_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
