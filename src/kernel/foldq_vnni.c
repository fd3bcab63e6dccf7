#include "kernel/quant_avx512.h"

/* Pairs of rows: a lane holds the codes of one column of two rows, 16 bits each, and a weight is a
 * pair of 16 bits for every lane, so one instruction does what two multiply-adds do in F32. Tiles
 * have at most so many sums in registers (two per query and block), and so many rows of weights. */
enum { FOLDQ_SUMS = 16, FOLDQ_WEIGHTS = 8, FOLDQ_BLOCKS = 4 };

/* Weights of the tile; element (a, b) at a * n_block + b. */
struct weights {
    int16_t w[FOLDQ_WEIGHTS][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float step[FOLDQ_WEIGHTS] __attribute__((aligned(32)));
    float min[FOLDQ_WEIGHTS]; /* sum of p m */
    /* what the bias of the codes adds to each sum */
    int32_t bias[FOLDQ_WEIGHTS] __attribute__((aligned(32)));
};

/* ---- weights ------------------------------------------------------------------------------ */

/* The halves at `offset` of each row, a block further for each block; zero past the last row. */
static void gather(const struct varve_fold_args *args, int64_t offset, int64_t step,
                   int32_t n_block, uint16_t *half) {
    memset(half, 0, (size_t)n_block * VARVE_TILE_ROWS * sizeof *half);
    switch (n_block) {
    case 1:
        vec_gather_halves(args->rows, args->n_row, offset, step, 1, VARVE_TILE_ROWS, half);
        break;
    case 2:
        vec_gather_halves(args->rows, args->n_row, offset, step, 2, VARVE_TILE_ROWS, half);
        break;
    default:
        vec_gather_halves(args->rows, args->n_row, offset, step, FOLDQ_BLOCKS, VARVE_TILE_ROWS,
                          half);
    }
}

/* Lane i is the maximum, or the sum, of the lanes of x[i]. */
VEC_INLINE __m512i reduce_step(__m512i a, __m512i b, const bool add) {
    return add ? _mm512_add_epi32(a, b) : _mm512_max_epu32(a, b);
}

VEC_INLINE __m256i reduce_8(const __m512i x[8], const bool add) {
    __m512i y[4];
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        y[i] = reduce_step(_mm512_mask_blend_epi32(0xFF00, x[i], x[i + 4]),
                           _mm512_shuffle_i32x4(x[i], x[i + 4], 0x4E), add);
    }
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i += 2) { /* lanes 0 + 2, 1 + 3 of y[i], then those of y[i + 1] */
        y[i] = reduce_step(_mm512_unpacklo_epi64(y[i], y[i + 1]),
                           _mm512_unpackhi_epi64(y[i], y[i + 1]), add);
    }
    const __m512 u = _mm512_castsi512_ps(y[0]), v = _mm512_castsi512_ps(y[2]);
    const __m512i z = reduce_step(_mm512_castps_si512(_mm512_shuffle_ps(u, v, 0x88)),
                                  _mm512_castps_si512(_mm512_shuffle_ps(u, v, 0xDD)), add);
    /* quarters 0 + 1 and 2 + 3 */
    return _mm512_castsi512_si256(
        reduce_step(_mm512_shuffle_i32x4(z, z, 0x88), _mm512_shuffle_i32x4(z, z, 0xDD), add));
}

enum { FOLDQ_VECTORS = VARVE_TILE_ROWS / VEC_LANES };

/* The rows whose products are formed: in a sparse fold a weight of 0 forms none. */
VEC_INLINE __mmask16 formed_rows(__m512 p, __mmask16 valid, bool sparse) {
    if (!sparse) return valid;
    return _mm512_mask_cmp_ps_mask(valid, p, _mm512_setzero_ps(), _CMP_NEQ_UQ);
}

/* Products of the weights with d, and their largest magnitude: as integers, magnitudes are in order
 * and a NaN is the largest. */
VEC_INLINE __m512i scale_weights(const float *p, const uint16_t *d, const __mmask16 *valid,
                                 bool sparse, float *t) {
    __m512i largest = _mm512_setzero_si512();
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        const __m512 x = _mm512_load_ps(p + v * VEC_LANES);
        const __mmask16 formed = formed_rows(x, valid[v], sparse);
        const __m512 y = _mm512_maskz_mul_ps(formed, x, vec_load_halves(d + v * VEC_LANES));
        largest = _mm512_max_epu32(largest, _mm512_castps_si512(_mm512_abs_ps(y)));
        _mm512_store_ps(t + v * VEC_LANES, y);
    }
    return largest;
}

VEC_INLINE float sum_of_minima(const float *p, const uint16_t *m, const __mmask16 *valid,
                               bool sparse) {
    __m512 sum = _mm512_setzero_ps();
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        const __m512 x = _mm512_load_ps(p + v * VEC_LANES);
        const __mmask16 formed = formed_rows(x, valid[v], sparse);
        sum = _mm512_mask3_fmadd_ps(x, vec_load_halves(m + v * VEC_LANES), sum, formed);
    }
    return _mm512_reduce_add_ps(sum);
}

