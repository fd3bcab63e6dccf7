#include "kernel/foldq_scalar.h"

void varve_foldq_any_scalar(const struct varve_fold_args *args) {
    const struct rounded_fold fold = {
        args->n, args->ld,    args->n_row, args->sparse, args->format->has_min,
        args->p, args->alpha, args->o};
    struct rounded_block block;
    for (int32_t from = 0; from < args->head_dim; from += VARVE_BLOCK) {
        for (int32_t r = 0; r < args->n_row; r++) {
            args->format->split(varve_row_piece(args->format, args->rows[r], from), VARVE_BLOCK,
                                block.q[r], &block.d[r], &block.m[r]);
        }
        varve_fold_rounded(&fold, from, &block);
    }
}
