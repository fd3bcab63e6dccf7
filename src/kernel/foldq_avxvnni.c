#include "kernel/dot_avxvnni.h"

/* Pairs of rows: a lane holds the codes of one column of two rows, 16 bits each, and a weight is a
 * pair of 16 bits for every lane, so one instruction does what two multiply-adds do in F32. There
 * are 16 registers: a tile is half a block for four queries, or a whole one for two. */
enum { FOLDQ_QUERIES = 4, FOLDQ_BLOCKS = 4, FOLDQ_VECTORS = VARVE_TILE_ROWS / VEC_LANES };

/* Weights of a few queries and blocks. */
struct weights {
    int16_t w[FOLDQ_QUERIES][FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    float step[FOLDQ_QUERIES][FOLDQ_BLOCKS] __attribute__((aligned(16)));
    float min[FOLDQ_QUERIES][FOLDQ_BLOCKS]; /* sum of p m */
    /* what the bias of the codes adds to each sum */
    int32_t bias[FOLDQ_QUERIES][FOLDQ_BLOCKS] __attribute__((aligned(16)));
};

/* ---- weights ------------------------------------------------------------------------------ */

/* The halves at `offset` of each row as F32, a block further for each block; 0 past the last row.
 */
static void load_halves(const struct varve_fold_args *args, int64_t offset, int64_t step,
                        int32_t n_block, float (*x)[VARVE_TILE_ROWS]) {
    uint16_t half[FOLDQ_BLOCKS * VARVE_TILE_ROWS] __attribute__((aligned(32)));
    switch (n_block) {
    case 4:
        vec_gather_halves(args->rows, args->n_row, offset, step, 4, VARVE_TILE_ROWS, half);
        break;
    case 3:
        vec_gather_halves(args->rows, args->n_row, offset, step, 3, VARVE_TILE_ROWS, half);
        break;
    case 2:
        vec_gather_halves(args->rows, args->n_row, offset, step, 2, VARVE_TILE_ROWS, half);
        break;
    default:
        vec_gather_halves(args->rows, args->n_row, offset, step, 1, VARVE_TILE_ROWS, half);
        break;
    }
    for (int32_t b = 0; b < n_block; b++) {
        uint16_t *const from = half + b * VARVE_TILE_ROWS;
        for (int32_t r = args->n_row; r < VARVE_TILE_ROWS; r++) from[r] = 0;
        VEC_UNROLL
        for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
            vec_store(x[b] + v * VEC_LANES, vec_load_halves(from + v * VEC_LANES));
        }
    }
}

/* The weights of one query before they are scaled, 0 past the last row. */
VEC_INLINE void load_row_weights(const struct varve_fold_args *args, int32_t a, float *p) {
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        const int64_t at = (int64_t)a * VARVE_TILE_ROWS + v * VEC_LANES;
        vec_store(p + v * VEC_LANES,
                  vec_keep(vec_load(args->p + at), vec_first(args->n_row - v * VEC_LANES)));
    }
}

/* Products of vector v: in a sparse fold none is formed where p is 0. */
VEC_INLINE vec_f32 form_products(const float *p, const float *d, int32_t v, const bool sparse) {
    const vec_f32 x = vec_load(p + v * VEC_LANES);
    const vec_f32 t = vec_mul(x, vec_load(d + v * VEC_LANES));
    return sparse ? _mm256_and_ps(t, _mm256_cmp_ps(x, vec_zero(), _CMP_NEQ_UQ)) : t;
}

/* The largest magnitude of the products: as integers, magnitudes are in order and a NaN is the
 * largest. */
VEC_INLINE vec_i32 largest_product(const float *p, const float *d, const bool sparse) {
    vec_i32 most[2] = {vec_all_i32(0), vec_all_i32(0)};
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        const vec_i32 t = _mm256_castps_si256(vec_abs(form_products(p, d, v, sparse)));
        most[v % 2] = _mm256_max_epi32(most[v % 2], t);
    }
    return _mm256_max_epi32(most[0], most[1]);
}

VEC_INLINE float sum_of_minima(const float *p, const float *m, const bool sparse) {
    vec_f32 sum = vec_zero();
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        sum = _mm256_add_ps(sum, form_products(p, m, v, sparse));
    }
    return vec_sum(sum);
}

