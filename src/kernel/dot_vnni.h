/* The integer dot products of AVX-512 VNNI. As intrinsics, GCC copies the sum before every use. */
#ifndef VARVE_KERNEL_DOT_VNNI_H
#define VARVE_KERNEL_DOT_VNNI_H

#include "kernel/quant_avx512.h"

/* Codes as dot_bytes wants them: unsigned, with the bias of the format. */
VEC_INLINE vec_i32 dot_codes(const enum varve_format f, vec_i32 x) {
    (void)f;
    return x;
}

/* sum += unsigned bytes by signed bytes, four to a lane. */
VEC_INLINE vec_i32 dot_bytes(vec_i32 sum, vec_i32 codes, vec_i32 i) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(i));
    return sum;
}

/* The same with four signed bytes in memory for all lanes. */
VEC_INLINE vec_i32 dot_bytes_at(vec_i32 sum, vec_i32 codes, const int8_t *i) {
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(sum)
            : "v"(codes), "m"(*(const int32_t *)(const void *)i));
    return sum;
}

#endif
