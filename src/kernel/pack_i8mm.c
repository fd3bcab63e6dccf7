#include "kernel/pack_neon.h"

/* 8 codes of each of 16 rows, two rows to a vector. */
VEC_INLINE void load_pairs(const uint32_t *x, uint8x16_t k[8]) {
    VEC_UNROLL
    for (int32_t v = 0; v < 4; v++) {
        const uint32x4_t first = vld1q_u32(x + v * VEC_LANES);
        const uint32x4_t second = vld1q_u32(x + VARVE_TILE_ROWS + v * VEC_LANES);
        k[2 * v] = vreinterpretq_u8_u32(vzip1q_u32(first, second));
        k[2 * v + 1] = vreinterpretq_u8_u32(vzip2q_u32(first, second));
    }
}

/* nq queries x 16 rows of one block: unsigned codes by two queries, of which the second is the
 * first again where there is only one. What 128 in each code adds is taken off at the end. */
VEC_INLINE void score_tile(const struct varve_packscore_args *args, int32_t a0, int32_t r,
                           int32_t b, const int32_t nq, const bool has_min) {
    const struct varve_queries *const q = args->q;
    const uint32_t *const x = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS + r;
    const int8_t *const i = q->i + (int64_t)a0 * q->ld + b * VARVE_BLOCK;
    const int64_t next = nq > 1 ? q->ld : 0;
    int32x4_t sum[16], dot[16];
    VEC_UNROLL
    for (int32_t n = 0; n < 16; n++) sum[n] = vdupq_n_s32(0);
    VEC_UNROLL
    for (int32_t j = 0; j < 4; j++) {
        uint8x16_t k[8];
        load_pairs(x + 2 * j * VARVE_TILE_ROWS, k);
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a += 2) {
            const int8_t *const from = i + (int64_t)a * q->ld + 8 * j;
            const int8x16_t y = vcombine_s8(vld1_s8(from), vld1_s8(from + next));
            VEC_UNROLL
            for (int32_t n = 0; n < 8; n++) {
                sum[4 * a + n] = vusmmlaq_s32(sum[4 * a + n], k[n], y);
            }
        }
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        const int32x4_t more = vdupq_n_s32(128 * q->sum[(int64_t)(a0 + a) * q->n_block + b]);
        VEC_UNROLL
        for (int32_t v = 0; v < 4; v++) {
            const int32x4_t *const pair = sum + a / 2 * 8 + 2 * v;
            const int32x4_t own =
                a % 2 == 0 ? vuzp1q_s32(pair[0], pair[1]) : vuzp2q_s32(pair[0], pair[1]);
            dot[4 * a + v] = vsubq_s32(own, more);
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
            if (a + 2 <= n) {
                score_tile(args, a, r, b, 2, has_min);
                a += 2;
            }
            if (a < n) score_tile(args, a, r, b, 1, has_min);
        }
    }
}

void varve_packscore_q8_i8mm(const struct varve_packscore_args *args) {
    if (args->mk == NULL) {
        score(args, false);
    } else {
        score(args, true);
    }
}
