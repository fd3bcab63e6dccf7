#include "kernel/score_neon.h"

/* -------------------------------------------------------------------------------- float formats */

/* nq x nr sums of products, vectors along the row; nr is 4 or 8. Rows past the last are computed
 * from the last one and not stored. */
VEC_INLINE void score_float_tile(const struct varve_score_args *args,
                                 const enum varve_format format, int32_t a0, int32_t r0,
                                 const int32_t nq, const int32_t nr) {
    const struct varve_queries *const q = args->q;
    const float *f[4];
    const uint8_t *k[8];
    float32x4_t sum[16];
    VEC_UNROLL
    for (int32_t i = 0; i < nr; i++) k[i] = args->rows[vec_min_i32(r0 + i, args->n_row - 1)];
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        f[a] = q->f + (int64_t)(a0 + a) * q->ld;
        __asm__("" : "+r"(f[a])); /* an address each, not one and sums with multiples of ld */
    }
    VEC_UNROLL
    for (int32_t i = 0; i < nq * nr; i++) sum[i] = vec_zero();
    const int32_t head_dim = q->head_dim;
    int32_t c = 0;
    for (; c + 8 <= head_dim; c += 8) {
        float32x4_t y[8][2];
        VEC_UNROLL
        for (int32_t i = 0; i < nr; i++) {
            vec_load_float_8(format, k[i] + quant_row_bytes(format, c), y[i]);
        }
        VEC_UNROLL
        for (int32_t half = 0; half < 2; half++) {
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const float32x4_t x = vld1q_f32(f[a] + c + 4 * half);
                VEC_UNROLL
                for (int32_t i = 0; i < nr; i++) {
                    sum[a * nr + i] = vfmaq_f32(sum[a * nr + i], x, y[i][half]);
                }
            }
        }
    }
    for (; c < head_dim; c += VEC_LANES) {
        const int32_t n_value = head_dim - c;
        VEC_UNROLL
        for (int32_t i = 0; i < nr; i++) {
            const uint8_t *const p = k[i] + quant_row_bytes(format, c);
            const float32x4_t y = n_value >= VEC_LANES ? vec_load_float(format, p)
                                                       : vec_load_float_part(format, p, n_value);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const float32x4_t x = vld1q_f32(f[a] + c);
                sum[a * nr + i] = vfmaq_f32(sum[a * nr + i], x, y);
            }
        }
    }
    float *const s = args->s + (int64_t)a0 * VARVE_TILE_ROWS + r0;
    VEC_UNROLL
    for (int32_t i = 0; i < nr; i += 4) {
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            vec_store_some(s + a * VARVE_TILE_ROWS + i, args->n_row - r0 - i,
                           vec_sums_4(sum + a * nr + i));
        }
    }
}

VEC_INLINE void score_float(const struct varve_score_args *args, const enum varve_format format) {
    for (int32_t r = 0; r < args->n_row; r += 8) {
        const bool second = r + 4 < args->n_row;
        int32_t a = 0;
        vec_fetch_ahead(&args->ahead, r, 8);
        vec_prefetch(args->rows, args->n_row, r + 8, 8, 0,
                     quant_row_bytes(format, args->q->head_dim));
        for (; a + 4 <= args->q->n; a += 4) {
            score_float_tile(args, format, a, r, 4, 4);
            if (second) score_float_tile(args, format, a, r + 4, 4, 4);
        }
        switch (args->q->n - a) {
        case 3:
            score_float_tile(args, format, a, r, 3, 4);
            if (second) score_float_tile(args, format, a, r + 4, 3, 4);
            break;
        case 2: score_float_tile(args, format, a, r, 2, 8); break;
        case 1: score_float_tile(args, format, a, r, 1, 8); break;
        default: break;
        }
    }
}

#define SCORE_FLOAT(name, f) \
    void name(const struct varve_score_args *args) { score_float(args, f); }
SCORE_FLOAT(varve_score_f32_neon, VARVE_FORMAT_F32)
SCORE_FLOAT(varve_score_f16_neon, VARVE_FORMAT_F16)
SCORE_FLOAT(varve_score_bf16_neon, VARVE_FORMAT_BF16)

/* ---------------------------------------------------------------------------- quantized formats */

/* Products of one row, a half of each vector, with the codes 8j .. of `from` and of the next j. */
VEC_INLINE int16x8_t score_multiply(const int8x16_t *x, const int8x16_t *y, const bool upper,
                                    const bool first, int16x8_t sum) {
    if (upper) {
        sum = first ? vmull_high_s8(x[0], y[0]) : vmlal_high_s8(sum, x[0], y[0]);
        return vmlal_high_s8(sum, x[1], y[1]);
    }
    const int8x8_t x0 = vget_low_s8(x[0]), x1 = vget_low_s8(x[1]);
    const int8x8_t y0 = vget_low_s8(y[0]), y1 = vget_low_s8(y[1]);
    sum = first ? vmull_s8(x0, y0) : vmlal_s8(sum, x0, y0);
    return vmlal_s8(sum, x1, y1);
}

/* Two products of signed bytes fit into 16 bits, as |Q| <= 127: 2 * 128 * 127 = 32512. */
VEC_INLINE int32x4_t score_dot_wide(const struct score_codes *codes, const int8x16_t y[4]) {
    int32x4_t sum[4];
    VEC_UNROLL
    for (int32_t r = 0; r < 4; r++) {
        const int8x16_t *const x = codes->x + r / 2 * 4;
        const int16x8_t none = vdupq_n_s16(0);
        sum[r] = vpaddlq_s16(score_multiply(x, y, r % 2 == 1, true, none));
        sum[r] = vpadalq_s16(sum[r], score_multiply(x + 2, y + 2, r % 2 == 1, true, none));
    }
    return vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
}

/* Codes of four or five bits: eight products fit, 8 * 31 * 127 = 31496, four of them in the sum of
 * a lane and twice as many in that of two lanes. */
VEC_INLINE int32x4_t score_dot_narrow(const struct score_codes *codes, const int8x16_t y[4]) {
    int16x8_t sum[4];
    VEC_UNROLL
    for (int32_t r = 0; r < 4; r++) {
        const int8x16_t *const x = codes->x + r / 2 * 4;
        sum[r] = score_multiply(x, y, r % 2 == 1, true, vdupq_n_s16(0));
        sum[r] = score_multiply(x + 2, y + 2, r % 2 == 1, false, sum[r]);
    }
    return vpaddq_s32(vpaddlq_s16(vpaddq_s16(sum[0], sum[1])),
                      vpaddlq_s16(vpaddq_s16(sum[2], sum[3])));
}

/* The bias is off the codes already. */
VEC_INLINE int32x4_t score_dot(const enum varve_format f, const struct score_codes *codes,
                               const struct score_query *query, int32_t b, int32_t q_sum) {
    int8x16_t y[4];
    (void)q_sum;
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) y[j] = score_twice(query, b, j);
    return quant_is_wide(f) ? score_dot_wide(codes, y) : score_dot_narrow(codes, y);
}

#include "kernel/quant_score.h"

SCORE_QUANT(varve_score_q8_0_neon, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_neon, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_neon, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_neon, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_neon, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_neon, VARVE_FORMAT_IQ4_NL)
