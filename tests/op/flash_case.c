#include "flash_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/problem.h"
#include "varve/varve.h"

/* Multiply-adds that the oracle may take for a random case, in which it decodes each row anew for
 * each query and head; and values that a case may hold. They bound the time of a run. */
#define WORK_MAX 4e6
#define VALUES_MAX 2e6

enum ggml_type flash_type(int format) {
    const char *const name = varve_format_name((enum varve_format)format);
    for (int t = 0; t < GGML_TYPE_COUNT; t++) {
        const char *const other = ggml_type_name((enum ggml_type)t);
        if (name != NULL && other != NULL && strcmp(name, other) == 0) return (enum ggml_type)t;
    }
    fprintf(stderr, "ggml has no type for the format %d\n", format);
    exit(EXIT_FAILURE);
}

int64_t flash_case_rows(const struct flash_case *c, int part, int n_call) {
    int64_t n = 0;
    for (int i = 0; i < n_call; i++) n += c->n_rows[part][i];
    return n;
}

int64_t flash_case_all_rows(const struct flash_case *c) {
    return flash_case_rows(c, 0, c->n_call) + flash_case_rows(c, 1, c->n_call);
}

bool flash_case_has_mask(const struct flash_case *c) {
    for (int p = 0; p < FLASH_PARTS; p++) {
        if (c->mask[p] != FLASH_MASK_NONE && flash_case_rows(c, p, c->n_call) > 0) return true;
    }
    return false;
}

/* ---- listed cases --------------------------------------------------------------------------- */

/* 7 queries over 1,024 F16 rows in two calls. Stock sums F16 values in F16 and is itself off by
 * twice the tolerance; so it gets the same rows in F32. */
static void original(struct flash_case *c) {
    *c = (struct flash_case){.name = "original",
                             .seed = 1,
                             .dk = 32,
                             .dv = 32,
                             .n_head = 32,
                             .n_head_kv = 8,
                             .n_query = 7,
                             .n_batch = 1,
                             .n_call = 2,
                             .n_rows = {{512, 512}, {0, 0}},
                             .k_type = {GGML_TYPE_F16, GGML_TYPE_Q4_0},
                             .v_type = {GGML_TYPE_F16, GGML_TYPE_Q4_0},
                             .mask = {FLASH_MASK_HIDDEN, FLASH_MASK_HIDDEN},
                             .empty_as_null = true,
                             .n_thread = 12,
                             .n_thread_again = 1,
                             .output = FLASH_OUTPUT_SHARED,
                             .state_with_o = false,
                             .tolerance = 1e-3,
                             .stock_in_f32 = true};
}

static void original_as_stored(struct flash_case *c) {
    original(c);
    strcpy(c->name, "original-as-stored");
    c->tolerance = 0;
    c->stock_in_f32 = false;
}

static void original_mixed(struct flash_case *c) {
    original(c);
    strcpy(c->name, "original-mixed");
    for (int p = 0; p < FLASH_PARTS; p++) c->n_rows[p][0] = c->n_rows[p][1] = 256;
    c->k_type[1] = c->v_type[1] = GGML_TYPE_Q8_0;
    c->tolerance = 0; /* the step of stock's Q is in F16, see docs/NUMERICS.md 6 */
}

static void original_redirected(struct flash_case *c) {
    original(c);
    strcpy(c->name, "original-redirected");
    c->output = FLASH_OUTPUT_REDIRECT;
}

/* The quantized part comes first and is longer, masks lie on one part only, one of them moves. */
static void unequal(struct flash_case *c) {
    original(c);
    strcpy(c->name, "unequal");
    static const int64_t rows[FLASH_PARTS][5] = {{0, 1, 33, 100, 3}, {257, 0, 64, 1, 0}};
    c->n_call = 5;
    for (int p = 0; p < FLASH_PARTS; p++) memcpy(c->n_rows[p], rows[p], sizeof rows[p]);
    c->mask[0] = FLASH_MASK_NONE;
    c->empty_as_null = false;
    c->state_with_o = true;
    c->output = FLASH_OUTPUT_FRESH;
    c->sinks = true;
    c->tolerance = 0;
}

static void unequal_other_mask(struct flash_case *c) {
    unequal(c);
    strcpy(c->name, "unequal-other-mask");
    c->mask[0] = FLASH_MASK_VALUES;
    c->mask[1] = FLASH_MASK_NONE;
    c->state_with_o = false;
}

