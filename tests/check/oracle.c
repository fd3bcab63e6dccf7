#include "check/oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fp16.h"
#include "check/tol.h"
#include "format/format.h"

/* What the rows of one side hold for one KV head of one batch entry, decoded when a query first
 * sees them: all its queries and heads meet the same rows. */
struct side {
    int32_t dim;
    float *rows;         /* [all rows][dim] */
    unsigned char *read; /* [all rows] */
    double *d, *q;       /* [all rows] largest scale and code of a row; NULL: not asked for */
    int8_t *codes;       /* [dim] of one row */
    float *scales;       /* [2][dim / 32] its d and m */
};

/* One (batch entry, query, head) and what has been found for it. */
struct view {
    const struct varve_attention *attention;
    const struct varve_io *io;
    int64_t batch, query;
    int32_t head;
    double *exact;               /* [DK] the query */
    double *coarse;              /* [DK] the query in 8 bits per block */
    double slope;                /* ALiBi's, of the head */
    struct side *k, *v;          /* rows of its KV head */
    double *logit;               /* [all rows], -inf where not seen */
    double max;                  /* of logits and sink */
    double error;                /* largest bound of a logit's error */
    double *sum;                 /* [DV] weighted values */
    double *sum_abs;             /* [DV] their absolute values */
    double weight;               /* sum of weights */
    double largest_d, largest_q; /* of quantized V in class q8 */
};

static void *allocate(int64_t n, size_t size) {
    void *const p = calloc((size_t)n + 1, size);
    if (p == NULL) abort();
    return p;
}

static struct side side_new(int32_t dim, int64_t n_row, bool codes) {
    struct side side = {.dim = dim};
    side.rows = allocate(n_row * dim, sizeof *side.rows);
    side.read = allocate(n_row, 1);
    if (!codes) return side;
    side.d = allocate(n_row, sizeof *side.d);
    side.q = allocate(n_row, sizeof *side.q);
    side.codes = allocate(dim, sizeof *side.codes);
    side.scales = allocate(2 * (dim / VARVE_BLOCK), sizeof *side.scales);
    return side;
}

static void side_free(struct side *side) {
    free(side->rows);
    free(side->read);
    free(side->d);
    free(side->q);
    free(side->codes);
    free(side->scales);
}

static void note_codes(struct side *side, const struct varve_format_traits *format,
                       const char *bytes, int64_t at) {
    const int32_t n_block = side->dim / VARVE_BLOCK;
    format->split(bytes, side->dim, side->codes, side->scales, side->scales + n_block);
    int q = 0;
    double d = 0;
    for (int32_t i = 0; i < side->dim; i++) q = abs(side->codes[i]) > q ? abs(side->codes[i]) : q;
    for (int32_t b = 0; b < n_block; b++) d = fmax(d, fabs((double)side->scales[b]));
    side->q[at] = q;
    side->d[at] = d;
}

/* Row `at` of all, whose bytes are given. */
static const float *side_row(struct side *side, enum varve_format f, const char *bytes,
                             int64_t at) {
    const struct varve_format_traits *const format = varve_format_traits(f);
    float *const row = side->rows + at * side->dim;
    if (!side->read[at]) {
        format->decode(bytes, side->dim, row);
        if (side->codes != NULL && format->quantized) note_codes(side, format, bytes, at);
        side->read[at] = 1;
    }
    return row;
}

double oracle_slope(const struct varve_attention *attention, int32_t head) {
    if (attention->max_bias == 0) return 1;
    int32_t n_power = 1;
    while (2 * n_power <= attention->n_head) n_power *= 2;
    /* a geometric sequence for the largest power of two of heads, then the odd terms of one with
     * half the ratio: Press et al. 2022, as ggml has it */
    if (head < n_power) return pow(2, -(double)attention->max_bias * (head + 1) / n_power);
    return pow(2, -(double)attention->max_bias * (2 * (head - n_power) + 1) / (2 * n_power));
}

static float mask_value(const struct view *view, const struct varve_mask *mask, int64_t column) {
    const char *const p =
        (const char *)mask->data + view->batch % mask->n_batch * mask->batch_stride +
        view->head % mask->n_head * mask->head_stride + view->query * mask->row_stride + 2 * column;
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return varve_f16_to_f32(half);
}

/* Bias of a row, -inf if it is not seen. */
static double row_bias(const struct view *view, const struct varve_segment *segment, int64_t r) {
    const struct varve_attention *const a = view->attention;
    const int64_t distance = a->query_pos + view->query - (segment->pos + r);
    if (a->causal && distance < 0) return -INFINITY;
    if (a->window != 0 && distance >= a->window) return -INFINITY;
    const double slope = view->slope;
    const struct varve_mask *const mask = segment->mask != NULL ? segment->mask : view->io->mask;
    if (mask != NULL) {
        const double value = mask_value(view, mask, segment->mask_column + r);
        return value == -INFINITY ? value : slope * value;
    }
    return a->max_bias != 0 ? -slope * fabs((double)distance) : 0;
}

