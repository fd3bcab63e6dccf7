#include "kernel/dot_avxvnni.h"

#include "kernel/pack.h"
#include "kernel/pairs_avxvnni.h"

PACKK(varve_packk_q8_0_avxvnni, VARVE_FORMAT_Q8_0)
PACKK(varve_packk_q4_0_avxvnni, VARVE_FORMAT_Q4_0)
PACKK(varve_packk_q4_1_avxvnni, VARVE_FORMAT_Q4_1)
PACKK(varve_packk_q5_0_avxvnni, VARVE_FORMAT_Q5_0)
PACKK(varve_packk_q5_1_avxvnni, VARVE_FORMAT_Q5_1)
PACKK(varve_packk_iq4_nl_avxvnni, VARVE_FORMAT_IQ4_NL)

void varve_packscore_q8_avxvnni(const struct varve_packscore_args *args) { packscore(args); }

/* ------------------------------------------------------------------------------------ packv */

/* A block of two rows: the codes in pairs, without bias, columns in order. */
VEC_INLINE void pack_pair(const enum varve_format f, const uint8_t *row0, const uint8_t *row1,
                          int16_t (*to)[2]) {
    const vec_i32 bias = _mm256_set1_epi16((int16_t)quant_signed_bias(f));
    VEC_UNROLL
    for (int32_t h = 0; h < 2; h++) {
        vec_i32 x[2];
        load_pairs(f, row0, row1, h, x);
        VEC_UNROLL
        for (int32_t v = 0; v < 2; v++) {
            _mm256_store_si256((__m256i *)(void *)(to + half_column(f, h, v)),
                               _mm256_sub_epi16(x[v], bias));
        }
    }
}

VEC_INLINE void packv(const struct varve_packv_args *args, const enum varve_format f) {
    const int32_t n_block = args->head_dim / VARVE_BLOCK;
    for (int32_t r = 0; r < args->n_row; r += 2) {
        vec_fetch_ahead(&args->ahead, r, 2);
        const uint8_t *const row0 = args->rows[r];
        const uint8_t *const row1 = args->rows[vec_min_i32(r + 1, args->n_row - 1)];
        for (int32_t b = 0; b < n_block; b++) {
            const int64_t offset = (int64_t)b * quant_bytes(f);
            const int64_t at = ((int64_t)b * VARVE_TILE_ROWS / 2 + r / 2) * VARVE_BLOCK;
            pack_pair(f, row0 + offset, row1 + offset, args->x + at);
        }
    }
    for (int32_t b = 0; b < n_block; b += PAIRS_BLOCKS) {
        const int32_t n = vec_min_i32(n_block - b, PAIRS_BLOCKS);
        const int64_t offset = (int64_t)b * quant_bytes(f), at = (int64_t)b * VARVE_TILE_ROWS;
        load_halves(args->rows, args->n_row, offset, quant_bytes(f), n,
                    (float(*)[VARVE_TILE_ROWS])(args->dv + at));
        if (!quant_has_min(f)) continue;
        load_halves(args->rows, args->n_row, offset + 2, quant_bytes(f), n,
                    (float(*)[VARVE_TILE_ROWS])(args->mv + at));
    }
}

#define PACKV(name, f) \
    void name(const struct varve_packv_args *args) { packv(args, f); }
PACKV(varve_packv_q8_0_avxvnni, VARVE_FORMAT_Q8_0)
PACKV(varve_packv_q4_0_avxvnni, VARVE_FORMAT_Q4_0)
PACKV(varve_packv_q4_1_avxvnni, VARVE_FORMAT_Q4_1)
PACKV(varve_packv_q5_0_avxvnni, VARVE_FORMAT_Q5_0)
PACKV(varve_packv_q5_1_avxvnni, VARVE_FORMAT_Q5_1)
PACKV(varve_packv_iq4_nl_avxvnni, VARVE_FORMAT_IQ4_NL)
