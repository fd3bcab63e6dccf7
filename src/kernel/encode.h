/* What is the same in the encoders of every width. A file that includes it, behind the vec_*.h of
 * its ISA, defines the functions that are declared first.
 *
 * Four blocks at a time: what is found once for a block (extremes, steps, reciprocals) is found for
 * four at once, a block to a lane. Their values are read twice, which costs less than keeping them.
 * Products and sums are not fused: ggml's encoders round each. */
#ifndef VARVE_KERNEL_ENCODE_H
#define VARVE_KERNEL_ENCODE_H

#include "kernel/quant.h"

#include <float.h>

enum { ENCODE_GROUP = 4, ENCODE_PARTS = VARVE_BLOCK / VEC_LANES };

typedef float encode_f32 __attribute__((vector_size(16)));
typedef int32_t encode_i32 __attribute__((vector_size(16)));

/* Lane i is the largest lane of x[i]; `as_bits`: x is not negative, and a NaN is the largest. */
VEC_INLINE encode_f32 encode_largest(const vec_f32 x[ENCODE_GROUP], const bool as_bits);
/* Bit j: value j of the block, or its magnitude, equals `value`. */
VEC_INLINE uint32_t encode_equal(const float *x, float value, const bool magnitude);
/* The half floats, nearest even. */
VEC_INLINE uint64_t encode_halves(encode_f32 x);
/* 32 integers of 0 .. 255 or -128 .. 127 as bytes in their order. */
VEC_INLINE encode_bytes encode_pack(const vec_i32 i[ENCODE_PARTS]);
/* Bytes above `top` become `top`. */
VEC_INLINE encode_bytes encode_cut(encode_bytes bytes, const int32_t top);
VEC_INLINE void encode_store(uint8_t *to, encode_bytes bytes);
/* 16 bytes: the low nibbles of bytes 0 .. 15, those of the others above them. */
VEC_INLINE void encode_store_nibbles(uint8_t *to, encode_bytes bytes);
/* Bit 4 of each byte. */
VEC_INLINE uint32_t encode_fifth(encode_bytes bytes);

VEC_INLINE encode_f32 encode_select(encode_i32 wanted, encode_f32 x) {
    return (encode_f32)((encode_i32)x & wanted);
}

VEC_INLINE encode_f32 encode_abs(encode_f32 x) {
    return (encode_f32)((encode_i32)x & (encode_i32){INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX});
}

/* What four blocks have. */
struct encode_steps {
    encode_f32 d, m, inverse;
};

/* The largest magnitude, and of formats with a minimum the smallest and the largest value: m and d
 * as extremes. A NaN or an infinity makes `any` infinite or NaN. */
VEC_INLINE void encode_extremes(const enum varve_format f, const float *x, const int32_t n,
                                struct encode_steps *steps, encode_f32 *any) {
    vec_f32 low[ENCODE_GROUP], high[ENCODE_GROUP], bad[ENCODE_GROUP];
    VEC_UNROLL
    for (int32_t b = 0; b < ENCODE_GROUP; b++) {
        low[b] = high[b] = bad[b] = vec_zero();
        if (b >= n) continue;
        VEC_UNROLL
        for (int32_t p = 0; p < ENCODE_PARTS; p++) {
            const vec_f32 y = vec_load_any(x + b * VARVE_BLOCK + p * VEC_LANES);
            bad[b] = p == 0 ? vec_abs(y) : vec_max_bits(bad[b], vec_abs(y));
            if (!quant_has_min(f)) continue;
            low[b] = p == 0 ? y : vec_min_f32(low[b], y);
            high[b] = p == 0 ? y : vec_max_f32(high[b], y);
        }
    }
    *any = encode_largest(bad, true);
    if (!quant_has_min(f)) return;
    VEC_UNROLL
    for (int32_t b = 0; b < ENCODE_GROUP; b++) low[b] = vec_sub(vec_zero(), low[b]);
    steps->m = -encode_largest(low, false);
    steps->d = encode_largest(high, false);
}

/* False: some block is out of the ordinary. */
VEC_INLINE bool encode_find_steps(const enum varve_format f, const enum varve_encoder encoder,
                                  const float *x, const int32_t n, struct encode_steps *steps) {
    encode_f32 amax;
    encode_extremes(f, x, n, steps, &amax);
    encode_f32 divisor = amax, dividend = {1.0f, 1.0f, 1.0f, 1.0f};
    if (quant_has_min(f)) {
        /* of equal values, zeros of two signs, the first one counts; a range has no sign */
        VEC_UNROLL
        for (int32_t b = 0; b < n; b++) {
            const float *const from = x + b * VARVE_BLOCK;
            const uint32_t equal = encode_equal(from, steps->m[b], false);
            if (equal != 0) steps->m[b] = from[__builtin_ctz(equal)];
        }
        steps->d = encode_abs(steps->d - steps->m) / (quant_has_high(f) ? 31.0f : 15.0f);
    } else if (f == VARVE_FORMAT_Q8_0) {
        steps->d = amax / 127.0f;
    } else {
        encode_f32 extreme = {0};
        VEC_UNROLL
        for (int32_t b = 0; b < n; b++) {
            const float *const from = x + b * VARVE_BLOCK;
            const uint32_t equal = encode_equal(from, amax[b], true);
            if (amax[b] > 0.0f && equal != 0) extreme[b] = from[__builtin_ctz(equal)];
        }
        steps->d = extreme / (float)-quant_bias(f);
    }
    if (f == VARVE_FORMAT_Q8_0 && encoder == VARVE_ENCODER_AVX) {
        dividend *= 127.0f;
    } else {
        divisor = steps->d;
    }
    steps->inverse = encode_select(divisor != 0.0f, dividend / divisor);
    const encode_i32 ordinary = (amax <= FLT_MAX) & (encode_abs(steps->inverse) <= FLT_MAX) &
                                (encode_abs(steps->d) <= FLT_MAX);
    return (ordinary[0] & ordinary[1] & ordinary[2] & ordinary[3]) != 0;
}

