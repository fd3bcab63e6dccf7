#include "attend/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"

/* Up to so many queries per KV head the direct kernels win over decoding a block for all of them.
 * Measured at head size 128 (docs/performance.md 3). */
#define DIRECT_QUERIES 16 /* F32 products */
#define DIRECT_SCORES 4   /* quantized K that can be packed as bytes instead */
#define DIRECT_ROUNDED 16 /* quantized V folded with weights in 16 bits */
/* Up to so many a task takes all KV heads, if their outputs stay in L2: rows are read as they lie.
 */
#define FEW_QUERIES 32
#define FEW_BYTES (1 << 18)
/* So many queries go through softmax together, of several KV heads if one has fewer. */
#define SOFTMAX_QUERIES 16
/* Queries per tile, times group: enough to pay for decoding a block; the more the better, as long
 * as scores and outputs of a tile stay in the L2 cache and there are enough tasks. */
#define TILE_QUERIES 128
#define TILE_QUERIES_MOST 512
#define CHUNK_ROWS_MIN 256 /* below, merging costs more than it brings */
/* Enough to forget how a chunk begins and ends; smaller ones for 16 chunks, or 8 where a row takes
 * many products. */
#define CHUNK_ROWS 1024
#define CHUNK_PARTS 16
#define CHUNK_PARTS_SLOW 8
#define CHUNKS_MAX 64
#define WORKER_TASKS 2  /* each thread wants more: KV heads are shared out as well */
#define TASKS_WANTED 32 /* tiled problems with fewer tasks are split over KV as well */
#define MERGE_RECORDS 4 /* records per task of phase 1 */

static enum varve_status check_attention(const struct varve_host *host,
                                         const struct varve_attention *a) {
    const int32_t positive[] = {a->head_dim_k, a->head_dim_v, a->n_head, a->n_head_kv};
    const char *const name[] = {"head_dim_k", "head_dim_v", "n_head", "n_head_kv"};
    for (int i = 0; i < 4; i++) {
        /* 2^20 keeps products of two of them, and their roundings, inside int32 and size_t */
        if (positive[i] < 1 || positive[i] > (1 << 20)) {
            return varve_fail(host, VARVE_ERROR_ARGUMENT, "%s is %d, expected 1 to 1048576",
                              name[i], positive[i]);
        }
    }
    if (a->n_head % a->n_head_kv != 0) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "n_head is %d, expected a multiple of n_head_kv %d", a->n_head,
                          a->n_head_kv);
    }
    if (a->n_query < 0 || a->n_batch < 0 || a->window < 0 || a->query_pos < -VARVE_COUNT_MAX) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "n_query %lld, n_batch %lld, window %lld, query_pos %lld: expected 0 or "
                          "more, query_pos at least -2^48",
                          (long long)a->n_query, (long long)a->n_batch, (long long)a->window,
                          (long long)a->query_pos);
    }
    if (a->n_query > VARVE_COUNT_MAX || a->n_batch > VARVE_COUNT_MAX ||
        a->window > VARVE_COUNT_MAX || a->query_pos > VARVE_COUNT_MAX) {
        return varve_fail(host, VARVE_ERROR_OVERFLOW,
                          "n_query %lld, n_batch %lld, window %lld, query_pos %lld: at most 2^48",
                          (long long)a->n_query, (long long)a->n_batch, (long long)a->window,
                          (long long)a->query_pos);
    }
    if (!isfinite(a->scale) || !isfinite(a->softcap) || !isfinite(a->max_bias) || a->softcap < 0 ||
        a->max_bias < 0) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "scale %g, softcap %g, max_bias %g: expected finite values, the last "
                          "two not negative",
                          (double)a->scale, (double)a->softcap, (double)a->max_bias);
    }
    if ((unsigned)a->arithmetic > VARVE_ARITHMETIC_FAST) {
        return varve_fail(host, VARVE_ERROR_UNSUPPORTED, "arithmetic %d is unknown",
                          (int)a->arithmetic);
    }
    return VARVE_OK;
}

