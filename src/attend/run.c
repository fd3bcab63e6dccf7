/* The loop: for each block of visible rows { score; softmax; fold }, then merge and divide. */
#include <math.h>
#include <string.h>

#include "attend/partial.h"
#include "attend/tiled.h"
#include "base/fp16.h"
#include "base/parallel.h"

static void task_buffers(struct task *task, char *slice) {
    const struct varve_layout *at = &task->plan->layout;
    task->query_f = (float *)(void *)(slice + at->query_f);
    task->query_i = (int8_t *)(slice + at->query_i);
    task->query_fi = (float *)(void *)(slice + at->query_fi);
    task->query_d = (float *)(void *)(slice + at->query_d);
    task->query_sum = (int32_t *)(void *)(slice + at->query_sum);
    task->query_pair = (uint32_t *)(void *)(slice + at->query_pair);
    task->m = (float *)(void *)(slice + at->m);
    task->sum = (float *)(void *)(slice + at->sum);
    task->alpha = (float *)(void *)(slice + at->alpha);
    task->o = (float *)(void *)(slice + at->o);
    task->s = (float *)(void *)(slice + at->s);
    task->bias = (float *)(void *)(slice + at->bias);
    task->k_tile = (float *)(void *)(slice + at->k_tile);
    task->k_d = (float *)(void *)(slice + at->k_d);
    task->k_m = (float *)(void *)(slice + at->k_m);
    task->v_tile = (float *)(void *)(slice + at->v_tile);
    task->v_d = (float *)(void *)(slice + at->v_d);
    task->v_m = (float *)(void *)(slice + at->v_m);
}

/* Which chunk, tile, heads and batch entry a task number means. Tiles come last to first: with a
 * causal mask the later ones have more work, and the largest tasks should start first. */
static struct task task_of(const struct varve_plan *plan, const struct varve_io *io, void *scratch,
                           int64_t number, int32_t worker) {
    const struct varve_attention *a = &plan->attention;
    const int64_t n_group = a->n_head_kv / plan->n_head_task;
    struct task task = {.plan = plan, .io = io};
    task.chunk = number % plan->n_chunk;
    number /= plan->n_chunk;
    const int64_t tile = plan->n_tile - 1 - number % plan->n_tile;
    number /= plan->n_tile;
    task.head_kv0 = (int32_t)(number % n_group) * plan->n_head_task;
    task.batch = number / n_group;
    task.query0 = tile * plan->tile_query;
    const int64_t left = a->n_query - task.query0;
    task.n_query = left < plan->tile_query ? left : plan->tile_query;
    task.n = (int32_t)task.n_query * plan->group;
    task.view = varve_view_of(plan, io, task.batch, task.query0, task.n_query,
                              task.head_kv0 * plan->group, plan->n_head_task * plan->group);
    task_buffers(&task, (char *)scratch + (size_t)worker * plan->layout.bytes);
    task.head_floats = (int64_t)task.n * plan->ld_v;
    if (plan->partials) {
        const int32_t h = task.head_kv0 * plan->group;
        task.o = varve_partial_o(plan, scratch,
                                 varve_partial_at(plan, task.chunk, task.batch, task.query0, h));
        task.head_floats = a->n_query * plan->group * plan->ld_v;
    }
    return task;
}

/* Query a of the task's KV head: queries outermost, heads of the group innermost. */
static const float *query_at(const struct task *task, int32_t head, int32_t a) {
    const struct varve_plan *plan = task->plan;
    const struct varve_query *query = &task->io->query;
    const int64_t i = task->query0 + a / plan->group;
    const int64_t h = (int64_t)(task->head_kv0 + head) * plan->group + a % plan->group;
    return (const float *)(const void *)((const char *)query->data +
                                         task->batch * query->batch_stride +
                                         i * query->query_stride + h * query->head_stride);
}

