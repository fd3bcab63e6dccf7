/* The integer dot products of AVX-VNNI: those of AVX-512 VNNI for 256 bits, in the VEX encoding. Of
 * itself an assembler takes the EVEX one, which CPUs with AVX-VNNI alone do not know. A build of
 * the tests wants that: the same code then runs where there is AVX-512 VNNI and no AVX-VNNI.
 *
 * As intrinsics, GCC copies the sum before every use. */
#ifndef VARVE_KERNEL_DOT_AVXVNNI_H
#define VARVE_KERNEL_DOT_AVXVNNI_H

#include "kernel/quant_avx2.h"

#ifdef VARVE_AVXVNNI_AS_EVEX
#define DOT_ENCODING "%{evex%} "
#else
#define DOT_ENCODING "%{vex%} "
#endif

/* Codes as dot_bytes wants them: unsigned, with the bias of the format. */
VEC_INLINE vec_i32 dot_codes(const enum varve_format f, vec_i32 x) {
    return quant_is_wide(f) ? _mm256_xor_si256(x, _mm256_set1_epi8((char)0x80)) : x;
}

/* sum += unsigned bytes by signed bytes, four to a lane. */
VEC_INLINE vec_i32 dot_bytes(vec_i32 sum, vec_i32 codes, vec_i32 i) {
    __asm__(DOT_ENCODING "vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(i));
    return sum;
}

/* The same with four signed bytes in memory for all lanes. */
VEC_INLINE vec_i32 dot_bytes_at(vec_i32 sum, vec_i32 codes, const int8_t *i) {
    return dot_bytes(sum, codes, vec_broadcast_4_bytes(i));
}

/* sum += signed 16-bit numbers by signed 16-bit numbers, two to a lane. */
VEC_INLINE vec_i32 dot_pairs(vec_i32 sum, vec_i32 a, vec_i32 b) {
    __asm__(DOT_ENCODING "vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
}

#endif
