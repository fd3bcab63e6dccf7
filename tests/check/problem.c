#include "problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fp16.h"
#include "oracle.h"

#define TIGHT 1e-5

uint32_t problem_random(uint64_t *seed, uint32_t n) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33) % n;
}

float problem_normal(uint64_t *seed) {
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += (float)problem_random(seed, 65536) / 32768.0f - 1.0f;
    return 0.87f * sum;
}

static void *own(struct problem *problem, size_t bytes) {
    void *block = malloc(bytes + 1);
    problem->blocks[problem->n_block++] = block;
    return block;
}

/* Random encoded rows of one side of a segment. */
static void *make_rows(struct problem *problem, uint64_t *seed, enum varve_format format,
                       int32_t head_dim, int64_t n_rows, int64_t *row, int64_t *head,
                       int64_t *batch) {
    const struct varve_attention *a = &problem->attention;
    size_t bytes = 0;
    if (varve_format_row_bytes(format, head_dim, &bytes) != VARVE_OK) abort();
    *head = (int64_t)bytes;
    *row = *head * a->n_head_kv;
    *batch = *row * n_rows;
    char *const rows = own(problem, (size_t)(*batch * a->n_batch));
    float *const x = malloc((size_t)head_dim * sizeof(float));
    uint64_t state = *seed; /* in a register: most of what tests draw is drawn here */
    for (int64_t i = 0; i < a->n_batch * n_rows * a->n_head_kv; i++) {
        for (int32_t d = 0; d < head_dim; d++) x[d] = problem_normal(&state);
        if (varve_format_encode(format, x, head_dim, rows + i * *head) != VARVE_OK) abort();
    }
    *seed = state;
    free(x);
    return rows;
}

static void make_mask(struct problem *problem, uint64_t *seed, int64_t n_rows, int kind,
                      bool per_head) {
    const struct varve_attention *a = &problem->attention;
    const int64_t columns = n_rows + problem_random(seed, 20); /* wider than what is read */
    const int32_t n_head = per_head ? a->n_head : 1;
    const int64_t n = columns * a->n_query * n_head * a->n_batch;
    uint16_t *const data = own(problem, (size_t)n * sizeof *data);
    for (int64_t i = 0; i < n; i++) {
        const uint32_t hide = kind == 0 ? 0 : kind == 2 ? 88 : 33;
        const bool hidden = problem_random(seed, 100) < hide;
        const float value = kind == 3 ? problem_normal(seed) : 0;
        data[i] = hidden ? VARVE_F16_NEG_INF : varve_f32_to_f16(value);
    }
    problem->mask = (struct varve_mask){data,
                                        columns,
                                        a->n_query,
                                        n_head,
                                        a->n_batch,
                                        2 * columns,
                                        2 * columns * a->n_query,
                                        2 * columns * a->n_query * n_head};
    problem->io.mask = &problem->mask;
}

void problem_fill(struct problem *problem, uint64_t *seed, int n_segment, const int64_t *n_rows,
                  const enum varve_format *k_formats, const enum varve_format *v_formats,
                  int mask_kind, bool per_head) {
    const struct varve_attention *a = &problem->attention;
    int64_t total = 0;
    for (int i = 0; i < n_segment; i++) {
        struct varve_segment *segment = &problem->segments[i];
        *segment = (struct varve_segment){.k_format = k_formats[i],
                                          .v_format = v_formats[i],
                                          .n_rows = n_rows[i],
                                          .mask_column = total,
                                          .pos = total};
        segment->k =
            make_rows(problem, seed, k_formats[i], a->head_dim_k, n_rows[i], &segment->k_row_stride,
                      &segment->k_head_stride, &segment->k_batch_stride);
        segment->v =
            make_rows(problem, seed, v_formats[i], a->head_dim_v, n_rows[i], &segment->v_row_stride,
                      &segment->v_head_stride, &segment->v_batch_stride);
        total += n_rows[i];
    }
    problem->io.segments = problem->segments;
    problem->io.n_segment = n_segment;
    if (mask_kind >= 0) make_mask(problem, seed, total, mask_kind, per_head);

    problem->n_lse = a->n_batch * a->n_query * a->n_head;
    problem->n_output = problem->n_lse * a->head_dim_v;
    problem->output = own(problem, (size_t)problem->n_output * sizeof(float));
    problem->lse = own(problem, (size_t)problem->n_lse * sizeof(float));
    /* what the output held before is never read (the fork's fault): make it poison */
    memset(problem->output, 0xFF, (size_t)problem->n_output * sizeof(float));
    const int64_t dv = 4 * (int64_t)a->head_dim_v, dk = 4 * (int64_t)a->head_dim_k;
    problem->io.output = (struct varve_output){problem->output, dv * a->n_head, dv,
                                               dv * a->n_head * a->n_query, problem->lse};
    const int64_t n_query = problem->n_lse * a->head_dim_k;
    float *const query = own(problem, (size_t)n_query * sizeof(float));
    for (int64_t i = 0; i < n_query; i++) query[i] = problem_normal(seed);
    problem->io.query =
        (struct varve_query){query, dk * a->n_head, dk, dk * a->n_head * a->n_query};
}