/* A query in bfloat16, with zeros up to a whole block. */
static void pair_query(const float *x, int32_t head_dim, int32_t ld_pair, uint32_t *pair) {
    for (int32_t j = 0; j < ld_pair; j++) {
        const int32_t i = 2 * j;
        pair[j] = varve_bf16_pair(i < head_dim ? x[i] : 0, i + 1 < head_dim ? x[i + 1] : 0);
    }
}

/* Packs the queries of all KV heads of the task and makes their states empty. */
static void start(const struct task *task) {
    const struct varve_plan *plan = task->plan;
    const int32_t head_dim = plan->attention.head_dim_k;
    const size_t ld = (size_t)plan->ld_k;
    for (int32_t head = 0; head < plan->n_head_task; head++) {
        for (int32_t a = 0; a < task->n; a++) {
            const float *const x = query_at(task, head, a);
            const size_t at = (size_t)(head * task->n + a);
            task->m[at] = -INFINITY;
            task->sum[at] = 0;
            if (plan->any_exact) {
                float *const f = task->query_f + at * ld;
                memcpy(f, x, (size_t)head_dim * sizeof(float));
                memset(f + head_dim, 0, (ld - (size_t)head_dim) * sizeof(float));
            }
            if (plan->any_paired) {
                pair_query(x, head_dim, plan->ld_pair,
                           task->query_pair + at * (size_t)plan->ld_pair);
            }
            if (plan->any_q8) {
                const struct varve_quantq_args args = {head_dim,
                                                       x,
                                                       task->query_i + at * ld,
                                                       task->query_fi + at * ld,
                                                       task->query_d + at * (size_t)plan->n_block,
                                                       task->query_sum +
                                                           at * (size_t)plan->n_block};
                plan->context->kernels.quantq.run(&args);
            }
        }
    }
}

/* Where the walk over the chunk's rows stands. */
struct cursor {
    const struct varve_segment *segment, *end;
    int64_t row;  /* in the segment */
    int64_t left; /* rows left in the chunk */
    struct varve_spans spans;
};

static struct cursor cursor_of(const struct task *task) {
    const struct varve_plan *plan = task->plan;
    int64_t row = task->chunk * plan->chunk_rows;
    const int64_t left = plan->n_row - row;
    struct cursor cursor = {.segment = task->io->segments,
                            .end = task->io->segments + task->io->n_segment,
                            .left = left < plan->chunk_rows ? left : plan->chunk_rows};
    while (cursor.left > 0 && row >= cursor.segment->n_rows) {
        row -= cursor.segment->n_rows;
        cursor.segment++;
    }
    cursor.row = row;
    return cursor;
}

static bool same_kind(const struct varve_segment *a, const struct varve_segment *b) {
    return a->k_format == b->k_format && a->v_format == b->v_format &&
           a->k_head_stride == b->k_head_stride && a->v_head_stride == b->v_head_stride &&
           a->mask == b->mask;
}

/* Number of rows up to and including the n-th visible one, n >= 1. */
static int32_t rows_to(uint64_t visible, int32_t n) {
    while (--n > 0) visible &= visible - 1;
    return __builtin_ctzll(visible) + 1;
}

static void append(struct varve_block *block, const struct task *task,
                   const struct varve_segment *segment, int64_t row, uint64_t visible) {
    const uint8_t *const k = (const uint8_t *)segment->k + task->batch * segment->k_batch_stride;
    const uint8_t *const v = (const uint8_t *)segment->v + task->batch * segment->v_batch_stride;
    for (; visible != 0; visible &= visible - 1) {
        const int64_t r = row + __builtin_ctzll(visible);
        block->k[block->n] = k + r * segment->k_row_stride;
        block->v[block->n] = v + r * segment->v_row_stride;
        block->column[block->n] = segment->mask_column + r;
        block->pos[block->n] = segment->pos + r;
        block->n++;
    }
}

