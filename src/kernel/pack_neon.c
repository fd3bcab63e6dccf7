/* packk alone: multiplying what is packed pays from dotprod on. */
#include "kernel/quant_neon.h"

VEC_INLINE void pack_scales(const uint8_t *const *rows, int64_t offset, int32_t n_row, float *to) {
    vst1q_f32(to, vec_keep(vec_gather_f16(rows, offset), vec_lanes(n_row)));
}

/* Scales are complete up to a multiple of 16 columns. */
VEC_INLINE void packk(const struct varve_packk_args *args, const enum varve_format f) {
    const uint8_t *spare[VEC_LANES];
    const int32x4_t flip = vreinterpretq_s32_u8(vdupq_n_u8(128));
    for (int32_t r = 0; r < (args->n_row + 15) / 16 * 16; r += VEC_LANES) {
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * quant_bytes(f);
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r;
            uint32_t *const to = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS + r;
            int32x4_t x[8];
            quant_load_codes(f, rows, offset, x);
            VEC_UNROLL
            for (int32_t j = 0; j < 8; j++) {
                const int32x4_t y = j % 2 == 0 ? vuzp1q_s32(x[j / 2], x[4 + j / 2])
                                               : vuzp2q_s32(x[j / 2], x[4 + j / 2]);
                vst1q_u32(to + j * VARVE_TILE_ROWS, vreinterpretq_u32_s32(veorq_s32(y, flip)));
            }
            pack_scales(rows, offset, args->n_row - r, args->dk + at);
            if (quant_has_min(f)) pack_scales(rows, offset + 2, args->n_row - r, args->mk + at);
        }
    }
}

#define PACKK(name, f) \
    void name(const struct varve_packk_args *args) { packk(args, f); }
PACKK(varve_packk_q8_0_neon, VARVE_FORMAT_Q8_0)
PACKK(varve_packk_q4_0_neon, VARVE_FORMAT_Q4_0)
PACKK(varve_packk_q4_1_neon, VARVE_FORMAT_Q4_1)
PACKK(varve_packk_q5_0_neon, VARVE_FORMAT_Q5_0)
PACKK(varve_packk_q5_1_neon, VARVE_FORMAT_Q5_1)
PACKK(varve_packk_iq4_nl_neon, VARVE_FORMAT_IQ4_NL)
