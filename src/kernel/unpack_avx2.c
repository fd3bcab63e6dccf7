#include "kernel/vec_avx2.h"

/* The tile's columns are complete up to a multiple of 16. */
VEC_INLINE int32_t tile_columns(int32_t n_row) { return (n_row + 15) / 16 * 16; }

/* -------------------------------------------------------------------------------------- unpackk */

/* 8 rows x up to 8 columns of f16. Missing rows are zero without being read. */
static void unpack_f16_square(const uint8_t *const *rows, int32_t n_row, int32_t c,
                              int32_t n_column, float *t) {
    __m256 x[8];
    VEC_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        if (i >= n_row) {
            x[i] = _mm256_setzero_ps();
        } else if (n_column >= 8) {
            x[i] = vec_load_f16(rows[i] + 2 * c);
        } else {
            x[i] = vec_load_f16_part(rows[i] + 2 * c, n_column);
        }
    }
    vec_transpose(x);
    VEC_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        if (i < n_column) _mm256_store_ps(t + i * VARVE_TILE_ROWS, x[i]);
    }
}

void varve_unpackk_f16_avx2(const struct varve_unpackk_args *args) {
    for (int32_t r = 0; r < tile_columns(args->n_row); r += 8) {
        for (int32_t c = 0; c < args->head_dim; c += 8) {
            unpack_f16_square(args->rows + r, args->n_row - r, c, args->head_dim - c,
                              args->t + (int64_t)c * VARVE_TILE_ROWS + r);
        }
    }
}

/* Rows past the last become zero columns. */
VEC_INLINE void store_column(float *t, __m256i valid, __m256 x) {
    _mm256_store_ps(t, _mm256_and_ps(x, _mm256_castsi256_ps(valid)));
}

void varve_unpackk_q8_0_avx2(const struct varve_unpackk_args *args) {
    const uint8_t *spare[VEC_LANES];
    for (int32_t r = 0; r < tile_columns(args->n_row); r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        const __m256i valid = vec_first(args->n_row - r);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * 34;
            float *t = args->t + (int64_t)b * VARVE_BLOCK * VARVE_TILE_ROWS + r;
            for (int32_t half = 0; half < 2; half++) {
                __m256i x[4];
                vec_load_quads(rows, offset + 2 + 16 * half, x);
                VEC_UNROLL
                for (int32_t j = 0; j < 16; j++) {
                    const __m256i byte = _mm256_slli_epi32(x[j / 4], 24 - j % 4 * 8);
                    const __m256 value = _mm256_cvtepi32_ps(_mm256_srai_epi32(byte, 24));
                    store_column(t + j * VARVE_TILE_ROWS, valid, value);
                }
                t += 16 * VARVE_TILE_ROWS;
            }
            store_column(args->dk + (int64_t)b * VARVE_TILE_ROWS + r, valid,
                         vec_gather_f16(rows, offset));
        }
    }
}

/* The codes 0..15 in the lowest four bits of each lane as values -8..7. */
VEC_INLINE __m256 nibble_values(__m256i x) {
    const __m256i code = _mm256_and_si256(x, _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(code, _mm256_set1_epi32(8)));
}

void varve_unpackk_q4_0_avx2(const struct varve_unpackk_args *args) {
    const uint8_t *spare[VEC_LANES];
    for (int32_t r = 0; r < tile_columns(args->n_row); r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        const __m256i valid = vec_first(args->n_row - r);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * 18;
            float *const t = args->t + (int64_t)b * VARVE_BLOCK * VARVE_TILE_ROWS + r;
            __m256i x[4];
            vec_load_quads(rows, offset + 2, x);
            VEC_UNROLL
            for (int32_t j = 0; j < 16; j++) {
                const __m256i byte = _mm256_srli_epi32(x[j / 4], j % 4 * 8);
                store_column(t + j * VARVE_TILE_ROWS, valid, nibble_values(byte));
                store_column(t + (16 + j) * VARVE_TILE_ROWS, valid,
                             nibble_values(_mm256_srli_epi32(byte, 4)));
            }
            store_column(args->dk + (int64_t)b * VARVE_TILE_ROWS + r, valid,
                         vec_gather_f16(rows, offset));
        }
    }
}

/* -------------------------------------------------------------------------------------- unpackv */

void varve_unpackv_f16_avx2(const struct varve_unpackv_args *args) {
    for (int32_t r = 0; r < args->n_row; r++) {
        const uint8_t *const row = args->rows[r];
        float *const v = args->v + (int64_t)r * args->ld;
        int32_t c = 0;
        for (; c + VEC_LANES <= args->head_dim; c += VEC_LANES) {
            _mm256_store_ps(v + c, vec_load_f16(row + 2 * c));
        }
        for (; c < args->ld; c += VEC_LANES) {
            _mm256_store_ps(v + c, vec_load_f16_part(row + 2 * c, args->head_dim - c));
        }
    }
}

void varve_unpackv_q8_0_avx2(const struct varve_unpackv_args *args) {
    for (int32_t r = 0; r < args->n_row; r++) {
        const uint8_t *block = args->rows[r];
        float *v = args->v + (int64_t)r * args->ld;
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++, block += 34, v += VARVE_BLOCK) {
            const __m256 d = vec_broadcast_f16(block);
            VEC_UNROLL
            for (int32_t j = 0; j < 4; j++) {
                const __m256i code = _mm256_cvtepi8_epi32(vec_load_8_bytes(block + 2 + 8 * j));
                _mm256_store_ps(v + 8 * j, _mm256_mul_ps(_mm256_cvtepi32_ps(code), d));
            }
        }
    }
}

void varve_unpackv_q4_0_avx2(const struct varve_unpackv_args *args) {
    for (int32_t r = 0; r < args->n_row; r++) {
        const uint8_t *block = args->rows[r];
        float *v = args->v + (int64_t)r * args->ld;
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++, block += 18, v += VARVE_BLOCK) {
            const __m256 d = vec_broadcast_f16(block);
            VEC_UNROLL
            for (int32_t j = 0; j < 2; j++) {
                const __m256i packed = _mm256_cvtepu8_epi32(vec_load_8_bytes(block + 2 + 8 * j));
                const __m256i high = _mm256_srli_epi32(packed, 4);
                _mm256_store_ps(v + 8 * j, _mm256_mul_ps(nibble_values(packed), d));
                _mm256_store_ps(v + 16 + 8 * j, _mm256_mul_ps(nibble_values(high), d));
            }
        }
    }
}