/* Collects up to VARVE_TILE_ROWS visible rows of one kind. False when the chunk is used up. */
static bool next_block(const struct task *task, struct cursor *at, struct varve_block *block) {
    block->n = 0;
    block->sparse = false;
    block->plain = true;
    while (at->left > 0 && block->n < VARVE_TILE_ROWS) {
        if (at->row == at->segment->n_rows) {
            at->segment++;
            at->row = 0;
            continue;
        }
        if (block->n > 0 && !same_kind(block->segment, at->segment)) break;
        int64_t n_ahead = at->segment->n_rows - at->row;
        if (n_ahead > at->left) n_ahead = at->left;
        int64_t n = n_ahead < VARVE_TILE_ROWS ? n_ahead : VARVE_TILE_ROWS;
        struct varve_span span =
            varve_view_span(&task->view, &at->spans, at->segment, at->row, (int32_t)n, n_ahead);
        const int32_t room = VARVE_TILE_ROWS - block->n;
        if (__builtin_popcountll(span.any) > room) {
            n = rows_to(span.any, room);
            span.any &= UINT64_MAX >> (64 - n);
        }
        if (span.any != 0) {
            block->segment = at->segment;
            block->sparse |= (span.any & ~span.all) != 0;
            block->plain &= span.plain;
            append(block, task, at->segment, at->row, span.any);
        }
        at->row += n;
        at->left -= n;
    }
    block->plain &= !block->sparse;
    return block->n > 0;
}

/* s = q . k for one KV head of the task. */
static void score_block(const struct task *task, const struct varve_block *block, int32_t head,
                        const uint8_t *const *rows, struct varve_ahead ahead, float *s) {
    const struct varve_plan *plan = task->plan;
    const enum varve_format format = block->segment->k_format;
    const size_t at = (size_t)head * (size_t)task->n;
    const size_t ld = (size_t)plan->ld_k, n_block = (size_t)plan->n_block;
    const struct varve_queries queries = {task->n,
                                          plan->attention.head_dim_k,
                                          plan->ld_k,
                                          plan->n_block,
                                          task->query_f + at * ld,
                                          task->query_i + at * ld,
                                          task->query_fi + at * ld,
                                          task->query_d + at * n_block,
                                          task->query_sum + at * n_block,
                                          plan->ld_pair,
                                          task->query_pair + at * (size_t)plan->ld_pair};
    if (plan->k_direct >> format & 1) {
        const struct varve_score_args args = {
            varve_format_traits(format), &queries, rows, block->n, s, ahead};
        plan->context->kernels.score[format].run(&args);
        return;
    }
    varve_tiled_score(task, block, &queries, rows, ahead, s);
}

/* Scores to probabilities, with the running maxima and sums of the KV heads head0 .. end - 1. */
static void softmax_block(const struct task *task, const struct varve_block *block, int32_t head0,
                          int32_t end) {
    enum { QUERIES = 64 }; /* at a time: slopes and mask lines need a place */
    const struct varve_plan *plan = task->plan;
    const struct varve_attention *a = &plan->attention;
    const struct varve_view *view = &task->view;
    float slope[QUERIES];
    const float *bias[QUERIES];
    const int32_t n_all = (end - head0) * task->n;
    for (int32_t i0 = 0; i0 < n_all; i0 += QUERIES) {
        const int32_t n = n_all - i0 < QUERIES ? n_all - i0 : QUERIES;
        for (int32_t j = 0; j < n && !block->plain; j++) {
            const int32_t i = (i0 + j) % task->n, head = head0 + (i0 + j) / task->n;
            const int32_t task_head = head * plan->group + i % plan->group;
            const int64_t line = (int64_t)(i / plan->group) * view->n_line_head +
                                 (view->n_line_head > 1 ? task_head : 0);
            slope[j] = plan->slope[view->head0 + task_head];
            bias[j] = task->bias + line * VARVE_TILE_ROWS;
        }
        const size_t at = (size_t)(head0 * task->n + i0);
        const struct varve_softmax_args args = {n,
                                                block->n,
                                                a->scale,
                                                a->softcap,
                                                slope,
                                                block->plain ? NULL : bias,
                                                task->s + (size_t)i0 * VARVE_TILE_ROWS,
                                                &task->m[at],
                                                &task->sum[at],
                                                &task->alpha[at]};
        plan->context->kernels.softmax.run(&args);
    }
}