/* Rounds the products; returns the sums of the lanes. */
VEC_INLINE vec_i32 round_weights(const float *p, const float *d, const bool sparse, float inverse,
                                 int16_t *w) {
    vec_i32 sum = vec_all_i32(0);
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v += 2) {
        vec_i32 i[2];
        VEC_UNROLL
        for (int32_t k = 0; k < 2; k++) {
            const vec_f32 t = vec_mul(form_products(p, d, v + k, sparse), vec_all(inverse));
            i[k] = _mm256_cvtps_epi32(t);
            sum = vec_add_i32(sum, i[k]);
        }
        const vec_i32 both = _mm256_packs_epi32(i[0], i[1]);
        _mm256_store_si256((__m256i *)(void *)(w + v * VEC_LANES),
                           _mm256_permute4x64_epi64(both, 0xD8)); /* undoes the order of packs */
    }
    return sum;
}

VEC_INLINE vec_i32 reduce_step(vec_i32 a, vec_i32 b, const bool add) {
    return add ? _mm256_add_epi32(a, b) : _mm256_max_epi32(a, b);
}

/* Lane i is the maximum, or the sum, of x[i]. */
VEC_INLINE __m128i reduce_4(const vec_i32 x[4], const bool add) {
    vec_i32 y[2];
    VEC_UNROLL
    for (int32_t i = 0; i < 2; i++) {
        y[i] = reduce_step(_mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]),
                           _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]), add);
    }
    const vec_i32 z =
        reduce_step(_mm256_unpacklo_epi64(y[0], y[1]), _mm256_unpackhi_epi64(y[0], y[1]), add);
    const vec_i32 other = _mm256_permute2x128_si256(z, z, 1);
    return _mm256_castsi256_si128(reduce_step(z, other, add));
}

/* The steps of all queries come first: finding one is a long chain, and so they overlap. */
VEC_INLINE void weigh(const struct varve_fold_args *args, const enum varve_format f, int32_t a0,
                      int32_t c, int32_t nq, int32_t n_block, const bool sparse,
                      struct weights *weights) {
    float d[FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    float m[FOLDQ_BLOCKS][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    float p[FOLDQ_QUERIES][VARVE_TILE_ROWS] __attribute__((aligned(32)));
    float inverse[FOLDQ_QUERIES][FOLDQ_BLOCKS] __attribute__((aligned(16)));
    vec_i32 x[FOLDQ_BLOCKS];
    load_halves(args, quant_row_bytes(f, c), quant_bytes(f), n_block, d);
    if (quant_has_min(f)) load_halves(args, quant_row_bytes(f, c) + 2, quant_bytes(f), n_block, m);
    for (int32_t a = 0; a < nq; a++) {
        load_row_weights(args, a0 + a, p[a]);
        VEC_UNROLL
        for (int32_t b = 0; b < FOLDQ_BLOCKS; b++) {
            x[b] = vec_all_i32(0);
            if (b >= n_block) continue;
            x[b] = largest_product(p[a], d[b], sparse);
            if (quant_has_min(f)) weights->min[a][b] = sum_of_minima(p[a], m[b], sparse);
        }
        const __m128 largest = _mm_castsi128_ps(reduce_4(x, false));
        const __m128 step = _mm_max_ps(_mm_set1_ps(0x1p-126f), /* a NaN passes */
                                       _mm_div_ps(largest, _mm_set1_ps(32767.0f)));
        _mm_store_ps(weights->step[a], step);
        _mm_store_ps(inverse[a], _mm_div_ps(_mm_set1_ps(1.0f), step));
    }
    for (int32_t a = 0; a < nq; a++) {
        VEC_UNROLL
        for (int32_t b = 0; b < FOLDQ_BLOCKS; b++) {
            x[b] = vec_all_i32(0);
            if (b >= n_block) continue;
            x[b] = round_weights(p[a], d[b], sparse, inverse[a][b], weights->w[a][b]);
        }
        const __m128i bias = _mm_set1_epi32(-quant_signed_bias(f));
        _mm_store_si128((__m128i *)(void *)weights->bias[a],
                        _mm_mullo_epi32(reduce_4(x, true), bias));
    }
}

/* One function for all formats and shapes: it runs once for a few tiles. */
static void load_weights(const struct varve_fold_args *args, enum varve_format f, int32_t a0,
                         int32_t c, int32_t nq, int32_t n_block, struct weights *weights) {
    if (args->sparse) {
        weigh(args, f, a0, c, nq, n_block, true, weights);
    } else {
        weigh(args, f, a0, c, nq, n_block, false, weights);
    }
}

/* ---- codes -------------------------------------------------------------------------------- */

/* Half `h` of a block is two vectors of eight columns. */
VEC_INLINE int32_t half_column(const enum varve_format f, int32_t h, int32_t v) {
    return f == VARVE_FORMAT_Q8_0 ? 16 * h + 8 * v : 8 * h + 16 * v;
}

/* The fifth bits of two rows, added to the pairs of eight columns. */
VEC_INLINE vec_i32 add_fifth(const enum varve_format f, const uint8_t *row0, const uint8_t *row1,
                             int32_t h, int32_t v, vec_i32 x) {
    uint16_t high[2];
    memcpy(&high[0], row0 + quant_codes_at(f) - 4 + 2 * v, sizeof *high);
    memcpy(&high[1], row1 + quant_codes_at(f) - 4 + 2 * v, sizeof *high);
    const vec_i32 bits = vec_all_i32((int32_t)(high[0] | (uint32_t)high[1] << 16));
    const vec_i32 one = _mm256_setr_epi32(0x10001, 0x20002, 0x40004, 0x80008, 0x100010, 0x200020,
                                          0x400040, 0x800080);
    const vec_i32 which = _mm256_slli_epi16(one, 8 * h);
    const vec_i32 set = _mm256_cmpeq_epi16(_mm256_and_si256(bits, which), which);
    return _mm256_or_si256(x, _mm256_and_si256(set, _mm256_set1_epi16(16)));
}

/* Half a block of two rows in pairs. */
VEC_INLINE void load_pairs(const enum varve_format f, const uint8_t *row0, const uint8_t *row1,
                           const int32_t h, vec_i32 x[2]) {
    const int32_t at = quant_codes_at(f) + (f == VARVE_FORMAT_Q8_0 ? 16 * h : 0);
    const __m128i y0 = vec_load_16_bytes(row0 + at), y1 = vec_load_16_bytes(row1 + at);
    if (f == VARVE_FORMAT_Q8_0) {
        x[0] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(y0, y1));
        x[1] = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(y0, y1));
        return;
    }
    const __m128i y = h == 0 ? _mm_unpacklo_epi8(y0, y1) : _mm_unpackhi_epi8(y0, y1);
    if (f == VARVE_FORMAT_IQ4_NL) {
        const __m128i nibble = _mm_set1_epi8(15);
        const __m128i low = _mm_and_si128(y, nibble);
        const __m128i high = _mm_and_si128(_mm_srli_epi16(y, 4), nibble);
        x[0] = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(quant_iq4_nl_values(), low));
        x[1] = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(quant_iq4_nl_values(), high));
        return;
    }
    const vec_i32 z = _mm256_cvtepu8_epi16(y);
    x[0] = _mm256_and_si256(z, _mm256_set1_epi16(15));
    x[1] = _mm256_srli_epi16(z, 4);
    if (quant_has_high(f)) {
        VEC_UNROLL
        for (int32_t v = 0; v < 2; v++) x[v] = add_fifth(f, row0, row1, h, v, x[v]);
    }
}

