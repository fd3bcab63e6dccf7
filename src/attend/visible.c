#include "attend/visible.h"

#include <math.h>

#include "base/fp16.h"
#include "base/mask.h"

struct varve_view varve_view_of(const struct varve_plan *plan, const struct varve_io *io,
                                int64_t batch, int64_t query0, int64_t n_query, int32_t head0,
                                int32_t n_head) {
    const struct varve_attention *a = &plan->attention;
    struct varve_view view = {plan, io->mask, batch, query0, n_query, head0, 1, 0};
    bool limited = a->causal || a->window > 0 || varve_view_alibi(&view, NULL);
    for (int64_t i = 0; i < io->n_segment; i++) {
        const struct varve_mask *mask = varve_view_mask(&view, &io->segments[i]);
        limited |= mask != NULL;
        if (mask != NULL && mask->n_head > 1) view.n_line_head = n_head;
    }
    view.n_line = limited ? n_query * view.n_line_head : 0;
    return view;
}

/* The row of a mask that belongs to a line; NULL without a mask. */
static const uint16_t *mask_row(const struct varve_view *view, const struct varve_mask *mask,
                                int64_t line) {
    if (mask == NULL) return NULL;
    const int64_t query = view->query0 + line / view->n_line_head;
    const int64_t head = (view->head0 + line % view->n_line_head) % mask->n_head;
    return (const uint16_t *)(const void *)((const char *)mask->data +
                                            view->batch % mask->n_batch * mask->batch_stride +
                                            head * mask->head_stride + query * mask->row_stride);
}

/* Position limits of a line as bits. */
static uint64_t position_bits(const struct varve_view *view, int64_t line, int64_t pos, int32_t n) {
    const struct varve_attention *a = &view->plan->attention;
    const int64_t query_pos = a->query_pos + view->query0 + line / view->n_line_head;
    uint64_t bits = varve_low_bits(n);
    if (a->causal) bits &= varve_low_bits(query_pos - pos + 1);
    if (a->window > 0) bits &= ~varve_low_bits(query_pos - a->window + 1 - pos);
    return bits;
}

/* Bits of the entries that are not -inf; clears *zero when one of them is not 0. The loop
 * vectorises and settles the most common case: all visible without bias. */
static uint64_t mask_bits(const uint16_t *row, int32_t n, bool *zero) {
    uint16_t any = 0;
    for (int32_t j = 0; j < n; j++) any |= row[j];
    if ((any & 0x7FFFu) == 0) return varve_low_bits(n);
    const uint64_t bits = varve_mask_bits(row, n);
    if (bits == 0) return 0;
    uint16_t seen = 0;
    for (int32_t j = 0; j < n; j++) seen |= bits >> j & 1 ? row[j] : 0;
    if ((seen & 0x7FFFu) != 0) *zero = false;
    return bits;
}

/* Looks at n rows of a segment from `row` on. */
static void scan(const struct varve_view *view, struct varve_spans *spans,
                 const struct varve_segment *segment, int64_t row, int32_t n) {
    const struct varve_attention *a = &view->plan->attention;
    const struct varve_mask *mask = varve_view_mask(view, segment);
    const bool alibi = varve_view_alibi(view, mask);
    const bool by_position = a->causal || a->window > 0;
    spans->segment = segment;
    spans->row = row;
    spans->n = n;
    for (int32_t j = 0; j < n; j += 64) {
        spans->span[j / 64] = (struct varve_span){0, varve_low_bits(n - j), !alibi};
    }
    for (int64_t line = 0; line < view->n_line; line++) {
        const uint16_t *const values = mask_row(view, mask, line);
        for (int32_t j = 0; j < n; j += 64) {
            struct varve_span *const span = &spans->span[j / 64];
            const int32_t n_here = n - j < 64 ? n - j : 64;
            uint64_t bits = varve_low_bits(n_here);
            if (values != NULL) {
                bits = mask_bits(values + segment->mask_column + row + j, n_here, &span->plain);
            }
            if (by_position) bits &= position_bits(view, line, segment->pos + row + j, n_here);
            span->any |= bits;
            span->all &= bits;
        }
    }
}

