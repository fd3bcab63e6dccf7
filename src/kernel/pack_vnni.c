#include "kernel/quant_avx512.h"

/* ---------------------------------------------------------------------------------------- packk */

VEC_INLINE void packk(const struct varve_packk_args *args, const enum varve_format f) {
    const uint8_t *spare[VEC_LANES];
    const __m512i more = _mm512_set1_epi8((char)(128 - quant_bias(f)));
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        vec_fetch_ahead(&args->ahead, r, VEC_LANES);
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        const __mmask16 valid = vec_first(args->n_row - r);
        for (int32_t b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
            const int64_t offset = (int64_t)b * quant_bytes(f);
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r;
            uint32_t *const to = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS + r;
            __m512i x[8];
            quant_load_codes(f, rows, offset, x);
            VEC_UNROLL
            for (int32_t j = 0; j < 8; j++) {
                const __m512i y = quant_bias(f) == 128 ? x[j] : _mm512_add_epi8(x[j], more);
                _mm512_store_si512(to + j * VARVE_TILE_ROWS, y);
            }
            _mm512_store_ps(args->dk + at,
                            _mm512_maskz_mov_ps(valid, vec_gather_f16(rows, offset)));
            if (quant_has_min(f)) {
                _mm512_store_ps(args->mk + at,
                                _mm512_maskz_mov_ps(valid, vec_gather_f16(rows, offset + 2)));
            }
        }
    }
}

#define PACKK(name, f) \
    void name(const struct varve_packk_args *args) { packk(args, f); }
PACKK(varve_packk_q8_0_vnni, VARVE_FORMAT_Q8_0)
PACKK(varve_packk_q4_0_vnni, VARVE_FORMAT_Q4_0)
PACKK(varve_packk_q4_1_vnni, VARVE_FORMAT_Q4_1)
PACKK(varve_packk_q5_0_vnni, VARVE_FORMAT_Q5_0)
PACKK(varve_packk_q5_1_vnni, VARVE_FORMAT_Q5_1)
PACKK(varve_packk_iq4_nl_vnni, VARVE_FORMAT_IQ4_NL)

/* ------------------------------------------------------------------------------------ packscore */

/* nq queries x nv vectors of 16 rows: integer sums of a block and sums of the row stay in
 * registers. */
VEC_INLINE void score_tile(const struct varve_packscore_args *args, int32_t a0, int32_t r,
                           const int32_t nq, const int32_t nv) {
    const struct varve_queries *const q = args->q;
    __m512 sum[8];
    VEC_UNROLL
    for (int32_t i = 0; i < nq * nv; i++) sum[i] = _mm512_setzero_ps();
    for (int32_t b = 0; b < q->n_block; b++) {
        const uint32_t *const x = args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS + r;
        const int8_t *const i0 = q->i + (int64_t)a0 * q->ld + b * VARVE_BLOCK;
        const int32_t *const q_sum = q->sum + (int64_t)a0 * q->n_block + b;
        const float *const d = q->d + (int64_t)a0 * q->n_block + b;
        __m512i dot[8];
        VEC_UNROLL
        for (int32_t a = 0; a < nq; a++) {
            VEC_UNROLL
            for (int32_t v = 0; v < nv; v++) {
                dot[a * nv + v] = _mm512_set1_epi32(-128 * q_sum[(int64_t)a * q->n_block]);
            }
        }
        VEC_UNROLL
        for (int32_t j = 0; j < VARVE_BLOCK / 4; j++) {
            __m512i k[4];
            VEC_UNROLL
            for (int32_t v = 0; v < nv; v++) {
                k[v] = _mm512_load_si512(x + j * VARVE_TILE_ROWS + v * VEC_LANES);
            }
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                const __m512i y = vec_broadcast_4_bytes(i0 + (int64_t)a * q->ld + 4 * j);
                VEC_UNROLL
                for (int32_t v = 0; v < nv; v++) {
                    /* an intrinsic would copy the sum */
                    __asm__("vpdpbusd %2, %1, %0" : "+v"(dot[a * nv + v]) : "v"(k[v]), "v"(y));
                }
            }
        }
        VEC_UNROLL
        for (int32_t v = 0; v < nv; v++) {
            const int64_t at = (int64_t)b * VARVE_TILE_ROWS + r + v * VEC_LANES;
            const __m512 dk = _mm512_load_ps(args->dk + at);
            VEC_UNROLL
            for (int32_t a = 0; a < nq; a++) {
                __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[a * nv + v]), dk);
                if (args->mk != NULL) {
                    const __m512 s = _mm512_set1_ps((float)q_sum[(int64_t)a * q->n_block]);
                    part = _mm512_fmadd_ps(_mm512_load_ps(args->mk + at), s, part);
                }
                const __m512 scale = _mm512_set1_ps(d[(int64_t)a * q->n_block]);
                sum[a * nv + v] = _mm512_fmadd_ps(part, scale, sum[a * nv + v]);
            }
        }
    }
    VEC_UNROLL
    for (int32_t a = 0; a < nq; a++) {
        VEC_UNROLL
        for (int32_t v = 0; v < nv; v++) {
            _mm512_store_ps(args->s + (int64_t)(a0 + a) * VARVE_TILE_ROWS + r + v * VEC_LANES,
                            sum[a * nv + v]);
        }
    }
}

VEC_INLINE void score_rows(const struct varve_packscore_args *args, int32_t r, const int32_t nv) {
    int32_t a = 0;
    for (; a + 2 <= args->q->n; a += 2) score_tile(args, a, r, 2, nv);
    if (a < args->q->n) score_tile(args, a, r, 1, nv);
}

void varve_packscore_q8_vnni(const struct varve_packscore_args *args) {
    const int32_t n = (args->n_row + VEC_LANES - 1) / VEC_LANES;
    switch (n) {
    case 4: score_rows(args, 0, 4); break;
    case 3: score_rows(args, 0, 3); break;
    case 2: score_rows(args, 0, 2); break;
    default: score_rows(args, 0, 1); break;
    }
}
