#include "flash_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fp16.h"
#include "check/problem.h"
#include "ggml-cpu.h"

enum { SPARE_ROWS = 3, SPARE_COLUMNS = 5 };

void *flash_row(const struct ggml_tensor *t, int64_t i1, int64_t i2, int64_t i3) {
    return (char *)t->data + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2] +
           (size_t)(i3 % t->ne[3]) * t->nb[3];
}

struct ggml_context *flash_context(bool with_memory, size_t bytes, size_t n_tensor) {
    const size_t overhead = n_tensor * (ggml_tensor_overhead() + 64);
    const struct ggml_init_params params = {.mem_size = overhead + (with_memory ? bytes : 0),
                                            .no_alloc = !with_memory};
    struct ggml_context *const ctx = ggml_init(params);
    if (ctx == NULL) abort();
    return ctx;
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* [d, n, n_head, n_batch], either contiguous or with the heads of a row side by side; with room for
 * a few rows behind. */
static struct ggml_tensor *new_rows(struct flash_data *data, enum ggml_type type, int64_t d,
                                    int64_t n, int64_t n_head, int64_t n_batch) {
    struct ggml_context *const ctx = data->ctx;
    if (!data->c->interleaved) {
        struct ggml_tensor *const all =
            ggml_new_tensor_4d(ctx, type, d, n + SPARE_ROWS, n_head, n_batch);
        return ggml_view_4d(ctx, all, d, n, n_head, n_batch, all->nb[1], all->nb[2], all->nb[3], 0);
    }
    struct ggml_tensor *const all =
        ggml_new_tensor_4d(ctx, type, d, n_head, n + SPARE_ROWS, n_batch);
    struct ggml_tensor *const rows =
        ggml_view_4d(ctx, all, d, n_head, n, n_batch, all->nb[1], all->nb[2], all->nb[3], 0);
    return ggml_permute(ctx, rows, 0, 2, 1, 3);
}

static void new_part(struct flash_data *data, int p) {
    const struct flash_case *const c = data->c;
    const int64_t n = data->n_rows[p];
    if (n == 0 && c->empty_as_null && data->n_rows[1 - p] > 0) return; /* one must be there: DV */
    const int64_t n_batch = c->shared_rows ? 1 : c->n_batch;
    data->k[p] = new_rows(data, c->k_type[p], c->dk, n, c->n_head_kv, n_batch);
    data->v[p] = new_rows(data, c->v_type[p], c->dv, n, c->n_head_kv, n_batch);
    if (c->mask[p] == FLASH_MASK_NONE) return;
    data->mask[p] = ggml_new_tensor_4d(
        data->ctx, GGML_TYPE_F16, n + SPARE_COLUMNS, c->n_query + (c->mask_per_head[p] ? 2 : 0),
        c->mask_per_head[p] ? c->n_head : 1, c->mask_per_batch[p] ? c->n_batch : 1);
}

static void new_whole_mask(struct flash_data *data) {
    const struct flash_case *const c = data->c;
    if (!flash_case_has_mask(c)) return;
    const bool heads = c->mask_per_head[0] || c->mask_per_head[1];
    const bool batches = c->mask_per_batch[0] || c->mask_per_batch[1];
    data->whole_mask =
        ggml_new_tensor_4d(data->ctx, GGML_TYPE_F16, data->n_rows[0] + data->n_rows[1], c->n_query,
                           heads ? c->n_head : 1, batches ? c->n_batch : 1);
}

static size_t bytes_of(const struct flash_case *c) {
    size_t bytes = (size_t)c->dk * (size_t)c->n_query * (size_t)c->n_head * (size_t)c->n_batch * 4;
    for (int p = 0; p < FLASH_PARTS; p++) {
        const size_t n = (size_t)flash_case_rows(c, p, c->n_call) + SPARE_ROWS + SPARE_COLUMNS;
        const size_t row =
            ggml_row_size(c->k_type[p], c->dk) + ggml_row_size(c->v_type[p], c->dv) + 64;
        bytes += n * row * (size_t)c->n_head_kv * (size_t)c->n_batch;
        bytes += 4 * n * (size_t)(c->n_query + 2) * (size_t)c->n_head * (size_t)c->n_batch;
    }
    return bytes + (1u << 16);
}

/* ---- values --------------------------------------------------------------------------------- */

static void fill_floats(struct ggml_tensor *t, uint64_t *seed) {
    float *const x = t->data;
    for (int64_t i = 0; i < ggml_nelements(t); i++) x[i] = problem_normal(seed);
}

/* Encoded random rows; the spare ones behind stay as they are, NaN. */
static void fill_rows(const struct ggml_tensor *t, uint64_t *seed) {
    enum varve_format format;
    float *const x = malloc((size_t)t->ne[0] * sizeof *x);
    if (x == NULL || varve_format_parse(ggml_type_name(t->type), &format) != VARVE_OK) abort();
    memset(t->view_src->data, 0xFF, ggml_nbytes(t->view_src));
    for (int64_t i3 = 0; i3 < t->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < t->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < t->ne[1]; i1++) {
                for (int64_t i = 0; i < t->ne[0]; i++) x[i] = problem_normal(seed);
                void *const row = flash_row(t, i1, i2, i3);
                if (varve_format_encode(format, x, t->ne[0], row) != VARVE_OK) abort();
            }
        }
    }
    free(x);
}

