#include "kernel/foldq_vnni.h"

/* Pairs of rows: a lane holds the codes of one column of two rows, 16 bits each, and a weight is a
 * pair of 16 bits for every lane, so one instruction does what two multiply-adds do in F32. Tiles
 * have at most so many sums in registers, two per query and block. The weights of several tiles are
 * found together: their sums, which a bias of the codes needs, are reduced 16 at a time. */
enum { FOLDQ_SUMS = 16, FOLDQ_WEIGHTS = 16, FOLDQ_BLOCKS = 4 };

/* What the weights of up to FOLDQ_QUERIES queries and FOLDQ_BLOCKS blocks are made of. */
struct scales {
    struct units units;
    int16_t unit[FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float d[FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float m[FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float step[FOLDQ_BLOCKS]; /* of queries whose largest p is 1 */
};

/* Weights of a few queries and up to `most` blocks; element (a, b) at a * most + b. */
struct weights {
    int16_t w[FOLDQ_WEIGHTS][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float step[FOLDQ_WEIGHTS] __attribute__((aligned(64)));
    float min[FOLDQ_WEIGHTS]; /* sum of p m */
    /* what the bias of the codes adds to each sum, where they have one */
    int32_t bias[FOLDQ_WEIGHTS] __attribute__((aligned(64)));
};

/* ---- weights ------------------------------------------------------------------------------ */

/* The halves at `offset` of each row and those that end four bytes after `second`, as F32 in x[0]
 * and x[1]; 0 past the last row. Both go through memory at once: stores take most of the time. */
static void load_two(const struct varve_fold_args *args, int64_t offset, int64_t second,
                     float (*x)[VARVE_TILE_ROWS]) {
    uint32_t both[VARVE_TILE_ROWS] __attribute__((aligned(64)));
    for (int32_t r = 0; r < args->n_row; r++) {
        uint16_t half;
        uint32_t next; /* with what precedes it */
        memcpy(&half, args->rows[r] + offset, sizeof half);
        memcpy(&next, args->rows[r] + second, sizeof next);
        both[r] = half | (next & 0xFFFF0000u);
        __asm__("" : "+m"(both[r]));
    }
    for (int32_t r = args->n_row; r < VARVE_TILE_ROWS; r++) both[r] = 0;
    uint16_t apart[2 * VEC_LANES] __attribute__((aligned(64)));
    VEC_UNROLL
    for (int32_t i = 0; i < 2 * VEC_LANES; i++) {
        apart[i] = (uint16_t)(i % VEC_LANES * 2 + i / VEC_LANES);
    }
    const __m512i order = _mm512_load_si512(apart);
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        const __m512i y = _mm512_permutexvar_epi16(order, _mm512_load_si512(both + v * VEC_LANES));
        const __m256i low = _mm512_castsi512_si256(y), high = _mm512_extracti64x4_epi64(y, 1);
        _mm512_store_ps(x[0] + v * VEC_LANES, _mm512_cvtph_ps(low));
        _mm512_store_ps(x[1] + v * VEC_LANES, _mm512_cvtph_ps(high));
    }
}

/* The halves at `offset` of each row, a block further for each block. */
static void load_halves(const struct varve_fold_args *args, int64_t offset, int64_t step,
                        int32_t n_block, float (*x)[VARVE_TILE_ROWS]) {
    for (int32_t b = 0; b < n_block; b += 2) {
        const int64_t first = offset + b * step; /* of a single one, x[b + 1] is not used */
        load_two(args, first, b + 1 < n_block ? first + step - 2 : first, x + b);
    }
}

/* What the bias of the codes adds. */
VEC_INLINE void store_bias(const enum varve_format f, struct weights *weights,
                           const __m512i sum[FOLDQ_WEIGHTS]) {
    __m512i all[4];
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) all[i] = vec_reduce_4(sum + 4 * i, VEC_ADD_I32);
    const __m512i bias = _mm512_set1_epi32(-quant_signed_bias(f));
    _mm512_store_si512(weights->bias,
                       _mm512_mullo_epi32(vec_reduce_quarters(all, VEC_ADD_I32), bias));
}

/* nq queries from a0 on, whose units begin at u0, and n_block blocks from b0 of the scales on. */
VEC_INLINE void load_weights(const struct varve_fold_args *args, const enum varve_format f,
                             const struct scales *scales, int32_t a0, int32_t u0, int32_t b0,
                             const int32_t nq, int32_t n_block, const int32_t most,
                             struct weights *weights) {
    const bool biased = quant_signed_bias(f) != 0;
    __m512i sum[FOLDQ_WEIGHTS];
    VEC_UNROLL
    for (int32_t i = 0; i < FOLDQ_WEIGHTS && biased; i++) sum[i] = _mm512_setzero_si512();
    VEC_UNROLL
    for (int32_t b = 0; b < most; b++) {
        if (b == n_block) break;
        __m512i d[2];
        load_unit(scales->unit[b0 + b], d);
        const float step = scales->step[b0 + b];
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const int32_t i = a * most + b;
            const __m512i lanes = multiply_units(scales->units.p[u0 + a], d, weights->w[i]);
            if (biased) sum[i] = lanes;
            weights->step[i] = scales->units.largest[u0 + a] * step;
        }
        for (int32_t a = 0; a < nq && quant_has_min(f); a++) {
            __mmask16 formed[FOLDQ_VECTORS];
            valid_rows(args->n_row, formed);
            weights->min[a * most + b] = sum_of_minima(
                args->p + (int64_t)(a0 + a) * VARVE_TILE_ROWS, scales->m[b0 + b], formed);
        }
    }
    if (biased) store_bias(f, weights, sum);
}

/* The same where p that are 0 form no term: each query has rows and a largest d of its own. One
 * function for all formats and shapes. */
static void load_sparse_weights(const struct varve_fold_args *args, const enum varve_format f,
                                const struct scales *scales, int32_t a0, int32_t u0, int32_t b0,
                                int32_t nq, int32_t n_block, int32_t most,
                                struct weights *weights) {
    int16_t unit[VARVE_TILE_ROWS] __attribute__((aligned(64)));
    __mmask16 formed[FOLDQ_VECTORS];
    __m512i sum[FOLDQ_WEIGHTS];
    for (int32_t i = 0; i < FOLDQ_WEIGHTS; i++) sum[i] = _mm512_setzero_si512();
    for (int32_t a = 0; a < nq; a++) {
        const float *const p = args->p + (int64_t)(a0 + a) * VARVE_TILE_ROWS;
        formed_rows(p, args->n_row, true, formed);
        for (int32_t b = 0; b < n_block; b++) {
            const int32_t i = a * most + b;
            const float step = unit_steps(scales->d[b0 + b], formed, unit);
            __m512i d[2];
            load_unit(unit, d);
            sum[i] = multiply_units(scales->units.p[u0 + a], d, weights->w[i]);
            weights->step[i] = scales->units.largest[u0 + a] * step;
            if (quant_has_min(f)) weights->min[i] = sum_of_minima(p, scales->m[b0 + b], formed);
        }
    }
    store_bias(f, weights, sum);
}

/* The part that all queries share. */
static void load_scales(const struct varve_fold_args *args, int64_t offset, int64_t block_bytes,
                        int32_t n_block, bool has_min, struct scales *scales) {
    load_halves(args, offset, block_bytes, n_block, scales->d);
    if (has_min) load_halves(args, offset + 2, block_bytes, n_block, scales->m);
    if (!args->sparse) load_steps(scales->d[0], args->n_row, n_block, scales->unit, scales->step);
}

/* sum += pairs by a pair of weights in memory. As an intrinsic, GCC copies the sum first. */
VEC_INLINE __m512i add_pairs(__m512i sum, __m512i pairs, const int16_t *w) {
    __asm__("vpdpwssd %2%{1to16%}, %1, %0"
            : "+v"(sum)
            : "v"(pairs), "m"(*(const int32_t *)(const void *)w));
    return sum;
}

/* ---- tiles -------------------------------------------------------------------------------- */

/* n_block blocks from column `from` on of nq queries from a0 on, whose weights begin at element
 * `first`. */
VEC_INLINE void fold_tile(const struct varve_fold_args *args, const enum varve_format f, int32_t a0,
                          int32_t from, const struct weights *weights, int32_t first,
                          const int32_t nq, const int32_t most, const int32_t n_block,
                          struct vec_ahead *ahead) {
    const int64_t offset = quant_row_bytes(f, from);
    __m512i sum[FOLDQ_SUMS];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * n_block * 2; i++) sum[i] = _mm512_setzero_si512();
    const int16_t *const w0 = weights->w[first];
    for (int32_t r = 0; r < args->n_row; r += 2) {
        vec_ahead_step(ahead);
        const uint8_t *row0 = args->rows[r] + offset;
        const uint8_t *row1 = args->rows[vec_min_i32(r + 1, args->n_row - 1)] + offset;
        __asm__("" : "+r"(row0), "+r"(row1)); /* one address each, not a sum per block */
        VEC_UNROLL
        for (int32_t b = 0; b < n_block; b++) {
            __m512i x[2];
            load_pairs(f, row0 + b * quant_bytes(f), row1 + b * quant_bytes(f), x);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const int32_t i = a * n_block + b;
                const int16_t *const w = w0 + (a * most + b) * VARVE_TILE_ROWS + r;
                sum[2 * i] = add_pairs(sum[2 * i], x[0], w);
                sum[2 * i + 1] = add_pairs(sum[2 * i + 1], x[1], w);
            }
        }
    }
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const float *const alpha = args->alpha + a0;
    const int64_t ld = args->ld;
    float *o = args->o + (int64_t)a0 * ld + from;
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++, o += ld) {
        const __m512 kept = _mm512_set1_ps(alpha[a]);
        VEC_UNROLL
        for (int32_t b = 0; b < n_block; b++) {
            const int32_t i = 2 * (a * n_block + b), at = first + a * most + b;
            __m512i x0 = sum[i], x1 = sum[i + 1];
            if (f == VARVE_FORMAT_Q8_0) {
                x0 = _mm512_permutex2var_epi32(sum[i], low, sum[i + 1]);
                x1 = _mm512_permutex2var_epi32(sum[i], high, sum[i + 1]);
            }
            if (quant_signed_bias(f) != 0) {
                const __m512i bias = _mm512_set1_epi32(weights->bias[at]);
                x0 = _mm512_add_epi32(x0, bias);
                x1 = _mm512_add_epi32(x1, bias);
            }
            const __m512 step = _mm512_set1_ps(weights->step[at]);
            const __m512 min = quant_has_min(f) ? _mm512_set1_ps(weights->min[at]) : step;
            store_sum(o + b * VARVE_BLOCK, kept, step, x0, quant_has_min(f), min);
            store_sum(o + b * VARVE_BLOCK + VEC_LANES, kept, step, x1, quant_has_min(f), min);
        }
    }
}

