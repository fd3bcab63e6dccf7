/* SET_ROWS through the plug-in: the bytes of stock's own SET_ROWS, op by op. */
#include "plugin_host.h"
#include "thin.h"

struct write_shape {
    enum ggml_type source, index, cache;
    int64_t n, n_row, n_cell, n2, n3; /* n3 sequences of n2 slices */
    int64_t index2, index3;           /* slices that have indices of their own */
    bool duplicates;
};

struct write {
    struct write_shape shape;
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    struct ggml_cgraph *graph;
    struct ggml_tensor *source, *index, *cache, *out;
};

/* Rows that have shown differences between quantizers: random ones, exact ties, zeros, subnormals,
 * huge values, one large value among small ones, and values that are not finite. */
static float value_of_kind(int kind, int64_t i, uint64_t *state) {
    const float u = random_unit(state);
    switch (kind) {
    case 0: return u;
    case 1: return (float)((int32_t)(random_u32(state) % 509) - 254) * 0.5f;
    case 2: return random_u32(state) & 1 ? 0.0f : -0.0f;
    case 3: return u * 0x1p-130f;
    case 4: return u * 6e4f; /* the largest that F16 sources can carry */
    case 5: return i % 32 == 7 ? 100.0f : u * 1e-3f;
    case 6: return u * 1e37f;
    case 7: return i % 96 == 7 ? INFINITY : u;
    default: return i % 160 == 9 ? NAN : i % 160 == 99 ? -INFINITY : u;
    }
}
enum { N_KIND = 9, N_KIND_F16 = 6 };

static void set_index(struct write *w, int64_t at, int64_t row) {
    if (w->shape.index == GGML_TYPE_I32) {
        ((int32_t *)w->index->data)[at] = (int32_t)row;
    } else {
        ((int64_t *)w->index->data)[at] = row;
    }
}

static void fill_write(struct write *w, int kind, uint64_t seed) {
    const int64_t n_value = ggml_nelements(w->source);
    for (int64_t i = 0; i < n_value; i++) {
        const float value = value_of_kind(kind, i, &seed);
        if (w->shape.source == GGML_TYPE_F16) {
            ((ggml_fp16_t *)w->source->data)[i] = ggml_fp32_to_fp16(value);
        } else {
            ((float *)w->source->data)[i] = value;
        }
    }
    for (int64_t i = 0; i < ggml_nelements(w->index); i++) {
        /* 7 and any power of two have no common divisor: each index once, in no order */
        const int64_t in_order = i % w->shape.n_row;
        set_index(w, i,
                  w->shape.duplicates ? random_u32(&seed) % w->shape.n_cell
                                      : (in_order * 7 + i / w->shape.n_row) % w->shape.n_cell);
    }
}

static struct write build_write(struct write_shape s) {
    struct write w = {.shape = s, .ctx = new_graph_context()};
    w.source = ggml_new_tensor_4d(w.ctx, s.source, s.n, s.n_row, s.n2, s.n3);
    w.index = ggml_new_tensor_3d(w.ctx, s.index, s.n_row, s.index2, s.index3);
    w.cache = ggml_new_tensor_4d(w.ctx, s.cache, s.n, s.n_cell, s.n2, s.n3);
    w.out = ggml_set_rows(w.ctx, w.cache, w.source, w.index);
    w.graph = graph_of(w.ctx, w.out);
    w.buffer = ggml_backend_alloc_ctx_tensors_from_buft(w.ctx, ggml_backend_cpu_buffer_type());
    assert_non_null(w.buffer);
    return w;
}

static void discard_write(struct write *w) {
    ggml_backend_buffer_free(w->buffer);
    ggml_free(w->ctx);
}

/* The cache after the write, in a copy that the caller frees. */
static unsigned char *compute_write(struct write *w, ggml_backend_t backend) {
    assert_true(ggml_backend_supports_op(backend, w->out));
    memset(w->cache->data, 0x5a, ggml_nbytes(w->cache));
    assert_int_equal(ggml_backend_graph_compute(backend, w->graph), GGML_STATUS_SUCCESS);
    unsigned char *copy = malloc(ggml_nbytes(w->cache));
    assert_non_null(copy);
    memcpy(copy, w->cache->data, ggml_nbytes(w->cache));
    return copy;
}

/* Stock leaves the indices of an iq4_nl block of zeros as they were on its stack. Its scale is 0,
 * so they mean nothing; here they are made equal. */
static void clear_zero_blocks(enum ggml_type type, unsigned char *bytes, size_t n_byte) {
    enum { block_bytes = 18, scale_bytes = 2 };
    for (size_t i = 0; type == GGML_TYPE_IQ4_NL && i < n_byte; i += block_bytes) {
        if (bytes[i] == 0 && bytes[i + 1] == 0) {
            memset(bytes + i + scale_bytes, 0, block_bytes - scale_bytes);
        }
    }
}

