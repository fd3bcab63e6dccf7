#include "kernel/quant_avx512.h"

#include "kernel/pair_bf16.h"
#include "kernel/tile_avx512.h"

VEC_INLINE __mmask32 tile_nonzero(__m512i y) { return _mm512_test_epi16_mask(y, y); }

VEC_INLINE __m512 tile_add(__m512 sum, __m512i x, __m512i y, __mmask32 nonzero, const bool sparse) {
    const __m512i value = sparse ? _mm512_maskz_mov_epi16(nonzero, x) : x;
    /* an intrinsic would copy the sum */
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(value), "v"(y));
    return sum;
}

/* ---------------------------------------------------------------------------------------- pairk */

/* 32 values of one row, or the first n of them and zeros, as 16 pairs. */
VEC_INLINE __m512i load_pairs(const enum varve_format f, const uint8_t *p, int32_t n) {
    const __mmask32 wanted = n >= VARVE_PAIRED ? 0xFFFFFFFFu : (1u << n) - 1u;
    if (f == VARVE_FORMAT_BF16) return _mm512_maskz_loadu_epi16(wanted, p);
    const __m512 first = vec_load_float(f, p, (__mmask16)wanted);
    if (n <= 16) return to_bf16(first, _mm512_setzero_ps());
    const uint8_t *const next = p + quant_row_bytes(f, VEC_LANES);
    return to_bf16(first, vec_load_float(f, next, (__mmask16)(wanted >> 16)));
}

VEC_INLINE void pairk(const struct varve_pairk_args *args, const enum varve_format f) {
    const uint8_t *spare[VEC_LANES];
    for (int32_t r = 0; r < args->n_row; r += VEC_LANES) {
        vec_fetch_ahead(&args->ahead, r, VEC_LANES);
        const uint8_t *const *rows = vec_rows(args->rows, args->n_row, r, spare);
        for (int32_t c = 0; c < args->head_dim; c += VARVE_PAIRED) {
            const int32_t n = vec_min_i32(args->head_dim - c, VARVE_PAIRED);
            uint32_t *const x = args->x + (int64_t)c / 2 * VARVE_TILE_ROWS + r;
            __m512 pairs[16];
            VEC_UNROLL
            for (int32_t i = 0; i < 16; i++) {
                pairs[i] = _mm512_castsi512_ps(load_pairs(f, rows[i] + quant_row_bytes(f, c), n));
            }
            vec_transpose(pairs);
            VEC_UNROLL
            for (int32_t i = 0; i < 16; i++) {
                _mm512_store_ps((float *)(void *)(x + i * VARVE_TILE_ROWS), pairs[i]);
            }
        }
    }
}

#define PAIRK(name, f) \
    void name(const struct varve_pairk_args *args) { pairk(args, f); }
PAIRK(varve_pairk_f32_bf16, VARVE_FORMAT_F32)
PAIRK(varve_pairk_f16_bf16, VARVE_FORMAT_F16)
PAIRK(varve_pairk_bf16_bf16, VARVE_FORMAT_BF16)

/* ------------------------------------------------------------------------------------ pairscore */

VEC_INLINE void tile_scores(const void *data, const int32_t product, int32_t a0, const int32_t nq,
                            const int32_t nv) {
    (void)product;
    const struct varve_pairscore_args *const args = data;
    const struct varve_queries *const q = args->q;
    const struct tile_factors factors = {q->pair, q->ld_pair, args->x, VARVE_TILE_ROWS,
                                         (q->head_dim + 1) / 2};
    tile_score(&factors, args->s, a0, nq, nv);
}

void varve_pairscore_any_bf16(const struct varve_pairscore_args *args) {
    tile_score_rows(args, 0, args->q->n, args->n_row);
}

/* ---------------------------------------------------------------------------------------- pairv */