static void nothing_seen(struct flash_case *c) {
    unequal(c);
    strcpy(c->name, "some-queries-see-nothing");
    c->mask[0] = c->mask[1] = FLASH_MASK_QUERIES;
    c->sinks = false;
    c->normalise = true;
    c->state_with_o = false;
}

static void no_rows(struct flash_case *c) {
    original(c);
    strcpy(c->name, "no-rows");
    c->n_rows[0][0] = c->n_rows[0][1] = 0;
    c->empty_as_null = false;
    c->state_with_o = true;
}

static void one_row_each(struct flash_case *c) {
    original(c);
    strcpy(c->name, "one-row-each");
    c->n_call = FLASH_CALLS_MAX;
    for (int i = 0; i < FLASH_CALLS_MAX; i++) c->n_rows[i % 2][i] = 1;
    c->n_rows[0][1] = 0;
    c->n_rows[0][0] = 1;
    c->alloc = FLASH_ALLOC_GRAPH;
    c->state_in_graph = true;
    c->tolerance = 0;
}

static void latent(struct flash_case *c) {
    original(c);
    strcpy(c->name, "latent-attention");
    c->dk = 576;
    c->dv = 512;
    c->n_head = 16;
    c->n_head_kv = 1;
    c->n_query = 2;
    c->n_rows[0][0] = 64;
    c->n_rows[0][1] = 61;
    c->n_rows[1][1] = 7;
    c->k_type[1] = c->v_type[1] = GGML_TYPE_Q8_0;
    c->tolerance = 0;
}

static void (*const listed[])(struct flash_case *) = {
    original,           original_as_stored, original_mixed, original_redirected, unequal,
    unequal_other_mask, nothing_seen,       no_rows,        one_row_each,        latent};

int flash_case_n_listed(void) { return (int)(sizeof listed / sizeof listed[0]); }

void flash_case_listed(int i, struct flash_case *c) { listed[i](c); }

/* ---- random cases --------------------------------------------------------------------------- */

static bool one_in(uint64_t *seed, uint32_t n) { return problem_random(seed, n) == 0; }

static void draw_heads(struct flash_case *c, uint64_t *seed) {
    static const int32_t dims[][2] = {{32, 32},   {64, 64},   {128, 128}, {256, 256}, {40, 40},
                                      {80, 80},   {96, 96},   {112, 112}, {192, 128}, {576, 512},
                                      {64, 128},  {128, 32},  {96, 64},   {40, 112},  {320, 256},
                                      {512, 512}, {160, 160}, {33, 65}};
    static const int32_t queries[] = {1, 1, 2, 3, 7, 8, 17, 33, 64};
    static const int32_t groups[] = {1, 1, 2, 3, 4, 5, 7, 8, 12, 16};
    const uint32_t d = problem_random(seed, sizeof dims / sizeof dims[0]);
    c->dk = dims[d][0];
    c->dv = dims[d][1];
    c->n_query =
        one_in(seed, 4) ? 1 + (int32_t)problem_random(seed, 64) : queries[problem_random(seed, 9)];
    c->n_head_kv = 1 + (int32_t)problem_random(seed, 4);
    c->n_head = c->n_head_kv * groups[problem_random(seed, 10)];
    c->n_batch = one_in(seed, 3) ? 1 + (int32_t)problem_random(seed, 3) : 1;
    if (one_in(seed, 4)) {
        c->max_bias = 8;
        if (one_in(seed, 2)) { /* head counts that are no power of two */
            c->n_head = one_in(seed, 2) ? 12 : 20;
            c->n_head_kv = one_in(seed, 2) ? 4 : 2;
        }
    }
}

static enum ggml_type draw_type(uint64_t *seed, bool quantized, int32_t head_dim) {
    const uint32_t first = quantized && head_dim % 32 == 0 ? VARVE_FORMAT_Q8_0 : 0;
    const uint32_t count = head_dim % 32 == 0 ? VARVE_FORMAT_COUNT : VARVE_FORMAT_Q8_0;
    return flash_type((int)(first + problem_random(seed, count - first)));
}

