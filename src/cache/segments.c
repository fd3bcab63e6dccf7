/* From bits to segments. Rows that all queries read in the same way go into segments under the
 * caller's mask. Where queries differ (the window of an early query ends before that of a late
 * one), a row stands in one segment for each way of reading it, under a mask that shows it only to
 * the queries that read it in this way. Rows come in an order that does not depend on where twins
 * lie, so that neither do the sums over them. */
#include <string.h>

#include "base/checked.h"
#include "base/fp16.h"
#include "cache/view.h"
#include "format/format.h"
#include "kernel/context.h"

/* How a row is read: the sum of what is hot. */
enum { READ_COLD = 0, READ_K_HOT = 1, READ_V_HOT = 2, N_READ = 4 };

/* Consecutive rows of one run that some query reads hot. */
struct stretch {
    int64_t row;
    int32_t n, run, bit;
};

/* Rows with the same runs on both sides; run -1: none. */
struct piece {
    int64_t row, n;
    int32_t k_run, k_bit, v_run, v_bit;
};

/* A piece that is read in the same ways throughout: bit `how` of ways. */
struct part {
    struct piece piece;
    uint32_t ways;
};

/* Where segments go. Used twice: without memory, to count, and again to write. */
struct list {
    struct varve_segment *segment; /* NULL: count only */
    int64_t n_segment, n_row;
    struct varve_segment last;
    const struct varve_mask *mask; /* the view's own */
    uint16_t *values;              /* its values; NULL: count only */
    int64_t n_column, row_columns; /* columns in use; from row to row */
};

/* ---- stretches ---------------------------------------------------------------------------- */

/* Stretches of a side in order of the rows; NULL counts them. */
static int32_t find_stretches(const struct varve_look *look, const struct varve_side *side,
                              struct stretch *out) {
    int32_t n_found = 0;
    for (int32_t r = 0; side->twins != NULL && r < side->n_run; r++) {
        uint64_t any = 0;
        for (int64_t q = 0; q < look->n_query; q++) any |= side->hot[q * side->n_run + r];
        while (any != 0) {
            const int32_t bit = __builtin_ctzll(any);
            const uint64_t rest = ~(any >> bit); /* zero for 64 ones */
            const int32_t n = rest != 0 ? __builtin_ctzll(rest) : 64;
            any &= ~(varve_low_bits(n) << bit);
            const int64_t row = side->twins->run[r].cell + bit - side->cell0;
            int32_t at = n_found++;
            if (out == NULL) continue;
            for (; at > 0 && out[at - 1].row > row; at--) out[at] = out[at - 1];
            out[at] = (struct stretch){row, n, r, bit};
        }
    }
    return n_found;
}

/* ---- how queries read the rows of a piece ------------------------------------------------- */

static uint64_t hot_bits(const struct varve_side *side, int32_t run, int32_t bit, int64_t q) {
    return run < 0 ? 0 : side->hot[q * side->n_run + run] >> bit;
}

/* Rows that query q reads in this way. The piece has at most 64 rows. */
static uint64_t rows_read(const struct varve_look *look, const struct piece *piece, int64_t q,
                          int32_t how) {
    const uint64_t k = hot_bits(&look->k, piece->k_run, piece->k_bit, q);
    const uint64_t v = hot_bits(&look->v, piece->v_run, piece->v_bit, q);
    const uint64_t low = varve_low_bits(piece->n);
    switch (how) {
    case READ_K_HOT | READ_V_HOT: return k & v & low;
    case READ_K_HOT: return k & ~v & low;
    case READ_V_HOT: return v & ~k & low;
    default: break;
    }
    const struct varve_side *const side = piece->k_run >= 0 ? &look->k : &look->v;
    const int32_t run = piece->k_run >= 0 ? piece->k_run : piece->v_run;
    const int32_t bit = piece->k_run >= 0 ? piece->k_bit : piece->v_bit;
    return side->seen[q * side->n_run + run] >> bit & ~k & ~v & low;
}

/* ---- segments ----------------------------------------------------------------------------- */

static int64_t hot_head_stride(const struct varve_side *side) {
    return side->n_head_value * (int64_t)sizeof(uint16_t);
}

static const char *hot_row(const struct varve_side *side, int32_t run, int32_t bit) {
    return varve_run_row(side->twins, &side->twins->run[run], bit) +
           (size_t)side->value0 * sizeof(uint16_t);
}

