#include "problem.h"

#include "args.h"
#include "measure.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DISTINCT_ROWS = 64, F16_NEG_INF = 0xfc00 };

const char *bench_kind_name(enum bench_kind kind) {
    static const char *const names[BENCH_KIND_COUNT] = {"decode", "prefill", "mixed", "write"};
    return names[kind];
}

bool problem_turns_v(const struct bench_case *c) {
    return c->kind != BENCH_WRITE && varve_format_block_values(c->type_v) == 1;
}

/* ---- sizes ---------------------------------------------------------------------------------- */

static int64_t head_bytes(enum varve_format format, int32_t head_dim) {
    size_t bytes = 0;
    return varve_format_row_bytes(format, head_dim, &bytes) == VARVE_OK ? (int64_t)bytes : 0;
}

/* A cache that lies in the last-level cache would be read from there: decode walks over as many
 * layers as fill it four times. The others reuse what they read, or are bound by arithmetic. */
static int64_t layers_of(const struct bench_case *c, int64_t bytes) {
    if (c->n_layer > 0) return c->n_layer;
    if (c->kind == BENCH_PREFILL) return 1;
    if (c->kind == BENCH_WRITE) return 2;
    const int64_t wanted = 4 * measure_last_level_cache();
    return (wanted + bytes - 1) / bytes;
}

static bool sizes_fit(struct bench_problem *p) {
    struct bench_case *c = &p->c;
    const int64_t k_head = head_bytes(c->type_k, c->head_dim_k);
    const int64_t v_head = head_bytes(c->type_v, c->head_dim_v);
    if (k_head == 0 || v_head == 0) {
        cli_say("bench: a head of %d (K) and %d (V) values does not fit %s and %s, whose blocks "
                "have 32",
                c->head_dim_k, c->head_dim_v, varve_format_name(c->type_k),
                varve_format_name(c->type_v));
        return false;
    }
    p->k_bytes = k_head * c->n_head_kv * c->n_row;
    p->v_bytes = v_head * c->n_head_kv * c->n_row;
    c->n_layer = layers_of(c, p->k_bytes + p->v_bytes);
    int64_t needed = c->n_layer * (p->k_bytes + p->v_bytes) + 2 * c->n_query * c->n_row;
    if (problem_turns_v(c)) {
        /* the turned V, and what the products with K and their softmax take */
        needed += c->n_layer * p->v_bytes + 4 * c->n_head * c->n_query * c->n_row;
    }
    const int64_t available = cli_available_memory();
    if (available > 0 && needed > available / 10 * 9) {
        cli_say("bench: this case needs %" PRId64 " MiB, and %" PRId64 " MiB are available; take "
                "fewer rows, queries or layers",
                needed >> 20, available >> 20);
        return false;
    }
    return true;
}

/* ---- content -------------------------------------------------------------------------------- */

static float random_unit(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*seed >> 32) * 0x1p-31f;
}