/* o = alpha o + p v for one KV head. */
static void fold_block(const struct task *task, const struct varve_block *block, int32_t head,
                       const uint8_t *const *rows, struct varve_ahead ahead, const float *s) {
    const struct varve_plan *plan = task->plan;
    const struct varve_kernels *kernels = &plan->context->kernels;
    const enum varve_format format = block->segment->v_format;
    const struct varve_format_traits *traits = varve_format_traits(format);
    const int32_t head_dim = plan->attention.head_dim_v;
    const size_t at = (size_t)head * (size_t)task->n;
    float *const o = task->o + head * task->head_floats;
    /* the class of a segment is that of its K */
    const bool q8 = varve_k_is_q8(plan, block->segment->k_format);
    if (plan->v_direct >> format & 1) {
        const struct varve_fold_args args = {
            traits, task->n, head_dim,         plan->ld_v, block->n, block->sparse,
            rows,   s,       task->alpha + at, o,          ahead};
        if (q8 && plan->v_rounded >> format & 1) {
            kernels->foldq[format].run(&args);
        } else {
            kernels->fold[format].run(&args);
        }
        return;
    }
    varve_tiled_fold(task, block, s, o, task->alpha + at, rows, ahead);
}

/* One head of the rows of a block. `row0` is block->k or block->v. */
static void head_rows(const uint8_t *const *row0, int32_t n, int64_t offset, const uint8_t **rows) {
    for (int32_t r = 0; r < n; r++) rows[r] = row0[r] + offset;
}

static int32_t head_bytes(enum varve_format format, int32_t head_dim) {
    const struct varve_format_traits *traits = varve_format_traits(format);
    return head_dim / traits->block_values * traits->block_bytes;
}

/* What to fetch while a head of a block is attended to: rows of K, or of V. */
struct coming {
    const struct task *task;
    const struct varve_block *block, *next;
    bool v, narrow;
};

/* A head of some rows has fewer bytes than this: several heads share a line. */
#define NARROW_BYTES 72

/* Some heads of n rows from `row` on. */
static struct varve_ahead rows_of(const struct coming *of, const struct varve_block *block,
                                  int32_t row, int32_t n, int32_t head, int32_t n_head) {
    if (n == 0) return (struct varve_ahead){0};
    const struct varve_segment *s = block->segment;
    const struct varve_attention *a = &of->task->plan->attention;
    const int32_t bytes =
        of->v ? head_bytes(s->v_format, a->head_dim_v) : head_bytes(s->k_format, a->head_dim_k);
    const int64_t stride = of->v ? s->v_head_stride : s->k_head_stride;
    return (struct varve_ahead){(of->v ? block->v : block->k) + row,
                                (of->task->head_kv0 + head) * stride, n, n_head * bytes};
}

static struct coming coming_of(const struct task *task, const struct varve_block *block,
                               const struct varve_block *next, bool v) {
    struct coming of = {task, block, next, v, false};
    const struct varve_block *const any = next->n > 0 ? next : block;
    const struct varve_segment *s = any->segment;
    const struct varve_ahead head = rows_of(&of, any, 0, 1, 0, 1);
    of.narrow =
        head.bytes < NARROW_BYTES && (v ? s->v_head_stride : s->k_head_stride) == head.bytes;
    return of;
}

/* The next head, at last the first one of the next block: so a task waits for one head only when it
 * begins. Narrow heads: a part of the next block, as it lies in memory. */