/* A piece read in one way, under the caller's mask. */
static struct varve_segment segment_of(const struct varve_look *look, const struct piece *piece,
                                       int32_t how) {
    struct varve_segment s = look->node->cold;
    const int64_t row = piece->row;
    s.k = (const char *)s.k + row * s.k_row_stride;
    s.v = (const char *)s.v + row * s.v_row_stride;
    s.n_rows = piece->n;
    s.mask_column += row;
    s.mask = look->node->mask;
    s.pos += row;
    s.k_batch_stride = 0;
    s.v_batch_stride = 0;
    if ((how & READ_K_HOT) != 0) {
        s.k_format = VARVE_FORMAT_F16;
        s.k = hot_row(&look->k, piece->k_run, piece->k_bit);
        s.k_row_stride = (int64_t)look->k.twins->row_bytes;
        s.k_head_stride = hot_head_stride(&look->k);
    }
    if ((how & READ_V_HOT) != 0) {
        s.v_format = VARVE_FORMAT_F16;
        s.v = hot_row(&look->v, piece->v_run, piece->v_bit);
        s.v_row_stride = (int64_t)look->v.twins->row_bytes;
        s.v_head_stride = hot_head_stride(&look->v);
    }
    return s;
}

static bool continues(const struct varve_segment *a, const struct varve_segment *b) {
    return a->k_format == b->k_format && a->v_format == b->v_format && a->mask == b->mask &&
           a->mask_column + a->n_rows == b->mask_column && a->k_row_stride == b->k_row_stride &&
           a->v_row_stride == b->v_row_stride &&
           (const char *)a->k + a->n_rows * a->k_row_stride == (const char *)b->k &&
           (const char *)a->v + a->n_rows * a->v_row_stride == (const char *)b->v;
}

static void add(struct list *list, const struct varve_segment *segment) {
    list->n_row += segment->n_rows;
    if (list->n_segment > 0 && continues(&list->last, segment)) {
        list->last.n_rows += segment->n_rows;
    } else {
        list->last = *segment;
        list->n_segment++;
    }
    if (list->segment != NULL) list->segment[list->n_segment - 1] = list->last;
}

/* Mask values of a piece for the queries that read it in this way; -inf for others. */
static void fill_mask(const struct varve_look *look, const struct piece *piece, int32_t how,
                      const struct list *list) {
    for (int64_t q = 0; q < look->n_query; q++) {
        const uint64_t rows = rows_read(look, piece, q, how);
        const uint16_t *const mask = varve_look_mask(look, q);
        uint16_t *const to = list->values + q * list->row_columns + list->n_column;
        for (int64_t i = 0; i < piece->n; i++) {
            const uint16_t value = mask != NULL ? mask[piece->row + i] : 0;
            to[i] = rows >> i & 1 ? value : VARVE_F16_NEG_INF;
        }
    }
}

/* A piece for those queries that read it in this way. */
static void add_apart(const struct varve_look *look, const struct piece *piece, int32_t how,
                      struct list *list) {
    struct varve_segment segment = segment_of(look, piece, how);
    segment.mask = list->mask;
    segment.mask_column = list->n_column;
    if (list->values != NULL) fill_mask(look, piece, how, list);
    list->n_column += piece->n;
    add(list, &segment);
}

static uint32_t ways_of(const uint64_t *any, int64_t row) {
    uint32_t ways = 0;
    for (int32_t how = 0; how < N_READ; how++) ways |= (uint32_t)(any[how] >> row & 1) << how;
    return ways;
}

/* How many rows from `first` on are read in the same ways. */
static int64_t n_alike(const uint64_t *any, int64_t first, int64_t n) {
    int64_t n_same = n - first;
    for (int32_t how = 0; how < N_READ; how++) {
        const uint64_t rows = any[how] >> first;
        const uint64_t others = rows & 1 ? ~rows : rows;
        if (others != 0 && __builtin_ctzll(others) < n_same) n_same = __builtin_ctzll(others);
    }
    return n_same;
}

/* Cuts a piece where the ways of reading it change. Returns the number of parts; without `out`,
 * counts them. */