static enum varve_status check_format(const struct varve_host *host, const char *side,
                                      int64_t index, enum varve_format format, int32_t head_dim) {
    const struct varve_format_traits *traits = varve_format_traits(format);
    if (traits == NULL) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "segment %lld: %s format %d is unknown",
                          (long long)index, side, (int)format);
    }
    if (head_dim % traits->block_values != 0) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "segment %lld: head size %d of %s is not a multiple of %s's block of %d",
                          (long long)index, head_dim, side, traits->name, traits->block_values);
    }
    return VARVE_OK;
}

/* Adds up the segments: formats in use and number of rows. */
static enum varve_status add_segments(struct varve_plan *plan, const struct varve_host *host,
                                      const struct varve_segment *segments, int64_t n_segment) {
    const struct varve_attention *a = &plan->attention;
    for (int64_t i = 0; i < n_segment; i++) {
        const struct varve_segment *segment = &segments[i];
        enum varve_status status = check_format(host, "K", i, segment->k_format, a->head_dim_k);
        if (status == VARVE_OK) {
            status = check_format(host, "V", i, segment->v_format, a->head_dim_v);
        }
        if (status != VARVE_OK) return status;
        if (segment->n_rows < 0) {
            return varve_fail(host, VARVE_ERROR_ARGUMENT, "segment %lld: n_rows is %lld",
                              (long long)i, (long long)segment->n_rows);
        }
        if (segment->n_rows > VARVE_COUNT_MAX - plan->n_row) {
            return varve_fail(host, VARVE_ERROR_OVERFLOW,
                              "segment %lld: with n_rows %lld there are more than 2^48 rows",
                              (long long)i, (long long)segment->n_rows);
        }
        plan->n_row += segment->n_rows;
        plan->k_formats |= 1u << segment->k_format;
        plan->v_formats |= 1u << segment->v_format;
        if (varve_k_is_q8(plan, segment->k_format))
            plan->any_q8 = true;
        else
            plan->any_exact = true;
    }
    return VARVE_OK;
}

static int64_t task_count(const struct varve_plan *plan) {
    const struct varve_attention *a = &plan->attention;
    return a->n_batch * plan->n_tile * (a->n_head_kv / plan->n_head_task) * plan->n_chunk;
}

/* KV heads that a task takes: all of them, unless that leaves threads without work. Heads do not
 * meet in any sum, so results do not depend on it. */
static void share_heads(struct varve_plan *plan) {
    const int32_t n_head = plan->attention.n_head_kv;
    int32_t n = n_head;
    while (n > 1 && task_count(plan) < (int64_t)WORKER_TASKS * plan->n_worker) {
        do n--;
        while (n_head % n != 0);
        plan->n_head_task = n;
    }
}

/* Query tiles and KV chunks, from the shape alone (promise 3). */
static void cut(struct varve_plan *plan) {
    const struct varve_attention *a = &plan->attention;
    const int64_t n = a->n_query * plan->group;
    const bool few =
        n <= DIRECT_QUERIES ||
        (n <= FEW_QUERIES && n * a->n_head_kv * plan->ld_v * (int64_t)sizeof(float) <= FEW_BYTES);
    plan->n_head_task = few ? a->n_head_kv : 1;
    const int64_t n_head_query = a->n_batch * a->n_query * a->n_head;
    int64_t tile = TILE_QUERIES_MOST;
    while (tile > TILE_QUERIES && n_head_query / tile < TASKS_WANTED) tile /= 2;
    plan->tile_query = tile / plan->group;
    if (few || plan->tile_query > a->n_query) plan->tile_query = a->n_query;
    if (plan->tile_query < 1) plan->tile_query = 1;
    plan->n_tile = (a->n_query + plan->tile_query - 1) / plan->tile_query;

    plan->n_chunk = 1;
    const int64_t n_task = task_count(plan);
    int64_t n_chunk = few ? CHUNKS_MAX : (TASKS_WANTED + n_task - 1) / (n_task > 0 ? n_task : 1);
    if (n_chunk < 1) n_chunk = 1;
    int64_t rows = (plan->n_row + n_chunk - 1) / n_chunk;
    if (few && rows < CHUNK_ROWS) {
        const int64_t n_part = n > DIRECT_SCORES ? CHUNK_PARTS_SLOW : CHUNK_PARTS;
        const int64_t part = (plan->n_row + n_part - 1) / n_part;
        rows = part < CHUNK_ROWS ? part : CHUNK_ROWS;
    }
    rows = (rows + VARVE_TILE_ROWS - 1) / VARVE_TILE_ROWS * VARVE_TILE_ROWS;
    plan->chunk_rows = rows > CHUNK_ROWS_MIN ? rows : CHUNK_ROWS_MIN;
    plan->n_chunk = plan->n_row <= plan->chunk_rows
                        ? 1
                        : (plan->n_row + plan->chunk_rows - 1) / plan->chunk_rows;
    if (few) share_heads(plan);
    const int64_t step = SOFTMAX_QUERIES / (plan->tile_query * plan->group);
    plan->n_head_step = step < 1 ? 1 : step < plan->n_head_task ? (int32_t)step : plan->n_head_task;
    plan->n_task[0] = task_count(plan);
    const int64_t n_record = a->n_batch * a->n_query * a->n_head;
    plan->partials = plan->n_chunk > 1 || a->partials;
    plan->n_task[1] =
        plan->n_chunk == 1 || a->partials ? 0 : (n_record + MERGE_RECORDS - 1) / MERGE_RECORDS;
}

