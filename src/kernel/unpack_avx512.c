#include "kernel/vec_avx512.h"

/* -------------------------------------------------------------------------------------- unpackk */

/* 16 rows x up to 16 columns of f16. Missing rows are zero without being read. */
static void unpack_f16_square(const uint8_t *const *rows, int32_t n_row, int32_t c,
                              int32_t n_column, float *t) {
    __m512 x[16];
    if (n_row >= 16 && n_column >= 16) {
        VEC_UNROLL
        for (int32_t i = 0; i < 16; i++) x[i] = vec_load_f16(rows[i] + 2 * c);
    } else {
        const __mmask16 wanted = vec_first(n_column);
        VEC_UNROLL
        for (int32_t i = 0; i < 16; i++) {
            x[i] = i < n_row ? vec_load_f16_part(rows[i] + 2 * c, wanted) : _mm512_setzero_ps();
        }
    }
    vec_transpose(x);
    VEC_UNROLL
    for (int32_t i = 0; i < 16; i++) {
        if (i < n_column) _mm512_store_ps(t + i * VARVE_TILE_ROWS, x[i]);
    }
}

void varve_unpackk_f16_avx512(const struct varve_unpackk_args *args) {
    for (int32_t r = 0; r < args->n_row; r += 16) {
        for (int32_t c = 0; c < args->head_dim; c += 16) {
            unpack_f16_square(args->rows + r, args->n_row - r, c, args->head_dim - c,
                              args->t + (int64_t)c * VARVE_TILE_ROWS + r);
        }
    }
}

/* Rows past the last become zero columns. */
VEC_INLINE void store_column(float *t, __mmask16 valid, __m512 x) {
    _mm512_store_ps(t, _mm512_maskz_mov_ps(valid, x));
}

void varve_unpackk_q8_0_avx512(const struct varve_unpackk_args *args) {
    const uint8_t *spare[VEC_LANES];
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        const __mmask16 valid = vec_first(args->n_row - r);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * 34;
            float *t = args->t + (int64_t)b * VARVE_BLOCK * VARVE_TILE_ROWS + r;
            for (int32_t half = 0; half < 2; half++) {
                __m512i x[4];
                vec_load_quads(rows, offset + 2 + 16 * half, x);
                VEC_UNROLL
                for (int32_t j = 0; j < 16; j++) {
                    const __m512i byte = _mm512_slli_epi32(x[j / 4], (unsigned)(24 - j % 4 * 8));
                    const __m512i value = _mm512_srai_epi32(byte, 24);
                    _mm512_store_ps(t + j * VARVE_TILE_ROWS,
                                    _mm512_maskz_cvtepi32_ps(valid, value));
                }
                t += 16 * VARVE_TILE_ROWS;
            }
            store_column(args->dk + (int64_t)b * VARVE_TILE_ROWS + r, valid,
                         vec_gather_f16(rows, offset));
        }
    }
}

void varve_unpackk_q4_0_avx512(const struct varve_unpackk_args *args) {
    /* the permutation looks at the lowest four bits of a lane only */
    const __m512 value_of = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    const uint8_t *spare[VEC_LANES];
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        const __mmask16 valid = vec_first(args->n_row - r);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * 18;
            float *const t = args->t + (int64_t)b * VARVE_BLOCK * VARVE_TILE_ROWS + r;
            __m512i x[4];
            vec_load_quads(rows, offset + 2, x);
            VEC_UNROLL
            for (int32_t j = 0; j < 16; j++) {
                const __m512i low = _mm512_srli_epi32(x[j / 4], (unsigned)(j % 4 * 8));
                const __m512i high = _mm512_srli_epi32(x[j / 4], (unsigned)(j % 4 * 8 + 4));
                _mm512_store_ps(t + j * VARVE_TILE_ROWS,
                                _mm512_maskz_permutexvar_ps(valid, low, value_of));
                _mm512_store_ps(t + (16 + j) * VARVE_TILE_ROWS,
                                _mm512_maskz_permutexvar_ps(valid, high, value_of));
            }
            store_column(args->dk + (int64_t)b * VARVE_TILE_ROWS + r, valid,
                         vec_gather_f16(rows, offset));
        }
    }
}

/* -------------------------------------------------------------------------------------- unpackv */

void varve_unpackv_f16_avx512(const struct varve_unpackv_args *args) {
    const int32_t n_full = args->head_dim / VEC_LANES * VEC_LANES;
    const __mmask16 rest = vec_first(args->head_dim - n_full);
    for (int32_t r = 0; r < args->n_row; r++) {
        const uint8_t *const row = args->rows[r];
        float *const v = args->v + (int64_t)r * args->ld;
        for (int32_t c = 0; c < n_full; c += VEC_LANES) {
            _mm512_store_ps(v + c, vec_load_f16(row + 2 * c));
        }
        if (rest != 0) _mm512_store_ps(v + n_full, vec_load_f16_part(row + 2 * n_full, rest));
    }
}

void varve_unpackv_q8_0_avx512(const struct varve_unpackv_args *args) {
    for (int32_t r = 0; r < args->n_row; r++) {
        const uint8_t *block = args->rows[r];
        float *v = args->v + (int64_t)r * args->ld;
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++, block += 34, v += VARVE_BLOCK) {
            const __m512 d = vec_broadcast_f16(block);
            const __m512i low = _mm512_cvtepi8_epi32(vec_load_16_bytes(block + 2));
            const __m512i high = _mm512_cvtepi8_epi32(vec_load_16_bytes(block + 18));
            _mm512_store_ps(v, _mm512_mul_ps(_mm512_cvtepi32_ps(low), d));
            _mm512_store_ps(v + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(high), d));
        }
    }
}

void varve_unpackv_q4_0_avx512(const struct varve_unpackv_args *args) {
    const __m512 code = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    for (int32_t r = 0; r < args->n_row; r++) {
        const uint8_t *block = args->rows[r];
        float *v = args->v + (int64_t)r * args->ld;
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++, block += 18, v += VARVE_BLOCK) {
            const __m512 value_of = _mm512_mul_ps(code, vec_broadcast_f16(block));
            const __m512i packed = _mm512_cvtepu8_epi32(vec_load_16_bytes(block + 2));
            const __m512i high = _mm512_srli_epi32(packed, 4);
            _mm512_store_ps(v, _mm512_permutexvar_ps(packed, value_of));
            _mm512_store_ps(v + 16, _mm512_permutexvar_ps(high, value_of));
        }
    }
}
