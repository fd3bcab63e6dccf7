#include "kernel/tile_amx.h"

#include "kernel/pair_bf16.h"

/* The sums in tiles 0 .. 3 += a in tile 4 times nv tiles of 16 columns of b. */
VEC_INLINE void add_products(const void *a, int64_t a_stride, const uint32_t *b, int64_t b_stride,
                             const int32_t nv) {
    AMX_LOAD(4, a, a_stride);
    AMX_COLUMNS(AMX_DOT_BF16, 0, b, b_stride);
    if (nv > 1) {
        AMX_COLUMNS(AMX_DOT_BF16, 1, b + 16, b_stride);
    }
    if (nv > 2) {
        AMX_COLUMNS(AMX_DOT_BF16, 2, b + 32, b_stride);
    }
    if (nv > 3) {
        AMX_COLUMNS(AMX_DOT_BF16, 3, b + 48, b_stride);
    }
}

VEC_INLINE void store_sums(float *to, int64_t stride, const int32_t nv) {
    AMX_STORE(0, to, stride);
    if (nv > 1) {
        AMX_STORE(1, to + 16, stride);
    }
    if (nv > 2) {
        AMX_STORE(2, to + 32, stride);
    }
    if (nv > 3) {
        AMX_STORE(3, to + 48, stride);
    }
}

VEC_INLINE void load_sums(const float *from, int64_t stride, const int32_t nv) {
    AMX_LOAD(0, from, stride);
    if (nv > 1) {
        AMX_LOAD(1, from + 16, stride);
    }
    if (nv > 2) {
        AMX_LOAD(2, from + 32, stride);
    }
    if (nv > 3) {
        AMX_LOAD(3, from + 48, stride);
    }
}

/* ------------------------------------------------------------------------------------ pairscore */

VEC_INLINE void score_rows(const struct varve_pairscore_args *args, const int32_t nv) {
    enum { LINE_BYTES = VARVE_TILE_ROWS * 4 };
    const struct varve_queries *const q = args->q;
    const int64_t q_bytes = 4 * (int64_t)q->ld_pair;
    struct amx_config config = amx_config_of(vec_min_i32(q->n, AMX_ROWS), AMX_ROW_BYTES);
    AMX_BEGIN(&config);
    for (int32_t a = 0; a < q->n; a += AMX_ROWS) {
        const uint32_t *const pair = q->pair + (int64_t)a * q->ld_pair;
        amx_fit(&config, vec_min_i32(q->n - a, AMX_ROWS), AMX_ROW_BYTES);
        AMX_ZERO(0);
        AMX_ZERO(1);
        AMX_ZERO(2);
        AMX_ZERO(3);
        for (int32_t j = 0; j < q->ld_pair; j += AMX_ROWS) {
            add_products(pair + j, q_bytes, args->x + (int64_t)j * VARVE_TILE_ROWS, LINE_BYTES, nv);
        }
        store_sums(args->s + (int64_t)a * VARVE_TILE_ROWS, LINE_BYTES, nv);
    }
    AMX_RELEASE();
}

void varve_pairscore_any_amx(const struct varve_pairscore_args *args) {
    switch ((args->n_row + VEC_LANES - 1) / VEC_LANES) {
    case 4: score_rows(args, 4); break;
    case 3: score_rows(args, 3); break;
    case 2: score_rows(args, 2); break;
    default: score_rows(args, 1); break;
    }
}

/* ------------------------------------------------------------------------------------- pairfold */

/* o = alpha o for n queries. */
VEC_INLINE void scale_outputs(const struct varve_pairfold_args *args, int32_t a0, int32_t n) {
    for (int32_t a = a0; a < a0 + n; a++) {
        float *const o = args->o + (int64_t)a * args->ld;
        const float alpha = args->alpha[a];
        if (alpha == 1.0f) continue;
        for (int32_t c = 0; c < args->ld; c += VEC_LANES) {
            const __m512 before = alpha == 0.0f ? _mm512_setzero_ps() : _mm512_load_ps(o + c);
            _mm512_store_ps(o + c, _mm512_mul_ps(_mm512_set1_ps(alpha), before));
        }
    }
}

/* Adds all rows to nv tiles of columns from column c on. */
VEC_INLINE void fold_columns(const struct varve_pairfold_args *args,
                             const uint32_t (*pair)[PAIR_ROWS], int32_t a, int32_t c,
                             const int32_t nv) {
    const int64_t line = 4 * (int64_t)args->ld;
    float *const o = args->o + (int64_t)a * args->ld + c;
    load_sums(o, line, nv);
    for (int32_t j = 0; 2 * j < args->n_row; j += AMX_ROWS) {
        add_products(pair[0] + j, sizeof *pair, args->x + (int64_t)j * args->ld + c, line, nv);
    }
    store_sums(o, line, nv);
}

void varve_pairfold_any_amx(const struct varve_pairfold_args *args) {
    if (args->sparse) { /* a tile cannot leave out the rows that only some queries see */
        varve_pairfold_any_bf16(args);
        return;
    }
    uint32_t pair[AMX_ROWS][PAIR_ROWS] __attribute__((aligned(64)));
    struct amx_config config = amx_config_of(vec_min_i32(args->n, AMX_ROWS), AMX_ROW_BYTES);
    AMX_BEGIN(&config);
    for (int32_t a = 0; a < args->n; a += AMX_ROWS) {
        const int32_t n = vec_min_i32(args->n - a, AMX_ROWS);
        amx_fit(&config, n, AMX_ROW_BYTES);
        round_weights(args->p + (int64_t)a * VARVE_TILE_ROWS, n, args->n_row, pair);
        scale_outputs(args, a, n);
        for (int32_t c = 0; c < args->ld; c += 4 * VEC_LANES) {
            switch (vec_min_i32((args->ld - c) / VEC_LANES, 4)) {
            case 4: fold_columns(args, pair, a, c, 4); break;
            case 3: fold_columns(args, pair, a, c, 3); break;
            case 2: fold_columns(args, pair, a, c, 2); break;
            default: fold_columns(args, pair, a, c, 1); break;
            }
        }
    }
    AMX_RELEASE();
}