static struct varve_ahead ahead_of(const struct coming *of, int32_t head) {
    const int32_t n_head = of->task->plan->n_head_task;
    if (of->narrow) {
        const int32_t first = of->next->n * head / n_head;
        const int32_t end = of->next->n * (head + 1) / n_head;
        return rows_of(of, of->next, first, end - first, 0, n_head);
    }
    if (head + 1 < n_head) return rows_of(of, of->block, 0, of->block->n, head + 1, 1);
    return rows_of(of, of->next, 0, of->next->n, 0, 1);
}

/* What to fetch while K is scored and while V is folded. */
struct hints {
    struct varve_ahead k, v;
    const uint8_t *rows[2 * VARVE_TILE_ROWS];
};

/* Lines come at a steady pace. Packing K has no time for hints and scores of packed K take a third
 * of what the fold takes, so that asks for half of the rows of K, too, and before those of V. */
static void share_hints(struct hints *hints) {
    struct varve_ahead *const k = &hints->k, *const v = &hints->v;
    if (k->bytes != v->bytes) return;
    const int32_t kept = k->n / 2, moved = k->n - kept;
    for (int32_t r = 0; r < moved; r++) hints->rows[r] = k->rows[kept + r] + k->offset;
    for (int32_t r = 0; r < v->n; r++) hints->rows[moved + r] = v->rows[r] + v->offset;
    *v = (struct varve_ahead){hints->rows, 0, moved + v->n, v->bytes};
    k->n = kept;
}

/* The block for all KV heads of the task, before the next block: the heads of a row lie next to
 * each other in an engine's cache. Quantized K: a few heads at a time, so that softmax has queries
 * enough to work at while others wait for a result. Floats wait for memory, which softmax does not
 * ask for anything: rather a short one after each head. */
static void attend_part(const struct task *task, const struct varve_block *block,
                        const struct varve_block *next) {
    const struct varve_plan *plan = task->plan;
    const struct varve_segment *s = block->segment;
    const struct coming k = coming_of(task, block, next, false);
    const struct coming v = coming_of(task, block, next, true);
    const bool packed = (plan->k_packed & ~plan->k_direct) >> s->k_format & 1;
    const int32_t step = varve_k_is_q8(plan, s->k_format) && !packed ? plan->n_head_step : 1;
    const size_t head_scores = (size_t)task->n * VARVE_TILE_ROWS;
    const uint8_t *rows[VARVE_TILE_ROWS];
    struct hints hints;
    for (int32_t head0 = 0, end; head0 < plan->n_head_task; head0 = end) {
        end = head0 + step;
        if (end > plan->n_head_task) end = plan->n_head_task;
        for (int32_t head = head0; head < end; head++) {
            hints.k = ahead_of(&k, head);
            if (packed) {
                hints.v = ahead_of(&v, head);
                share_hints(&hints);
            }
            head_rows(block->k, block->n, (task->head_kv0 + head) * s->k_head_stride, rows);
            score_block(task, block, head, rows, hints.k,
                        task->s + (size_t)(head - head0) * head_scores);
        }
        softmax_block(task, block, head0, end);
        for (int32_t head = head0; head < end; head++) {
            if (!packed) hints.v = ahead_of(&v, head);
            head_rows(block->v, block->n, (task->head_kv0 + head) * s->v_head_stride, rows);
            fold_block(task, block, head, rows, hints.v,
                       task->s + (size_t)(head - head0) * head_scores);
        }
    }
}

/* Queries first .. last - 1 of a task of one KV head, as a task. `unpacked`: the block at hand is
 * in the tiles already. */
