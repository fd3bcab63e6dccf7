#include "kernel/quant_vbmi.h"

/* Blocks 0 and 1 of 16 rows, from those of the rows 0-7 and 8-15. */
VEC_INLINE void part(__m512 low, __m512 high, __m512 of_block[2]) {
    of_block[0] = _mm512_shuffle_f32x4(low, high, 0x88);
    of_block[1] = _mm512_shuffle_f32x4(low, high, 0xDD);
}

/* Pair p of 16 rows from row r on. */
VEC_INLINE void pack_pair(const struct varve_packk_args *args, const enum varve_format f,
                          const uint8_t *const *rows, int32_t r, int32_t p) {
    const __m512i more = _mm512_set1_epi8((char)(128 - quant_bias(f)));
    const __mmask16 valid = vec_first(args->n_row - r);
    uint32_t *const to = args->x + (int64_t)p * (PAIR_VALUES / 4) * VARVE_TILE_ROWS + r;
    float *const dk = args->dk + (int64_t)p * 2 * VARVE_TILE_ROWS + r;
    __m512i x[2][8];
    __m512 d[2], of_block[2];
    VEC_UNROLL
    for (int32_t v = 0; v < 2; v++) d[v] = load_codes(f, rows + v * ROWS, p, x[v]);
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        part(_mm512_castsi512_ps(x[0][j]), _mm512_castsi512_ps(x[1][j]), of_block);
        VEC_UNROLL
        for (int32_t b = 0; b < 2; b++) {
            const __m512i y = _mm512_castps_si512(of_block[b]);
            _mm512_store_si512(to + (8 * b + j) * VARVE_TILE_ROWS,
                               quant_bias(f) == 128 ? y : _mm512_add_epi8(y, more));
        }
    }
    part(d[0], d[1], of_block);
    VEC_UNROLL
    for (int32_t b = 0; b < 2; b++) {
        _mm512_store_ps(dk + b * VARVE_TILE_ROWS, _mm512_maskz_mov_ps(valid, of_block[b]));
    }
}

VEC_INLINE void packk(const struct varve_packk_args *args, const enum varve_format f,
                      varve_packk_fn *otherwise) {
    const uint8_t *spare[VEC_LANES];
    if (args->head_dim % PAIR_VALUES != 0) {
        otherwise(args);
        return;
    }
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        for (int32_t p = 0; p < args->head_dim / PAIR_VALUES; p++) {
            pack_pair(args, f, rows, r, p);
        }
    }
}

#define PACKK(name, f, otherwise) \
    void name(const struct varve_packk_args *args) { packk(args, f, otherwise); }
PACKK(varve_packk_q8_0_vbmi, VARVE_FORMAT_Q8_0, varve_packk_q8_0_vnni)
PACKK(varve_packk_q4_0_vbmi, VARVE_FORMAT_Q4_0, varve_packk_q4_0_vnni)