/* Reserves `count` elements of `bytes` at the end of the running size; returns the offset. */
static size_t reserve(struct varve_size *size, int64_t count, size_t bytes) {
    *size = varve_size_round(*size, VARVE_ALIGN);
    const size_t offset = size->value;
    const struct varve_size part = varve_size_mul(varve_size_of((size_t)count), bytes);
    *size = varve_size_add(*size, part.value);
    size->overflow |= part.overflow;
    return offset;
}

/* Formats whose rows go through the direct kernels: few queries, and a kernel of some SIMD level
 * exists (a format without one is faster through the tile kernels of the level). */
static void choose_kernels(struct varve_plan *plan) {
    const struct varve_kernels *kernels = &plan->context->kernels;
    const bool scalar = kernels->isa == VARVE_ISA_SCALAR;
    const int64_t n = plan->attention.n_query * plan->group;
    for (int f = 0; f < VARVE_FORMAT_COUNT; f++) {
        const bool q8 = varve_k_is_q8(plan, (enum varve_format)f);
        /* the packing of another level meets the same contract */
        const bool k_packed = q8 && kernels->packscore.isa > kernels->tilescore[1].isa &&
                              kernels->packk[f].isa > VARVE_ISA_SCALAR;
        /* Rounded weights pay only where integer products are faster. */
        const bool v_packed = plan->any_q8 && kernels->packfold.isa > kernels->tilefold.isa &&
                              kernels->packv[f].isa > VARVE_ISA_SCALAR;
        const bool v_rounded = plan->any_q8 && kernels->foldq[f].isa > kernels->fold[f].isa;
        /* the score slot of a quantized format is of class q8 */
        const bool same_class = q8 == varve_format_traits((enum varve_format)f)->quantized;
        const bool k_fast = scalar || kernels->score[f].isa > VARVE_ISA_SCALAR;
        const bool v_fast = scalar || kernels->fold[f].isa > VARVE_ISA_SCALAR;
        const bool k_few = n <= (k_packed ? DIRECT_SCORES : DIRECT_QUERIES);
        const bool v_few = n <= (v_rounded ? DIRECT_ROUNDED : DIRECT_QUERIES);
        if (k_packed) plan->k_packed |= 1u << f;
        if (v_packed) plan->v_packed |= 1u << f;
        if (k_fast && same_class && k_few) plan->k_direct |= 1u << f;
        if (v_fast && v_few) plan->v_direct |= 1u << f;
        if (v_fast && v_few && v_rounded) plan->v_rounded |= 1u << f;
    }
}

