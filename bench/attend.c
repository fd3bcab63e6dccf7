#include "attend.h"

#include "args.h"
#include "measure.h"

#include "check/oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct attend {
    struct bench_problem *problem;
    enum attend_sight sight;
    struct varve_segment *segments; /* n_segment of each layer */
    int64_t n_segment;
    struct varve_plan *plan;
    void *scratch;
};

void attend_must(enum varve_status status, const char *what) {
    if (status == VARVE_OK) return;
    cli_say("bench: %s: %s", what, varve_status_text(status));
    exit(EXIT_FAILURE);
}

static void cut(struct varve_segment *pages, const struct varve_segment *whole, int64_t page_rows,
                int64_t n_page) {
    for (int64_t i = 0; i < n_page; i++) {
        const int64_t first = i * page_rows, left = whole->n_rows - first;
        pages[i] = *whole;
        pages[i].k = (const char *)whole->k + first * whole->k_row_stride;
        pages[i].v = (const char *)whole->v + first * whole->v_row_stride;
        pages[i].pos = pages[i].mask_column = first;
        pages[i].n_rows = left < page_rows ? left : page_rows;
    }
}

struct attend *attend_create(struct bench_problem *p, int64_t page_rows, enum attend_sight sight) {
    struct attend *const a = measure_allocate(sizeof *a);
    const int64_t n = page_rows > 0 ? (p->c.n_row + page_rows - 1) / page_rows : 1;
    *a = (struct attend){.problem = p, .sight = sight, .n_segment = n};
    a->segments = measure_allocate((size_t)(n * p->c.n_layer) * sizeof *a->segments);
    for (int64_t i = 0; i < p->c.n_layer; i++) {
        const struct varve_segment whole = problem_segment(p, i);
        cut(a->segments + i * n, &whole, page_rows > 0 ? page_rows : p->c.n_row, n);
    }
    struct varve_attention attention = p->attention;
    attention.causal = sight == ATTEND_POSITIONS;
    attention.query_pos = p->c.n_row - p->c.n_query;
    attend_must(varve_plan_create(p->context, &attention, a->segments, n, p->c.n_thread, &a->plan),
                "no plan for this case");
    a->scratch = measure_allocate(varve_plan_scratch_bytes(a->plan));
    return a;
}

void attend_destroy(struct attend *a) {
    if (a == NULL) return;
    varve_plan_destroy(a->plan);
    free(a->scratch);
    free(a->segments);
    free(a);
}

double attend_walk(struct attend *a) {
    const struct bench_case *const c = &a->problem->c;
    struct varve_io io = problem_io(a->problem);
    io.n_segment = a->n_segment;
    if (a->sight != ATTEND_MASK) io.mask = NULL;
    const double start = measure_seconds();
    for (int64_t i = 0; i < c->n_layer; i++) {
        io.segments = a->segments + i * a->n_segment;
        attend_must(varve_run(a->plan, &io, a->scratch, c->n_thread), "attention failed");
    }
    return (measure_seconds() - start) / (double)c->n_layer;
}

const struct varve_plan *attend_plan(const struct attend *a) { return a->plan; }

/* The line of the plan from its kernels on, behind the path that it takes. */
void attend_describe(const struct varve_plan *plan, char *text, size_t text_bytes) {
    char line[1024];
    varve_plan_print(plan, line, sizeof line);
    const char *const kernels = strstr(line, "; ");
    snprintf(text, text_bytes, "%s: %s", strstr(line, ": tiled") != NULL ? "tiled" : "direct",
             kernels != NULL ? kernels + 2 : line);
}

/* ---- accuracy ------------------------------------------------------------------------------- */

/* Query i and head h alone, over the same rows. */
static void single(const struct bench_problem *p, const struct varve_io *io, int64_t i, int32_t h,
                   double *expected) {
    struct varve_attention a = p->attention;
    const int32_t h_kv = h / (a.n_head / a.n_head_kv);
    a.n_head = a.n_head_kv = 1;
    a.n_query = 1;
    struct varve_segment *const segments =
        measure_allocate((size_t)io->n_segment * sizeof *segments);
    struct varve_mask *const masks = measure_allocate((size_t)io->n_segment * sizeof *masks);
    for (int64_t s = 0; s < io->n_segment; s++) {
        segments[s] = io->segments[s];
        segments[s].k = (const char *)segments[s].k + h_kv * segments[s].k_head_stride;
        segments[s].v = (const char *)segments[s].v + h_kv * segments[s].v_head_stride;
        if (segments[s].mask == NULL) continue;
        masks[s] = *segments[s].mask;
        masks[s].data = (const char *)masks[s].data + i * masks[s].row_stride;
        segments[s].mask = &masks[s];
    }
    struct varve_mask mask = *io->mask;
    mask.data = (const char *)mask.data + i * mask.row_stride;
    const struct varve_io one = {
        .query = {io->query.data + (i * p->c.n_head + h) * p->c.head_dim_k, 0, 0, 0},
        .segments = segments,
        .n_segment = io->n_segment,
        .mask = &mask};
    oracle_attention(&a, &one, expected, NULL);
    free(segments);
    free(masks);
}

static double head_error(const double *expected, const float *values, int32_t n) {
    double largest = 0, error = 0;
    for (int32_t d = 0; d < n; d++) {
        largest = fmax(largest, fabs(expected[d]));
        const double difference = fabs(expected[d] - (double)values[d]);
        error = difference <= error ? error : difference; /* a NaN stays */
    }
    return error / largest;
}

double attend_error(const struct bench_problem *p, const struct varve_io *io, const float *values) {
    const int64_t queries[] = {0, p->c.n_query - 1};
    const int32_t heads[] = {0, p->c.n_head - 1};
    double *const expected = measure_allocate((size_t)p->c.head_dim_v * sizeof *expected);
    double worst = 0;
    for (int q = 0; q < (p->c.n_query > 1 ? 2 : 1); q++) {
        for (int h = 0; h < (p->c.n_head > 1 ? 2 : 1); h++) {
            const int64_t at = queries[q] * p->c.n_head + heads[h];
            single(p, io, queries[q], heads[h], expected);
            const double error =
                head_error(expected, values + at * p->c.head_dim_v, p->c.head_dim_v);
            worst = error <= worst ? worst : error;
        }
    }
    free(expected);
    return worst;
}