/* ---- tiles -------------------------------------------------------------------------------- */

/* Eight columns of o, from their integer sums. */
VEC_INLINE void store_sum(const enum varve_format f, float *o, float alpha,
                          const struct weights *weights, int32_t a, int32_t b, vec_i32 sum) {
    const vec_i32 all = vec_add_i32(sum, vec_all_i32(weights->bias[a][b]));
    vec_f32 x = alpha == 0.0f ? vec_zero() : vec_mul(vec_all(alpha), vec_load(o));
    x = vec_fma(vec_to_f32(all), vec_all(weights->step[a][b]), x);
    if (quant_has_min(f)) x = _mm256_add_ps(x, vec_all(weights->min[a][b]));
    vec_store(o, x);
}

/* The block at `offset` of a pair of rows: n_half halves from half h0 on, times nq queries. */
VEC_INLINE void fold_pair(const enum varve_format f, const uint8_t *const *rows, int64_t offset,
                          const int16_t *w, const int32_t h0, const int32_t nq,
                          const int32_t n_half, vec_i32 *sum) {
    VEC_UNROLL
    for (int32_t h = 0; h < n_half; h++) {
        vec_i32 x[2];
        load_pairs(f, rows[0] + offset, rows[1] + offset, h0 + h, x);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            const vec_i32 y = vec_broadcast_4_bytes(w + a * FOLDQ_BLOCKS * VARVE_TILE_ROWS);
            vec_i32 *const to = &sum[2 * (a * n_half + h)];
            to[0] = dot_pairs(to[0], x[0], y);
            to[1] = dot_pairs(to[1], x[1], y);
        }
    }
}

/* The rows of a call, an even number of them: an odd one has its last twice, with weight 0. */
struct row_pairs {
    const uint8_t *const *rows;
    const uint8_t *spare[VARVE_TILE_ROWS];
};

