/* The library as a whole against the oracle, and the promises of docs/DESIGN.md 2 that concern it:
 * segments, threads, unseen rows. Numbers after "pitfall" are those of bugs that other engines had.
 */
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/fp16.h"
#include "check/problem.h"
#include "thin.h"

static const enum varve_format all_formats[] = {
    VARVE_FORMAT_F32,  VARVE_FORMAT_F16,  VARVE_FORMAT_BF16, VARVE_FORMAT_Q8_0,  VARVE_FORMAT_Q4_0,
    VARVE_FORMAT_Q4_1, VARVE_FORMAT_Q5_0, VARVE_FORMAT_Q5_1, VARVE_FORMAT_IQ4_NL};

static struct varve_context *context_of(const char *isa) {
    struct varve_context_params params = {.struct_bytes = sizeof params, .isa = isa};
    struct varve_context *context = NULL;
    assert_int_equal(varve_context_create(&params, &context), VARVE_OK);
    return context;
}

static struct varve_attention attention_of(int32_t dk, int32_t dv, int32_t n_head,
                                           int32_t n_head_kv, int64_t n_query, int64_t n_batch) {
    return (struct varve_attention){.head_dim_k = dk,
                                    .head_dim_v = dv,
                                    .n_head = n_head,
                                    .n_head_kv = n_head_kv,
                                    .n_query = n_query,
                                    .n_batch = n_batch,
                                    .scale = 1.0f / sqrtf((float)dk)};
}

static int64_t sum_of(int n, const int64_t *values) {
    int64_t sum = 0;
    for (int i = 0; i < n; i++) sum += values[i];
    return sum;
}

struct levels {
    struct varve_context *context[32];
    int n;
};

/* One random problem of any kind, on each ISA level, against the oracle. */
static void check_random(const struct levels *levels, uint64_t seed) {
    static const int32_t dims[] = {32, 64, 96, 128, 192, 256};
    static const int64_t queries[] = {1, 1, 2, 3, 7, 33, 70};
    struct problem problem = {0};
    struct varve_attention a =
        attention_of(dims[problem_random(&seed, 6)], dims[problem_random(&seed, 6)], 0,
                     1 + (int32_t)problem_random(&seed, 4), queries[problem_random(&seed, 7)],
                     1 + problem_random(&seed, 3));
    a.n_head = a.n_head_kv * (1 + (int32_t)problem_random(&seed, 6));
    if (problem_random(&seed, 4) == 0) a.softcap = 5;
    if (problem_random(&seed, 4) == 0) a.max_bias = 8;
    a.causal = problem_random(&seed, 3) == 0;
    if (problem_random(&seed, 4) == 0) a.window = 1 + problem_random(&seed, 300);
    static const enum varve_arithmetic classes[] = {VARVE_ARITHMETIC_EXACT, VARVE_ARITHMETIC_FAST,
                                                    VARVE_ARITHMETIC_DEFAULT,
                                                    VARVE_ARITHMETIC_DEFAULT};
    a.arithmetic = classes[problem_random(&seed, 4)];
    const int n_segment = (int)problem_random(&seed, 6);
    const bool mixed = problem_random(&seed, 2);
    int64_t rows[6];
    enum varve_format k[6], v[6];
    for (int i = 0; i < n_segment; i++) {
        rows[i] =
            problem_random(&seed, 3) == 0 ? problem_random(&seed, 2) : problem_random(&seed, 400);
        k[i] = mixed || i == 0 ? all_formats[problem_random(&seed, 9)] : k[0];
        v[i] = mixed || i == 0 ? all_formats[problem_random(&seed, 9)] : v[0];
    }
    a.query_pos = sum_of(n_segment, rows) - problem_random(&seed, 10);
    problem.attention = a;
    problem_fill(&problem, &seed, n_segment, rows, k, v, (int)problem_random(&seed, 5) - 1,
                 problem_random(&seed, 2));
    float sinks[24];
    for (int h = 0; h < 24; h++) sinks[h] = problem_normal(&seed);
    if (problem_random(&seed, 3) == 0) problem.io.sinks = sinks;
    const int32_t n_thread = 1 + (int32_t)problem_random(&seed, 4);
    struct problem_truth truth = problem_truth_of(&problem);
    for (int i = 0; i < levels->n; i++) {
        memset(problem.output, 0xFF, (size_t)problem.n_output * sizeof(float));
        memset(problem.lse, 0xFF, (size_t)problem.n_lse * sizeof(float));
        assert_true(problem_run(levels->context[i], &problem, n_thread));
        const double error = problem_error_from(&problem, &truth);
        if (!(error <= 1)) {
            fail_msg("isa %s: error of %g bounds", varve_context_isa(levels->context[i]), error);
        }
    }
    problem_truth_free(&truth);
    problem_free(&problem);
}

