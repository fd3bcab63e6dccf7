#include "kernel/tile_amx.h"
#include "kernel/vec_avx512.h"

enum { LINE_BYTES = VARVE_TILE_ROWS * 4 };

/* dot[a][r]: sums of one block of 32 values for n queries and nv tiles of 16 rows. The bytes of K
 * are q + 128. */
VEC_INLINE void dot_block(const int8_t *i, int64_t ld, const uint32_t *x, const int32_t nv,
                          int32_t (*dot)[VARVE_TILE_ROWS]) {
    AMX_LOAD(4, i, ld);
    AMX_ZERO(0);
    AMX_COLUMNS(AMX_DOT_I8_U8, 0, x, LINE_BYTES);
    if (nv > 1) {
        AMX_ZERO(1);
        AMX_COLUMNS(AMX_DOT_I8_U8, 1, x + 16, LINE_BYTES);
    }
    if (nv > 2) {
        AMX_ZERO(2);
        AMX_COLUMNS(AMX_DOT_I8_U8, 2, x + 32, LINE_BYTES);
    }
    if (nv > 3) {
        AMX_ZERO(3);
        AMX_COLUMNS(AMX_DOT_I8_U8, 3, x + 48, LINE_BYTES);
    }
    AMX_STORE(0, dot[0], LINE_BYTES);
    if (nv > 1) {
        AMX_STORE(1, dot[0] + 16, LINE_BYTES);
    }
    if (nv > 2) {
        AMX_STORE(2, dot[0] + 32, LINE_BYTES);
    }
    if (nv > 3) {
        AMX_STORE(3, dot[0] + 48, LINE_BYTES);
    }
}

/* Adds block b of n queries from a0 on to their scores, which begin with block 0. */
VEC_INLINE void add_block(const struct varve_packscore_args *args, int32_t a0, int32_t n, int32_t b,
                          const int32_t nv, int32_t (*dot)[VARVE_TILE_ROWS]) {
    const struct varve_queries *const q = args->q;
    const float *const dk = args->dk + (int64_t)b * VARVE_TILE_ROWS;
    const float *const mk = args->mk != NULL ? args->mk + (int64_t)b * VARVE_TILE_ROWS : NULL;
    for (int32_t a = 0; a < n; a++) {
        const int64_t block = (int64_t)(a0 + a) * q->n_block + b;
        float *const s = args->s + (int64_t)(a0 + a) * VARVE_TILE_ROWS;
        const __m512i bias = _mm512_set1_epi32(-128 * q->sum[block]);
        const __m512 d = _mm512_set1_ps(q->d[block]);
        const __m512 sum = _mm512_set1_ps((float)q->sum[block]);
        VEC_UNROLL
        for (int32_t v = 0; v < nv; v++) {
            const int32_t r = v * VEC_LANES;
            const __m512i i = _mm512_add_epi32(bias, _mm512_load_si512(dot[a] + r));
            __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(i), _mm512_load_ps(dk + r));
            if (mk != NULL) part = _mm512_fmadd_ps(_mm512_load_ps(mk + r), sum, part);
            const __m512 before = b == 0 ? _mm512_setzero_ps() : _mm512_load_ps(s + r);
            _mm512_store_ps(s + r, _mm512_fmadd_ps(part, d, before));
        }
    }
}

VEC_INLINE void score_rows(const struct varve_packscore_args *args, const int32_t nv) {
    int32_t dot[AMX_ROWS][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    const struct varve_queries *const q = args->q;
    struct amx_config config = amx_config_of(vec_min_i32(q->n, AMX_ROWS), VARVE_BLOCK);
    AMX_BEGIN(&config);
    vec_fetch_ahead(&args->ahead, 0, args->ahead.n);
    for (int32_t a = 0; a < q->n; a += AMX_ROWS) {
        const int32_t n = vec_min_i32(q->n - a, AMX_ROWS);
        amx_fit(&config, n, VARVE_BLOCK);
        for (int32_t b = 0; b < q->n_block; b++) {
            const int8_t *const i = q->i + (int64_t)a * q->ld + (int64_t)b * VARVE_BLOCK;
            dot_block(i, q->ld, args->x + (int64_t)b * (VARVE_BLOCK / 4) * VARVE_TILE_ROWS, nv,
                      dot);
            add_block(args, a, n, b, nv, dot);
        }
    }
    AMX_RELEASE();
}

void varve_packscore_q8_amx(const struct varve_packscore_args *args) {
    switch ((args->n_row + VEC_LANES - 1) / VEC_LANES) {
    case 4: score_rows(args, 4); break;
    case 3: score_rows(args, 3); break;
    case 2: score_rows(args, 2); break;
    default: score_rows(args, 1); break;
    }
}
