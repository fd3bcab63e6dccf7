#include "trace.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *file; /* where lines go; set once, before the level is known to anybody */

static int read_level(void) {
    const char *value = getenv("VARVE_TRACE");
    if (value == NULL || value[0] == '\0' || strcmp(value, "0") == 0) {
        return 0;
    }
    if (strcmp(value, "1") != 0 && strcmp(value, "2") != 0) {
        fprintf(stderr, "varve: VARVE_TRACE=%s: expected 0, 1 or 2; taken as 0\n", value);
        return 0;
    }
    const char *path = getenv("VARVE_TRACE_FILE");
    file = stderr;
    if (path != NULL && path[0] != '\0') {
        FILE *opened = fopen(path, "a");
        if (opened == NULL) {
            fprintf(stderr, "varve: VARVE_TRACE_FILE=%s cannot be opened (%s); stderr is used\n",
                    path, strerror(errno));
        } else {
            setvbuf(opened, NULL, _IOLBF, 0);
            file = opened;
        }
    }
    return value[0] - '0';
}

int trace_level(void) {
    static atomic_int known = -1;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int level = atomic_load_explicit(&known, memory_order_relaxed);
    if (level < 0) {
        pthread_mutex_lock(&lock);
        level = atomic_load_explicit(&known, memory_order_relaxed);
        if (level < 0) {
            level = read_level();
            atomic_store_explicit(&known, level, memory_order_relaxed);
        }
        pthread_mutex_unlock(&lock);
    }
    return level;
}

/* ---- what threads collect ------------------------------------------------------------------- */

static const struct op_range nothing = {INFINITY, -INFINITY, INFINITY, -INFINITY};

void trace_start_parts(struct op_slot *slot) {
    slot->before = nothing;
    slot->input.origin = ORIGIN_NONE;
}

void trace_start_join(struct op_slot *slot) {
    slot->after = nothing;
    slot->result.origin = ORIGIN_NONE;
}

/* fminf and fmaxf would hide a NaN. */
static float smaller(float a, float b) { return isnan(a) || isnan(b) ? NAN : fminf(a, b); }
static float larger(float a, float b) { return isnan(a) || isnan(b) ? NAN : fmaxf(a, b); }

static struct op_range range_both(struct op_range a, struct op_range b) {
    return (struct op_range){smaller(a.m_low, b.m_low), larger(a.m_high, b.m_high),
                             smaller(a.s_low, b.s_low), larger(a.s_high, b.s_high)};
}

void trace_record(struct op_range *range, const float *record) {
    if (trace_level() == 0) {
        return;
    }
    *range = range_both(*range, (struct op_range){record[0], record[0], record[1], record[1]});
}

/* Whether a comes first: by origin, then by place. The order does not depend on threads. */
static bool earlier(const struct op_finding *a, const struct op_finding *b) {
    const int64_t key_a[] = {a->origin, a->part, a->b, a->row, a->head};
    const int64_t key_b[] = {b->origin, b->part, b->b, b->row, b->head};
    int i = 0;
    while (i < 4 && key_a[i] == key_b[i]) {
        i++;
    }
    return b->origin == ORIGIN_NONE || key_a[i] < key_b[i];
}

static void note(struct op_finding *kept, struct op_finding found) {
    if (found.origin != ORIGIN_NONE && earlier(&found, kept)) {
        *kept = found;
    }
}

static bool all_finite(const float *x, int64_t n) {
    int64_t i = 0;
    while (i < n && isfinite(x[i])) {
        i++;
    }
    return i == n;
}

void trace_result(struct op_slot *slot, struct op_index at, const float *row, int64_t n) {
    if (trace_level() >= 2 && !all_finite(row, n)) {
        note(&slot->result, (struct op_finding){ORIGIN_COMPUTED, 0, at.b, at.i, at.h});
    }
}

void trace_state(struct op_slot *slot, struct op_index at, const float *record, int64_t n) {
    if (record[0] != -INFINITY) { /* an empty one is fine */
        trace_result(slot, at, record, n);
    }
}

/* ---- level 2: inputs ------------------------------------------------------------------------ */

/* A walk over one part's rows. */
struct rows {
    const struct op_call *call;
    const struct varve_segment *segment;
    int part, thread, n_thread;
    float *values; /* of one row */
    struct op_finding *kept;
};