/* Class fast: what is multiplied in bfloat16, where that is faster. Of K's formats, floats. */
static void choose_pairs(struct varve_plan *plan) {
    const struct varve_kernels *kernels = &plan->context->kernels;
    if (plan->attention.arithmetic != VARVE_ARITHMETIC_FAST) return;
    const bool scores = kernels->pairscore.isa > kernels->tilescore[0].isa;
    const bool folds = kernels->pairfold.isa > kernels->tilefold.isa;
    uint32_t floats = 0;
    for (int f = 0; f < VARVE_FORMAT_COUNT; f++) {
        if (!varve_format_traits((enum varve_format)f)->quantized) floats |= 1u << f;
    }
    if (scores) plan->k_paired = plan->k_formats & floats & ~plan->k_direct;
    if (folds) plan->v_paired = plan->v_formats & ~plan->v_direct;
    plan->any_paired = plan->k_paired != 0;
    plan->any_exact = (plan->k_formats & floats & ~plan->k_paired) != 0;
}

static bool lay_out(struct varve_plan *plan) {
    const struct varve_attention *a = &plan->attention;
    const int64_t n = plan->tile_query * plan->group; /* queries of one KV head */
    const int64_t n_all = n * plan->n_head_task;      /* of the task */
    const int64_t n_bias = a->n_query > 0 ? n_all : 0;
    struct varve_layout *at = &plan->layout;
    struct varve_size size = varve_size_of(0);
    const int64_t exact = plan->any_exact ? n_all : 0;
    const int64_t q8 = plan->any_q8 ? n_all : 0;
    at->query_f = reserve(&size, exact * plan->ld_k, sizeof(float));
    at->query_i = reserve(&size, q8 * plan->ld_k, sizeof(int8_t));
    at->query_fi = reserve(&size, q8 * plan->ld_k, sizeof(float));
    at->query_d = reserve(&size, q8 * plan->n_block, sizeof(float));
    at->query_sum = reserve(&size, q8 * plan->n_block, sizeof(int32_t));
    at->query_pair = reserve(&size, plan->any_paired ? n_all * plan->ld_pair : 0, sizeof(uint32_t));
    at->m = reserve(&size, n_all, sizeof(float));
    at->sum = reserve(&size, n_all, sizeof(float));
    at->alpha = reserve(&size, n_all, sizeof(float));
    /* with partials, outputs are summed where the partial states lie */
    at->o = reserve(&size, plan->partials ? 0 : n_all * plan->ld_v, sizeof(float));
    at->s = reserve(&size, n * plan->n_head_step * VARVE_TILE_ROWS, sizeof(float));
    at->bias = reserve(&size, n_bias * VARVE_TILE_ROWS, sizeof(float));
    /* short rows take more room in pairs */
    const int64_t k_lines = a->head_dim_k > plan->ld_pair ? a->head_dim_k : plan->ld_pair;
    at->k_tile = reserve(&size, k_lines * VARVE_TILE_ROWS, sizeof(float));
    at->k_d = reserve(&size, (int64_t)plan->n_block * VARVE_TILE_ROWS, sizeof(float));
    at->k_m = reserve(&size, (int64_t)plan->n_block * VARVE_TILE_ROWS, sizeof(float));
    at->v_tile = reserve(&size, (int64_t)plan->ld_v * VARVE_TILE_ROWS, sizeof(float));
    const int64_t n_block_v = plan->v_packed != 0 ? a->head_dim_v / VARVE_BLOCK : 0;
    at->v_d = reserve(&size, n_block_v * VARVE_TILE_ROWS, sizeof(float));
    at->v_m = reserve(&size, n_block_v * VARVE_TILE_ROWS, sizeof(float));
    size = varve_size_round(size, VARVE_ALIGN);
    at->bytes = size.value;

    size = varve_size_mul(size, (size_t)plan->n_worker);
    const int64_t n_record = plan->partials ? a->n_batch * a->n_query * a->n_head : 0;
    const int64_t n_partial = n_record * plan->n_chunk; /* counted before: no overflow */
    plan->partial_o = reserve(&size, n_partial, (size_t)plan->ld_v * sizeof(float));
    plan->partial_ms = reserve(&size, n_partial, VARVE_RECORD_MS * sizeof(float));
    plan->scratch_bytes = size.value;
    return !size.overflow;
}

