/* Scores of quantized rows by dot products of unsigned with signed bytes. Included by a file that
 * has those of its ISA level: dot_vnni.h, dot_avxvnni.h. */
#ifndef VARVE_KERNEL_SCORE_BYTES_H
#define VARVE_KERNEL_SCORE_BYTES_H

#include "kernel/quant.h"

struct score_codes {
    vec_i32 x[8];
};

struct score_query {
    const int8_t *i;
};

VEC_INLINE void score_codes(const enum varve_format f, const vec_i32 x[8],
                            struct score_codes *codes) {
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j++) codes->x[j] = dot_codes(f, x[j]);
}

VEC_INLINE void score_query(const enum varve_format f, const int8_t *i, int32_t n_block,
                            struct score_query *query) {
    (void)f;
    (void)n_block;
    query->i = i;
}

VEC_INLINE vec_i32 score_dot(const enum varve_format f, const struct score_codes *codes,
                             const struct score_query *query, int32_t b, int32_t q_sum) {
    const int8_t *const i = query->i + b * VARVE_BLOCK;
    vec_i32 i0 = vec_all_i32(-quant_bias(f) * q_sum);
    vec_i32 i1 = vec_all_i32(0);
    VEC_UNROLL
    for (int32_t j = 0; j < 8; j += 2) {
        i0 = dot_bytes_at(i0, codes->x[j], i + 4 * j);
        i1 = dot_bytes_at(i1, codes->x[j + 1], i + 4 * j + 4);
    }
    return vec_add_i32(i0, i1);
}

#include "kernel/quant_score.h"

#endif