/* pitfall 22: all formats, shapes and options on each ISA level against one reference in double. */
static void test_random_problems_on_every_isa(void **unused) {
    (void)unused;
    struct levels levels = {.n = 0};
    bool available;
    for (int level = 0; varve_isa_name(level, &available) != NULL; level++) {
        if (!available) {
            print_message("skipped: %s (not on this CPU)\n", varve_isa_name(level, NULL));
            continue;
        }
        assert_true(levels.n < (int)(sizeof levels.context / sizeof *levels.context));
        levels.context[levels.n++] = context_of(varve_isa_name(level, NULL));
    }
    for (uint64_t i = 0; i < 60; i += THIN(3)) check_random(&levels, 1000 + i);
    for (int i = 0; i < levels.n; i++) {
        print_message("exercised: %s\n", varve_context_isa(levels.context[i]));
        varve_context_destroy(levels.context[i]);
    }
}

/* pitfall 5: every residue of length modulo block, tile and chunk, not samples */
static void test_every_length(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    const enum varve_format formats[] = {VARVE_FORMAT_F16, VARVE_FORMAT_Q8_0, VARVE_FORMAT_Q4_0};
    for (int f = 0; f < 3; f++) {
        for (int64_t n = 0; n <= 330; n += THIN(5)) {
            for (int64_t n_query = 1; n_query <= 9; n_query += 8) {
                uint64_t seed = (uint64_t)n + 7;
                struct problem problem = {.attention = attention_of(64, 32, 3, 1, n_query, 1)};
                problem_fill(&problem, &seed, 1, &n, &formats[f], &formats[f], n % 3 - 1, false);
                assert_true(problem_run(context, &problem, 2));
                assert_true(problem_error(&problem) <= 1);
                problem_free(&problem);
            }
        }
    }
    varve_context_destroy(context);
}

/* Cuts the rows of segment 0 at random into up to 17 segments, in random order. */
static void cut_segments(struct problem *problem, uint64_t *seed) {
    const struct varve_segment whole = problem->segments[0];
    int64_t at = 0;
    int n = 0;
    while (at < whole.n_rows || n == 0) {
        int64_t rows = n == 16 ? whole.n_rows : problem_random(seed, (uint32_t)whole.n_rows / 4);
        if (rows > whole.n_rows - at) rows = whole.n_rows - at;
        struct varve_segment *segment = &problem->segments[n++];
        *segment = whole;
        segment->k = (const char *)whole.k + at * whole.k_row_stride;
        segment->v = (const char *)whole.v + at * whole.v_row_stride;
        segment->n_rows = rows;
        segment->mask_column = whole.mask_column + at;
        segment->pos = whole.pos + at;
        at += rows;
    }
    for (int i = n - 1; i > 0; i--) {
        const int j = (int)problem_random(seed, (uint32_t)i + 1);
        const struct varve_segment swap = problem->segments[i];
        problem->segments[i] = problem->segments[j];
        problem->segments[j] = swap;
    }
    problem->io.n_segment = n;
}