static float mask_value(const struct varve_mask *mask, int64_t b, int64_t h, int64_t i,
                        int64_t column) {
    const char *row = (const char *)mask->data + b % mask->n_batch * mask->batch_stride +
                      h % mask->n_head * mask->head_stride + i * mask->row_stride;
    return ggml_fp16_to_fp32(((const ggml_fp16_t *)(const void *)row)[column]);
}

/* Whether some query of the KV head's group sees a row. */
static bool is_seen(const struct rows *rows, int64_t b, int64_t head_kv, int64_t row) {
    const struct varve_attention *a = &rows->call->attention;
    const int64_t group = a->n_head / a->n_head_kv;
    bool seen = rows->segment->mask == NULL;
    for (int64_t i = 0; i < a->n_query && !seen; i++) {
        for (int64_t h = head_kv * group; h < (head_kv + 1) * group && !seen; h++) {
            seen = mask_value(rows->segment->mask, b, h, i, row) != -INFINITY;
        }
    }
    return seen;
}

static void look_at_row(const struct rows *rows, int64_t b, int64_t head_kv, int64_t row) {
    const struct varve_segment *s = rows->segment;
    const struct varve_attention *a = &rows->call->attention;
    const char *k = (const char *)s->k + b * s->k_batch_stride + head_kv * s->k_head_stride +
                    row * s->k_row_stride;
    const char *v = (const char *)s->v + b * s->v_batch_stride + head_kv * s->v_head_stride +
                    row * s->v_row_stride;
    const bool k_good =
        varve_format_decode(s->k_format, k, a->head_dim_k, rows->values) == VARVE_OK &&
        all_finite(rows->values, a->head_dim_k);
    const bool v_good =
        varve_format_decode(s->v_format, v, a->head_dim_v, rows->values) == VARVE_OK &&
        all_finite(rows->values, a->head_dim_v);
    if ((!k_good || !v_good) && is_seen(rows, b, head_kv, row)) {
        note(rows->kept,
             (struct op_finding){k_good ? ORIGIN_V : ORIGIN_K, rows->part, b, row, head_kv});
    }
}

static void look_at_mask(const struct rows *rows, int64_t b, int64_t row) {
    const struct varve_attention *a = &rows->call->attention;
    const struct varve_mask *mask = rows->segment->mask;
    for (int64_t i = 0; mask != NULL && i < a->n_query; i++) {
        for (int64_t h = 0; h < mask->n_head; h++) {
            const float value = mask_value(mask, b, h, i, row);
            if (isnan(value) || value == INFINITY) {
                note(rows->kept, (struct op_finding){ORIGIN_MASK, rows->part, b, row, h});
            }
        }
    }
}

static void look_at_rows(const struct rows *rows) {
    const struct varve_attention *a = &rows->call->attention;
    for (int64_t b = 0; b < a->n_batch; b++) {
        for (int64_t row = rows->thread; row < rows->segment->n_rows; row += rows->n_thread) {
            look_at_mask(rows, b, row);
            for (int64_t h = 0; h < a->n_head_kv; h++) {
                look_at_row(rows, b, h, row);
            }
        }
    }
}

/* The query of a record, and what is carried for it. */
static void look_at_record(const struct op_call *call, char *base, int64_t r,
                           struct op_finding *kept) {
    const struct op_index at = op_index_of(call, r);
    const struct ggml_tensor *q = call->src[SRC_Q];
    if (call->with.kind == OP_ATTEND) {
        const char *x = (const char *)q->data + (size_t)at.b * q->nb[3] + (size_t)at.h * q->nb[2] +
                        (size_t)at.i * q->nb[1];
        if (!all_finite((const float *)(const void *)x, q->ne[0])) {
            note(kept, (struct op_finding){ORIGIN_Q, 0, at.b, at.i, at.h});
        }
    }
    const float *carried = op_carry_of(call, base, at);
    const int64_t n = carried[0] == -INFINITY ? 0 : 2 + (int64_t)call->with.head_dim_v;
    if (!all_finite(carried, n)) {
        note(kept, (struct op_finding){ORIGIN_STATE, 0, at.b, at.i, at.h});
    }
}