/* nq queries from a0 on, whose units begin at u0, and n blocks from column c on: weights of up to
 * `most` blocks at once, tiles of n_block. */
VEC_INLINE void fold_queries(const struct varve_fold_args *args, const enum varve_format f,
                             const struct scales *scales, int32_t a0, int32_t u0, int32_t c,
                             int32_t n, const int32_t nq, const int32_t most, const int32_t n_block,
                             struct vec_ahead *ahead) {
    struct weights weights;
    for (int32_t b0 = 0; b0 < n; b0 += most) {
        const int32_t from = c + b0 * VARVE_BLOCK;
        const int32_t n_here = vec_min_i32(n - b0, most);
        if (args->sparse) {
            load_sparse_weights(args, f, scales, a0, u0, b0, nq, n_here, most, &weights);
        } else {
            load_weights(args, f, scales, a0, u0, b0, nq, n_here, most, &weights);
        }
        int32_t b = 0;
        for (; b + n_block <= n_here; b += n_block) {
            fold_tile(args, f, a0, from + b * VARVE_BLOCK, &weights, b, nq, most, n_block, ahead);
        }
        for (; b < n_here; b++) {
            fold_tile(args, f, a0, from + b * VARVE_BLOCK, &weights, b, nq, most, 1, ahead);
        }
    }
}

