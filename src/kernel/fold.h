/* What is the same in the fold kernels of every width. A file that includes it, behind the vec_*.h
 * and quant_*.h of its ISA, defines fold_rows. */
#ifndef VARVE_KERNEL_FOLD_H
#define VARVE_KERNEL_FOLD_H

#include "kernel/quant.h"

/* All queries and columns. If `sparse`, rows whose weight is 0 are not formed. */
VEC_INLINE void fold_rows(const struct varve_fold_args *args, const enum varve_format format,
                          const bool sparse);

/* Formats with a scale alone have it in their weights: one product per block and row instead of one
 * per value. With a minimum too, values are decoded, so that nothing cancels that was not there. */
VEC_INLINE bool is_scaled(const enum varve_format f) { return quant_is(f) && !quant_has_min(f); }

/* Scaled weights know what is sparse. */
VEC_INLINE void fold(const struct varve_fold_args *args, const enum varve_format f) {
    if (args->sparse && !is_scaled(f)) {
        fold_rows(args, f, true);
    } else {
        fold_rows(args, f, false);
    }
}

#define FOLD(name, f) \
    void name(const struct varve_fold_args *args) { fold(args, f); }

#endif