VEC_INLINE void pair_rows(const struct varve_fold_args *args, struct row_pairs *pairs) {
    pairs->rows = args->rows;
    if (args->n_row % 2 == 0) return;
    for (int32_t r = 0; r < args->n_row; r++) pairs->spare[r] = args->rows[r];
    pairs->spare[args->n_row] = args->rows[args->n_row - 1];
    pairs->rows = pairs->spare;
}

/* nq queries from a0 on, n_half halves from half h0 on of the block that begins at column c and is
 * number b of the weights. */
VEC_INLINE void fold_tile(const struct varve_fold_args *args, const enum varve_format f,
                          const uint8_t *const *rows, int32_t a0, int32_t c,
                          const struct weights *weights, int32_t b, const int32_t h0,
                          const int32_t nq, const int32_t n_half) {
    enum { STEP = 8 };
    const int64_t offset = quant_row_bytes(f, c);
    const int16_t *w = weights->w[0][b];
    vec_i32 sum[8];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * n_half * 2; i++) sum[i] = vec_all_i32(0);
    for (int32_t r0 = 0; r0 < args->n_row; r0 += STEP) {
        const uint8_t *const *const end = rows + vec_min_i32(r0 + STEP, args->n_row);
        if (h0 == 0 && c == 0 && a0 == 0) vec_fetch_ahead(&args->ahead, r0, STEP);
        for (const uint8_t *const *at = rows + r0; at < end; at += 2, w += 2) {
            __asm__("" : "+r"(w)); /* one address for all queries */
            fold_pair(f, at, offset, w, h0, nq, n_half, sum);
        }
    }
    VEC_UNROLL
    for (int32_t i = 0; i < nq * n_half * 2; i++) {
        const int32_t a = i / 2 / n_half, h = h0 + i / 2 % n_half;
        float *const o = args->o + (int64_t)(a0 + a) * args->ld + c + half_column(f, h, i % 2);
        store_sum(f, o, args->alpha[a0 + a], weights, a, b, sum[i]);
    }
}

VEC_INLINE void fold_queries(const struct varve_fold_args *args, const enum varve_format f,
                             const uint8_t *const *rows, int32_t a0, const int32_t nq) {
    const int32_t n = args->head_dim / VARVE_BLOCK;
    struct weights weights;
    if (a0 == 0) {
        vec_prefetch(args->rows, args->n_row, 0, 16, 0, quant_row_bytes(f, args->head_dim));
    }
    for (int32_t b0 = 0; b0 < n; b0 += FOLDQ_BLOCKS) {
        const int32_t n_block = vec_min_i32(n - b0, FOLDQ_BLOCKS);
        load_weights(args, f, a0, b0 * VARVE_BLOCK, nq, n_block, &weights);
        for (int32_t b = 0; b < n_block; b++) {
            const int32_t c = (b0 + b) * VARVE_BLOCK;
            if (nq <= 2) {
                fold_tile(args, f, rows, a0, c, &weights, b, 0, nq, 2);
            } else {
                fold_tile(args, f, rows, a0, c, &weights, b, 0, nq, 1);
                fold_tile(args, f, rows, a0, c, &weights, b, 1, nq, 1);
            }
        }
    }
}

VEC_INLINE void foldq(const struct varve_fold_args *args, const enum varve_format f) {
    struct row_pairs pairs;
    pair_rows(args, &pairs);
    int32_t a = 0;
    for (; a + FOLDQ_QUERIES <= args->n; a += FOLDQ_QUERIES) {
        fold_queries(args, f, pairs.rows, a, FOLDQ_QUERIES);
    }
    switch (args->n - a) {
    case 3: fold_queries(args, f, pairs.rows, a, 3); break;
    case 2: fold_queries(args, f, pairs.rows, a, 2); break;
    case 1: fold_queries(args, f, pairs.rows, a, 1); break;
    default: break;
    }
}

#define FOLDQ(name, f) \
    void name(const struct varve_fold_args *args) { foldq(args, f); }
FOLDQ(varve_foldq_q8_0_avxvnni, VARVE_FORMAT_Q8_0)
FOLDQ(varve_foldq_q4_0_avxvnni, VARVE_FORMAT_Q4_0)
FOLDQ(varve_foldq_q4_1_avxvnni, VARVE_FORMAT_Q4_1)
FOLDQ(varve_foldq_q5_0_avxvnni, VARVE_FORMAT_Q5_0)
FOLDQ(varve_foldq_q5_1_avxvnni, VARVE_FORMAT_Q5_1)
FOLDQ(varve_foldq_iq4_nl_avxvnni, VARVE_FORMAT_IQ4_NL)
