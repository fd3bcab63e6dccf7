/* Times one attention problem in several forms, interleaved, and prints medians and ratios:
 *
 *     bench-attend [head_dim [heads_kv [group [rows [queries [threads]]]]]]
 *
 * For each of f16, q8_0 and q4_0: one segment; the same rows as segments of 16 (pages); and a plain
 * read of the same bytes by the same threads. The method is that of docs/BENCH.md. */
#include "measure.h"

#include <math.h>
#include <stdio.h>

#define ROUNDS 15
#define PAGE_ROWS 16

struct job {
    struct varve_plan *plan;
    struct varve_io io;
    void *scratch;
};

static struct job make_job(const struct varve_context *context, const struct varve_attention *a,
                           const struct varve_segment *segments, int64_t n_segment, int n_thread,
                           const float *query, float *output) {
    struct job job = {.io = {.segments = segments, .n_segment = n_segment}};
    if (varve_plan_create(context, a, segments, n_segment, n_thread, &job.plan) != VARVE_OK) {
        fprintf(stderr, "bench-attend: no plan for this problem\n");
        exit(1);
    }
    const size_t bytes = varve_plan_scratch_bytes(job.plan);
    job.scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    job.io.query = (struct varve_query){query, 4 * a->head_dim_k * a->n_head, 4 * a->head_dim_k, 0};
    job.io.output.data = output;
    job.io.output.query_stride = 4 * a->head_dim_v * a->n_head;
    job.io.output.head_stride = 4 * a->head_dim_v;
    return job;
}

static double time_job(const struct job *job, int n_thread) {
    const double start = seconds();
    if (varve_run(job->plan, &job->io, job->scratch, n_thread) != VARVE_OK) exit(1);
    return seconds() - start;
}

static void bench(const struct varve_context *context, enum varve_format format,
                  const struct varve_attention *a, int64_t n_row, int n_thread) {
    size_t bytes = 0;
    if (varve_format_row_bytes(format, a->head_dim_k, &bytes) != VARVE_OK) exit(1);
    const int64_t n = n_row * a->n_head_kv;
    char *const k = make_rows(format, a->head_dim_k, n, bytes);
    char *const v = make_rows(format, a->head_dim_k, n, bytes);
    const int64_t row = (int64_t)bytes * a->n_head_kv;
    const struct varve_segment whole = {.k_format = format,
                                        .v_format = format,
                                        .k = k,
                                        .v = v,
                                        .n_rows = n_row,
                                        .k_row_stride = row,
                                        .k_head_stride = (int64_t)bytes,
                                        .v_row_stride = row,
                                        .v_head_stride = (int64_t)bytes};
    const int64_t n_page = (n_row + PAGE_ROWS - 1) / PAGE_ROWS;
    struct varve_segment *const pages = malloc((size_t)n_page * sizeof *pages);
    for (int64_t p = 0; p < n_page; p++) {
        pages[p] = whole;
        pages[p].k = k + p * PAGE_ROWS * row;
        pages[p].v = v + p * PAGE_ROWS * row;
        pages[p].pos = pages[p].mask_column = p * PAGE_ROWS;
        const int64_t left = n_row - p * PAGE_ROWS;
        pages[p].n_rows = left < PAGE_ROWS ? left : PAGE_ROWS;
    }
    const size_t n_query = (size_t)(a->n_query * a->n_head * a->head_dim_k);
    float *const query = malloc(n_query * sizeof(float));
    float *const output = malloc(n_query * sizeof(float));
    for (size_t i = 0; i < n_query; i++) query[i] = sinf((float)i);
    struct job one = make_job(context, a, &whole, 1, n_thread, query, output);
    struct job many = make_job(context, a, pages, n_page, n_thread, query, output);
    double t_one[ROUNDS], t_many[ROUNDS], t_read[ROUNDS];
    (void)time_job(&one, n_thread);
    for (int i = 0; i < ROUNDS; i++) {
        t_one[i] = time_job(&one, n_thread);
        t_many[i] = time_job(&many, n_thread);
        const double start = seconds();
        plain_read(k, (size_t)(n_row * row), n_thread);
        plain_read(v, (size_t)(n_row * row), n_thread);
        t_read[i] = seconds() - start;
    }
    const double ms = 1e3 * median(t_one, ROUNDS), pages_ms = 1e3 * median(t_many, ROUNDS);
    const double read_ms = 1e3 * median(t_read, ROUNDS);
    printf("%-5s %8.3f ms  %7.1f GFLOPS  pages of %d: %8.3f ms (x %.3f)  plain read %7.3f ms "
           "(share %.2f)\n",
           varve_format_name(format), ms, 2e-6 * varve_plan_work(one.plan) / ms, PAGE_ROWS,
           pages_ms, pages_ms / ms, read_ms, read_ms / ms);
    varve_plan_destroy(one.plan);
    varve_plan_destroy(many.plan);
    free(one.scratch);
    free(many.scratch);
    free(pages);
    free(query);
    free(output);
    free(k);
    free(v);
}

int main(int argc, char **argv) {
    int64_t value[] = {128, 8, 4, 8192, 1, 2};
    for (int i = 1; i < argc && i <= 6; i++) value[i - 1] = atoll(argv[i]);
    for (int i = 0; i < 6; i++) {
        if (value[i] < 1 || argc > 7) {
            fprintf(stderr, "usage: bench-attend [head_dim [heads_kv [group [rows [queries "
                            "[threads]]]]]]\n");
            return 2;
        }
    }
    struct varve_context *context;
    struct varve_context_params params = {.struct_bytes = sizeof params,
                                          .isa = getenv("VARVE_ISA")};
    if (varve_context_create(&params, &context) != VARVE_OK) {
        fprintf(stderr, "bench-attend: VARVE_ISA names no level that this CPU has\n");
        return 1;
    }
    const struct varve_attention a = {.head_dim_k = (int32_t)value[0],
                                      .head_dim_v = (int32_t)value[0],
                                      .n_head = (int32_t)(value[1] * value[2]),
                                      .n_head_kv = (int32_t)value[1],
                                      .n_query = value[4],
                                      .n_batch = 1,
                                      .scale = 1.0f / sqrtf((float)value[0])};
    printf("isa %s, head size %d, %d KV heads, %d heads, %lld rows, %lld queries, %lld threads\n",
           varve_context_isa(context), a.head_dim_k, a.n_head_kv, a.n_head, (long long)value[3],
           (long long)value[4], (long long)value[5]);
    bench(context, VARVE_FORMAT_F16, &a, value[3], (int)value[5]);
    bench(context, VARVE_FORMAT_Q8_0, &a, value[3], (int)value[5]);
    bench(context, VARVE_FORMAT_Q4_0, &a, value[3], (int)value[5]);
    varve_context_destroy(context);
    return 0;
}