struct varve_span varve_view_span(const struct varve_view *view, struct varve_spans *spans,
                                  const struct varve_segment *segment, int64_t row, int32_t n,
                                  int64_t n_ahead) {
    const uint64_t wanted = varve_low_bits(n);
    if (view->n_line == 0) return (struct varve_span){wanted, wanted, true};
    if (segment != spans->segment || row < spans->row || row + n > spans->row + spans->n) {
        const int64_t most = 64 * VARVE_SPANS;
        scan(view, spans, segment, row, (int32_t)(n_ahead < most ? n_ahead : most));
    }
    const int32_t at = (int32_t)(row - spans->row), shift = at % 64;
    const struct varve_span *const low = &spans->span[at / 64];
    struct varve_span span = {low->any >> shift, low->all >> shift, low->plain};
    if (shift + n > 64) {
        span.any |= low[1].any << (64 - shift);
        span.all |= low[1].all << (64 - shift);
        span.plain &= low[1].plain;
    }
    span.any &= wanted;
    span.all &= wanted;
    return span;
}

/* Mask values of all lines for a block whose columns are consecutive: the F16 unpack kernel does
 * just that. */
static void copy_mask(const struct varve_view *view, const struct varve_mask *mask,
                      const struct varve_block *block, float *bias) {
    const uint8_t *rows[VARVE_TILE_ROWS];
    for (int64_t line = 0; line < view->n_line; line += VARVE_TILE_ROWS) {
        const int64_t left = view->n_line - line;
        const int32_t n = left < VARVE_TILE_ROWS ? (int32_t)left : VARVE_TILE_ROWS;
        for (int32_t i = 0; i < n; i++) {
            rows[i] = (const uint8_t *)(mask_row(view, mask, line + i) + block->column[0]);
        }
        const struct varve_unpackv_args args = {.format = varve_format_traits(VARVE_FORMAT_F16),
                                                .head_dim = block->n,
                                                .ld = VARVE_TILE_ROWS,
                                                .n_row = n,
                                                .rows = rows,
                                                .v = bias + line * VARVE_TILE_ROWS};
        view->plan->context->kernels.unpackv[VARVE_FORMAT_F16].run(&args);
    }
}

/* Mask values of one line, columns anywhere. */
static void gather_mask(const uint16_t *mask, const struct varve_block *block, float *bias) {
    for (int32_t j = 0; j < VARVE_TILE_ROWS; j++) {
        bias[j] = j < block->n && mask != NULL ? varve_f16_to_f32(mask[block->column[j]]) : 0;
    }
}

/* Position limits and, without a mask tensor, ALiBi's distance. */
static void add_positions(const struct varve_view *view, int64_t line,
                          const struct varve_block *block, float *bias) {
    const struct varve_attention *a = &view->plan->attention;
    const bool alibi = varve_view_alibi(view, varve_view_mask(view, block->segment));
    const int64_t query_pos = a->query_pos + view->query0 + line / view->n_line_head;
    for (int32_t j = 0; j < block->n; j++) {
        const int64_t distance = query_pos - block->pos[j];
        if (alibi) bias[j] = -fabsf((float)distance);
        const bool hidden = (a->causal && distance < 0) || (a->window > 0 && distance >= a->window);
        if (hidden) bias[j] = -INFINITY;
    }
}

/* Every column is looked at: segments may stand in any order, so the ends prove nothing. */
static bool columns_consecutive(const struct varve_block *block) {
    int32_t j = 1;
    while (j < block->n && block->column[j] == block->column[0] + j) j++;
    return j == block->n;
}

void varve_view_bias(const struct varve_view *view, const struct varve_block *block, float *bias) {
    const struct varve_attention *a = &view->plan->attention;
    const struct varve_mask *mask = varve_view_mask(view, block->segment);
    const bool copied = mask != NULL && columns_consecutive(block);
    if (copied) copy_mask(view, mask, block, bias);
    const bool by_position = a->causal || a->window > 0 || a->max_bias > 0;
    for (int64_t line = 0; line < view->n_line; line++) {
        float *const at = bias + line * VARVE_TILE_ROWS;
        if (!copied) gather_mask(mask_row(view, mask, line), block, at);
        if (by_position) add_positions(view, line, block, at);
    }
}