void trace_inputs(const struct op_call *call, char *base, int thread, int n_thread) {
    struct op_slot *slot = op_slot_of(call, base, thread);
    if (trace_level() < 2 || slot->status != VARVE_OK) {
        return;
    }
    for (int64_t r = thread; r < call->n_record; r += n_thread) {
        look_at_record(call, base, r, &slot->input);
    }
    const struct varve_attention *a = &call->attention;
    const int32_t most = a->head_dim_k > a->head_dim_v ? a->head_dim_k : a->head_dim_v;
    float *values = malloc((size_t)most * sizeof(*values));
    int segment = 0;
    for (int part = 0; part < PART_COUNT && values != NULL; part++) {
        if (call->src[SRC_K + part * PART_STRIDE] != NULL) {
            const struct rows rows = {
                call, &call->segments[segment++], part, thread, n_thread, values, &slot->input};
            look_at_rows(&rows);
        }
    }
    free(values);
}

/* ---- output --------------------------------------------------------------------------------- */

static const char *type_of(const struct ggml_tensor *t) {
    return t != NULL ? ggml_type_name(t->type) : "-";
}

/* The kernels of a plan, which varve_plan_print gives behind a semicolon. */
static void kernels_of(const struct varve_plan *plan, char *text, size_t bytes) {
    char whole[1024] = "";
    if (plan != NULL) {
        varve_plan_print(plan, whole, sizeof(whole));
    }
    const char *semicolon = strrchr(whole, ';');
    snprintf(text, bytes, "%s", semicolon != NULL ? semicolon + 2 : "");
}

static void print_call(const struct op_call *call, const struct varve_plan *plan, int n_thread,
                       struct op_range before, struct op_range after) {
    static const char *const kinds[] = {"attend", "merge", "finish"};
    const struct ggml_tensor *const *src = call->src;
    const struct ggml_tensor *k = src[SRC_K], *k_quant = src[SRC_K_QUANT];
    char kernels[512];
    kernels_of(plan, kernels, sizeof(kernels));
    fprintf(file,
            "varve-op call=%u op=%s rows_f16=%lld rows_quant=%lld type_k=%s type_v=%s "
            "type_k_quant=%s type_v_quant=%s threads=%d kernels=\"%s\" m_before=[%g,%g] "
            "s_before=[%g,%g] m_after=[%g,%g] s_after=[%g,%g]\n",
            call->with.number, kinds[call->with.kind], k != NULL ? (long long)k->ne[1] : 0,
            k_quant != NULL ? (long long)k_quant->ne[1] : 0, type_of(k), type_of(src[SRC_V]),
            type_of(k_quant), type_of(src[SRC_V_QUANT]), n_thread, kernels, (double)before.m_low,
            (double)before.m_high, (double)before.s_low, (double)before.s_high, (double)after.m_low,
            (double)after.m_high, (double)after.s_low, (double)after.s_high);
}

static void print_finding(const struct op_call *call, const struct op_finding *result,
                          const struct op_finding *input) {
    static const char *const origins[] = {"computed", "q", "k", "v", "mask", "state", "computed"};
    fprintf(file, "varve-op call=%u nonfinite batch=%lld query=%lld head=%lld from=%s",
            call->with.number, (long long)result->b, (long long)result->row,
            (long long)result->head, origins[input->origin]);
    if (input->origin != ORIGIN_NONE) {
        const bool is_row = input->origin >= ORIGIN_K && input->origin <= ORIGIN_MASK;
        const char *part = input->part == 0 ? "f16" : "quant";
        fprintf(file, " from_part=%s from_batch=%lld from_%s=%lld from_head=%lld",
                is_row ? part : "-", (long long)input->b, is_row ? "row" : "query",
                (long long)input->row, (long long)input->head);
    }
    fputc('\n', file);
}

void trace_leave(const struct op_call *call, char *base, const struct varve_plan *plan,
                 int n_thread) {
    if (trace_level() == 0 || atomic_fetch_add(&op_header_of(base)->n_left, 1) + 1 < n_thread) {
        return;
    }
    struct op_range before = nothing, after = nothing;
    struct op_finding result = {.origin = ORIGIN_NONE}, input = {.origin = ORIGIN_NONE};
    for (int t = 0; t < n_thread; t++) {
        const struct op_slot *slot = op_slot_of(call, base, t);
        before = range_both(before, slot->before);
        after = range_both(after, slot->after);
        note(&result, slot->result);
        note(&input, slot->input);
    }
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock); /* lines of other graphs stay whole */
    print_call(call, plan, n_thread, before, after);
    if (result.origin != ORIGIN_NONE) {
        print_finding(call, &result, &input);
    }
    pthread_mutex_unlock(&lock);
}