/* q and its form in 8 bits: d = amax / 127 and nearest-even integers, divisions in F32. */
static void load_query(struct view *view) {
    const struct varve_query *const q = &view->io->query;
    const int32_t dk = view->attention->head_dim_k;
    view->slope = oracle_slope(view->attention, view->head);
    const char *const p = (const char *)q->data + view->batch * q->batch_stride +
                          view->query * q->query_stride + view->head * q->head_stride;
    for (int32_t i = 0; i < dk; i++) {
        float value;
        memcpy(&value, p + 4 * i, sizeof value);
        view->exact[i] = value;
    }
    for (int32_t from = 0; from < dk; from += VARVE_BLOCK) {
        const int32_t to = from + VARVE_BLOCK < dk ? from + VARVE_BLOCK : dk;
        float amax = 0;
        for (int32_t i = from; i < to; i++) amax = fmaxf(amax, fabsf((float)view->exact[i]));
        const float inverse = 127 / amax, d = amax / 127;
        for (int32_t i = from; i < to; i++) {
            const float scaled = (float)view->exact[i] * inverse;
            view->coarse[i] = isinf(inverse) ? 0 : (double)d * nearbyintf(scaled);
        }
    }
}

static const char *head_row(const struct view *view, const void *base, int64_t r, int64_t row,
                            int64_t head, int64_t batch) {
    const int32_t group = view->attention->n_head / view->attention->n_head_kv;
    return (const char *)base + r * row + view->head / group * head + view->batch * batch;
}

#define N_SUM 8 /* apart, as one sum would have each addition wait for the last */

static void dot(const double *q, const float *row, int32_t n, double *sum, double *sum_abs) {
    double s[N_SUM] = {0}, s_abs[N_SUM] = {0};
    int32_t i = 0;
    for (; i + N_SUM <= n; i += N_SUM) {
        for (int32_t j = 0; j < N_SUM; j++) {
            s[j] += q[i + j] * (double)row[i + j];
            s_abs[j] += fabs(q[i + j] * (double)row[i + j]);
        }
    }
    for (; i < n; i++) {
        s[0] += q[i] * (double)row[i];
        s_abs[0] += fabs(q[i] * (double)row[i]);
    }
    *sum = *sum_abs = 0;
    for (int32_t j = 0; j < N_SUM; j++) {
        *sum += s[j];
        *sum_abs += s_abs[j];
    }
}

/* The largest value of both, without a sign. */
static double largest_of(const double *q, const float *row, int32_t n) {
    double largest = 0;
    for (int32_t i = 0; i < n; i++) {
        largest = fmax(largest, fmax(fabs(q[i]), fabs((double)row[i])));
    }
    return largest;
}

/* The logit of row r of a segment, which is row `at` of all. Sets its bound too. */
static double row_logit(struct view *view, const struct varve_segment *segment, int64_t r,
                        int64_t at, double bias) {
    const struct varve_attention *const a = view->attention;
    const bool quantized = varve_format_traits(segment->k_format)->quantized;
    const bool q8 = quantized && a->arithmetic != VARVE_ARITHMETIC_EXACT;
    const double *const q = q8 ? view->coarse : view->exact;
    const char *const k = head_row(view, segment->k, r, segment->k_row_stride,
                                   segment->k_head_stride, segment->k_batch_stride);
    const float *const row = side_row(view->k, segment->k_format, k, at);
    double score, score_abs;
    dot(q, row, a->head_dim_k, &score, &score_abs);
    const double scaled = score * a->scale;
    const double x = a->softcap != 0 ? a->softcap * tanh(scaled / a->softcap) : scaled;
    /* decoding itself rounds twice, which the q8 formula does not: 2 u more per term */
    double error = fabs(a->scale) * tol_dot(a->head_dim_k + 10, score_abs) +
                   tol_logit(fabs(scaled), a->softcap, fabs(bias));
    if (a->arithmetic == VARVE_ARITHMETIC_FAST && !quantized) {
        error +=
            tol_fast_logit(a->head_dim_k, a->scale, score_abs, largest_of(q, row, a->head_dim_k));
    }
    view->error = fmax(view->error, error);
    return x + bias;
}

static void find_logits(struct view *view) {
    view->max = view->io->sinks != NULL ? view->io->sinks[view->head] : -INFINITY;
    view->error = 0;
    int64_t at = 0;
    for (int64_t s = 0; s < view->io->n_segment; s++) {
        const struct varve_segment *const segment = &view->io->segments[s];
        for (int64_t r = 0; r < segment->n_rows; r++, at++) {
            const double bias = row_bias(view, segment, r);
            const double logit = bias == -INFINITY ? bias : row_logit(view, segment, r, at, bias);
            view->logit[at] = logit;
            if (!(logit <= view->max)) view->max = logit;
        }
    }
}