static void check_against_stock(struct write_shape s, ggml_backend_t varve, ggml_backend_t cpu) {
    struct write w = build_write(s);
    const int n_kind = s.source == GGML_TYPE_F16 ? N_KIND_F16 : N_KIND;
    for (int kind = 0; kind < n_kind; kind++) {
        fill_write(&w, kind, 7 + (uint64_t)kind);
        unsigned char *stock = compute_write(&w, cpu);
        unsigned char *ours = compute_write(&w, varve);
        clear_zero_blocks(s.cache, stock, ggml_nbytes(w.cache));
        clear_zero_blocks(s.cache, ours, ggml_nbytes(w.cache));
        if (memcmp(stock, ours, ggml_nbytes(w.cache)) != 0) {
            fail_msg("%s from %s, rows of kind %d: other bytes than stock's",
                     ggml_type_name(s.cache), ggml_type_name(s.source), kind);
        }
        free(stock);
        free(ours);
    }
    discard_write(&w);
}

static void bytes_are_those_of_stock(void **state) {
    (void)state;
    ggml_backend_t varve = new_backend(3);
    ggml_backend_t cpu = ggml_backend_cpu_init();
    for (int t = 0; t < N_TYPE; t++) {
        for (int c = 0; c < 4; c++) {
            struct write_shape s = {
                .source = c % 2 == 0 ? GGML_TYPE_F32 : GGML_TYPE_F16,
                .index = c / 2 == 0 ? GGML_TYPE_I64 : GGML_TYPE_I32,
                .cache = all_types[t],
                .n = 192,
                .n_row = 1,
                .n_cell = 512,
                .n2 = 1,
                .n3 = 1,
                .index2 = 1,
                .index3 = 1,
            };
            check_against_stock(s, varve, cpu); /* one row: a token */
            s.n_row = 512;
            check_against_stock(s, varve, cpu); /* enough for several threads */
            s.n_row = 16;
            s.n2 = 6; /* indices shared by modulo */
            s.n3 = 4;
            s.index2 = 3;
            s.index3 = 2;
            check_against_stock(s, varve, cpu);
        }
    }
    ggml_backend_free(cpu);
    ggml_backend_free(varve);
}

static void rows_of_one_value(void **state) {
    (void)state;
    ggml_backend_t varve = new_backend(2);
    ggml_backend_t cpu = ggml_backend_cpu_init();
    for (int t = 0; t < 3; t++) { /* float formats */
        const struct write_shape s = {
            GGML_TYPE_F32, GGML_TYPE_I64, all_types[t], 1, 64, 128, 1, 1, 1, 1, false};
        check_against_stock(s, varve, cpu);
    }
    ggml_backend_free(cpu);
    ggml_backend_free(varve);
}

static void pitfall_01_last_writer_wins(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 4, 16};
    for (int t = 0; t < N_TYPE; t++) {
        struct write w = build_write((struct write_shape){
            .source = GGML_TYPE_F32,
            .index = GGML_TYPE_I64,
            .cache = all_types[t],
            .n = 1024,
            .n_row = 512,
            .n_cell = 129,
            .n2 = 1,
            .n3 = 1,
            .index2 = 1,
            .index3 = 1,
            .duplicates = true,
        });
        fill_write(&w, 0, 3);
        ggml_backend_t serial = ggml_backend_cpu_init();
        ggml_backend_cpu_set_n_threads(serial, 1); /* stock with one thread: rows in order */
        unsigned char *want = compute_write(&w, serial);
        for (int i = 0; i < 5; i++) {
            ggml_backend_t varve = new_backend(threads[i]);
            for (int repeat = 0; repeat < 20; repeat += THIN(5)) { /* 100 times for each format */
                unsigned char *got = compute_write(&w, varve);
                assert_memory_equal(want, got, ggml_nbytes(w.cache));
                free(got);
            }
            ggml_backend_free(varve);
        }
        free(want);
        ggml_backend_free(serial);
        discard_write(&w);
    }
}

static void an_index_out_of_range_fails_and_writes_nothing(void **state) {
    (void)state;
    static const int64_t wrong[] = {-1, 64, INT64_MAX, INT64_MIN, 1 << 30};
    ggml_backend_t varve = new_backend(2);
    for (int c = 0; c < 5; c++) {
        struct write w = build_write((struct write_shape){
            GGML_TYPE_F32, GGML_TYPE_I64, GGML_TYPE_Q8_0, 64, 8, 64, 1, 1, 1, 1, false});
        fill_write(&w, 0, 5);
        set_index(&w, 6, wrong[c]);
        const uint64_t failed = read_counters().failed_nodes;
        memset(w.cache->data, 0x5a, ggml_nbytes(w.cache));
        assert_int_equal(ggml_backend_graph_compute(varve, w.graph), GGML_STATUS_FAILED);
        for (size_t i = 0; i < ggml_nbytes(w.cache); i++) {
            assert_int_equal(((unsigned char *)w.cache->data)[i], 0x5a);
        }
        assert_int_equal(read_counters().failed_nodes, failed + 1);
        discard_write(&w);
    }
    ggml_backend_free(varve);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_stock),
        cmocka_unit_test(rows_of_one_value),
        cmocka_unit_test(pitfall_01_last_writer_wins),
        cmocka_unit_test(an_index_out_of_range_fails_and_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