/* Rounds the products of one query and block; returns the sums of the lanes. */
VEC_INLINE __m512i round_weights(const float *t, float inverse, int16_t *w) {
    __m512i sum = _mm512_setzero_si512();
    VEC_UNROLL
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        const __m512 x = _mm512_load_ps(t + v * VEC_LANES);
        const __m512i i = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse)));
        _mm256_store_si256((__m256i *)(void *)(w + v * VEC_LANES), _mm512_cvtsepi32_epi16(i));
        sum = _mm512_add_epi32(sum, i);
    }
    return sum;
}

/* One function for all formats and shapes: it runs once for a tile. */
static void load_weights(const struct varve_fold_args *args, const enum varve_format f, int32_t a0,
                         int32_t c, int32_t nq, int32_t n_block, struct weights *weights) {
    uint16_t d[FOLDQ_BLOCKS * VARVE_TILE_ROWS] __attribute__((aligned(64)));
    uint16_t m[FOLDQ_BLOCKS * VARVE_TILE_ROWS] __attribute__((aligned(64)));
    float t[FOLDQ_WEIGHTS][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    __m512i x[FOLDQ_WEIGHTS];
    __mmask16 valid[FOLDQ_VECTORS];
    for (int32_t v = 0; v < FOLDQ_VECTORS; v++) {
        const int32_t n = args->n_row - v * VEC_LANES;
        valid[v] = vec_first(n > 0 ? n : 0);
    }
    const int64_t offset = quant_row_bytes(f, c);
    gather(args, offset, quant_bytes(f), n_block, d);
    if (quant_has_min(f)) gather(args, offset + 2, quant_bytes(f), n_block, m);
    for (int32_t i = 0; i < FOLDQ_WEIGHTS; i++) x[i] = _mm512_setzero_si512();
    for (int32_t i = 0; i < nq * n_block; i++) {
        const float *const p = args->p + (int64_t)(a0 + i / n_block) * VARVE_TILE_ROWS;
        const int32_t at = i % n_block * VARVE_TILE_ROWS;
        x[i] = scale_weights(p, d + at, valid, args->sparse, t[i]);
        if (quant_has_min(f)) weights->min[i] = sum_of_minima(p, m + at, valid, args->sparse);
    }
    /* a NaN passes both */
    const __m256 largest = _mm256_castsi256_ps(reduce_8(x, false));
    const __m256 step =
        _mm256_max_ps(_mm256_set1_ps(0x1p-126f), _mm256_div_ps(largest, _mm256_set1_ps(32767.0f)));
    float inverse[FOLDQ_WEIGHTS] __attribute__((aligned(32)));
    _mm256_store_ps(weights->step, step);
    _mm256_store_ps(inverse, _mm256_div_ps(_mm256_set1_ps(1.0f), step));
    for (int32_t i = 0; i < nq * n_block; i++) {
        x[i] = round_weights(t[i], inverse[i], weights->w[i]);
    }
    __m256i bias = _mm256_setzero_si256();
    if (quant_signed_bias(f) != 0) {
        bias = _mm256_mullo_epi32(reduce_8(x, true), _mm256_set1_epi32(-quant_signed_bias(f)));
    }
    _mm256_store_si256((__m256i *)(void *)weights->bias, bias);
}

/* ---- codes -------------------------------------------------------------------------------- */

/* The fifth bits of two rows, added to 16 pairs. */
VEC_INLINE __m512i add_high(__m512i x, uint16_t high0, uint16_t high1) {
    x = _mm512_mask_or_epi32(x, high0, x, _mm512_set1_epi32(16));
    return _mm512_mask_or_epi32(x, high1, x, _mm512_set1_epi32(16 << 16));
}

/* One block of two rows in pairs. q8_0: columns 0-3, 8-11, 16-19, 24-27 in x[0], the others in
 * x[1]; else columns 0-15 and 16-31. */
VEC_INLINE void load_pairs(const enum varve_format f, const uint8_t *row0, const uint8_t *row1,
                           __m512i x[2]) {
    if (f == VARVE_FORMAT_Q8_0) {
        const __m256i y0 = _mm256_loadu_si256((const __m256i *)(const void *)(row0 + 2));
        const __m256i y1 = _mm256_loadu_si256((const __m256i *)(const void *)(row1 + 2));
        const __m512i z0 = _mm512_cvtepi8_epi16(y0), z1 = _mm512_cvtepi8_epi16(y1);
        x[0] = _mm512_unpacklo_epi16(z0, z1);
        x[1] = _mm512_unpackhi_epi16(z0, z1);
        return;
    }
    const __m128i y0 = vec_load_16_bytes(row0 + quant_codes_at(f));
    const __m128i y1 = vec_load_16_bytes(row1 + quant_codes_at(f));
    const __m256i y = _mm256_set_m128i(_mm_unpackhi_epi8(y0, y1), _mm_unpacklo_epi8(y0, y1));
    if (f == VARVE_FORMAT_IQ4_NL) {
        const __m256i value_of = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
        const __m256i nibble = _mm256_set1_epi8(15);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(y, 4), nibble);
        x[0] = _mm512_cvtepi8_epi16(_mm256_shuffle_epi8(value_of, _mm256_and_si256(y, nibble)));
        x[1] = _mm512_cvtepi8_epi16(_mm256_shuffle_epi8(value_of, high));
        return;
    }
    const __m512i z = _mm512_cvtepu8_epi16(y);
    x[0] = _mm512_and_si512(z, _mm512_set1_epi16(15));
    x[1] = _mm512_srli_epi16(z, 4);
    if (quant_has_high(f)) {
        uint16_t high0[2], high1[2];
        memcpy(high0, row0 + quant_codes_at(f) - 4, sizeof high0);
        memcpy(high1, row1 + quant_codes_at(f) - 4, sizeof high1);
        x[0] = add_high(x[0], high0[0], high1[0]);
        x[1] = add_high(x[1], high0[1], high1[1]);
    }
}