static float *random_values(uint64_t seed, size_t n) {
    float *const x = measure_allocate(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_unit(&seed);
    return x;
}

/* Heads of rows: some random ones again and again, since content does not change the time. */
static char *make_rows(enum varve_format format, int32_t head_dim, int64_t bytes, uint64_t seed) {
    const size_t head = (size_t)head_bytes(format, head_dim);
    char *const rows = measure_allocate((size_t)bytes);
    float *const x = random_values(seed, (size_t)(DISTINCT_ROWS * head_dim));
    const int64_t n = bytes / (int64_t)head;
    for (int64_t r = 0; r < n && r < DISTINCT_ROWS; r++) {
        (void)varve_format_encode(format, x + r * head_dim, head_dim, rows + (size_t)r * head);
    }
    for (int64_t r = DISTINCT_ROWS; r < n; r++) {
        /* not a multiple of the number of heads, so that rows of a head differ */
        memcpy(rows + (size_t)r * head, rows + (size_t)(r * 29 % 61) * head, head);
    }
    free(x);
    return rows;
}

static char *copy_of(const char *rows, int64_t bytes) {
    char *const copy = measure_allocate((size_t)bytes);
    memcpy(copy, rows, (size_t)bytes);
    return copy;
}

static char *turn_v(const struct bench_problem *p, const char *v) {
    const struct bench_case *const c = &p->c;
    const int64_t size = head_bytes(c->type_v, 1), n_row = c->n_row;
    char *const turned = measure_allocate((size_t)p->v_bytes);
    for (int64_t h = 0; h < c->n_head_kv; h++) {
        for (int64_t r = 0; r < n_row; r++) {
            const char *const from = v + r * p->cold.v_row_stride + h * p->cold.v_head_stride;
            char *const to = turned + (h * c->head_dim_v * n_row + r) * size;
            for (int64_t d = 0; d < c->head_dim_v; d++) {
                memcpy(to + d * n_row * size, from + d * size, (size_t)size);
            }
        }
    }
    return turned;
}

static void make_layers(struct bench_problem *p) {
    const struct bench_case *const c = &p->c;
    p->layer = measure_allocate((size_t)c->n_layer * sizeof *p->layer);
    for (int64_t i = 0; i < c->n_layer; i++) {
        struct bench_layer *const layer = &p->layer[i];
        const struct bench_layer *const first = &p->layer[0];
        *layer = (struct bench_layer){0};
        layer->k = i > 0 ? copy_of(first->k, p->k_bytes)
                         : make_rows(c->type_k, c->head_dim_k, p->k_bytes, 1);
        layer->v = i > 0 ? copy_of(first->v, p->v_bytes)
                         : make_rows(c->type_v, c->head_dim_v, p->v_bytes, 2);
        if (!problem_turns_v(c)) continue;
        layer->v_turned = i > 0 ? copy_of(first->v_turned, p->v_bytes) : turn_v(p, layer->v);
    }
}

static void make_mask(struct bench_problem *p) {
    const int64_t n_query = p->c.n_query, n_row = p->c.n_row;
    p->mask = measure_allocate((size_t)(n_query * n_row) * sizeof *p->mask);
    for (int64_t i = 0; i < n_query; i++) {
        const int64_t n_seen = n_row - n_query + i + 1;
        for (int64_t r = 0; r < n_row; r++) {
            p->mask[i * n_row + r] = r < n_seen ? 0 : F16_NEG_INF;
        }
        p->n_visible += (double)n_seen;
    }
    p->varve_mask = (struct varve_mask){.data = p->mask,
                                        .n_column = n_row,
                                        .n_query = n_query,
                                        .n_head = 1,
                                        .n_batch = 1,
                                        .row_stride = 2 * n_row};
}

static void set_strides(struct bench_problem *p) {
    const struct bench_case *const c = &p->c;
    const int64_t k_head = head_bytes(c->type_k, c->head_dim_k);
    const int64_t v_head = head_bytes(c->type_v, c->head_dim_v);
    p->cold = (struct varve_segment){
        .k_format = c->type_k,
        .v_format = c->type_v,
        .n_rows = c->n_row,
        .k_row_stride = c->heads_apart ? k_head : k_head * c->n_head_kv,
        .v_row_stride = c->heads_apart ? v_head : v_head * c->n_head_kv,
        .k_head_stride = c->heads_apart ? k_head * c->n_row : k_head,
        .v_head_stride = c->heads_apart ? v_head * c->n_row : v_head,
    };
}

bool problem_create(const struct bench_case *c, struct bench_problem *p) {
    *p = (struct bench_problem){.c = *c};
    const struct varve_context_params params = {.struct_bytes = sizeof params, .isa = c->isa};
    if (!sizes_fit(p)) return false;
    const enum varve_status status = varve_context_create(&params, &p->context);
    if (status != VARVE_OK) {
        cli_say("bench: no context: %s", varve_status_text(status));
        return false;
    }
    p->attention = (struct varve_attention){.head_dim_k = c->head_dim_k,
                                            .head_dim_v = c->head_dim_v,
                                            .n_head = c->n_head,
                                            .n_head_kv = c->n_head_kv,
                                            .n_query = c->n_query,
                                            .n_batch = 1,
                                            .scale = 1.0f / sqrtf((float)c->head_dim_k),
                                            .arithmetic = c->arithmetic};
    set_strides(p);
    make_layers(p);
    if (c->kind == BENCH_WRITE) {
        p->query = random_values(3, (size_t)(c->n_query * c->n_head_kv * c->head_dim_k));
        p->values_v = random_values(4, (size_t)(c->n_query * c->n_head_kv * c->head_dim_v));
        return true;
    }
    make_mask(p);
    p->query = random_values(3, (size_t)(c->n_query * c->n_head * c->head_dim_k));
    p->output = measure_allocate((size_t)(c->n_query * c->n_head * c->head_dim_v) * sizeof(float));
    return true;
}

void problem_destroy(struct bench_problem *p) {
    for (int64_t i = 0; p->layer != NULL && i < p->c.n_layer; i++) {
        free(p->layer[i].k);
        free(p->layer[i].v);
        free(p->layer[i].v_turned);
    }
    free(p->layer);
    free(p->query);
    free(p->values_v);
    free(p->output);
    free(p->mask);
    varve_context_destroy(p->context);
}

struct varve_segment problem_segment(const struct bench_problem *p, int64_t layer) {
    struct varve_segment segment = p->cold;
    segment.k = p->layer[layer].k;
    segment.v = p->layer[layer].v;
    return segment;
}

struct varve_io problem_io(const struct bench_problem *p) {
    const int64_t dk = 4 * (int64_t)p->c.head_dim_k, dv = 4 * (int64_t)p->c.head_dim_v;
    return (struct varve_io){
        .query = {p->query, dk * p->c.n_head, dk, 0},
        .mask = &p->varve_mask,
        .output = {.data = p->output, .query_stride = dv * p->c.n_head, .head_stride = dv}};
}
