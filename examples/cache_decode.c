/* An engine without a KV cache of its own: 512 decode steps over a cache of varve's, whose rows age
 * from F16 to q8_0 (K) and q4_0 (V). Each step appends one row, and one query attends to all. The
 * same attention over full precision rows, in double, shows what is lost.
 *
 * Ends with 0 when the memory is as planned and the errors are as small as the formats promise. */
#include "varve/cache.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { D = 64, N_HEAD = 8, N_HEAD_KV = 2, N_STEP = 512, WINDOW = 64, N_SINK = 4, N_THREAD = 1 };
enum { N_VALUE = D * N_HEAD_KV, N_OUT = D * N_HEAD };

struct engine {
    struct varve_context *context;
    struct varve_hot *hot;
    struct varve_cache *cache;
    struct varve_cache_view view;
    size_t live_bytes, context_bytes;             /* through the context's allocator */
    float k[N_STEP][N_VALUE], v[N_STEP][N_VALUE]; /* full precision, to compare with */
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

/* ---- memory: the host's own allocator, which counts ----------------------------------------- */

static void *allocate(void *user, size_t bytes, size_t alignment) {
    struct engine *const e = user;
    e->live_bytes += bytes;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void release(void *user, void *block, size_t bytes) {
    struct engine *const e = user;
    e->live_bytes -= bytes;
    free(block);
}

static void complain(void *user, enum varve_log_level level, const char *line) {
    (void)user;
    (void)level;
    fprintf(stderr, "%s\n", line);
}

/* ---- the cache ----------------------------------------------------------------------------- */

static const struct varve_hot_params tier = {
    .struct_bytes = sizeof(struct varve_hot_params), .window = WINDOW, .n_sink = N_SINK};
static const struct varve_cache_params params = {.struct_bytes = sizeof(struct varve_cache_params),
                                                 .k_format = VARVE_FORMAT_Q8_0,
                                                 .v_format = VARVE_FORMAT_Q4_0,
                                                 .head_dim_k = D,
                                                 .head_dim_v = D,
                                                 .n_head_kv = N_HEAD_KV,
                                                 .n_row_max = N_STEP,
                                                 .n_step_max = 1};
static const struct varve_attention attention = {.head_dim_k = D,
                                                 .head_dim_v = D,
                                                 .n_head = N_HEAD,
                                                 .n_head_kv = N_HEAD_KV,
                                                 .n_query = 1,
                                                 .n_batch = 1,
                                                 .scale = 0.125f}; /* 1 / sqrt(D) */

static void open_engine(struct engine *e) {
    const struct varve_context_params host = {.struct_bytes = sizeof host,
                                              .allocate = allocate,
                                              .release = release,
                                              .log = complain,
                                              .user = e};
    must(varve_context_create(&host, &e->context), "varve_context_create");
    e->context_bytes = e->live_bytes;
    must(varve_hot_create(e->context, &tier, &e->hot), "varve_hot_create");
    must(varve_cache_create(e->context, e->hot, &params, &e->cache), "varve_cache_create");
}

static void close_engine(struct engine *e) {
    varve_cache_view_release(&e->view);
    varve_cache_destroy(e->cache);
    varve_hot_destroy(e->hot);
    varve_context_destroy(e->context);
}

/* One token: its row goes into the cache, its query attends. */
static void decode(struct engine *e, int64_t step, const float *q, float *out) {
    const struct varve_cache_rows k = {VARVE_FORMAT_F32, e->k[step], N_VALUE * 4, D * 4};
    const struct varve_cache_rows v = {VARVE_FORMAT_F32, e->v[step], N_VALUE * 4, D * 4};
    must(varve_cache_append(e->cache, &k, &v, 1, VARVE_CACHE_END), "varve_cache_append");
    const struct varve_cache_node node = {.n_query = 1, .pos = step, .causal = true};
    must(varve_cache_view(e->cache, &node, &e->view), "varve_cache_view");
    const struct varve_io io = {.query = {q, .head_stride = D * 4},
                                .segments = e->view.segments,
                                .n_segment = e->view.n_segment,
                                .output = {out, .head_stride = D * 4}};
    struct varve_plan *plan;
    must(varve_plan_create(e->context, &attention, io.segments, io.n_segment, N_THREAD, &plan),
         "varve_plan_create");
    void *const scratch = aligned_alloc(64, (varve_plan_scratch_bytes(plan) + 63) / 64 * 64);
    must(varve_run(plan, &io, scratch, N_THREAD), "varve_run");
    free(scratch);
    varve_plan_destroy(plan);
}

/* ---- full precision ------------------------------------------------------------------------- */

static void attend_exactly(const struct engine *e, int64_t step, const float *q, double *out) {
    for (int h = 0; h < N_HEAD; h++) {
        const int at = h / (N_HEAD / N_HEAD_KV) * D;
        double sum = 0, *const o = out + (size_t)h * D;
        for (int d = 0; d < D; d++) o[d] = 0;
        for (int64_t r = 0; r <= step; r++) {
            double score = 0;
            for (int d = 0; d < D; d++) score += (double)q[h * D + d] * (double)e->k[r][at + d];
            const double weight = exp(score * (double)attention.scale);
            for (int d = 0; d < D; d++) o[d] += weight * (double)e->v[r][at + d];
            sum += weight;
        }
        for (int d = 0; d < D; d++) o[d] /= sum;
    }
}

int main(void) {
    static struct engine e;
    double sum = 0, max = 0, max_hot = 0;
    open_engine(&e);
    for (int64_t step = 0; step < N_STEP; step++) {
        float q[N_OUT], out[N_OUT];
        double exact[N_OUT];
        for (int i = 0; i < N_OUT; i++) q[i] = 2 * noise();
        for (int i = 0; i < N_VALUE; i++) e.k[step][i] = noise(), e.v[step][i] = noise();
        decode(&e, step, q, out);
        attend_exactly(&e, step, q, exact);
        for (int i = 0; i < N_OUT; i++) {
            const double error = fabs((double)out[i] - exact[i]);
            sum += error;
            max = fmax(max, error);
            if (step < WINDOW) max_hot = fmax(max_hot, error);
        }
    }
    const double mean = sum / N_STEP / N_OUT;
    struct varve_cache_bytes bytes;
    must(varve_cache_plan(e.context, &tier, &params, &bytes), "varve_cache_plan");
    const struct varve_twins_account a = varve_cache_account(e.cache, VARVE_CACHE_V);
    printf("rows of V read: %llu hot, %llu sinks, %llu cold\n", (unsigned long long)a.rows_hot,
           (unsigned long long)a.rows_sink, (unsigned long long)a.rows_cold);
    printf("bytes: %zu cold, %zu hot, %zu tables, at most %zu shared; F32 takes %zu\n", bytes.cold,
           bytes.hot, bytes.tables, bytes.shared, sizeof e.k + sizeof e.v);
    printf("error against full precision: mean %.2e, max %.2e; max %.2e while all is in F16\n",
           mean, max, max_hot);
    const bool planned = e.live_bytes - e.context_bytes <= bytes.total;
    close_engine(&e);
    printf("%s\n", e.live_bytes == 0 && planned ? "memory as planned" : "memory not as planned");
    /* F16 rounds K and V in [-1, 1] by 2^-12 at most: a logit, 64 products with |q| <= 2 times 1/8,
     * moves by 2^-8, weights by twice that, and so the output by 2^-7 + 2^-12. q4_0 moves V by half
     * a step of 1/8, by a whole one where +8 becomes +7; averages take more away than K adds. */
    return planned && e.live_bytes == 0 && max_hot < 0x1p-7 + 0x1p-12 && max < 0.125 ? 0 : 1;
}
