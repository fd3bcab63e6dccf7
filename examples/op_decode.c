/* Decoding on a ggml graph over a cache in two parts: new rows in F16, old ones in q8_0. Rows
 * arrive one at a time; when the F16 part holds 96, its oldest 32 are quantized and leave it. Even
 * tokens attend with one call over both parts, odd ones with two calls and a state between them.
 *
 * Ends with 0 when the output is that of attention in double over the rows before any rounding, but
 * for three roundings to 8 bits (queries, K and V): each is below 1/256 in the root mean square. */
#include <varve/op.h>

#include <ggml-cpu.h>

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { D = 64, N_HEAD = 8, N_HEAD_KV = 2, N_TOKEN = 400, N_HOT = 96, N_AGE = 32, N_THREAD = 2 };
enum { ROW = D * N_HEAD_KV };

/* One of K and V, [D, heads, rows]: the heads of a token lie side by side, as in llama.cpp. */
struct cache {
    struct ggml_tensor *hot, *cold;
    int64_t n_hot, n_cold;
    float exact[N_TOKEN][ROW];
};

static float noise(void) {
    static uint32_t seed = 1;
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed * 0x1p-31f;
}

static void *must(void *object, const char *what) {
    if (object == NULL) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
    return object;
}

static void create(struct cache *cache, struct ggml_context *ctx) {
    cache->hot = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, D, N_HEAD_KV, N_HOT);
    cache->cold = ggml_new_tensor_3d(ctx, GGML_TYPE_Q8_0, D, N_HEAD_KV, N_TOKEN);
}

/* First in, first out: the oldest rows go to the quantized part, the others move up. */
static void age(struct cache *cache) {
    float values[N_AGE * ROW];
    char *hot = cache->hot->data, *cold = cache->cold->data;
    ggml_fp16_to_fp32_row((const ggml_fp16_t *)cache->hot->data, values, N_AGE * ROW);
    ggml_quantize_chunk(GGML_TYPE_Q8_0, values, cold + (size_t)cache->n_cold * cache->cold->nb[2],
                        0, N_AGE, ROW, NULL);
    memmove(hot, hot + N_AGE * cache->hot->nb[2],
            (size_t)(cache->n_hot - N_AGE) * cache->hot->nb[2]);
    cache->n_cold += N_AGE;
    cache->n_hot -= N_AGE;
}

static void append(struct cache *cache, int64_t token, float offset) {
    float *row = cache->exact[token];
    for (int i = 0; i < ROW; i++) row[i] = noise() + offset;
    if (cache->n_hot == N_HOT) age(cache);
    ggml_fp32_to_fp16_row(row, (ggml_fp16_t *)cache->hot->data + cache->n_hot * ROW, ROW);
    cache->n_hot++;
}

/* The rows in use, [D, rows, heads]; a part may have none. */
static struct ggml_tensor *rows(struct ggml_context *ctx, struct ggml_tensor *part, int64_t n) {
    return ggml_view_3d(ctx, part, D, n, N_HEAD_KV, part->nb[2], part->nb[1], 0);
}

/* One call over both parts: no state is needed. */
static struct ggml_tensor *attend_once(struct ggml_context *ctx, struct ggml_tensor *q,
                                       const struct cache *k, const struct cache *v) {
    struct varve_ggml_state_params p = {
        .struct_bytes = sizeof p, .first = true, .final = true, .n_thread_max = N_THREAD};
    return varve_ggml_flash_attn_ext_with_state(
        ctx, q, rows(ctx, k->hot, k->n_hot), rows(ctx, v->hot, v->n_hot), NULL,
        rows(ctx, k->cold, k->n_cold), rows(ctx, v->cold, v->n_cold), NULL, NULL, 1 / sqrtf(D), 0,
        0, &p);
}