static struct task part_of(const struct task *task, int64_t first, int64_t last, bool unpacked) {
    const struct varve_plan *plan = task->plan;
    const int64_t ld = plan->ld_k, n_block = plan->n_block, at = first * plan->group;
    struct task part = *task;
    part.n = (int32_t)(last - first) * plan->group;
    part.unpacked = unpacked;
    part.query_f += at * ld;
    part.query_i += at * ld;
    part.query_fi += at * ld;
    part.query_d += at * n_block;
    part.query_sum += at * n_block;
    part.query_pair += at * plan->ld_pair;
    part.m += at;
    part.sum += at;
    part.alpha += at;
    part.o += at * plan->ld_v;
    part.bias += first * task->view.n_line_head * VARVE_TILE_ROWS;
    return part;
}

enum sight { SEES_NONE, SEES_SOME, SEES_ALL };

/* What a query of the task sees of a block; all only where nothing is added to its logits. */
static enum sight sight_of(const struct task *task, const struct varve_block *block,
                           int64_t query) {
    const int32_t n_line = task->view.n_line_head;
    const float *bias = task->bias + query * n_line * VARVE_TILE_ROWS;
    int32_t n_hidden = 0, n_zero = 0;
    for (int32_t line = 0; line < n_line; line++, bias += VARVE_TILE_ROWS) {
        for (int32_t r = 0; r < block->n; r++) {
            n_hidden += bias[r] == -INFINITY;
            n_zero += bias[r] == 0;
        }
    }
    if (n_hidden == n_line * block->n) return SEES_NONE;
    return n_zero == n_line * block->n ? SEES_ALL : SEES_SOME;
}

/* A block that is not plain, of a task of one KV head. With a causal mask or a window, the first
 * and last queries often see nothing of it, or all. */
static void attend_masked(const struct task *task, struct varve_block *block,
                          const struct varve_block *next) {
    int64_t from = 0, to = task->n_query;
    while (from < to && sight_of(task, block, from) == SEES_NONE) from++;
    while (to > from && sight_of(task, block, to - 1) == SEES_NONE) to--;
    int64_t low = from, high = to; /* between them queries that see some of it */
    while (low < high && sight_of(task, block, low) == SEES_ALL) low++;
    while (high > low && sight_of(task, block, high - 1) == SEES_ALL) high--;
    const int64_t cut[] = {from, low, high, to};
    const bool sparse = block->sparse;
    bool unpacked = false;
    for (int i = 0; i < 3; i++) {
        if (cut[i] == cut[i + 1]) continue;
        const struct task part = part_of(task, cut[i], cut[i + 1], unpacked);
        block->plain = i != 1;
        block->sparse = i == 1 && sparse;
        attend_part(&part, block, next);
        unpacked = true;
    }
}

static void attend_block(const struct task *task, struct varve_block *block,
                         const struct varve_block *next) {
    const struct varve_plan *plan = task->plan;
    if (!block->plain) varve_view_bias(&task->view, block, task->bias);
    /* direct kernels would read the rows once for each part */
    if (!block->plain && plan->n_head_task == 1 && plan->v_direct == 0) {
        attend_masked(task, block, next);
    } else {
        attend_part(task, block, next);
    }
}

static void emit(const struct task *task, void *scratch) {
    const struct varve_plan *plan = task->plan;
    for (int32_t head = 0; head < plan->n_head_task; head++) {
        for (int32_t a = 0; a < task->n; a++) {
            const size_t at = (size_t)(head * task->n + a);
            const int64_t i = task->query0 + a / plan->group;
            const int32_t h = (task->head_kv0 + head) * plan->group + a % plan->group;
            const struct varve_record record = {task->m[at], task->sum[at],
                                                task->o + head * task->head_floats +
                                                    (int64_t)a * plan->ld_v};
            if (plan->partials) {
                float *const ms = varve_partial_ms(
                    plan, scratch, varve_partial_at(plan, task->chunk, task->batch, i, h));
                ms[0] = record.m;
                ms[1] = record.s;
            } else {
                varve_partial_deliver(plan, task->io, task->batch, i, h, &record);
            }
        }
    }
}