void problem_free(struct problem *problem) {
    for (int i = 0; i < problem->n_block; i++) free(problem->blocks[i]);
    problem->n_block = 0;
}

bool problem_run(const struct varve_context *context, struct problem *problem, int32_t n_thread) {
    struct varve_plan *plan;
    if (varve_plan_create(context, &problem->attention, problem->io.segments, problem->io.n_segment,
                          n_thread, &plan) != VARVE_OK) {
        return false;
    }
    const size_t bytes = varve_plan_scratch_bytes(plan);
    void *const scratch = bytes ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
    if (bytes) memset(scratch, 0xFF, bytes); /* NaN: scratch is not to be read before written */
    const enum varve_status status = varve_run(plan, &problem->io, scratch, n_thread);
    free(scratch);
    varve_plan_destroy(plan);
    return status == VARVE_OK;
}

/* The derived bound is one for the worst case, which rounding does not meet; so it is cut at TIGHT
 * of the largest value, which no correct kernel has come near and most faults exceed. What rounded
 * weights may add, one figure for n_each values, comes on top. */
static double ratio_of(const float *value, const double *expected, const double *bound,
                       const double *rounding, int64_t n_each, int64_t n, double tight) {
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(expected[i])) largest = fmax(largest, fabs(expected[i]));
    }
    for (int64_t i = 0; i < n; i++) {
        if ((double)value[i] == expected[i]) continue;
        const double limit = fmin(bound[i], tight * largest) + rounding[i / n_each];
        const double ratio = fabs((double)value[i] - expected[i]) / limit;
        if (!(ratio <= worst)) worst = isnan(ratio) ? INFINITY : ratio;
    }
    return worst;
}

double problem_ratio(const float *value, const double *expected, const double *bound,
                     const double *rounding, int64_t n_each, int64_t n) {
    return ratio_of(value, expected, bound, rounding, n_each, n, TIGHT);
}

struct problem_truth problem_truth_of(const struct problem *problem) {
    const size_t n = (size_t)(problem->n_output + problem->n_lse);
    struct problem_truth truth = {malloc((n + 1) * sizeof(double)),
                                  malloc((n + 1) * sizeof(double)),
                                  malloc((size_t)(problem->n_lse + 1) * sizeof(double))};
    oracle_attention_bounds(&problem->attention, &problem->io, truth.expected,
                            truth.expected + problem->n_output, truth.bound,
                            truth.bound + problem->n_output, truth.rounding);
    return truth;
}

void problem_truth_free(struct problem_truth *truth) {
    free(truth->expected);
    free(truth->bound);
    free(truth->rounding);
}

double problem_error_from(const struct problem *problem, const struct problem_truth *truth) {
    static const double none[1] = {0};
    /* what class fast may lose is no worst case of many small roundings: its bound counts */
    const bool fast = problem->attention.arithmetic == VARVE_ARITHMETIC_FAST;
    const double tight = fast ? INFINITY : TIGHT;
    const double output = ratio_of(problem->output, truth->expected, truth->bound, truth->rounding,
                                   problem->attention.head_dim_v, problem->n_output, tight);
    const double lse =
        ratio_of(problem->lse, truth->expected + problem->n_output,
                 truth->bound + problem->n_output, none, problem->n_lse + 1, problem->n_lse, tight);
    return output > lse ? output : lse;
}

double problem_error(const struct problem *problem) {
    struct problem_truth truth = problem_truth_of(problem);
    const double error = problem_error_from(problem, &truth);
    problem_truth_free(&truth);
    return error;
}