static void draw_types(struct flash_case *c, uint64_t *seed) {
    for (int p = 0; p < FLASH_PARTS; p++) {
        const bool quantized = p == 1;
        c->k_type[p] = draw_type(seed, quantized, c->dk);
        c->v_type[p] = draw_type(seed, quantized, c->dv);
    }
    if (!one_in(seed, 3)) c->k_type[0] = c->v_type[0] = GGML_TYPE_F16;
    if (one_in(seed, 3) && c->dk % 32 == 0 && c->dv % 32 == 0) c->v_type[1] = c->k_type[1];
}

/* Cuts n rows into n_call pieces at random; about a third of them is empty or a single row. */
static void cut(uint64_t *seed, int64_t n, int n_call, int64_t *rows) {
    for (int i = 0; i < n_call; i++) {
        const int64_t even = 2 * n / (n_call - i) + 1;
        int64_t take = one_in(seed, 3) ? problem_random(seed, 2)
                                       : (int64_t)problem_random(seed, (uint32_t)even);
        if (i == n_call - 1 || take > n) take = n;
        rows[i] = take;
        n -= take;
    }
}

static void draw_rows(struct flash_case *c, uint64_t *seed) {
    const uint32_t most = 1u << (1 + problem_random(seed, 12)); /* 2 .. 4096 */
    const int64_t n = problem_random(seed, most + 1);
    const uint32_t kind = problem_random(seed, 4);
    const int64_t first = kind == 0 ? n : kind == 1 ? 0 : problem_random(seed, (uint32_t)n + 1);
    c->n_call = one_in(seed, 4) ? 1 + (int)problem_random(seed, FLASH_CALLS_MAX)
                                : 1 + (int)problem_random(seed, 5);
    cut(seed, first, c->n_call, c->n_rows[0]);
    cut(seed, n - first, c->n_call, c->n_rows[1]);
    for (int i = c->n_call - 1; i > 0; i--) { /* else the last call gets most */
        const int j = (int)problem_random(seed, (uint32_t)i + 1);
        const int64_t swap = c->n_rows[1][i];
        c->n_rows[1][i] = c->n_rows[1][j];
        c->n_rows[1][j] = swap;
    }
}

static void draw_masks(struct flash_case *c, uint64_t *seed) {
    for (int p = 0; p < FLASH_PARTS; p++) {
        c->mask[p] = (enum flash_mask)problem_random(seed, FLASH_MASK_COUNT);
        c->mask_per_head[p] = one_in(seed, 4);
        c->mask_per_batch[p] = one_in(seed, 2);
    }
    c->mask_copies = one_in(seed, 2);
    c->poison = one_in(seed, 2);
    if (one_in(seed, 4)) c->softcap = one_in(seed, 2) ? 30 : 1.5f;
    c->sinks = one_in(seed, 3);
}

static void draw_running(struct flash_case *c, uint64_t *seed) {
    static const int threads[] = {1, 2, 2, 3, 4, 5, 8, 12, 16};
    c->n_thread = threads[problem_random(seed, 9)];
    c->n_thread_again = threads[problem_random(seed, 9)];
    if (c->n_thread_again == c->n_thread) c->n_thread_again++;
    /* 0 is the default; fewer than there are: some find nothing to do */
    c->n_thread_max = one_in(seed, 2) ? 0 : 1 + (int)problem_random(seed, 16);
    c->alloc = (enum flash_alloc)problem_random(seed, FLASH_ALLOC_COUNT);
    c->output = (enum flash_output)problem_random(seed, FLASH_OUTPUT_COUNT);
    c->state_with_o = one_in(seed, 2);
    c->state_in_graph = one_in(seed, 3);
    c->graph_per_call = !c->state_in_graph && one_in(seed, 3);
    c->normalise = one_in(seed, 3);
    c->call_without_state = one_in(seed, 2);
    c->interleaved = one_in(seed, 2);
    c->shared_rows = one_in(seed, 4);
    c->empty_as_null = one_in(seed, 2);
    c->offset = one_in(seed, 2) ? 4 * (int64_t)problem_random(seed, 16) : 0;
    /* a node's data cannot be changed where an allocator has yet to place what looks at it */
    if (c->alloc != FLASH_ALLOC_CONTEXT && c->output == FLASH_OUTPUT_REDIRECT) {
        c->output = FLASH_OUTPUT_SHARED;
    }
    /* without o an empty state needs a tensor for it, although it is not read */
    c->start_by_init = !c->state_in_graph && one_in(seed, 3) &&
                       (c->state_with_o || c->output == FLASH_OUTPUT_SHARED);
    /* from graph to graph a state without o needs a tensor that stays */
    if (c->graph_per_call && !c->state_with_o) c->output = FLASH_OUTPUT_SHARED;
}

