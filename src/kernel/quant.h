/* Blocks of the formats as the SIMD kernels of every ISA see them. Every function is inlined with a
 * constant format.
 *
 * A quantized value is d * (code - bias) [+ m], the code an unsigned byte: as it is stored for q4
 * and q5, through a table for iq4_nl, with its sign bit flipped for q8_0. */
#ifndef VARVE_KERNEL_QUANT_H
#define VARVE_KERNEL_QUANT_H

#include "kernel/vec.h"

/* Rows are scored in pieces of so many blocks, for so many queries at a time: scratch has a bound
 * for every head size. */
enum { SCORE_PIECE = 4, SCORE_GROUP = 8 };

VEC_INLINE bool quant_is(const enum varve_format f) { return f >= VARVE_FORMAT_Q8_0; }

VEC_INLINE bool quant_has_min(const enum varve_format f) {
    return f == VARVE_FORMAT_Q4_1 || f == VARVE_FORMAT_Q5_1;
}

VEC_INLINE bool quant_has_high(const enum varve_format f) {
    return f == VARVE_FORMAT_Q5_0 || f == VARVE_FORMAT_Q5_1;
}

/* Bytes of a block: d, then m, then the fifth bits, then the codes. */
VEC_INLINE int32_t quant_codes_at(const enum varve_format f) {
    return 2 + (quant_has_min(f) ? 2 : 0) + (quant_has_high(f) ? 4 : 0);
}

VEC_INLINE int32_t quant_bytes(const enum varve_format f) {
    return quant_codes_at(f) + (f == VARVE_FORMAT_Q8_0 ? 32 : 16);
}

/* Bytes of the first c values of a row. */
VEC_INLINE int64_t quant_row_bytes(const enum varve_format f, int32_t c) {
    if (quant_is(f)) return (int64_t)(c / VARVE_BLOCK) * quant_bytes(f);
    return (int64_t)c * (f == VARVE_FORMAT_F32 ? 4 : 2);
}

VEC_INLINE int32_t quant_bias(const enum varve_format f) {
    switch (f) {
    case VARVE_FORMAT_Q4_0: return 8;
    case VARVE_FORMAT_Q5_0: return 16;
    case VARVE_FORMAT_Q4_1:
    case VARVE_FORMAT_Q5_1: return 0;
    default: return 128;
    }
}

VEC_INLINE int32_t quant_largest_code(const enum varve_format f) {
    if (f == VARVE_FORMAT_Q8_0 || f == VARVE_FORMAT_IQ4_NL) return 255;
    return quant_has_high(f) ? 31 : 15;
}

/* Codes of eight bits: products with Q do not add up in 16 bits. */
VEC_INLINE bool quant_is_wide(const enum varve_format f) { return quant_largest_code(f) > 31; }

/* What is to be taken from a code where those of eight bits are held as signed bytes. */
VEC_INLINE int32_t quant_signed_bias(const enum varve_format f) {
    return quant_is_wide(f) ? 0 : quant_bias(f);
}

#endif
