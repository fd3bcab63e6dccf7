#include "kernel/quant_avx512.h"

#include "kernel/unpack.h"

/* -------------------------------------------------------------------------------------- unpackk */

VEC_INLINE void unpack_square(const enum varve_format f, const uint8_t *const *rows, int32_t n_row,
                              int32_t c, int32_t n_column, float *t) {
    const int64_t offset = quant_row_bytes(f, c);
    __m512 x[16];
    if (n_row >= 16 && n_column >= 16) {
        VEC_UNROLL
        for (int32_t i = 0; i < 16; i++) x[i] = vec_load_float(f, rows[i] + offset, 0xFFFF);
    } else {
        const __mmask16 wanted = vec_first(n_column);
        VEC_UNROLL
        for (int32_t i = 0; i < 16; i++) {
            x[i] = i < n_row ? vec_load_float(f, rows[i] + offset, wanted) : _mm512_setzero_ps();
        }
    }
    vec_transpose(x);
    VEC_UNROLL
    for (int32_t i = 0; i < 16; i++) {
        if (i < n_column) _mm512_store_ps(t + i * VARVE_TILE_ROWS, x[i]);
    }
}

VEC_INLINE void store_column(float *t, vec_mask valid, vec_f32 x) {
    _mm512_store_ps(t, _mm512_maskz_mov_ps(valid, x));
}

VEC_INLINE void unpack_block(const enum varve_format f, const uint8_t *const *rows, int64_t offset,
                             vec_mask valid, float *t) {
    __m512i x[8];
    quant_load_codes(f, rows, offset, x);
    VEC_UNROLL
    for (int32_t j = 0; j < VARVE_BLOCK; j++) {
        const __m512i code = _mm512_and_si512(_mm512_srli_epi32(x[j / 4], (unsigned)(j % 4 * 8)),
                                              _mm512_set1_epi32(0xFF));
        const __m512i value = _mm512_sub_epi32(code, _mm512_set1_epi32(quant_bias(f)));
        _mm512_store_ps(t + j * VARVE_TILE_ROWS, _mm512_maskz_cvtepi32_ps(valid, value));
    }
}

/* -------------------------------------------------------------------------------------- unpackv */

VEC_INLINE void unpackv_float(const struct varve_unpackv_args *args, const enum varve_format f) {
    const int32_t n_full = args->head_dim / VEC_LANES * VEC_LANES;
    const __mmask16 rest = vec_first(args->head_dim - n_full);
    for (int32_t r = 0; r < args->n_row; r++) {
        vec_fetch_ahead(&args->ahead, r, 1);
        const uint8_t *const row = args->rows[r];
        float *const v = args->v + (int64_t)r * args->ld;
        for (int32_t c = 0; c < n_full; c += VEC_LANES) {
            _mm512_store_ps(v + c, vec_load_float(f, row + quant_row_bytes(f, c), 0xFFFF));
        }
        if (rest != 0) {
            _mm512_store_ps(v + n_full, vec_load_float(f, row + quant_row_bytes(f, n_full), rest));
        }
    }
}

VEC_INLINE void unpackv_quant(const struct varve_unpackv_args *args, const enum varve_format f) {
    for (int32_t r = 0; r < args->n_row; r++) {
        vec_fetch_ahead(&args->ahead, r, 1);
        const uint8_t *block = args->rows[r];
        float *v = args->v + (int64_t)r * args->ld;
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const __m512 d = vec_broadcast_f16(block);
            VEC_UNROLL
            for (int32_t j = 0; j < 2; j++) {
                __m512 x = _mm512_mul_ps(d, quant_load_half(f, block, j));
                if (quant_has_min(f)) x = _mm512_add_ps(x, vec_broadcast_f16(block + 2));
                _mm512_store_ps(v + VEC_LANES * j, x);
            }
            block += quant_bytes(f);
            v += VARVE_BLOCK;
        }
    }
}

/* ---------------------------------------------------------------------------------------- table */

UNPACKK(varve_unpackk_f32_avx512, float, VARVE_FORMAT_F32)
UNPACKK(varve_unpackk_f16_avx512, float, VARVE_FORMAT_F16)
UNPACKK(varve_unpackk_bf16_avx512, float, VARVE_FORMAT_BF16)
UNPACKK(varve_unpackk_q8_0_avx512, quant, VARVE_FORMAT_Q8_0)
UNPACKK(varve_unpackk_q4_0_avx512, quant, VARVE_FORMAT_Q4_0)
UNPACKK(varve_unpackk_q4_1_avx512, quant, VARVE_FORMAT_Q4_1)
UNPACKK(varve_unpackk_q5_0_avx512, quant, VARVE_FORMAT_Q5_0)
UNPACKK(varve_unpackk_q5_1_avx512, quant, VARVE_FORMAT_Q5_1)
UNPACKK(varve_unpackk_iq4_nl_avx512, quant, VARVE_FORMAT_IQ4_NL)
UNPACKV(varve_unpackv_f32_avx512, float, VARVE_FORMAT_F32)
UNPACKV(varve_unpackv_f16_avx512, float, VARVE_FORMAT_F16)
UNPACKV(varve_unpackv_bf16_avx512, float, VARVE_FORMAT_BF16)
UNPACKV(varve_unpackv_q8_0_avx512, quant, VARVE_FORMAT_Q8_0)
UNPACKV(varve_unpackv_q4_0_avx512, quant, VARVE_FORMAT_Q4_0)
UNPACKV(varve_unpackv_q4_1_avx512, quant, VARVE_FORMAT_Q4_1)
UNPACKV(varve_unpackv_q5_0_avx512, quant, VARVE_FORMAT_Q5_0)
UNPACKV(varve_unpackv_q5_1_avx512, quant, VARVE_FORMAT_Q5_1)
UNPACKV(varve_unpackv_iq4_nl_avx512, quant, VARVE_FORMAT_IQ4_NL)
