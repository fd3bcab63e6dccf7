#include "check/oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fp16.h"
#include "check/tol.h"
#include "format/format.h"

/* One (batch entry, query, head) and what has been found for it. */
struct view {
    const struct varve_attention *attention;
    const struct varve_io *io;
    int64_t batch, query;
    int32_t head;
    double *exact;               /* [DK] the query */
    double *coarse;              /* [DK] the query in 8 bits per block */
    float *row;                  /* [max(DK, DV)] a decoded row */
    double *logit;               /* [all rows], -inf where not seen */
    double max;                  /* of logits and sink */
    double error;                /* largest bound of a logit's error */
    double *sum;                 /* [DV] weighted values */
    double *sum_abs;             /* [DV] their absolute values */
    double weight;               /* sum of weights */
    int8_t *q;                   /* [DV] codes of a row */
    float *scale;                /* [2][DV / 32] its d and m */
    double largest_d, largest_q; /* of quantized V in class q8 */
};

static void *allocate(int64_t n, size_t size) {
    void *const p = calloc((size_t)n + 1, size);
    if (p == NULL) abort();
    return p;
}

static int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

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
    const double slope = oracle_slope(a, view->head);
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

/* The logit of row r of a segment. Sets its bound too. */
static double row_logit(struct view *view, const struct varve_segment *segment, int64_t r,
                        double bias) {
    const struct varve_attention *const a = view->attention;
    const struct varve_format_traits *const format = varve_format_traits(segment->k_format);
    const bool q8 = format->quantized && a->arithmetic != VARVE_ARITHMETIC_EXACT;
    const double *const q = q8 ? view->coarse : view->exact;
    const char *const k = head_row(view, segment->k, r, segment->k_row_stride,
                                   segment->k_head_stride, segment->k_batch_stride);
    double score = 0, score_abs = 0, largest = 0;
    format->decode(k, a->head_dim_k, view->row);
    for (int32_t i = 0; i < a->head_dim_k; i++) {
        score += q[i] * (double)view->row[i];
        score_abs += fabs(q[i] * (double)view->row[i]);
        largest = fmax(largest, fmax(fabs(q[i]), fabs((double)view->row[i])));
    }
    const double scaled = score * a->scale;
    const double x = a->softcap != 0 ? a->softcap * tanh(scaled / a->softcap) : scaled;
    /* decoding itself rounds twice, which the q8 formula does not: 2 u more per term */
    double error = fabs(a->scale) * tol_dot(a->head_dim_k + 10, score_abs) +
                   tol_logit(fabs(scaled), a->softcap, fabs(bias));
    if (a->arithmetic == VARVE_ARITHMETIC_FAST && !format->quantized) {
        error += tol_fast_logit(a->head_dim_k, a->scale, score_abs, largest);
    }
    view->error = fmax(view->error, error);
    return x + bias;
}

static void find_logits(struct view *view) {
    view->max = view->io->sinks != NULL ? view->io->sinks[view->head] : -INFINITY;
    view->error = 0;
    double *logit = view->logit;
    for (int64_t s = 0; s < view->io->n_segment; s++) {
        const struct varve_segment *const segment = &view->io->segments[s];
        for (int64_t r = 0; r < segment->n_rows; r++, logit++) {
            const double bias = row_bias(view, segment, r);
            *logit = bias == -INFINITY ? bias : row_logit(view, segment, r, bias);
            if (!(*logit <= view->max)) view->max = *logit;
        }
    }
}

static void note_codes(struct view *view, const struct varve_format_traits *format, const char *v) {
    const int32_t dv = view->attention->head_dim_v, n_block = dv / VARVE_BLOCK;
    format->split(v, dv, view->q, view->scale, view->scale + n_block);
    for (int32_t i = 0; i < dv; i++) view->largest_q = fmax(view->largest_q, abs(view->q[i]));
    for (int32_t b = 0; b < n_block; b++) {
        view->largest_d = fmax(view->largest_d, fabs((double)view->scale[b]));
    }
}

static void add_value(struct view *view, const struct varve_segment *segment, int64_t r,
                      double weight) {
    const int32_t dv = view->attention->head_dim_v;
    const char *const v = head_row(view, segment->v, r, segment->v_row_stride,
                                   segment->v_head_stride, segment->v_batch_stride);
    const struct varve_format_traits *const format = varve_format_traits(segment->v_format);
    format->decode(v, dv, view->row);
    if (format->quantized && varve_format_traits(segment->k_format)->quantized &&
        view->attention->arithmetic != VARVE_ARITHMETIC_EXACT) {
        note_codes(view, format, v);
    }
    for (int32_t i = 0; i < dv; i++) {
        view->sum[i] += weight * (double)view->row[i];
        view->sum_abs[i] += weight * fabs((double)view->row[i]);
    }
    view->weight += weight;
}

static void sum_values(struct view *view) {
    const int32_t dv = view->attention->head_dim_v;
    memset(view->sum, 0, (size_t)dv * sizeof *view->sum);
    memset(view->sum_abs, 0, (size_t)dv * sizeof *view->sum_abs);
    view->largest_d = view->largest_q = 0;
    view->weight = view->io->sinks != NULL ? exp(view->io->sinks[view->head] - view->max) : 0;
    const double *logit = view->logit;
    for (int64_t s = 0; s < view->io->n_segment; s++) {
        const struct varve_segment *const segment = &view->io->segments[s];
        for (int64_t r = 0; r < segment->n_rows; r++, logit++) {
            if (*logit == -INFINITY) continue;
            add_value(view, segment, r, exp(*logit - view->max));
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
    int64_t n_row = 0;
    for (int64_t s = 0; s < io->n_segment; s++) n_row += io->segments[s].n_rows;
    struct view view = {.attention = attention, .io = io};
    view.exact = allocate(dk, sizeof *view.exact);
    view.coarse = allocate(dk, sizeof *view.coarse);
    view.row = allocate(max_i64(dk, dv), sizeof *view.row);
    view.logit = allocate(n_row, sizeof *view.logit);
    view.sum = allocate(dv, sizeof *view.sum);
    view.sum_abs = allocate(dv, sizeof *view.sum_abs);
    view.q = allocate(dv, sizeof *view.q);
    view.scale = allocate(2 * (dv / VARVE_BLOCK), sizeof *view.scale);
    int64_t at = 0;
    for (view.batch = 0; view.batch < attention->n_batch; view.batch++) {
        for (view.query = 0; view.query < attention->n_query; view.query++) {
            for (view.head = 0; view.head < attention->n_head; view.head++, at++) {
                run_view(&view, output != NULL ? output + at * dv : NULL,
                         lse != NULL ? lse + at : NULL,
                         output_bound != NULL ? output_bound + at * dv : NULL,
                         lse_bound != NULL ? lse_bound + at : NULL,
                         rounding != NULL ? rounding + at : NULL, n_row);
            }
        }
    }
    free(view.exact);
    free(view.coarse);
    free(view.row);
    free(view.logit);
    free(view.sum);
    free(view.sum_abs);
    free(view.q);
    free(view.scale);
}

void oracle_attention(const struct varve_attention *attention, const struct varve_io *io,
                      double *output, double *lse) {
    oracle_attention_bounds(attention, io, output, lse, NULL, NULL, NULL);
}
