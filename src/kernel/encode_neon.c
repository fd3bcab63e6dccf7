#include "kernel/vec_neon.h"

typedef uint8x16x2_t encode_bytes;

#include "kernel/encode.h"

VEC_INLINE float32x4_t encode_larger_pairs(float32x4_t a, float32x4_t b, const bool as_bits) {
    if (!as_bits) return vpmaxq_f32(a, b);
    return vreinterpretq_f32_s32(vpmaxq_s32(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b)));
}

VEC_INLINE encode_f32 encode_largest(const vec_f32 x[ENCODE_GROUP], const bool as_bits) {
    const float32x4_t low = encode_larger_pairs(x[0], x[1], as_bits);
    const float32x4_t high = encode_larger_pairs(x[2], x[3], as_bits);
    return (encode_f32)encode_larger_pairs(low, high, as_bits);
}

VEC_INLINE uint32_t encode_equal(const float *x, float value, const bool magnitude) {
    const uint32x4_t bit = {1, 2, 4, 8};
    uint32_t equal = 0;
    VEC_UNROLL
    for (int32_t p = 0; p < ENCODE_PARTS; p++) {
        const vec_f32 y = vec_load_any(x + p * VEC_LANES);
        const uint32x4_t same = vceqq_f32(magnitude ? vec_abs(y) : y, vec_all(value));
        equal |= vaddvq_u32(vandq_u32(same, bit)) << p * VEC_LANES;
    }
    return equal;
}

VEC_INLINE uint64_t encode_halves(encode_f32 x) {
    return vget_lane_u64(vreinterpret_u64_f16(vcvt_f16_f32((float32x4_t)x)), 0);
}

VEC_INLINE encode_bytes encode_pack(const vec_i32 i[ENCODE_PARTS]) {
    encode_bytes bytes;
    VEC_UNROLL
    for (int32_t k = 0; k < 2; k++) {
        const int16x8_t low = vcombine_s16(vmovn_s32(i[4 * k]), vmovn_s32(i[4 * k + 1]));
        const int16x8_t high = vcombine_s16(vmovn_s32(i[4 * k + 2]), vmovn_s32(i[4 * k + 3]));
        bytes.val[k] = vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }
    return bytes;
}

VEC_INLINE encode_bytes encode_cut(encode_bytes bytes, const int32_t top) {
    VEC_UNROLL
    for (int32_t k = 0; k < 2; k++) {
        bytes.val[k] = vminq_u8(bytes.val[k], vdupq_n_u8((uint8_t)top));
    }
    return bytes;
}

VEC_INLINE void encode_store(uint8_t *to, encode_bytes bytes) {
    vst1q_u8(to, bytes.val[0]);
    vst1q_u8(to + 16, bytes.val[1]);
}

VEC_INLINE void encode_store_nibbles(uint8_t *to, encode_bytes bytes) {
    const uint8x16_t low = vandq_u8(bytes.val[0], vdupq_n_u8(15));
    vst1q_u8(to, vorrq_u8(low, vshlq_n_u8(bytes.val[1], 4)));
}

/* Bit 4 of 8 bytes: each becomes a bit of its own, and these add up. */
VEC_INLINE uint32_t encode_fifth_of_8(uint8x8_t bytes) {
    const uint8x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
    return vaddv_u8(vand_u8(vtst_u8(bytes, vdup_n_u8(16)), bit));
}

VEC_INLINE uint32_t encode_fifth(encode_bytes bytes) {
    uint32_t fifth = 0;
    VEC_UNROLL
    for (int32_t k = 0; k < 2; k++) {
        fifth |= encode_fifth_of_8(vget_low_u8(bytes.val[k])) << 16 * k;
        fifth |= encode_fifth_of_8(vget_high_u8(bytes.val[k])) << (16 * k + 8);
    }
    return fifth;
}

ENCODE(varve_encode_q8_0_neon, VARVE_FORMAT_Q8_0)
ENCODE(varve_encode_q4_0_neon, VARVE_FORMAT_Q4_0)
ENCODE(varve_encode_q4_1_neon, VARVE_FORMAT_Q4_1)
ENCODE(varve_encode_q5_0_neon, VARVE_FORMAT_Q5_0)
ENCODE(varve_encode_q5_1_neon, VARVE_FORMAT_Q5_1)
