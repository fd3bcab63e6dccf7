#include "kernel/vec_avx2.h"

typedef __m256i encode_bytes;

#include "kernel/encode.h"

VEC_INLINE __m256 encode_larger(__m256 a, __m256 b, const bool as_bits) {
    if (!as_bits) return _mm256_max_ps(a, b);
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}

VEC_INLINE encode_f32 encode_largest(const vec_f32 x[ENCODE_GROUP], const bool as_bits) {
    __m256 y[2];
    VEC_UNROLL
    for (int32_t i = 0; i < 2; i++) {
        y[i] = encode_larger(_mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]),
                             _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]), as_bits);
    }
    const __m256 z = encode_larger(_mm256_shuffle_ps(y[0], y[1], 0x44),
                                   _mm256_shuffle_ps(y[0], y[1], 0xEE), as_bits);
    const __m256 other = _mm256_permute2f128_ps(z, z, 1);
    return (encode_f32)_mm256_castps256_ps128(encode_larger(z, other, as_bits));
}

VEC_INLINE uint64_t encode_halves(encode_f32 x) {
    const __m128i half = _mm_cvtps_ph((__m128)x, _MM_FROUND_TO_NEAREST_INT);
    return (uint64_t)_mm_cvtsi128_si64(half);
}

VEC_INLINE encode_bytes encode_cut(encode_bytes bytes, const int32_t top) {
    return _mm256_min_epu8(bytes, _mm256_set1_epi8((char)top));
}

VEC_INLINE void encode_store(uint8_t *to, encode_bytes bytes) {
    _mm256_storeu_si256((__m256i *)(void *)to, bytes);
}

VEC_INLINE void encode_store_nibbles(uint8_t *to, encode_bytes bytes) {
    const __m256i nibbles = _mm256_and_si256(bytes, _mm256_set1_epi8(15));
    const __m128i low = _mm256_castsi256_si128(nibbles);
    const __m128i high = _mm_slli_epi16(_mm256_extracti128_si256(nibbles, 1), 4);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_or_si128(low, high));
}

VEC_INLINE uint32_t encode_fifth(encode_bytes bytes) {
    return (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 3));
}

VEC_INLINE uint32_t encode_equal(const float *x, float value, const bool magnitude) {
    uint32_t equal = 0;
    VEC_UNROLL
    for (int32_t p = 0; p < ENCODE_PARTS; p++) {
        const vec_f32 y = vec_load_any(x + p * VEC_LANES);
        const vec_f32 same = _mm256_cmp_ps(magnitude ? vec_abs(y) : y, vec_all(value), _CMP_EQ_OQ);
        equal |= (uint32_t)_mm256_movemask_ps(same) << p * VEC_LANES;
    }
    return equal;
}

VEC_INLINE encode_bytes encode_pack(const vec_i32 i[ENCODE_PARTS]) {
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes that of packs */
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
    return _mm256_permutevar8x32_epi32(bytes, in_order);
}

ENCODE(varve_encode_q8_0_avx2, VARVE_FORMAT_Q8_0)
ENCODE(varve_encode_q4_0_avx2, VARVE_FORMAT_Q4_0)
ENCODE(varve_encode_q4_1_avx2, VARVE_FORMAT_Q4_1)
ENCODE(varve_encode_q5_0_avx2, VARVE_FORMAT_Q5_0)
ENCODE(varve_encode_q5_1_avx2, VARVE_FORMAT_Q5_1)