static double values_of(const struct flash_case *c) {
    return (double)flash_case_all_rows(c) * c->n_batch * c->n_head_kv * (c->dk + c->dv);
}

static void halve_rows(struct flash_case *c) {
    for (int p = 0; p < FLASH_PARTS; p++) {
        for (int i = 0; i < c->n_call; i++) {
            if (c->n_rows[p][i] > 1) c->n_rows[p][i] /= 2;
        }
    }
}

/* Makes a case that would take too long smaller, in one direction at a time. */
static void shrink(struct flash_case *c, uint64_t *seed) {
    for (int i = 0; i < 100; i++) {
        const double group = (double)c->n_head / c->n_head_kv;
        if (values_of(c) * group * c->n_query <= WORK_MAX && values_of(c) <= VALUES_MAX) return;
        const uint32_t way = problem_random(seed, 4);
        if (way == 0) c->n_query = (c->n_query + 1) / 2;
        if (way == 1) halve_rows(c);
        if (way == 2 && c->max_bias == 0 && c->n_head % 2 == 0 && c->n_head_kv % 2 == 0) {
            c->n_head /= 2;
            c->n_head_kv /= 2;
        }
        if (way == 3) c->n_batch = (c->n_batch + 1) / 2;
    }
}

void flash_case_random(uint64_t seed, int i, struct flash_case *c) {
    *c = (struct flash_case){.seed = seed * UINT64_C(1000003) + (uint64_t)i};
    snprintf(c->name, sizeof c->name, "random-%04d", i);
    uint64_t random = c->seed;
    for (int k = 0; k < 4; k++) problem_random(&random, 2); /* neighbours differ little at first */
    draw_heads(c, &random);
    draw_types(c, &random);
    draw_rows(c, &random);
    draw_masks(c, &random);
    draw_running(c, &random);
    shrink(c, &random);
}

/* ---- words ---------------------------------------------------------------------------------- */

static const char *mask_name(const struct flash_case *c, int part) {
    static const char *const names[] = {"none", "zero", "hidden", "sparse", "values", "queries"};
    return names[c->mask[part]];
}

void flash_case_describe(const struct flash_case *c, char *text, size_t text_bytes) {
    static const char *const allocs[] = {"context", "gallocr", "buffer"};
    static const char *const outputs[] = {"fresh", "shared", "redirected"};
    char parts[FLASH_PARTS][96];
    for (int p = 0; p < FLASH_PARTS; p++) {
        snprintf(parts[p], sizeof parts[p], "%d x %s/%s mask %s%s%s",
                 (int)flash_case_rows(c, p, c->n_call), ggml_type_name(c->k_type[p]),
                 ggml_type_name(c->v_type[p]), mask_name(c, p),
                 c->mask_per_head[p] ? " by head" : "", c->mask_per_batch[p] ? " by batch" : "");
    }
    snprintf(text, text_bytes,
             "D %d/%d heads %d/%d queries %d batch %d calls %d | %s + %s | threads %d,%d of %d %s "
             "output %s%s%s%s%s%s%s%s%s%s%s%s offset %d",
             c->dk, c->dv, c->n_head, c->n_head_kv, c->n_query, c->n_batch, c->n_call, parts[0],
             parts[1], c->n_thread, c->n_thread_again, c->n_thread_max, allocs[c->alloc],
             outputs[c->output], c->state_with_o ? " o" : " no-o",
             c->state_in_graph ? " state-in-graph" : "", c->start_by_init ? " init" : "",
             c->graph_per_call ? " graph-per-call" : "", c->normalise ? " normalise" : "",
             c->softcap != 0 ? " softcap" : "", c->max_bias != 0 ? " alibi" : "",
             c->sinks ? " sinks" : "", c->interleaved ? " interleaved" : "",
             c->shared_rows ? " shared-rows" : "", c->poison ? " poison" : "", (int)c->offset);
}