/* 16 values of a row from column c on; of float formats the wanted ones, and zeros. */
VEC_INLINE __m512 load_values(const enum varve_format f, const uint8_t *row, int32_t c,
                              const int32_t half, __mmask16 wanted) {
    if (!quant_is(f)) return vec_load_float(f, row + quant_row_bytes(f, c), wanted);
    const uint8_t *const block = row + quant_row_bytes(f, c);
    const __m512 x = _mm512_mul_ps(vec_broadcast_f16(block), quant_load_half(f, block, half));
    return quant_has_min(f) ? _mm512_add_ps(x, vec_broadcast_f16(block + 2)) : x;
}

/* A pair of rows; without a second one zeros stand for it. */
VEC_INLINE void pair_rows(const struct varve_pairv_args *args, const enum varve_format f, int32_t r,
                          const bool both) {
    static const uint16_t order[32] __attribute__((aligned(64))) = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i interleave = _mm512_load_si512(order);
    const uint8_t *const first = args->rows[r], *const second = both ? args->rows[r + 1] : NULL;
    uint32_t *const x = args->x + (int64_t)r / 2 * args->ld;
    for (int32_t c = 0; c < args->head_dim; c += VARVE_BLOCK) {
        VEC_UNROLL
        for (int32_t half = 0; half < 2; half++) {
            const int32_t at = c + VEC_LANES * half, n = args->head_dim - at;
            if (n <= 0) break;
            const __mmask16 wanted = n >= VEC_LANES ? 0xFFFF : vec_first(n);
            const __m512 y = load_values(f, first, at, half, wanted);
            const __m512 z = both ? load_values(f, second, at, half, wanted) : _mm512_setzero_ps();
            _mm512_store_si512(x + at, _mm512_permutexvar_epi16(interleave, to_bf16(y, z)));
        }
    }
}

VEC_INLINE void pairv(const struct varve_pairv_args *args, const enum varve_format f) {
    int32_t r = 0;
    for (; r + 2 <= args->n_row; r += 2) {
        vec_fetch_ahead(&args->ahead, r, 2);
        pair_rows(args, f, r, true);
    }
    if (r < args->n_row) pair_rows(args, f, r, false);
    for (r = (args->n_row + 1) / 2 * 2; r % VARVE_PAIRED != 0; r += 2) {
        memset(args->x + (int64_t)r / 2 * args->ld, 0, (size_t)args->ld * sizeof *args->x);
    }
}

#define PAIRV(name, f) \
    void name(const struct varve_pairv_args *args) { pairv(args, f); }
PAIRV(varve_pairv_f32_bf16, VARVE_FORMAT_F32)
PAIRV(varve_pairv_f16_bf16, VARVE_FORMAT_F16)
PAIRV(varve_pairv_bf16_bf16, VARVE_FORMAT_BF16)
PAIRV(varve_pairv_q8_0_bf16, VARVE_FORMAT_Q8_0)
PAIRV(varve_pairv_q4_0_bf16, VARVE_FORMAT_Q4_0)
PAIRV(varve_pairv_q4_1_bf16, VARVE_FORMAT_Q4_1)
PAIRV(varve_pairv_q5_0_bf16, VARVE_FORMAT_Q5_0)
PAIRV(varve_pairv_q5_1_bf16, VARVE_FORMAT_Q5_1)
PAIRV(varve_pairv_iq4_nl_bf16, VARVE_FORMAT_IQ4_NL)

/* ------------------------------------------------------------------------------------- pairfold */

enum { FOLD_QUERIES = 24 };

void varve_pairfold_any_bf16(const struct varve_pairfold_args *args) {
    uint32_t pair[FOLD_QUERIES][PAIR_ROWS] __attribute__((aligned(64)));
    for (int32_t a = 0; a < args->n; a += FOLD_QUERIES) {
        const int32_t n = vec_min_i32(args->n - a, FOLD_QUERIES);
        round_weights(args->p + (int64_t)a * VARVE_TILE_ROWS, n, args->n_row, pair);
        const struct tile_fold fold = {
            {pair, PAIR_ROWS, args->x, args->ld, (args->n_row + 1) / 2},
            args->alpha + a,
            args->o + (int64_t)a * args->ld,
            args->ld,
            n,
        };
        if (args->sparse) {
            tile_fold_values(&fold, args->head_dim, true);
        } else {
            tile_fold_values(&fold, args->head_dim, false);
        }
    }
}