/* Promise 1: however a context is cut, in any order, with lengths 0 and 1 among them. */
static void test_segments_do_not_matter(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    for (uint64_t i = 0; i < 60; i++) {
        uint64_t seed = 77 + i;
        const int64_t n = 1200;
        const enum varve_format format = all_formats[i % 9];
        struct problem problem = {.attention = attention_of(64, 64, 6, 2, i % 2 ? 1 : 20, 1)};
        problem.attention.causal = i % 3 == 0;
        problem.attention.query_pos = n - 20;
        problem_fill(&problem, &seed, 1, &n, &format, &format, (int)(i % 4) - 1, i % 5 == 0);
        cut_segments(&problem, &seed);
        assert_true(problem_run(context, &problem, 2));
        assert_true(problem_error(&problem) <= 1);
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

struct pool {
    const struct varve_plan *plan;
    const struct varve_io *io;
    void *scratch;
    pthread_barrier_t barrier;
    int64_t next[VARVE_PHASE_COUNT];
};
struct worker {
    struct pool *pool;
    int32_t index;
};

static void *work(void *arg) {
    const struct worker *worker = arg;
    struct pool *pool = worker->pool;
    for (int32_t phase = 0; phase < VARVE_PHASE_COUNT; phase++) {
        const int64_t n = varve_plan_n_task(pool->plan, phase);
        for (;;) {
            const int64_t task = __atomic_fetch_add(&pool->next[phase], 1, __ATOMIC_RELAXED);
            if (task >= n) break;
            varve_run_task(pool->plan, pool->io, pool->scratch, phase, task, worker->index);
        }
        pthread_barrier_wait(&pool->barrier);
    }
    return NULL;
}

/* Runs a problem by tasks on threads of our own, as an engine with its own pool does. */
static void run_tasks(const struct varve_context *context, struct problem *problem, int n_thread) {
    struct pool pool = {.io = &problem->io};
    struct varve_plan *plan;
    assert_int_equal(varve_plan_create(context, &problem->attention, problem->segments,
                                       problem->io.n_segment, n_thread, &plan),
                     VARVE_OK);
    assert_int_equal(varve_io_check(plan, &problem->io), VARVE_OK);
    pool.plan = plan;
    pool.scratch = aligned_alloc(64, (varve_plan_scratch_bytes(plan) + 63) / 64 * 64);
    pthread_barrier_init(&pool.barrier, NULL, (unsigned)n_thread);
    pthread_t threads[64];
    struct worker workers[64];
    for (int i = 0; i < n_thread; i++) {
        workers[i] = (struct worker){&pool, i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < n_thread; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&pool.barrier);
    free(pool.scratch);
    varve_plan_destroy(plan);
}

/* Promise 3: the same bits for any number of threads, through both ways of running. */
static void test_threads_do_not_matter(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    const int n_threads[] = {2, 3, 16, 64};
    for (int i = 0; i < 8; i++) {
        uint64_t seed = 5 + (uint64_t)i;
        const int64_t n = 2000;
        const enum varve_format format = all_formats[(i * 2 + 1) % 9];
        struct problem problem = {.attention = attention_of(64, 128, 9, 3, i % 2 ? 40 : 1, 2)};
        problem_fill(&problem, &seed, 1, &n, &format, &format, i % 3 - 1, false);
        assert_true(problem_run(context, &problem, 1));
        const size_t bytes = (size_t)problem.n_output * sizeof(float);
        float *const first = malloc(bytes);
        memcpy(first, problem.output, bytes);
        for (int t = 0; t < 4; t++) {
            memset(problem.output, 0xFF, bytes);
            assert_true(problem_run(context, &problem, n_threads[t]));
            assert_memory_equal(first, problem.output, bytes);
            memset(problem.output, 0xFF, bytes);
            run_tasks(context, &problem, n_threads[t]);
            assert_memory_equal(first, problem.output, bytes);
        }
        free(first);
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

/* Overwrites with NaN the K and V rows (of all heads) that no query sees by the mask. */
static void poison_hidden(struct problem *problem) {
    const struct varve_attention *a = &problem->attention;
    const struct varve_segment *s = &problem->segments[0];
    const uint16_t *mask = problem->mask.data;
    for (int64_t r = 0; r < s->n_rows; r++) {
        bool seen = false;
        for (int64_t i = 0; i < a->n_query; i++) {
            seen |= mask[i * problem->mask.n_column + r] != VARVE_F16_NEG_INF;
        }
        if (seen) continue;
        memset((char *)(uintptr_t)s->k + r * s->k_row_stride, 0xFF, (size_t)s->k_row_stride);
        memset((char *)(uintptr_t)s->v + r * s->v_row_stride, 0xFF, (size_t)s->v_row_stride);
    }
}

/* Promise 4, pitfall 18: NaN in rows that nobody sees changes nothing, bit for bit. */
static void test_unseen_rows_may_hold_nan(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    for (int i = 0; i < 18; i++) {
        uint64_t seed = 31 + (uint64_t)i;
        const int64_t n = 700;
        struct problem problem = {.attention = attention_of(64, 64, 4, 2, i % 2 ? 1 : 3, 1)};
        problem_fill(&problem, &seed, 1, &n, &all_formats[i % 9], &all_formats[(i + 4) % 9], 2,
                     false);
        assert_true(problem_run(context, &problem, 1));
        const size_t bytes = (size_t)problem.n_output * sizeof(float);
        float *const clean = malloc(bytes);
        memcpy(clean, problem.output, bytes);
        poison_hidden(&problem);
        assert_true(problem_run(context, &problem, 2));
        assert_memory_equal(clean, problem.output, bytes);
        free(clean);
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

/* Tiles of which the first or last queries see nothing of a block, or all of it: causal order and
 * windows, by positions and by a mask, with and without a bias; tiles of any size that the plan
 * makes. */
static void test_edges_of_tiles(void **unused) {
    (void)unused;
    static const int32_t heads[][2] = {{2, 2}, {64, 16}}; /* tiles of 128 and of 512 */
    struct varve_context *context = context_of(NULL);
    for (int i = 0; i < 24; i++) {
        uint64_t seed = 70 + (uint64_t)i;
        const int32_t *head = heads[i / 2 % 2];
        const int64_t n[] = {130 - 70 * (i % 2), 140 + i};
        const enum varve_format f[] = {all_formats[1 + i % 4], all_formats[1 + i % 4]};
        struct problem problem = {.attention = attention_of(32, 32, head[0], head[1], 260, 1)};
        problem.attention.causal = i % 3 != 0;
        problem.attention.window = i % 3 != 1 ? 90 : 0;
        problem.attention.query_pos = i % 5 == 0 ? -20 : 10;
        if (i % 4 == 3) problem.attention.max_bias = 8;
        problem_fill(&problem, &seed, 2, n, f, f, i % 6 - 1 < 4 ? i % 6 - 1 : -1, i % 12 > 5);
        assert_true(problem_run(context, &problem, 2));
        assert_true(problem_error(&problem) <= 1);
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

/* A row that one query sees may hold NaN for another one that does not (two sequences in a unified
 * cache): only the first gets NaN, in the direct and in the tiled path. */
static void test_nan_stays_with_its_query(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    for (int f = 0; f < 9; f++) {
        for (int64_t n_query = 2; n_query <= 40; n_query += 38) {
            uint64_t seed = 3;
            const int64_t n = 130;
            struct problem problem = {.attention = attention_of(32, 32, 2, 2, n_query, 1)};
            problem_fill(&problem, &seed, 1, &n, &all_formats[f], &all_formats[f], 0, false);
            uint16_t *mask = (uint16_t *)(uintptr_t)problem.mask.data;
            const struct varve_segment *s = &problem.segments[0];
            for (int64_t i = 1; i < n_query; i++) { /* row 5 is seen by query 0 only */
                mask[i * problem.mask.n_column + 5] = VARVE_F16_NEG_INF;
            }
            memset((char *)(uintptr_t)s->k + 5 * s->k_row_stride, 0xFF, (size_t)s->k_row_stride);
            memset((char *)(uintptr_t)s->v + 5 * s->v_row_stride, 0xFF, (size_t)s->v_row_stride);
            assert_true(problem_run(context, &problem, 1));
            for (int64_t i = 2 * 32; i < problem.n_output; i++) {
                assert_true(isfinite(problem.output[i]));
            }
            problem_free(&problem);
        }
    }
    varve_context_destroy(context);
}

/* pitfall 17: fully masked queries, first, middle, last and all, with and without sinks. */
static void test_fully_masked_rows_give_zeros(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    const float sinks[] = {0.5f, -1, 2, 0};
    for (int which = 0; which < 4; which++) {
        for (int with_sinks = 0; with_sinks < 2; with_sinks++) {
            for (int64_t n_query = 3; n_query <= 30; n_query += 27) {
                uint64_t seed = 8;
                const int64_t n = 300;
                const enum varve_format format = VARVE_FORMAT_Q4_0;
                struct problem problem = {.attention = attention_of(64, 64, 4, 2, n_query, 1)};
                problem_fill(&problem, &seed, 1, &n, &format, &format, 0, false);
                if (with_sinks) problem.io.sinks = sinks;
                uint16_t *mask = (uint16_t *)(uintptr_t)problem.mask.data;
                const int64_t row = which == 0 ? 0 : which == 1 ? n_query / 2 : n_query - 1;
                for (int64_t i = 0; i < n_query; i++) {
                    if (which != 3 && i != row) continue;
                    for (int64_t c = 0; c < n; c++) {
                        mask[i * problem.mask.n_column + c] = VARVE_F16_NEG_INF;
                    }
                }
                assert_true(problem_run(context, &problem, 2));
                assert_true(problem_error(&problem) <= 1);
                for (int64_t d = 0; d < 4 * 64; d++) {
                    assert_true(problem.output[row * 4 * 64 + d] == 0);
                }
                for (int h = 0; h < 4; h++) {
                    const float lse = problem.lse[row * 4 + h];
                    if (with_sinks)
                        assert_true(fabsf(lse - sinks[h]) < 1e-6f);
                    else
                        assert_true(lse == -INFINITY);
                }
                problem_free(&problem);
            }
        }
    }
    varve_context_destroy(context);
}

/* pitfall 20: with q.k = 0 and v = 1 the output is n / (n + e^sink), however the rows are split. */
static void test_sinks_count_once(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    const float sinks[] = {-1, 0, 1, 3};
    const int64_t lengths[] = {1, 64, 300, 5000};
    for (int l = 0; l < 4; l++) {
        for (int64_t n_query = 1; n_query <= 21; n_query += 10) {
            uint64_t seed = 4;
            const enum varve_format format = VARVE_FORMAT_F16;
            struct problem problem = {.attention = attention_of(32, 32, 4, 1, n_query, 1)};
            problem_fill(&problem, &seed, 1, &lengths[l], &format, &format, -1, false);
            const struct varve_segment *s = &problem.segments[0];
            uint16_t *v = (uint16_t *)(uintptr_t)s->v;
            memset((void *)(uintptr_t)s->k, 0, (size_t)s->k_batch_stride);
            for (int64_t i = 0; i < s->n_rows * 32; i++) v[i] = varve_f32_to_f16(1);
            problem.io.sinks = sinks;
            assert_true(problem_run(context, &problem, 2));
            for (int64_t i = 0; i < problem.n_output; i++) {
                const double n = (double)lengths[l];
                const double expected = n / (n + exp((double)sinks[i / 32 % 4]));
                assert_true(fabs((double)problem.output[i] - expected) < 1e-6);
            }
            problem_free(&problem);
        }
    }
    varve_context_destroy(context);
}

/* pitfall 21: softcap before the mask, ALiBi slopes of head counts that are no power of two. */
static void test_softcap_then_alibi(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    const int32_t heads[] = {12, 20, 40, 48};
    for (int i = 0; i < 8; i++) {
        uint64_t seed = 21 + (uint64_t)i;
        const int64_t n = 200;
        const enum varve_format format = i % 2 ? VARVE_FORMAT_Q8_0 : VARVE_FORMAT_F16;
        struct problem problem = {.attention = attention_of(32, 32, heads[i / 2], 4, 5, 1)};
        problem.attention.scale = 8; /* large logits */
        problem.attention.softcap = i % 2 ? 30 : 50;
        problem.attention.max_bias = 8;
        problem_fill(&problem, &seed, 1, &n, &format, &format, 3, false);
        assert_true(problem_run(context, &problem, 1));
        assert_true(problem_error(&problem) <= 1);
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

/* pitfall 23: no drift at 131,072 rows with uniform weights; V folded in F32. */
static void test_long_context_does_not_drift(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    for (int f = 0; f < 2; f++) {
        uint64_t seed = 6;
        const int64_t n = 131072;
        const enum varve_format format = f ? VARVE_FORMAT_Q8_0 : VARVE_FORMAT_F16;
        struct problem problem = {.attention = attention_of(32, 32, 2, 1, 1, 1)};
        problem_fill(&problem, &seed, 1, &n, &format, &format, -1, false);
        problem.attention.scale = 0;
        assert_true(problem_run(context, &problem, 2));
        /* the mean of random values is small, so compare with their size, 1 */
        double *const output = calloc(64, sizeof *output);
        float row[32];
        for (int64_t r = 0; r < n; r++) {
            const struct varve_segment *s = &problem.segments[0];
            (void)varve_format_decode(format, (const char *)s->v + r * s->v_row_stride, 32, row);
            for (int d = 0; d < 32; d++) output[d] += (double)row[d] / (double)n;
        }
        for (int d = 0; d < 64; d++) {
            assert_true(fabs((double)problem.output[d] - output[d % 32]) < 1e-6);
        }
        free(output);
        problem_free(&problem);
    }
    varve_context_destroy(context);
}

/* pitfall 29: offsets beyond 32 bits: rows 3 GiB apart, mask columns beyond 2^31. */
static void test_offsets_beyond_32_bits(void **unused) {
    (void)unused;
    const size_t stride = (size_t)3 << 30;
    char *const base = mmap(NULL, 4 * stride, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        print_message("skipped: no address space for 12 GiB\n");
        skip();
    }
    struct varve_context *context = context_of(NULL);
    uint64_t seed = 2;
    const int64_t n = 3;
    const enum varve_format format = VARVE_FORMAT_F16;
    struct problem problem = {.attention = attention_of(32, 32, 2, 1, 1, 1)};
    problem_fill(&problem, &seed, 1, &n, &format, &format, 3, false);
    struct varve_segment *s = &problem.segments[0];
    for (int64_t r = 0; r < n; r++) {
        memcpy(base + (size_t)r * stride, (const char *)s->k + r * s->k_row_stride, 64);
        memcpy(base + (size_t)r * stride + 64, (const char *)s->v + r * s->v_row_stride, 64);
    }
    char *const far = base + 3 * stride + (stride - 64);
    memcpy(far, problem.mask.data, 6);
    s->k = base;
    s->v = base + 64;
    s->k_row_stride = s->v_row_stride = (int64_t)stride;
    s->mask_column = INT64_C(3) << 29;
    problem.mask.data = far - 2 * s->mask_column;
    problem.mask.n_column = s->mask_column + n;
    assert_true(problem_run(context, &problem, 1));
    assert_true(problem_error(&problem) <= 1);
    problem_free(&problem);
    varve_context_destroy(context);
    munmap(base, 4 * stride);
}

/* The engines' pages: 16-row segments give what one segment gives. */
static void test_pages(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    uint64_t seed = 12;
    int64_t rows[PROBLEM_SEGMENTS_MAX];
    enum varve_format formats[PROBLEM_SEGMENTS_MAX];
    for (int i = 0; i < PROBLEM_SEGMENTS_MAX; i++) {
        rows[i] = 16;
        formats[i] = VARVE_FORMAT_Q8_0;
    }
    struct problem problem = {.attention = attention_of(128, 128, 8, 2, 1, 1)};
    problem_fill(&problem, &seed, PROBLEM_SEGMENTS_MAX, rows, formats, formats, -1, false);
    assert_true(problem_run(context, &problem, 1));
    assert_true(problem_error(&problem) <= 1);
    problem_free(&problem);
    varve_context_destroy(context);
}

/* pitfall 9: several batch entries, one mask for all or one each. */
static void test_batches(void **unused) {
    (void)unused;
    struct varve_context *context = context_of(NULL);
    for (int64_t n_batch = 1; n_batch <= 4; n_batch *= 2) {
        for (int shared = 0; shared < 2; shared++) {
            uint64_t seed = 13;
            const int64_t n = 150;
            const enum varve_format format = VARVE_FORMAT_Q4_0;
            struct problem problem = {.attention = attention_of(32, 64, 4, 2, 3, n_batch)};
            problem_fill(&problem, &seed, 1, &n, &format, &format, 1, false);
            if (shared) problem.mask.n_batch = 1;
            assert_true(problem_run(context, &problem, 2));
            assert_true(problem_error(&problem) <= 1);
            problem_free(&problem);
        }
    }
    varve_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_problems_on_every_isa),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_segments_do_not_matter),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_unseen_rows_may_hold_nan),
        cmocka_unit_test(test_edges_of_tiles),
        cmocka_unit_test(test_nan_stays_with_its_query),
        cmocka_unit_test(test_fully_masked_rows_give_zeros),
        cmocka_unit_test(test_sinks_count_once),
        cmocka_unit_test(test_softcap_then_alibi),
        cmocka_unit_test(test_long_context_does_not_drift),
        cmocka_unit_test(test_offsets_beyond_32_bits),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests_name("attend", tests, NULL, NULL);
}
