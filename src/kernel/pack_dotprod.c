#include "kernel/pack_neon.h"

/* Codes by four bytes of Q, a lane of which all rows take. */
VEC_INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t k, int8x16_t y, const int32_t lane) {
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, k, y, 0);
    case 1: return vdotq_laneq_s32(sum, k, y, 1);
    case 2: return vdotq_laneq_s32(sum, k, y, 2);
    default: return vdotq_laneq_s32(sum, k, y, 3);
    }
}

/* nq queries x 16 rows of one block, 16 codes at a time: a lane of Q against four rows. */
VEC_INLINE void score_tile(const struct varve_packscore_args *args, int32_t a0, int32_t r,
                           int32_t b, const int32_t nq, const bool has_min) {
    const struct varve_queries *const q = args->q;
    const uint32_t *const x = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS + r;
    const int8_t *const i = q->i + (int64_t)a0 * q->ld + b * VARVE_BLOCK;
    const uint8x16_t flip = vdupq_n_u8(128);
    int32x4_t dot[16];
    VEC_UNROLL
    for (int32_t n = 0; n < 4 * nq; n++) dot[n] = vdupq_n_s32(0);
    VEC_UNROLL
    for (int32_t half = 0; half < 2; half++) {
        int8x16_t y[4];
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            y[a] = vld1q_s8(i + (int64_t)a * q->ld + 16 * half);
        }
        VEC_UNROLL
        for (int32_t j = 0; j < 4; j++) {
            VEC_UNROLL
            for (int32_t v = 0; v < 4; v++) {
                const uint32_t *const from = x + (4 * half + j) * VARVE_TILE_ROWS + v * VEC_LANES;
                const uint8x16_t k = veorq_u8(vreinterpretq_u8_u32(vld1q_u32(from)), flip);
                VEC_UNROLL
                for (int32_t a = 0; a < nq; a++) {
                    dot[4 * a + v] = dot_lane(dot[4 * a + v], vreinterpretq_s8_u8(k), y[a], j);
                }
            }
        }
    }
    pack_add(args, a0, r, b, nq, has_min, dot);
}

VEC_INLINE void score(const struct varve_packscore_args *args, const bool has_min) {
    const int32_t n = args->q->n;
    vec_fetch_ahead(&args->ahead, 0, args->ahead.n);
    for (int32_t r = 0; r < args->n_row; r += 16) {
        for (int32_t b = 0; b < args->q->n_block; b++) {
            int32_t a = 0;
            for (; a + 4 <= n; a += 4) score_tile(args, a, r, b, 4, has_min);
            for (; a < n; a++) score_tile(args, a, r, b, 1, has_min);
        }
    }
}

void varve_packscore_q8_dotprod(const struct varve_packscore_args *args) {
    if (args->mk == NULL) {
        score(args, false);
    } else {
        score(args, true);
    }
}