/* ALiBi slopes (Press et al. 2022), as ggml computes them for head counts that are no power of 2.
 */
static void set_slopes(struct varve_plan *plan) {
    const struct varve_attention *a = &plan->attention;
    int32_t n_log2 = 1;
    while (n_log2 * 2 <= a->n_head) n_log2 *= 2;
    const float m0 = powf(2.0f, -a->max_bias / (float)n_log2);
    const float m1 = powf(2.0f, -(a->max_bias / 2.0f) / (float)n_log2);
    for (int32_t h = 0; h < a->n_head; h++) {
        plan->slope[h] = a->max_bias == 0 ? 1.0f
                         : h < n_log2     ? powf(m0, (float)(h + 1))
                                          : powf(m1, (float)(2 * (h - n_log2) + 1));
    }
}

enum varve_status varve_plan_create(const struct varve_context *context,
                                    const struct varve_attention *attention,
                                    const struct varve_segment *segments, int64_t n_segment,
                                    int32_t n_worker, struct varve_plan **out) {
    if (out == NULL) return VARVE_ERROR_ARGUMENT;
    *out = NULL;
    if (context == NULL || attention == NULL) return VARVE_ERROR_ARGUMENT;
    const struct varve_host *host = &context->host;
    if (n_segment < 0 || (n_segment > 0 && segments == NULL) || n_worker < 1) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT,
                          "n_segment %lld, segments %s, n_worker %d: expected segments and at "
                          "least one worker",
                          (long long)n_segment, segments ? "given" : "NULL", n_worker);
    }
    enum varve_status status = check_attention(host, attention);
    if (status != VARVE_OK) return status;
    int64_t n_record;
    if (__builtin_mul_overflow(attention->n_batch, attention->n_query, &n_record) ||
        __builtin_mul_overflow(n_record, attention->n_head, &n_record) ||
        n_record > INT64_MAX / CHUNKS_MAX) { /* tasks are counted per chunk */
        return varve_fail(host, VARVE_ERROR_OVERFLOW, "n_batch * n_query * n_head overflows");
    }

    const size_t bytes = sizeof(struct varve_plan) + (size_t)attention->n_head * sizeof(float);
    struct varve_plan *plan = varve_host_allocate(host, bytes);
    if (plan == NULL) return VARVE_ERROR_MEMORY;
    memset(plan, 0, bytes);
    plan->context = context;
    plan->plan_bytes = bytes;
    plan->attention = *attention;
    plan->n_worker = n_worker;
    plan->group = attention->n_head / attention->n_head_kv;
    plan->ld_k = (attention->head_dim_k + 15) / 16 * 16;
    plan->ld_v = (attention->head_dim_v + 15) / 16 * 16;
    plan->ld_pair = (attention->head_dim_k + VARVE_PAIRED - 1) / VARVE_PAIRED * VARVE_PAIRED / 2;
    plan->n_block = (attention->head_dim_k + VARVE_BLOCK - 1) / VARVE_BLOCK;
    status = add_segments(plan, host, segments, n_segment);
    if (status == VARVE_OK) {
        cut(plan);
        choose_kernels(plan);
        choose_pairs(plan);
        set_slopes(plan);
        if (!lay_out(plan)) {
            status = varve_fail(host, VARVE_ERROR_OVERFLOW, "scratch size overflows");
        }
    }
    if (status != VARVE_OK) {
        varve_plan_destroy(plan);
        return status;
    }
    *out = plan;
    return VARVE_OK;
}

void varve_plan_destroy(struct varve_plan *plan) {
    if (plan != NULL) varve_host_release(&plan->context->host, plan, plan->plan_bytes);
}

size_t varve_plan_scratch_bytes(const struct varve_plan *plan) { return plan->scratch_bytes; }

int64_t varve_plan_n_task(const struct varve_plan *plan, int32_t phase) {
    return phase >= 0 && phase < VARVE_PHASE_COUNT ? plan->n_task[phase] : 0;
}