static int64_t cut_piece(const struct varve_look *look, const struct piece *piece,
                         struct part *out) {
    if (piece->k_run < 0 && piece->v_run < 0) {
        if (out != NULL) *out = (struct part){*piece, 1u << READ_COLD};
        return 1;
    }
    uint64_t any[N_READ] = {0};
    for (int64_t q = 0; q < look->n_query; q++) {
        for (int32_t how = 0; how < N_READ; how++) any[how] |= rows_read(look, piece, q, how);
    }
    int64_t n_part = 0;
    for (int64_t first = 0, n; first < piece->n; first += n) {
        n = n_alike(any, first, piece->n);
        if (out != NULL) {
            out[n_part] = (struct part){*piece, ways_of(any, first)};
            out[n_part].piece.row += first;
            out[n_part].piece.n = n;
            out[n_part].piece.k_bit += (int32_t)first;
            out[n_part].piece.v_bit += (int32_t)first;
        }
        n_part++;
    }
    return n_part;
}

/* The stretch that holds row `at`, and the end of what is alike from there on. */
static const struct stretch *at_row(const struct stretch **next, const struct stretch *end,
                                    int64_t at, int64_t *until) {
    while (*next < end && (*next)->row + (*next)->n <= at) ++*next;
    if (*next == end) return NULL;
    const bool inside = (*next)->row <= at;
    const int64_t border = inside ? (*next)->row + (*next)->n : (*next)->row;
    if (border < *until) *until = border;
    return inside ? *next : NULL;
}

/* All rows of the node in order, cut where the runs of one side begin or end and where the ways of
 * reading change. Returns the number of parts; without `out`, counts them. */
static int64_t cut_all(const struct varve_look *look, const struct stretch *k, int32_t n_k,
                       const struct stretch *v, int32_t n_v, struct part *out) {
    const struct stretch *const k_end = k + n_k, *const v_end = v + n_v;
    int64_t n_part = 0;
    for (int64_t row = 0; row < look->n_row;) {
        int64_t until = look->n_row;
        const struct stretch *const in_k = at_row(&k, k_end, row, &until);
        const struct stretch *const in_v = at_row(&v, v_end, row, &until);
        struct piece piece = {row, until - row, -1, 0, -1, 0};
        if (in_k != NULL) {
            piece.k_run = in_k->run;
            piece.k_bit = in_k->bit + (int32_t)(row - in_k->row);
        }
        if (in_v != NULL) {
            piece.v_run = in_v->run;
            piece.v_bit = in_v->bit + (int32_t)(row - in_v->row);
        }
        n_part += cut_piece(look, &piece, out != NULL ? out + n_part : NULL);
        row = until;
    }
    return n_part;
}

/* Parts in order. Consecutive ones that are read in the same several ways go together, way by way:
 * where one run ends and the next begins must not show. */
static void list_all(const struct varve_look *look, const struct part *part, int64_t n_part,
                     struct list *list) {
    for (int64_t i = 0, end; i < n_part; i = end) {
        const uint32_t ways = part[i].ways;
        end = i + 1;
        if ((ways & (ways - 1)) == 0) {
            const struct varve_segment segment =
                segment_of(look, &part[i].piece, __builtin_ctz(ways));
            add(list, &segment);
            continue;
        }
        while (end < n_part && part[end].ways == ways) end++;
        for (int32_t how = 0; how < N_READ; how++) {
            for (int64_t j = i; j < end && (ways >> how & 1) != 0; j++) {
                add_apart(look, &part[j].piece, how, list);
            }
        }
    }
}

/* ---- memory ------------------------------------------------------------------------------- */

/* The mask of a view comes out of the staging budget. Contents are not kept. */
static bool reserve_mask(struct varve_hot *hot, struct varve_hot_view *view, size_t bytes) {
    void **const block = &view->block[VARVE_VIEW_MASK];
    size_t *const have = &view->block_bytes[VARVE_VIEW_MASK];
    if (bytes <= *have) return true;
    const struct varve_host *host = &hot->context->host;
    if (*block != NULL) {
        varve_host_release(host, *block, *have);
        varve_hot_give(hot, &hot->bytes.staging, *have);
        *block = NULL;
        *have = 0;
    }
    if (!varve_hot_take(hot, &hot->bytes.staging, bytes)) return false;
    *block = varve_host_allocate(host, bytes);
    if (*block == NULL) {
        varve_hot_give(hot, &hot->bytes.staging, bytes);
        return false;
    }
    *have = bytes;
    return true;
}

static int64_t mask_row_columns(int64_t n_column) {
    return (n_column + 31) / 32 * 32; /* whole cache lines */
}

struct varve_size varve_look_mask_bytes(int64_t n_query, int64_t n_column) {
    return varve_size_mul(varve_size_of((size_t)n_query),
                          (size_t)mask_row_columns(n_column) * sizeof(uint16_t));
}

