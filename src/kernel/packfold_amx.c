#include "kernel/tile_amx.h"

#include "kernel/packfold_vnni.h"

/* A weight of 16 bits is 256 times a signed byte plus an unsigned one; the sums of either with the
 * codes are integers of 32 bits, and so is 256 a + b, below 2^31 (kernel.h). */
struct bytes {
    int8_t high[GROUP][VARVE_TILE_ROWS] __attribute__((aligned(64)));
    uint8_t low[GROUP][VARVE_TILE_ROWS] __attribute__((aligned(64)));
};

VEC_INLINE void split_weights(const struct weights *weights, int32_t n, struct bytes *bytes) {
    for (int32_t a = 0; a < n; a++) {
        VEC_UNROLL
        for (int32_t r = 0; r < VARVE_TILE_ROWS; r += 32) {
            const __m512i w = _mm512_load_si512(weights->w[a] + r);
            const __m256i high = _mm512_cvtepi16_epi8(_mm512_srai_epi16(w, 8));
            _mm256_store_si256((__m256i *)(void *)(bytes->high[a] + r), high);
            _mm256_store_si256((__m256i *)(void *)(bytes->low[a] + r), _mm512_cvtepi16_epi8(w));
        }
    }
}

/* The codes of a block, four rows of a column to a word. What lies past the last row meets weights
 * that are zero. */
VEC_INLINE void pack_quads(const int16_t (*x)[2], int32_t n_row,
                           uint32_t quad[VARVE_TILE_ROWS / 4][VARVE_BLOCK]) {
    memset(quad, 0, (VARVE_TILE_ROWS / 4) * sizeof *quad);
    for (int32_t r = 0; r < n_row; r += 4, x += 2 * VARVE_BLOCK) {
        VEC_UNROLL
        for (int32_t c = 0; c < VARVE_BLOCK; c += VEC_LANES) {
            /* the low bytes of two rows in each lane, then of two more */
            const __m512i low = _mm512_set1_epi32(0x00FF00FF);
            __m512i y = _mm512_and_si512(_mm512_load_si512(x + c), low);
            y = _mm512_or_si512(y, _mm512_srli_epi32(y, 8));
            __m512i z = _mm512_setzero_si512();
            if (r + 2 < n_row) {
                z = _mm512_and_si512(_mm512_load_si512(x + VARVE_BLOCK + c), low);
                z = _mm512_or_si512(z, _mm512_srli_epi32(z, 8));
            }
            _mm512_store_si512(quad[r / 4] + c,
                               _mm512_mask_mov_epi16(_mm512_slli_epi32(z, 16), 0x55555555, y));
        }
    }
}

/* Sums of n queries and 32 columns: tiles 0 and 1 of high bytes, 2 and 3 of low ones. */
VEC_INLINE void multiply(const struct bytes *bytes, uint32_t quad[VARVE_TILE_ROWS / 4][VARVE_BLOCK],
                         int32_t sum[2][GROUP][VARVE_BLOCK]) {
    AMX_LOAD(4, bytes->high, VARVE_TILE_ROWS);
    AMX_LOAD(6, bytes->low, VARVE_TILE_ROWS);
    AMX_LOAD(5, quad[0], sizeof *quad);
    AMX_ZERO(0);
    AMX_DOT_I8_I8(0, 4, 5);
    AMX_ZERO(2);
    AMX_DOT_U8_I8(2, 6, 5);
    AMX_LOAD(5, quad[0] + 16, sizeof *quad);
    AMX_ZERO(1);
    AMX_DOT_I8_I8(1, 4, 5);
    AMX_ZERO(3);
    AMX_DOT_U8_I8(3, 6, 5);
    AMX_STORE(0, sum[0][0], sizeof sum[0][0]);
    AMX_STORE(1, sum[0][0] + 16, sizeof sum[0][0]);
    AMX_STORE(2, sum[1][0], sizeof sum[1][0]);
    AMX_STORE(3, sum[1][0] + 16, sizeof sum[1][0]);
}

/* Blocks of columns whose codes are packed once for all queries. */
enum { SLAB = 4 };

/* n queries from a0 on and the columns of block b0 + b. */
VEC_INLINE void fold_group(const struct varve_packfold_args *args, const struct units *units,
                           const struct steps *steps, int32_t a0, int32_t n, int32_t b0, int32_t b,
                           uint32_t quad[VARVE_TILE_ROWS / 4][VARVE_BLOCK], const bool sparse,
                           const bool has_min) {
    struct weights weights;
    struct bytes bytes;
    int32_t sum[2][GROUP][VARVE_BLOCK] __attribute__((aligned(64)));
    weigh(args, units, steps, a0, n, b0, b, sparse, has_min, &weights);
    split_weights(&weights, n, &bytes);
    multiply(&bytes, quad, sum);
    for (int32_t a = 0; a < n; a++) {
        float *const o = args->o + (int64_t)(a0 + a) * args->ld + (b0 + b) * VARVE_BLOCK;
        const __m512 alpha = _mm512_set1_ps(args->alpha[a0 + a]);
        const __m512 step = _mm512_set1_ps(weights.step[a]);
        const __m512 min = has_min ? _mm512_set1_ps(weights.min[a]) : step;
        VEC_UNROLL
        for (int32_t c = 0; c < VARVE_BLOCK; c += VEC_LANES) {
            const __m512i high = _mm512_slli_epi32(_mm512_load_si512(sum[0][a] + c), 8);
            const __m512i both = _mm512_add_epi32(high, _mm512_load_si512(sum[1][a] + c));
            store_sum(o + c, alpha, step, both, has_min, min);
        }
    }
}

VEC_INLINE void packfold(const struct varve_packfold_args *args, const bool sparse,
                         const bool has_min) {
    uint32_t quad[SLAB][VARVE_TILE_ROWS / 4][VARVE_BLOCK] __attribute__((aligned(64)));
    struct units units;
    struct steps steps;
    const int32_t n_block = args->head_dim / VARVE_BLOCK;
    struct amx_config config = amx_config_of(vec_min_i32(args->n, AMX_ROWS), AMX_ROW_BYTES);
    AMX_BEGIN(&config);
    clear_unread(args->o, args->ld, args->alpha, args->n, args->head_dim);
    for (int32_t b0 = 0; b0 < n_block; b0 += SLAB) {
        const int32_t n_here = vec_min_i32(n_block - b0, SLAB);
        if (!sparse) steps_of(args, b0, n_here, &steps);
        for (int32_t b = 0; b < n_here; b++) {
            pack_quads(args->x + (int64_t)(b0 + b) * VARVE_TILE_ROWS / 2 * VARVE_BLOCK, args->n_row,
                       quad[b]);
        }
        for (int32_t a0 = 0; a0 < args->n; a0 += GROUP) {
            const int32_t n = vec_min_i32(args->n - a0, GROUP);
            amx_fit(&config, n, AMX_ROW_BYTES);
            load_units(args->p + (int64_t)a0 * VARVE_TILE_ROWS, n, args->n_row, &units);
            for (int32_t b = 0; b < n_here; b++) {
                fold_group(args, &units, &steps, a0, n, b0, b, quad[b], sparse, has_min);
            }
        }
    }
    AMX_RELEASE();
}

void varve_packfold_any_amx(const struct varve_packfold_args *args) {
    switch (2 * (args->mv != NULL) + args->sparse) {
    case 0: packfold(args, false, false); break;
    case 1: packfold(args, true, false); break;
    case 2: packfold(args, false, true); break;
    default: packfold(args, true, true); break;
    }
}