double varve_plan_work(const struct varve_plan *plan) {
    const struct varve_attention *a = &plan->attention;
    return (double)a->n_batch * (double)a->n_query * a->n_head * (double)plan->n_row *
           (a->head_dim_k + a->head_dim_v);
}

/* The kernels of one format of a side: one, or the first of two. */
struct chosen {
    const char *first, *second;
};

static struct chosen chosen_k(const struct varve_plan *plan, enum varve_format f) {
    const struct varve_kernels *kernels = &plan->context->kernels;
    if (plan->k_direct >> f & 1) return (struct chosen){kernels->score[f].name, NULL};
    if (plan->k_paired >> f & 1) {
        return (struct chosen){kernels->pairk[f].name, kernels->pairscore.name};
    }
    if (plan->k_packed >> f & 1) {
        return (struct chosen){kernels->packk[f].name, kernels->packscore.name};
    }
    return (struct chosen){kernels->unpackk[f].name,
                           kernels->tilescore[varve_k_is_q8(plan, f)].name};
}

static struct chosen chosen_v(const struct varve_plan *plan, enum varve_format f) {
    const struct varve_kernels *kernels = &plan->context->kernels;
    if (plan->v_direct >> f & 1) {
        const bool rounded = plan->v_rounded >> f & 1;
        return (struct chosen){rounded ? kernels->foldq[f].name : kernels->fold[f].name, NULL};
    }
    if (plan->v_packed >> f & 1) {
        return (struct chosen){kernels->packv[f].name, kernels->packfold.name};
    }
    if (plan->v_paired >> f & 1) {
        return (struct chosen){kernels->pairv[f].name, kernels->pairfold.name};
    }
    return (struct chosen){kernels->unpackv[f].name, kernels->tilefold.name};
}

/* Writes " K f16:varve_score_f16_avx512", or " K q4_1:<unpack kernel>+<tile kernel>", for each
 * format of a side; returns the length. */
static int print_formats(const struct varve_plan *plan, bool k_side, char *text, size_t bytes) {
    const uint32_t formats = k_side ? plan->k_formats : plan->v_formats;
    int length = 0;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        const enum varve_format f = (enum varve_format)i;
        if (!(formats >> f & 1)) continue;
        const struct chosen chosen = k_side ? chosen_k(plan, f) : chosen_v(plan, f);
        const size_t used = (size_t)length < bytes ? (size_t)length : bytes;
        const int n = snprintf(text + used, bytes - used, " %s %s:%s%s%s", k_side ? "K" : "V",
                               varve_format_name(f), chosen.first, chosen.second != NULL ? "+" : "",
                               chosen.second != NULL ? chosen.second : "");
        if (n < 0) return length;
        length += n;
    }
    return length;
}

int varve_plan_print(const struct varve_plan *plan, char *text, size_t bytes) {
    const struct varve_attention *a = &plan->attention;
    const struct varve_kernels *kernels = &plan->context->kernels;
    const bool direct =
        (plan->k_formats & ~plan->k_direct) == 0 && (plan->v_formats & ~plan->v_direct) == 0;
    char none[1];
    if (text == NULL) {
        text = none;
        bytes = 0;
    }
    int length =
        snprintf(text, bytes,
                 "%s head %d/%d, heads %d/%d, queries %lld, batch %lld, rows %lld: %s, "
                 "%lld tiles of %lld queries, %lld chunks of %lld rows, tasks %lld+%lld, "
                 "scratch %zu bytes; %s",
                 varve_isa_text(kernels->isa), a->head_dim_k, a->head_dim_v, a->n_head,
                 a->n_head_kv, (long long)a->n_query, (long long)a->n_batch, (long long)plan->n_row,
                 direct ? "direct" : "tiled", (long long)plan->n_tile, (long long)plan->tile_query,
                 (long long)plan->n_chunk, (long long)plan->chunk_rows, (long long)plan->n_task[0],
                 (long long)plan->n_task[1], plan->scratch_bytes, kernels->softmax.name);
    for (int side = 0; side < 2 && length >= 0; side++) {
        const size_t used = (size_t)length < bytes ? (size_t)length : bytes;
        length += print_formats(plan, side == 0, text + used, bytes - used);
    }
    return length;
}