/* What nobody has fetched when a task begins with a block, into L2. */
static void fetch_first(const struct task *task, const struct varve_block *block) {
    if (block->n == 0) return;
    for (int side = 0; side < 2; side++) {
        const struct coming of = coming_of(task, block, block, side == 1);
        const int32_t n_head = of.narrow ? task->plan->n_head_task : 1;
        const struct varve_ahead first = rows_of(&of, block, 0, block->n, 0, n_head);
        for (int32_t r = 0; r < first.n; r++) {
            const char *const row = (const char *)first.rows[r] + first.offset;
            for (int32_t at = 0; at < first.bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
        }
    }
}

/* The first block of the task that this thread takes next if all threads are as fast; if not, the
 * rows come from a cache that the cores share. For fetching only: nothing depends on it. */
static void look_ahead(const struct task *task, void *scratch, int64_t number, int32_t worker,
                       struct varve_block *block) {
    const struct varve_plan *plan = task->plan;
    const int64_t following = number + plan->n_worker;
    block->n = 0;
    if (plan->n_chunk == 1 || following >= plan->n_task[0]) return;
    const struct task other = task_of(plan, task->io, scratch, following, worker);
    struct cursor cursor = cursor_of(&other);
    if (other.head_kv0 == task->head_kv0) (void)next_block(&other, &cursor, block);
}

static void attend_task(const struct varve_plan *plan, const struct varve_io *io, void *scratch,
                        int64_t number, int32_t worker) {
    const struct task task = task_of(plan, io, scratch, number, worker);
    struct varve_block block[2]; /* the one at hand and the next */
    struct cursor cursor = cursor_of(&task);
    (void)next_block(&task, &cursor, &block[0]);
    fetch_first(&task, &block[0]);
    start(&task);
    bool more = block[0].n > 0;
    for (int i = 0; more; i = !i) {
        more = next_block(&task, &cursor, &block[!i]);
        if (!more) look_ahead(&task, scratch, number, worker, &block[!i]);
        attend_block(&task, &block[i], &block[!i]);
    }
    emit(&task, scratch);
}

void varve_run_task(const struct varve_plan *plan, const struct varve_io *io, void *scratch,
                    int32_t phase, int64_t task, int32_t worker) {
    if (phase == 0)
        attend_task(plan, io, scratch, task, worker);
    else
        varve_partial_merge(plan, io, scratch, task);
}

struct run {
    const struct varve_plan *plan;
    const struct varve_io *io;
    void *scratch;
    int32_t phase;
};

static void run_one(void *arg, int64_t task, int32_t worker) {
    const struct run *const run = arg;
    varve_run_task(run->plan, run->io, run->scratch, run->phase, task, worker);
}

enum varve_status varve_run(const struct varve_plan *plan, const struct varve_io *io, void *scratch,
                            int32_t n_thread) {
    const enum varve_status status = varve_io_check(plan, io);
    if (status != VARVE_OK) return status;
    const struct varve_host *host = &plan->context->host;
    if (n_thread < 1 || n_thread > plan->n_worker) {
        return varve_fail(host, VARVE_ERROR_ARGUMENT, "n_thread is %d, expected 1 to %d", n_thread,
                          plan->n_worker);
    }
    if (plan->scratch_bytes > 0 && (scratch == NULL || (uintptr_t)scratch % VARVE_ALIGN != 0)) {
        return varve_fail(host, VARVE_ERROR_MEMORY,
                          "scratch is %s, expected %zu bytes aligned to %d",
                          scratch ? "misaligned" : "NULL", plan->scratch_bytes, VARVE_ALIGN);
    }
    for (int32_t phase = 0; phase < VARVE_PHASE_COUNT; phase++) {
        struct run run = {plan, io, scratch, phase};
        varve_parallel(plan->n_task[phase], n_thread, run_one, &run);
    }
    return VARVE_OK;
}
