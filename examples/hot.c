/* An engine that keeps its KV cache in q4_0, and lets varve keep the last 64 rows and 4 sinks in
 * F16 beside it. One layer, one sequence, 400 tokens; the same with a cache of F32 shows what is
 * lost.
 *
 * Ends with 0 when recent rows in F16 bring the output nearer to the full precision one. */
#include "varve/hot.h"
#include "varve/varve.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { D = 64, N_HEAD = 8, N_HEAD_KV = 2, N_TOKEN = 400, WINDOW = 64, N_SINK = 4 };
enum { N_VALUE = D * N_HEAD_KV, Q4_ROW = N_VALUE / 32 * 18, Q4_HEAD = D / 32 * 18 };

struct engine {
    struct varve_context *context;
    struct varve_hot *hot;
    struct varve_twins *k_twins, *v_twins;
    struct varve_hot_view view;
    unsigned char k[N_TOKEN][Q4_ROW], v[N_TOKEN][Q4_ROW];
    float k_exact[N_TOKEN][N_VALUE], v_exact[N_TOKEN][N_VALUE];
};

static void must(enum varve_status status, const char *what) {
    if (status == VARVE_OK) return;
    fprintf(stderr, "%s: %s\n", what, varve_status_text(status));
    exit(1);
}

static float noise(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

static struct varve_twins *add_tensor(struct engine *e, const void *cold) {
    const struct varve_twins_params params = {.struct_bytes = sizeof params,
                                              .format = VARVE_FORMAT_Q4_0,
                                              .n_value = N_VALUE,
                                              .cold = cold,
                                              .cold_stride = Q4_ROW,
                                              .n_cell = N_TOKEN};
    struct varve_twins *twins;
    must(varve_twins_create(e->hot, &params, &twins), "varve_twins_create");
    return twins;
}

/* The engine writes its row as ever; then the twin is stored. */
static void write_row(struct varve_twins *twins, int64_t cell, const float *values, void *cold) {
    must(varve_twins_write(twins, &cell, 1), "varve_twins_write");
    must(varve_format_encode(VARVE_FORMAT_Q4_0, values, N_VALUE, cold), "varve_format_encode");
    varve_twins_write_row(twins, 0, values);
}

static void attend(const struct engine *e, const struct varve_segment *segments, int64_t n_segment,
                   const float *q, float *out) {
    const struct varve_attention attention = {.head_dim_k = D,
                                              .head_dim_v = D,
                                              .n_head = N_HEAD,
                                              .n_head_kv = N_HEAD_KV,
                                              .n_query = 1,
                                              .n_batch = 1,
                                              .scale = 1 / sqrtf(D)};
    const struct varve_io io = {.query = {q, .head_stride = D * 4},
                                .segments = segments,
                                .n_segment = n_segment,
                                .output = {out, .head_stride = D * 4}};
    struct varve_plan *plan;
    must(varve_plan_create(e->context, &attention, segments, n_segment, 1, &plan), "plan");
    void *scratch = aligned_alloc(64, (varve_plan_scratch_bytes(plan) + 63) / 64 * 64);
    must(varve_run(plan, &io, scratch, 1), "varve_run");
    free(scratch);
    varve_plan_destroy(plan);
}

static double distance(const float *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < N_HEAD * D; i++) sum += pow((double)a[i] - (double)b[i], 2);
    return sqrt(sum);
}

/* One token; adds how far the cold and the mixed output are from the exact one. */
static void step(struct engine *e, int64_t token, double *cold_error, double *mixed_error) {
    float q[N_HEAD * D], exact[N_HEAD * D], cold[N_HEAD * D], mixed[N_HEAD * D];
    for (int i = 0; i < N_HEAD * D; i++) q[i] = 2 * noise();
    for (int i = 0; i < N_VALUE; i++)
        e->k_exact[token][i] = noise(), e->v_exact[token][i] = noise();
    /* Attention of real models is strongest on recent tokens: make it so. */
    for (int h = 0; h < N_HEAD_KV; h++) e->k_exact[token][h * D] = 0.05f * (float)token;
    for (int h = 0; h < N_HEAD; h++) q[h * D] = 12;
    write_row(e->k_twins, token, e->k_exact[token], e->k[token]);
    write_row(e->v_twins, token, e->v_exact[token], e->v[token]);

    const struct varve_segment full = {VARVE_FORMAT_F32,
                                       VARVE_FORMAT_F32,
                                       e->k_exact,
                                       e->v_exact,
                                       token + 1,
                                       .k_row_stride = N_VALUE * 4,
                                       .k_head_stride = D * 4,
                                       .v_row_stride = N_VALUE * 4,
                                       .v_head_stride = D * 4};
    const struct varve_hot_node node = {.cold = {VARVE_FORMAT_Q4_0, VARVE_FORMAT_Q4_0, e->k, e->v,
                                                 token + 1, .k_row_stride = Q4_ROW,
                                                 .k_head_stride = Q4_HEAD, .v_row_stride = Q4_ROW,
                                                 .v_head_stride = Q4_HEAD},
                                        .n_query = 1,
                                        .k = e->k_twins,
                                        .v = e->v_twins};
    must(varve_hot_view(e->hot, &node, &e->view), "varve_hot_view");
    attend(e, &full, 1, q, exact);
    attend(e, &node.cold, 1, q, cold);
    attend(e, e->view.segments, e->view.n_segment, q, mixed);
    *cold_error += distance(cold, exact);
    *mixed_error += distance(mixed, exact);
}

int main(void) {
    static struct engine e;
    must(varve_context_create(NULL, &e.context), "varve_context_create");
    const struct varve_hot_params params = {
        .struct_bytes = sizeof params, .window = WINDOW, .n_sink = N_SINK};
    must(varve_hot_create(e.context, &params, &e.hot), "varve_hot_create");
    e.k_twins = add_tensor(&e, e.k);
    e.v_twins = add_tensor(&e, e.v);
    double cold_error = 0, mixed_error = 0;
    for (int64_t token = 0; token < N_TOKEN; token++) step(&e, token, &cold_error, &mixed_error);

    const struct varve_twins_account a = varve_twins_account(e.k_twins);
    printf("rows of K read: %llu hot, %llu sinks, %llu cold; %zu bytes of twins beside %zu\n",
           (unsigned long long)a.rows_hot, (unsigned long long)a.rows_sink,
           (unsigned long long)a.rows_cold, varve_hot_bytes(e.hot).hot, sizeof e.k + sizeof e.v);
    printf("distance from F32: all in q4_0 %.4f, the last %d rows in F16 %.4f\n",
           cold_error / N_TOKEN, WINDOW, mixed_error / N_TOKEN);
    varve_hot_view_release(&e.view);
    varve_hot_destroy(e.hot);
    varve_context_destroy(e.context);
    return mixed_error < 0.5 * cold_error ? 0 : 1;
}