/* The integer of a value that was multiplied with the reciprocal of the step. */
VEC_INLINE vec_i32 encode_round(const enum varve_format f, const enum varve_encoder encoder,
                                vec_f32 x) {
    if (f != VARVE_FORMAT_Q8_0) {
        return vec_truncate(vec_add(x, vec_all((float)quant_bias(f) + 0.5f)));
    }
    if (encoder != VARVE_ENCODER_REFERENCE) return vec_round_even(x);
    /* Half away from zero: the largest number below a half is added, with the sign of x. This gives
     * what it should for every |x| <= 128. */
    return vec_truncate(vec_add(x, vec_with_sign(0x1.fffffep-2f, x)));
}

VEC_INLINE void encode_block(const enum varve_format f, const enum varve_encoder encoder,
                             const float *x, float m, float inverse, uint8_t *block) {
    vec_i32 i[ENCODE_PARTS];
    VEC_UNROLL
    for (int32_t p = 0; p < ENCODE_PARTS; p++) {
        vec_f32 y = vec_load_any(x + p * VEC_LANES);
        if (quant_has_min(f)) y = vec_sub(y, vec_all(m));
        i[p] = encode_round(f, encoder, vec_mul(y, vec_all(inverse)));
    }
    encode_bytes bytes = encode_pack(i);
    if (f == VARVE_FORMAT_Q8_0) {
        encode_store(block + quant_codes_at(f), bytes);
        return;
    }
    bytes = encode_cut(bytes, quant_largest_code(f));
    encode_store_nibbles(block + quant_codes_at(f), bytes);
    if (quant_has_high(f)) {
        const uint32_t fifth = encode_fifth(bytes);
        memcpy(block + quant_codes_at(f) - 4, &fifth, sizeof fifth);
    }
}

/* n blocks, at most four. */
VEC_INLINE bool encode_blocks(const enum varve_format f, const enum varve_encoder encoder,
                              const float *x, const int32_t n, uint8_t *row) {
    struct encode_steps steps = {0};
    if (!encode_find_steps(f, encoder, x, n, &steps)) return false;
    const uint64_t d = encode_halves(steps.d), m = encode_halves(steps.m);
    VEC_UNROLL
    for (int32_t b = 0; b < n; b++) {
        uint8_t *const block = row + b * quant_bytes(f);
        const uint16_t d16 = (uint16_t)(d >> 16 * b), m16 = (uint16_t)(m >> 16 * b);
        memcpy(block, &d16, sizeof d16);
        if (quant_has_min(f)) memcpy(block + 2, &m16, sizeof m16);
        encode_block(f, encoder, x + b * VARVE_BLOCK, steps.m[b], steps.inverse[b], block);
    }
    return true;
}

VEC_INLINE bool encode_row(const struct varve_encode_args *args, const enum varve_format f,
                           const enum varve_encoder encoder) {
    const int64_t n_block = args->n / VARVE_BLOCK;
    const float *x = args->x;
    uint8_t *row = args->row;
    int64_t b = 0;
    for (; b + ENCODE_GROUP <= n_block; b += ENCODE_GROUP) {
        if (!encode_blocks(f, encoder, x, ENCODE_GROUP, row)) return false;
        x += ENCODE_GROUP * VARVE_BLOCK;
        row += ENCODE_GROUP * quant_bytes(f);
    }
    for (; b < n_block; b++) {
        if (!encode_blocks(f, encoder, x, 1, row)) return false;
        x += VARVE_BLOCK;
        row += quant_bytes(f);
    }
    return true;
}

/* One encoder for all formats but q8_0. */
VEC_INLINE bool encode(const struct varve_encode_args *args, const enum varve_format f) {
    if (f == VARVE_FORMAT_Q8_0 && args->encoder == VARVE_ENCODER_AVX) {
        return encode_row(args, f, VARVE_ENCODER_AVX);
    }
    if (f == VARVE_FORMAT_Q8_0 && args->encoder == VARVE_ENCODER_NEON) {
        return encode_row(args, f, VARVE_ENCODER_NEON);
    }
    return encode_row(args, f, VARVE_ENCODER_REFERENCE);
}

#define ENCODE(name, f) \
    bool name(const struct varve_encode_args *args) { return encode(args, f); }

#endif
