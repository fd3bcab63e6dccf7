#include "kernel/foldq_vnni.h"

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