static bool prepare(const struct varve_look *look, struct varve_hot_view *view, struct list *list) {
    const int64_t row_columns = mask_row_columns(list->n_column);
    const struct varve_size bytes = varve_look_mask_bytes(look->n_query, list->n_column);
    if (bytes.overflow || !reserve_mask(look->hot, view, bytes.value) ||
        !varve_hot_renew(look->hot, &view->block[VARVE_VIEW_SEGMENTS],
                         &view->block_bytes[VARVE_VIEW_SEGMENTS],
                         (size_t)list->n_segment * sizeof(struct varve_segment))) {
        return false;
    }
    view->mask = (struct varve_mask){view->block[VARVE_VIEW_MASK],
                                     row_columns,
                                     look->n_query,
                                     1,
                                     1,
                                     row_columns * (int64_t)sizeof(uint16_t),
                                     0,
                                     0};
    *list = (struct list){.segment = view->block[VARVE_VIEW_SEGMENTS],
                          .mask = &view->mask,
                          .values = view->block[VARVE_VIEW_MASK],
                          .row_columns = row_columns};
    return true;
}

struct varve_size varve_look_scratch(int64_t n_live) {
    /* a stretch and a part for each row with a twin, a part for each gap between them */
    const struct varve_size n = varve_size_of((size_t)n_live);
    const struct varve_size gaps = varve_size_add(varve_size_mul(n, 2), 1);
    return varve_size_sum(varve_size_mul(n, sizeof(struct stretch)),
                          varve_size_mul(gaps, sizeof(struct part)));
}

struct varve_size varve_look_bytes(int64_t n_live, int64_t n_query) {
    const struct varve_size n = varve_size_of((size_t)n_live);
    const struct varve_size n_line = varve_size_add(varve_size_of((size_t)n_query), 1);
    const struct varve_size words = varve_size_add(varve_size_mul(n, 2), 1);
    const struct varve_size work = varve_size_product(n_line, varve_size_mul(words, 8));
    /* each way of reading each row with a twin, and the gaps */
    const struct varve_size n_segment = varve_size_add(varve_size_mul(n, N_READ + 1), 1);
    const struct varve_size list = varve_size_mul(n_segment, sizeof(struct varve_segment));
    const struct varve_size columns = varve_size_round(varve_size_mul(n, N_READ), 32);
    const struct varve_size mask = varve_size_product(varve_size_of((size_t)n_query),
                                                      varve_size_mul(columns, sizeof(uint16_t)));
    return varve_size_sum(varve_size_sum(varve_hot_grown(work), varve_hot_grown(list)), mask);
}

enum varve_status varve_look_segments(const struct varve_look *look, struct varve_hot_view *view) {
    struct varve_hot *const hot = look->hot;
    const int32_t n_k = find_stretches(look, &look->k, NULL);
    const int32_t n_v = find_stretches(look, &look->v, NULL);
    const size_t stretch_bytes = (size_t)(n_k + n_v) * sizeof(struct stretch);
    if (!varve_hot_grow(hot, &hot->scratch, &hot->scratch_bytes, stretch_bytes)) {
        return VARVE_ERROR_MEMORY;
    }
    struct stretch *k = hot->scratch;
    if (n_k > 0) (void)find_stretches(look, &look->k, k);
    struct stretch *v = n_v > 0 ? k + n_k : NULL;
    if (n_v > 0) (void)find_stretches(look, &look->v, v);
    const int64_t n_part = cut_all(look, k, n_k, v, n_v, NULL);
    /* parts come behind the stretches, which move with the memory */
    if (!varve_hot_grow(hot, &hot->scratch, &hot->scratch_bytes,
                        stretch_bytes + (size_t)n_part * sizeof(struct part))) {
        return VARVE_ERROR_MEMORY;
    }
    k = hot->scratch;
    v = n_v > 0 ? k + n_k : NULL;
    struct part *const part = (struct part *)(void *)((char *)hot->scratch + stretch_bytes);
    if (n_part > 0) (void)cut_all(look, k, n_k, v, n_v, part);
    struct list list = {.mask = &view->mask};
    list_all(look, part, n_part, &list);
    if (!prepare(look, view, &list)) return VARVE_ERROR_MEMORY;
    list_all(look, part, n_part, &list);
    view->segments = list.segment;
    view->n_segment = list.n_segment;
    view->n_row = list.n_row;
    return VARVE_OK;
}