static uint16_t mask_value(enum flash_mask kind, bool blind, uint64_t *seed) {
    static const uint32_t percent[FLASH_MASK_COUNT] = {0, 0, 33, 97, 20, 10};
    const bool hidden = problem_random(seed, 100) < percent[kind] || blind;
    const float value = kind == FLASH_MASK_VALUES ? problem_normal(seed) : 0;
    return hidden ? VARVE_F16_NEG_INF : varve_f32_to_f16(value);
}

/* Which queries are blind follows from the number alone, so that both parts agree on it. */
static void fill_mask(const struct ggml_tensor *t, enum flash_mask kind, uint64_t *seed) {
    for (int64_t i3 = 0; i3 < t->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < t->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < t->ne[1]; i1++) {
                uint16_t *const row = flash_row(t, i1, i2, i3);
                const bool blind = kind == FLASH_MASK_QUERIES && i1 % 3 == 0;
                for (int64_t i = 0; i < t->ne[0]; i++) row[i] = mask_value(kind, blind, seed);
            }
        }
    }
}

/* The masks of the parts side by side; a part without one sees all: zeros. */
static void fill_whole_mask(const struct flash_data *data) {
    const struct ggml_tensor *const t = data->whole_mask;
    memset(t->data, 0, ggml_nbytes(t));
    for (int p = 0; p < FLASH_PARTS; p++) {
        const struct ggml_tensor *const mask = data->mask[p];
        if (mask == NULL || data->n_rows[p] == 0) continue;
        for (int64_t i3 = 0; i3 < t->ne[3]; i3++) {
            for (int64_t i2 = 0; i2 < t->ne[2]; i2++) {
                for (int64_t i1 = 0; i1 < t->ne[1]; i1++) {
                    uint16_t *const row = flash_row(t, i1, i2, i3);
                    memcpy(row + (p == 1 ? data->n_rows[0] : 0),
                           flash_row(mask, i1, i2 % mask->ne[2], i3), 2 * (size_t)data->n_rows[p]);
                }
            }
        }
    }
}

static void fill(struct flash_data *data) {
    uint64_t seed = data->c->seed + 12345;
    fill_floats(data->q->view_src != NULL ? data->q->view_src : data->q, &seed);
    for (int p = 0; p < FLASH_PARTS; p++) {
        if (data->k[p] == NULL) continue;
        fill_rows(data->k[p], &seed);
        fill_rows(data->v[p], &seed);
        if (data->mask[p] != NULL) fill_mask(data->mask[p], data->c->mask[p], &seed);
    }
    if (data->sinks != NULL) fill_floats(data->sinks, &seed);
    if (data->whole_mask != NULL) fill_whole_mask(data);
}

void flash_data_create(struct flash_data *data, const struct flash_case *c) {
    *data = (struct flash_data){.c = c};
    const bool with_memory = c->alloc == FLASH_ALLOC_CONTEXT;
    data->ctx = flash_context(with_memory, bytes_of(c), 64);
    if (c->interleaved) {
        data->q = ggml_permute(
            data->ctx,
            ggml_new_tensor_4d(data->ctx, GGML_TYPE_F32, c->dk, c->n_head, c->n_query, c->n_batch),
            0, 2, 1, 3);
    } else {
        data->q =
            ggml_new_tensor_4d(data->ctx, GGML_TYPE_F32, c->dk, c->n_query, c->n_head, c->n_batch);
    }
    for (int p = 0; p < FLASH_PARTS; p++) data->n_rows[p] = flash_case_rows(c, p, c->n_call);
    for (int p = 0; p < FLASH_PARTS; p++) new_part(data, p);
    if (c->sinks) data->sinks = ggml_new_tensor_1d(data->ctx, GGML_TYPE_F32, c->n_head);
    new_whole_mask(data);
    if (!with_memory) {
        data->buffer =
            ggml_backend_alloc_ctx_tensors_from_buft(data->ctx, ggml_backend_cpu_buffer_type());
        if (data->buffer == NULL) abort();
    }
    fill(data);
}

