#include "kernel/quant_neon.h"

#include "kernel/unpack.h"

/* -------------------------------------------------------------------------------------- unpackk */

VEC_INLINE void unpack_square(const enum varve_format f, const uint8_t *const *rows, int32_t n_row,
                              int32_t c, int32_t n_column, float *t) {
    const int64_t offset = quant_row_bytes(f, c);
    float32x4_t x[4];
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        if (i >= n_row) {
            x[i] = vec_zero();
        } else if (n_column >= 4) {
            x[i] = vec_load_float(f, rows[i] + offset);
        } else {
            x[i] = vec_load_float_part(f, rows[i] + offset, n_column);
        }
    }
    vec_transpose(x);
    VEC_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        if (i < n_column) vst1q_f32(t + i * VARVE_TILE_ROWS, x[i]);
    }
}

VEC_INLINE void unpack_block(const enum varve_format f, const uint8_t *const *rows, int64_t offset,
                             vec_mask valid, float *t) {
    /* a byte for each of 4 rows, again and again */
    const int16x4_t halves = vmovn_s32(vreinterpretq_s32_u32(vec_lanes(valid)));
    const int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
    const int8x16_t mask = vcombine_s8(bytes, bytes);
    int32x4_t x[8];
    quant_load_codes(f, rows, offset, x);
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        const int8x16_t rows01 = vreinterpretq_s8_s32(x[j]);
        const int8x16_t rows23 = vreinterpretq_s8_s32(x[4 + j]);
        const int8x16_t rows02 = vzip1q_s8(rows01, rows23);
        const int8x16_t rows13 = vzip2q_s8(rows01, rows23);
        float32x4_t y[8];
        quant_widen(vandq_s8(vzip1q_s8(rows02, rows13), mask), y);
        quant_widen(vandq_s8(vzip2q_s8(rows02, rows13), mask), y + 4);
        VEC_UNROLL
        for (int32_t i = 0; i < 8; i++) vst1q_f32(t + (8 * j + i) * VARVE_TILE_ROWS, y[i]);
    }
}

VEC_INLINE void store_column(float *t, vec_mask valid, vec_f32 x) {
    vst1q_f32(t, vec_keep(x, vec_lanes(valid)));
}

/* -------------------------------------------------------------------------------------- unpackv */

VEC_INLINE void unpackv_float(const struct varve_unpackv_args *args, const enum varve_format f) {
    for (int32_t r = 0; r < args->n_row; r++) {
        vec_fetch_ahead(&args->ahead, r, 1);
        const uint8_t *const row = args->rows[r];
        float *const v = args->v + (int64_t)r * args->ld;
        int32_t c = 0;
        for (; c + VEC_LANES <= args->head_dim; c += VEC_LANES) {
            vst1q_f32(v + c, vec_load_float(f, row + quant_row_bytes(f, c)));
        }
        for (; c < args->ld; c += VEC_LANES) {
            vst1q_f32(v + c,
                      vec_load_float_part(f, row + quant_row_bytes(f, c), args->head_dim - c));
        }
    }
}

VEC_INLINE void unpackv_quant(const struct varve_unpackv_args *args, const enum varve_format f) {
    for (int32_t r = 0; r < args->n_row; r++) {
        vec_fetch_ahead(&args->ahead, r, 1);
        const uint8_t *block = args->rows[r];
        float *v = args->v + (int64_t)r * args->ld;
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const float32x4_t d = vec_broadcast_f16(block);
            const float32x4_t m = quant_has_min(f) ? vec_broadcast_f16(block + 2) : vec_zero();
            /* loads before stores: for all that the compiler knows these change the block */
            float32x4_t x[8];
            quant_widen(quant_load_half(f, block, 0), x);
            quant_widen(quant_load_half(f, block, 1), x + 4);
            VEC_UNROLL
            for (int32_t j = 0; j < 8; j++) {
                x[j] = vmulq_f32(d, x[j]);
                if (quant_has_min(f)) x[j] = vaddq_f32(x[j], m);
                vst1q_f32(v + VEC_LANES * j, x[j]);
            }
            block += quant_bytes(f);
            v += VARVE_BLOCK;
        }
    }
}

/* ---------------------------------------------------------------------------------------- table */

UNPACKK(varve_unpackk_f32_neon, float, VARVE_FORMAT_F32)
UNPACKK(varve_unpackk_f16_neon, float, VARVE_FORMAT_F16)
UNPACKK(varve_unpackk_bf16_neon, float, VARVE_FORMAT_BF16)
UNPACKK(varve_unpackk_q8_0_neon, quant, VARVE_FORMAT_Q8_0)
UNPACKK(varve_unpackk_q4_0_neon, quant, VARVE_FORMAT_Q4_0)
UNPACKK(varve_unpackk_q4_1_neon, quant, VARVE_FORMAT_Q4_1)
UNPACKK(varve_unpackk_q5_0_neon, quant, VARVE_FORMAT_Q5_0)
UNPACKK(varve_unpackk_q5_1_neon, quant, VARVE_FORMAT_Q5_1)
UNPACKK(varve_unpackk_iq4_nl_neon, quant, VARVE_FORMAT_IQ4_NL)
UNPACKV(varve_unpackv_f32_neon, float, VARVE_FORMAT_F32)
UNPACKV(varve_unpackv_f16_neon, float, VARVE_FORMAT_F16)
UNPACKV(varve_unpackv_bf16_neon, float, VARVE_FORMAT_BF16)
UNPACKV(varve_unpackv_q8_0_neon, quant, VARVE_FORMAT_Q8_0)
UNPACKV(varve_unpackv_q4_0_neon, quant, VARVE_FORMAT_Q4_0)
UNPACKV(varve_unpackv_q4_1_neon, quant, VARVE_FORMAT_Q4_1)
UNPACKV(varve_unpackv_q5_0_neon, quant, VARVE_FORMAT_Q5_0)
UNPACKV(varve_unpackv_q5_1_neon, quant, VARVE_FORMAT_Q5_1)
UNPACKV(varve_unpackv_iq4_nl_neon, quant, VARVE_FORMAT_IQ4_NL)
