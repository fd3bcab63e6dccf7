#include "kernel/quant_avx2.h"

#include "kernel/unpack.h"

/* -------------------------------------------------------------------------------------- unpackk */

VEC_INLINE void unpack_square(const enum varve_format f, const uint8_t *const *rows, int32_t n_row,
                              int32_t c, int32_t n_column, float *t) {
    const int64_t offset = quant_row_bytes(f, c);
    __m256 x[8];
    VEC_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        if (i >= n_row) {
            x[i] = _mm256_setzero_ps();
        } else if (n_column >= 8) {
            x[i] = vec_load_float(f, rows[i] + offset);
        } else {
            x[i] = vec_load_float_part(f, rows[i] + offset, n_column);
        }
    }
    vec_transpose(x);
    VEC_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        if (i < n_column) _mm256_store_ps(t + i * VARVE_TILE_ROWS, x[i]);
    }
}

VEC_INLINE void store_column(float *t, vec_mask valid, vec_f32 x) {
    _mm256_store_ps(t, _mm256_and_ps(x, _mm256_castsi256_ps(valid)));
}

VEC_INLINE void unpack_block(const enum varve_format f, const uint8_t *const *rows, int64_t offset,
                             vec_mask valid, float *t) {
    const __m256i bias = _mm256_set1_epi8((char)quant_signed_bias(f));
    __m256i x[8];
    quant_load_codes(f, rows, offset, x);
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) x[j] = _mm256_and_si256(_mm256_sub_epi8(x[j], bias), valid);
    VEC_UNROLL
    for (int32_t j = 0; j < VARVE_BLOCK; j++) {
        const __m256i byte = _mm256_slli_epi32(x[j / 4], 24 - j % 4 * 8);
        _mm256_store_ps(t + j * VARVE_TILE_ROWS, _mm256_cvtepi32_ps(_mm256_srai_epi32(byte, 24)));
    }
}

/* -------------------------------------------------------------------------------------- unpackv */

VEC_INLINE void unpackv_float(const struct varve_unpackv_args *args, const enum varve_format f) {
    for (int32_t r = 0; r < args->n_row; r++) {
        vec_fetch_ahead(&args->ahead, r, 1);
        const uint8_t *const row = args->rows[r];
        float *const v = args->v + (int64_t)r * args->ld;
        int32_t c = 0;
        for (; c + VEC_LANES <= args->head_dim; c += VEC_LANES) {
            _mm256_store_ps(v + c, vec_load_float(f, row + quant_row_bytes(f, c)));
        }
        for (; c < args->ld; c += VEC_LANES) {
            _mm256_store_ps(
                v + c, vec_load_float_part(f, row + quant_row_bytes(f, c), args->head_dim - c));
        }
    }
}

VEC_INLINE void unpackv_quant(const struct varve_unpackv_args *args, const enum varve_format f) {
    for (int32_t r = 0; r < args->n_row; r++) {
        vec_fetch_ahead(&args->ahead, r, 1);
        const uint8_t *block = args->rows[r];
        float *v = args->v + (int64_t)r * args->ld;
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const __m256 d = vec_broadcast_f16(block);
            /* loads before stores: for all that the compiler knows these change the block */
            __m256 x[4];
            VEC_UNROLL
            for (int32_t j = 0; j < 4; j++) {
                x[j] = _mm256_mul_ps(d, quant_load_quarter(f, block, j));
                if (quant_has_min(f)) x[j] = _mm256_add_ps(x[j], vec_broadcast_f16(block + 2));
            }
            VEC_UNROLL
            for (int32_t j = 0; j < 4; j++) _mm256_store_ps(v + VEC_LANES * j, x[j]);
            block += quant_bytes(f);
            v += VARVE_BLOCK;
        }
    }
}

/* ---------------------------------------------------------------------------------------- table */

UNPACKK(varve_unpackk_f32_avx2, float, VARVE_FORMAT_F32)
UNPACKK(varve_unpackk_f16_avx2, float, VARVE_FORMAT_F16)
UNPACKK(varve_unpackk_bf16_avx2, float, VARVE_FORMAT_BF16)
UNPACKK(varve_unpackk_q8_0_avx2, quant, VARVE_FORMAT_Q8_0)
UNPACKK(varve_unpackk_q4_0_avx2, quant, VARVE_FORMAT_Q4_0)
UNPACKK(varve_unpackk_q4_1_avx2, quant, VARVE_FORMAT_Q4_1)
UNPACKK(varve_unpackk_q5_0_avx2, quant, VARVE_FORMAT_Q5_0)
UNPACKK(varve_unpackk_q5_1_avx2, quant, VARVE_FORMAT_Q5_1)
UNPACKK(varve_unpackk_iq4_nl_avx2, quant, VARVE_FORMAT_IQ4_NL)
UNPACKV(varve_unpackv_f32_avx2, float, VARVE_FORMAT_F32)
UNPACKV(varve_unpackv_f16_avx2, float, VARVE_FORMAT_F16)
UNPACKV(varve_unpackv_bf16_avx2, float, VARVE_FORMAT_BF16)
UNPACKV(varve_unpackv_q8_0_avx2, quant, VARVE_FORMAT_Q8_0)
UNPACKV(varve_unpackv_q4_0_avx2, quant, VARVE_FORMAT_Q4_0)
UNPACKV(varve_unpackv_q4_1_avx2, quant, VARVE_FORMAT_Q4_1)
UNPACKV(varve_unpackv_q5_0_avx2, quant, VARVE_FORMAT_Q5_0)
UNPACKV(varve_unpackv_q5_1_avx2, quant, VARVE_FORMAT_Q5_1)
UNPACKV(varve_unpackv_iq4_nl_avx2, quant, VARVE_FORMAT_IQ4_NL)