static void add_value(struct view *view, const struct varve_segment *segment, int64_t r, int64_t at,
                      double weight) {
    const struct varve_attention *const a = view->attention;
    const char *const v = head_row(view, segment->v, r, segment->v_row_stride,
                                   segment->v_head_stride, segment->v_batch_stride);
    const float *const row = side_row(view->v, segment->v_format, v, at);
    double *restrict const sum = view->sum, *restrict const sum_abs = view->sum_abs;
    if (a->arithmetic != VARVE_ARITHMETIC_EXACT &&
        varve_format_traits(segment->v_format)->quantized &&
        varve_format_traits(segment->k_format)->quantized) {
        view->largest_q = fmax(view->largest_q, view->v->q[at]);
        view->largest_d = fmax(view->largest_d, view->v->d[at]);
    }
    for (int32_t i = 0; i < a->head_dim_v; i++) {
        sum[i] += weight * (double)row[i];
        sum_abs[i] += weight * fabs((double)row[i]);
    }
    view->weight += weight;
}

static void sum_values(struct view *view) {
    const int32_t dv = view->attention->head_dim_v;
    memset(view->sum, 0, (size_t)dv * sizeof *view->sum);
    memset(view->sum_abs, 0, (size_t)dv * sizeof *view->sum_abs);
    view->largest_d = view->largest_q = 0;
    view->weight = view->io->sinks != NULL ? exp(view->io->sinks[view->head] - view->max) : 0;
    int64_t at = 0;
    for (int64_t s = 0; s < view->io->n_segment; s++) {
        const struct varve_segment *const segment = &view->io->segments[s];
        for (int64_t r = 0; r < segment->n_rows; r++, at++) {
            if (view->logit[at] == -INFINITY) continue;
            add_value(view, segment, r, at, exp(view->logit[at] - view->max));
        }
    }
}

static void run_view(struct view *view, double *output, double *lse, double *output_bound,
                     double *lse_bound, double *rounding, int64_t n_row) {
    load_query(view);
    find_logits(view);
    sum_values(view);
    const bool empty = view->weight == 0;
    for (int32_t i = 0; i < view->attention->head_dim_v; i++) {
        if (output != NULL) output[i] = empty ? 0 : view->sum[i] / view->weight;
        if (output_bound != NULL) {
            const double sum_abs = empty ? 0 : view->sum_abs[i] / view->weight;
            output_bound[i] = empty ? 0 : tol_output(n_row, view->error, sum_abs);
            if (view->attention->arithmetic == VARVE_ARITHMETIC_FAST) {
                output_bound[i] += tol_fast_output(n_row, view->error, sum_abs);
            }
        }
    }
    if (rounding != NULL) {
        *rounding =
            empty ? 0 : tol_rounded_weights(n_row, view->weight, view->largest_d * view->largest_q);
    }
    const double total = empty ? -INFINITY : view->max + log(view->weight);
    if (lse != NULL) *lse = total;
    if (lse_bound != NULL) {
        *lse_bound = empty ? 0 : tol_lse(n_row, view->error, fabs(total) + fabs(view->max));
    }
}

void oracle_attention_bounds(const struct varve_attention *attention, const struct varve_io *io,
                             double *output, double *lse, double *output_bound, double *lse_bound,
                             double *rounding) {
    const int32_t dk = attention->head_dim_k, dv = attention->head_dim_v;
    const int32_t n_head = attention->n_head;
    int64_t n_row = 0;
    for (int64_t s = 0; s < io->n_segment; s++) n_row += io->segments[s].n_rows;
    struct side k = side_new(dk, n_row, false), v = side_new(dv, n_row, true);
    struct view view = {.attention = attention, .io = io, .k = &k, .v = &v};
    view.exact = allocate(dk, sizeof *view.exact);
    view.coarse = allocate(dk, sizeof *view.coarse);
    view.logit = allocate(n_row, sizeof *view.logit);
    view.sum = allocate(dv, sizeof *view.sum);
    view.sum_abs = allocate(dv, sizeof *view.sum_abs);
    for (int64_t i = 0; i < attention->n_batch * n_head * attention->n_query; i++) {
        view.batch = i / attention->n_query / n_head;
        view.head = (int32_t)(i / attention->n_query % n_head);
        view.query = i % attention->n_query;
        const int32_t group = n_head / attention->n_head_kv;
        if (view.head % group == 0 && view.query == 0) { /* the next KV head */
            memset(k.read, 0, (size_t)n_row);
            memset(v.read, 0, (size_t)n_row);
        }
        const int64_t at = (view.batch * attention->n_query + view.query) * n_head + view.head;
        run_view(&view, output != NULL ? output + at * dv : NULL, lse != NULL ? lse + at : NULL,
                 output_bound != NULL ? output_bound + at * dv : NULL,
                 lse_bound != NULL ? lse_bound + at : NULL, rounding != NULL ? rounding + at : NULL,
                 n_row);
    }
    side_free(&k);
    side_free(&v);
    free(view.exact);
    free(view.coarse);
    free(view.logit);
    free(view.sum);
    free(view.sum_abs);
}

void oracle_attention(const struct varve_attention *attention, const struct varve_io *io,
                      double *output, double *lse) {
    oracle_attention_bounds(attention, io, output, lse, NULL, NULL, NULL);
}
