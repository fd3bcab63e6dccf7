#include "base/fp16.h"
#include "kernel/scalar.h"

#include <string.h>

static int32_t round_up_paired(int32_t n) {
    return (n + VARVE_PAIRED - 1) / VARVE_PAIRED * VARVE_PAIRED;
}

void varve_pairk_any_scalar(const struct varve_pairk_args *args) {
    for (int32_t r = 0; r < args->n_row; r++) {
        for (int32_t from = 0; from < args->head_dim; from += VARVE_PIECE) {
            const int32_t n = varve_min_i32(args->head_dim - from, VARVE_PIECE);
            float value[VARVE_PIECE] = {0};
            args->format->decode(varve_row_piece(args->format, args->rows[r], from), n, value);
            for (int32_t i = 0; i < round_up_paired(n); i += 2) {
                args->x[(int64_t)(from + i) / 2 * VARVE_TILE_ROWS + r] =
                    varve_bf16_pair(value[i], value[i + 1]);
            }
        }
    }
}

void varve_pairscore_any_scalar(const struct varve_pairscore_args *args) {
    const struct varve_queries *const q = args->q;
    for (int32_t a = 0; a < q->n; a++) {
        const uint32_t *const pair = q->pair + (int64_t)a * q->ld_pair;
        for (int32_t r = 0; r < args->n_row; r += VARVE_LANES) {
            float sum[VARVE_LANES] = {0};
            for (int32_t j = 0; j < q->ld_pair; j++) {
                const float first = varve_pair_first(pair[j]), second = varve_pair_second(pair[j]);
                const uint32_t *const x = args->x + (int64_t)j * VARVE_TILE_ROWS + r;
                for (int32_t i = 0; i < VARVE_LANES; i++) {
                    sum[i] += first * varve_pair_first(x[i]);
                    sum[i] += second * varve_pair_second(x[i]);
                }
            }
            memcpy(args->s + (int64_t)a * VARVE_TILE_ROWS + r, sum, sizeof sum);
        }
    }
}

void varve_pairv_any_scalar(const struct varve_pairv_args *args) {
    for (int32_t r = 0; r < round_up_paired(args->n_row); r += 2) {
        uint32_t *const x = args->x + (int64_t)r / 2 * args->ld;
        for (int32_t from = 0; from < args->ld; from += VARVE_PIECE) {
            const int32_t n = varve_min_i32(args->head_dim - from, VARVE_PIECE);
            float value[2][VARVE_PIECE] = {{0}};
            for (int32_t i = 0; i < 2 && r + i < args->n_row; i++) {
                args->format->decode(varve_row_piece(args->format, args->rows[r + i], from), n,
                                     value[i]);
            }
            for (int32_t i = 0; i < varve_round_up_16(n); i++) {
                x[from + i] = varve_bf16_pair(value[0][i], value[1][i]);
            }
        }
    }
}

/* o += p x for one query and two rows. A weight of zero is not multiplied if `sparse`. */
static void add_rows(float *restrict o, const uint32_t *restrict x, int32_t n, uint32_t p,
                     bool sparse) {
    const float first = varve_pair_first(p), second = varve_pair_second(p);
    for (int32_t i = 0; i < n && !(sparse && first == 0.0f); i++) {
        o[i] += first * varve_pair_first(x[i]);
    }
    for (int32_t i = 0; i < n && !(sparse && second == 0.0f); i++) {
        o[i] += second * varve_pair_second(x[i]);
    }
}

void varve_pairfold_any_scalar(const struct varve_pairfold_args *args) {
    for (int32_t a = 0; a < args->n; a++) {
        float *const o = args->o + (int64_t)a * args->ld;
        const float *const p = args->p + (int64_t)a * VARVE_TILE_ROWS;
        const float alpha = args->alpha[a];
        for (int32_t i = 0; i < args->head_dim; i++) o[i] = alpha == 0.0f ? 0 : alpha * o[i];
        for (int32_t r = 0; r < args->n_row; r += 2) {
            const float second = r + 1 < args->n_row ? p[r + 1] : 0;
            add_rows(o, args->x + (int64_t)r / 2 * args->ld, args->head_dim,
                     varve_bf16_pair(p[r], second), args->sparse);
        }
    }
}