/* sum += pairs by a pair of weights in memory. As an intrinsic, GCC copies the sum first. */
VEC_INLINE __m512i add_pairs(__m512i sum, __m512i pairs, const int16_t *w) {
    __asm__("vpdpwssd %2%{1to16%}, %1, %0"
            : "+v"(sum)
            : "v"(pairs), "m"(*(const int32_t *)(const void *)w));
    return sum;
}

/* ---- tiles -------------------------------------------------------------------------------- */

/* 16 columns of o, from their integer sums. */
VEC_INLINE void store_sum(const enum varve_format f, float *o, float alpha,
                          const struct weights *weights, int32_t i, __m512i sum) {
    const __m512i all = _mm512_add_epi32(sum, _mm512_set1_epi32(weights->bias[i]));
    __m512 x = alpha == 0.0f ? _mm512_setzero_ps()
                             : _mm512_mul_ps(_mm512_set1_ps(alpha), _mm512_load_ps(o));
    x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(all), _mm512_set1_ps(weights->step[i]), x);
    if (quant_has_min(f)) x = _mm512_add_ps(x, _mm512_set1_ps(weights->min[i]));
    _mm512_store_ps(o, x);
}

VEC_INLINE void fold_tile(const struct varve_fold_args *args, const enum varve_format f, int32_t a0,
                          int32_t c, const int32_t nq, const int32_t n_block) {
    const int64_t offset = quant_row_bytes(f, c);
    const bool fetch = a0 == 0 && c == 0;
    struct weights weights;
    if (fetch) {
        vec_prefetch(args->rows, args->n_row, 0, 16, 0, quant_row_bytes(f, args->head_dim));
    }
    load_weights(args, f, a0, c, nq, n_block, &weights);
    __m512i sum[FOLDQ_SUMS];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * n_block * 2; i++) sum[i] = _mm512_setzero_si512();
    for (int32_t r = 0; r < args->n_row; r += 2) {
        if (fetch && r % 8 == 0) vec_fetch_ahead(&args->ahead, r, 8);
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
                sum[2 * i] = add_pairs(sum[2 * i], x[0], weights.w[i] + r);
                sum[2 * i + 1] = add_pairs(sum[2 * i + 1], x[1], weights.w[i] + r);
            }
        }
    }
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    VEC_UNROLL
    for (int32_t i = 0; i < nq * n_block; i++) {
        const int32_t a = a0 + i / n_block;
        float *const o = args->o + (int64_t)a * args->ld + c + i % n_block * VARVE_BLOCK;
        __m512i x0 = sum[2 * i], x1 = sum[2 * i + 1];
        if (f == VARVE_FORMAT_Q8_0) {
            x0 = _mm512_permutex2var_epi32(sum[2 * i], low, sum[2 * i + 1]);
            x1 = _mm512_permutex2var_epi32(sum[2 * i], high, sum[2 * i + 1]);
        }
        store_sum(f, o, args->alpha[a], &weights, i, x0);
        store_sum(f, o + VEC_LANES, args->alpha[a], &weights, i, x1);
    }
}

VEC_INLINE void fold_queries(const struct varve_fold_args *args, const enum varve_format f,
                             int32_t a0, const int32_t nq, const int32_t n_block) {
    int32_t c = 0;
    for (; c + n_block * VARVE_BLOCK <= args->head_dim; c += n_block * VARVE_BLOCK) {
        fold_tile(args, f, a0, c, nq, n_block);
    }
    for (; c < args->head_dim; c += VARVE_BLOCK) fold_tile(args, f, a0, c, nq, 1);
}

VEC_INLINE void foldq(const struct varve_fold_args *args, const enum varve_format f) {
    int32_t a = 0;
    for (; a + 8 <= args->n; a += 8) fold_queries(args, f, a, 8, 1);
    for (; a + 4 <= args->n; a += 4) fold_queries(args, f, a, 4, 2);
    switch (args->n - a) {
    case 3: fold_queries(args, f, a, 3, 2); break;
    case 2: fold_queries(args, f, a, 2, 4); break;
    case 1: fold_queries(args, f, a, 1, 4); break;
    default: break;
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