void flash_data_destroy(struct flash_data *data) {
    ggml_backend_buffer_free(data->buffer);
    ggml_free(data->ctx);
}

/* ---- poison --------------------------------------------------------------------------------- */

static bool seen(const struct ggml_tensor *mask, int64_t column) {
    for (int64_t i3 = 0; i3 < mask->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < mask->ne[2]; i2++) {
            for (int64_t i1 = 0; i1 < mask->ne[1]; i1++) {
                const uint16_t *const row = flash_row(mask, i1, i2, i3);
                if (row[column] != VARVE_F16_NEG_INF) return true;
            }
        }
    }
    return false;
}

static void poison_row(const struct ggml_tensor *t, int64_t r) {
    const size_t bytes = ggml_row_size(t->type, t->ne[0]);
    for (int64_t i3 = 0; i3 < t->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < t->ne[2]; i2++) memset(flash_row(t, r, i2, i3), 0xFF, bytes);
    }
}

void flash_data_poison(struct flash_data *data) {
    for (int p = 0; p < FLASH_PARTS; p++) {
        for (int64_t r = 0; data->mask[p] != NULL && r < data->n_rows[p]; r++) {
            if (seen(data->mask[p], r)) continue;
            poison_row(data->k[p], r);
            poison_row(data->v[p], r);
        }
    }
}

/* ---- for the oracle ------------------------------------------------------------------------- */

static void set_rows(const struct ggml_tensor *t, enum varve_format *format, const void **base,
                     int64_t *row, int64_t *head, int64_t *batch) {
    if (varve_format_parse(ggml_type_name(t->type), format) != VARVE_OK) abort();
    *base = t->data;
    *row = (int64_t)t->nb[1];
    *head = (int64_t)t->nb[2];
    *batch = t->ne[3] == 1 ? 0 : (int64_t)t->nb[3];
}

static void set_mask(const struct ggml_tensor *t, struct flash_problem *p) {
    p->mask = (struct varve_mask){.data = t->data,
                                  .n_column = t->ne[0],
                                  .n_query = t->ne[1],
                                  .n_head = (int32_t)t->ne[2],
                                  .n_batch = t->ne[3],
                                  .row_stride = (int64_t)t->nb[1],
                                  .head_stride = (int64_t)t->nb[2],
                                  .batch_stride = (int64_t)t->nb[3]};
    p->io.mask = &p->mask;
}

void flash_problem_of(const struct flash_data *data, const int64_t n_rows[FLASH_PARTS],
                      struct flash_problem *p) {
    const struct flash_case *const c = data->c;
    *p = (struct flash_problem){.attention = {.head_dim_k = c->dk,
                                              .head_dim_v = c->dv,
                                              .n_head = c->n_head,
                                              .n_head_kv = c->n_head_kv,
                                              .n_query = c->n_query,
                                              .n_batch = c->n_batch,
                                              .scale = 1 / sqrtf((float)c->dk),
                                              .softcap = c->softcap,
                                              /* without a mask there is nothing to multiply */
                                              .max_bias = data->whole_mask ? c->max_bias : 0}};
    int n = 0;
    for (int i = 0; i < FLASH_PARTS; i++) {
        if (n_rows[i] == 0) continue;
        struct varve_segment *const s = &p->segments[n++];
        set_rows(data->k[i], &s->k_format, &s->k, &s->k_row_stride, &s->k_head_stride,
                 &s->k_batch_stride);
        set_rows(data->v[i], &s->v_format, &s->v, &s->v_row_stride, &s->v_head_stride,
                 &s->v_batch_stride);
        s->n_rows = n_rows[i];
        s->mask_column = i == 1 ? data->n_rows[0] : 0;
    }
    p->io.segments = p->segments;
    p->io.n_segment = n;
    p->io.query = (struct varve_query){.data = data->q->data,
                                       .query_stride = (int64_t)data->q->nb[1],
                                       .head_stride = (int64_t)data->q->nb[2],
                                       .batch_stride = (int64_t)data->q->nb[3]};
    if (data->whole_mask != NULL) set_mask(data->whole_mask, p);
}