/* Up to FOLDQ_QUERIES queries from a0 on and n blocks from column c on. */
VEC_INLINE void fold_columns(const struct varve_fold_args *args, const enum varve_format f,
                             const struct scales *scales, int32_t a0, int32_t nq, int32_t c,
                             int32_t n, struct vec_ahead *ahead) {
    int32_t u = 0;
    for (; u + 8 <= nq; u += 8) fold_queries(args, f, scales, a0 + u, u, c, n, 8, 2, 1, ahead);
    for (; u + 4 <= nq; u += 4) fold_queries(args, f, scales, a0 + u, u, c, n, 4, 4, 2, ahead);
    switch (nq - u) {
    case 3: fold_queries(args, f, scales, a0 + u, u, c, n, 3, 4, 2, ahead); break;
    case 2: fold_queries(args, f, scales, a0 + u, u, c, n, 2, 4, 4, ahead); break;
    case 1: fold_queries(args, f, scales, a0 + u, u, c, n, 1, 4, 4, ahead); break;
    default: break;
    }
}

VEC_INLINE void foldq(const struct varve_fold_args *args, const enum varve_format f) {
    const int32_t n_block = args->head_dim / VARVE_BLOCK;
    struct scales scales;
    /* blocks of a tile of the first queries */
    const int32_t n_tile = args->n >= 8 ? 1 : args->n >= 3 ? 2 : 4;
    struct vec_ahead ahead = vec_ahead_of(&args->ahead, args->rows[0],
                                          vec_parts(args->n_row, 2) * vec_parts(n_block, n_tile) *
                                              vec_parts(args->n, 8));
    clear_unread(args->o, args->ld, args->alpha, args->n, args->head_dim);
    for (int32_t a = 0; a < args->n; a += FOLDQ_QUERIES) {
        const int32_t nq = vec_min_i32(args->n - a, FOLDQ_QUERIES);
        load_units(args->p + (int64_t)a * VARVE_TILE_ROWS, nq, args->n_row, &scales.units);
        for (int32_t b = 0; b < n_block; b += FOLDQ_BLOCKS) {
            const int32_t c = b * VARVE_BLOCK, n = vec_min_i32(n_block - b, FOLDQ_BLOCKS);
            load_scales(args, quant_row_bytes(f, c), quant_bytes(f), n, quant_has_min(f), &scales);
            fold_columns(args, f, &scales, a, nq, c, n, &ahead);
        }
    }
}

#define FOLDQ(name, f) \
    void name(const struct varve_fold_args *args) { foldq(args, f); }
FOLDQ(varve_foldq_q8_0_vnni, VARVE_FORMAT_Q8_0)
FOLDQ(varve_foldq_q4_0_vnni, VARVE_FORMAT_Q4_0)
FOLDQ(varve_foldq_q4_1_vnni, VARVE_FORMAT_Q4_1)
FOLDQ(varve_foldq_q5_0_vnni, VARVE_FORMAT_Q5_0)
FOLDQ(varve_foldq_q5_1_vnni, VARVE_FORMAT_Q5_1)
FOLDQ(varve_foldq_iq4_nl_vnni, VARVE_FORMAT_IQ4_NL)