/* The old rows first, then the new ones, on top of what the state holds by then. */
static struct ggml_tensor *attend_twice(struct ggml_context *ctx, struct ggml_tensor *q,
                                        const struct cache *k, const struct cache *v) {
    struct ggml_tensor *state = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 2 + D, N_HEAD, 1);
    struct varve_ggml_state_params p = {
        .struct_bytes = sizeof p, .first = true, .n_thread_max = N_THREAD};
    p.previous = varve_ggml_flash_attn_ext_with_state(
        ctx, q, NULL, NULL, NULL, rows(ctx, k->cold, k->n_cold), rows(ctx, v->cold, v->n_cold),
        NULL, state, 1 / sqrtf(D), 0, 0, &p);
    must(p.previous, "the first call");
    p.first = false;
    p.final = true;
    return varve_ggml_flash_attn_ext_with_state(ctx, q, rows(ctx, k->hot, k->n_hot),
                                                rows(ctx, v->hot, v->n_hot), NULL, NULL, NULL, NULL,
                                                state, 1 / sqrtf(D), 0, 0, &p);
}

/* Attention of one head in double over rows that were never rounded. */
static void attend_exactly(const float *q, int head, const struct cache *k, const struct cache *v,
                           int64_t n, double *out) {
    const int at = head / (N_HEAD / N_HEAD_KV) * D;
    static double weight[N_TOKEN];
    double max = -INFINITY, sum = 0;
    for (int64_t r = 0; r < n; r++) {
        weight[r] = 0;
        for (int d = 0; d < D; d++) weight[r] += (double)q[d] * (double)k->exact[r][at + d];
        weight[r] /= sqrt(D);
        max = fmax(max, weight[r]);
    }
    memset(out, 0, D * sizeof *out);
    for (int64_t r = 0; r < n; r++) {
        const double p = exp(weight[r] - max);
        sum += p;
        for (int d = 0; d < D; d++) out[d] += p * (double)v->exact[r][at + d];
    }
    for (int d = 0; d < D; d++) out[d] /= sum;
}

/* One token; returns the distance from the exact output, relative to its length. */
static double step(const struct cache *k, const struct cache *v, int64_t token) {
    const struct ggml_init_params params = {.mem_size = (size_t)8 << 20};
    struct ggml_context *ctx = must(ggml_init(params), "ggml_init");
    struct ggml_tensor *q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, D, 1, N_HEAD);
    for (int i = 0; i < D * N_HEAD; i++) ((float *)q->data)[i] = 3 * noise();
    struct ggml_tensor *out =
        token % 2 == 0 ? attend_once(ctx, q, k, v) : attend_twice(ctx, q, k, v);
    must(out, "the call");
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, out);
    if (ggml_graph_compute_with_ctx(ctx, graph, N_THREAD) != GGML_STATUS_SUCCESS) exit(1);
    double wrong = 0, length = 0, exact[D];
    for (int head = 0; head < N_HEAD; head++) {
        attend_exactly((const float *)q->data + head * D, head, k, v, token + 1, exact);
        for (int d = 0; d < D; d++) {
            wrong += pow((double)((const float *)out->data)[head * D + d] - exact[d], 2);
            length += exact[d] * exact[d];
        }
    }
    ggml_free(ctx);
    return sqrt(wrong / length);
}

int main(void) {
    static struct cache k, v;
    const struct ggml_init_params params = {.mem_size = (size_t)4 << 20};
    struct ggml_context *ctx = must(ggml_init(params), "ggml_init");
    create(&k, ctx);
    create(&v, ctx);
    const double bound = 3.0 / 256;
    double worst = 0;
    bool good = true;
    for (int64_t token = 0; token < N_TOKEN; token++) {
        append(&k, token, 0);
        append(&v, token, 0.5f);
        const double error = step(&k, &v, token);
        worst = fmax(worst, error);
        good = good && error <= bound; /* NaN is not */
    }
    printf("%d tokens, at the end %lld rows in F16 and %lld in q8_0; greatest error %.2g, bound "
           "%.2g\n",
           N_TOKEN, (long long)k.n_hot, (long long)k.n_cold, worst, bound);
    ggml_free(ctx);
    return good ? 0 : 1;
}
