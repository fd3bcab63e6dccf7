#include "kernel/dot_vnni.h"
#include "kernel/foldq_vnni.h"

#include "kernel/pack.h"

PACKK(varve_packk_q8_0_vnni, VARVE_FORMAT_Q8_0)
PACKK(varve_packk_q4_0_vnni, VARVE_FORMAT_Q4_0)
PACKK(varve_packk_q4_1_vnni, VARVE_FORMAT_Q4_1)
PACKK(varve_packk_q5_0_vnni, VARVE_FORMAT_Q5_0)
PACKK(varve_packk_q5_1_vnni, VARVE_FORMAT_Q5_1)
PACKK(varve_packk_iq4_nl_vnni, VARVE_FORMAT_IQ4_NL)

void varve_packscore_q8_vnni(const struct varve_packscore_args *args) { packscore(args); }

/* ------------------------------------------------------------------------------------ packv */

/* The codes of two rows of a block in pairs, without bias, columns in order. */
VEC_INLINE void load_values(const enum varve_format f, const uint8_t *row0, const uint8_t *row1,
                            __m512i x[2]) {
    __m512i y[2];
    load_pairs(f, row0, row1, y);
    if (f == VARVE_FORMAT_Q8_0) {
        const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        const __m512i high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
        x[0] = _mm512_permutex2var_epi64(y[0], low, y[1]);
        x[1] = _mm512_permutex2var_epi64(y[0], high, y[1]);
        return;
    }
    const __m512i bias = _mm512_set1_epi16((int16_t)quant_signed_bias(f));
    x[0] = _mm512_sub_epi16(y[0], bias);
    x[1] = _mm512_sub_epi16(y[1], bias);
}

/* The halves at `offset` of each row; 0 past the last. */
VEC_INLINE void pack_halves(const struct varve_packv_args *args, int64_t offset, float *x) {
    uint16_t half[VARVE_TILE_ROWS] __attribute__((aligned(64)));
    for (int32_t v = 0; v < VARVE_TILE_ROWS; v += 2 * VEC_LANES) {
        _mm512_store_si512(half + v, _mm512_setzero_si512());
    }
    vec_gather_halves(args->rows, args->n_row, offset, 0, 1, VARVE_TILE_ROWS, half);
    VEC_UNROLL
    for (int32_t v = 0; v < VARVE_TILE_ROWS; v += VEC_LANES) {
        _mm512_store_ps(x + v, vec_load_halves(half + v));
    }
}

VEC_INLINE void packv(const struct varve_packv_args *args, const enum varve_format f) {
    const int32_t n_block = args->head_dim / VARVE_BLOCK;
    for (int32_t r = 0; r < args->n_row; r += 2) {
        vec_fetch_ahead(&args->ahead, r, 2);
        const uint8_t *const row0 = args->rows[r];
        const uint8_t *const row1 = args->rows[vec_min_i32(r + 1, args->n_row - 1)];
        for (int32_t b = 0; b < n_block; b++) {
            __m512i x[2];
            int16_t(*const to)[2] =
                args->x + ((int64_t)b * VARVE_TILE_ROWS / 2 + r / 2) * VARVE_BLOCK;
            load_values(f, row0 + b * quant_bytes(f), row1 + b * quant_bytes(f), x);
            _mm512_store_si512(to, x[0]);
            _mm512_store_si512(to + VEC_LANES, x[1]);
        }
    }
    for (int32_t b = 0; b < n_block; b++) {
        const int64_t offset = (int64_t)b * quant_bytes(f);
        pack_halves(args, offset, args->dv + (int64_t)b * VARVE_TILE_ROWS);
        if (!quant_has_min(f)) continue;
        pack_halves(args, offset + 2, args->mv + (int64_t)b * VARVE_TILE_ROWS);
    }
}

#define PACKV(name, f) \
    void name(const struct varve_packv_args *args) { packv(args, f); }
PACKV(varve_packv_q8_0_vnni, VARVE_FORMAT_Q8_0)
PACKV(varve_packv_q4_0_vnni, VARVE_FORMAT_Q4_0)
PACKV(varve_packv_q4_1_vnni, VARVE_FORMAT_Q4_1)
PACKV(varve_packv_q5_0_vnni, VARVE_FORMAT_Q5_0)
PACKV(varve_packv_q5_1_vnni, VARVE_FORMAT_Q5_1)
PACKV(varve_packv_iq4_nl_vnni, VARVE_FORMAT_IQ4_NL)
