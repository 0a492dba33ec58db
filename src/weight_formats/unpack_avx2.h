/*
 * unpack_avx2.h: half column groups of a tile (tile_values.h) as vectors of 32 bytes: 8 lanes,
 * one a row, of 4 columns. Every pointer is that of the upper or lower 8 rows already: 32 bytes
 * further for values and scale words, 16 bytes for halves. `type` is a constant where inlined.
 */
#ifndef PI2_WEIGHT_FORMATS_UNPACK_AVX2_H
#define PI2_WEIGHT_FORMATS_UNPACK_AVX2_H

#include <immintrin.h>

#include "weight_formats/weight_format.h"

#define PI2_UNPACK_INLINE_AVX2 static inline __attribute__((always_inline))

PI2_UNPACK_INLINE_AVX2 __m256i pi2_load_avx2(const uint8_t *bytes) {
    return _mm256_load_si256((const __m256i *)(const void *)bytes);
}

/* Immediate shifts want literal counts, also where nothing is optimised. */
PI2_UNPACK_INLINE_AVX2 __m256i pi2_bit_to_bit4_avx2(__m256i bits, int bit) {
    switch (bit) {
    case 0: return _mm256_slli_epi16(bits, 4);
    case 1: return _mm256_slli_epi16(bits, 3);
    case 2: return _mm256_slli_epi16(bits, 2);
    case 3: return _mm256_slli_epi16(bits, 1);
    case 5: return _mm256_srli_epi16(bits, 1);
    case 6: return _mm256_srli_epi16(bits, 2);
    case 7: return _mm256_srli_epi16(bits, 3);
    default: return bits;
    }
}

/**
 * Groups 2 * pair and 2 * pair + 1 of a block of 32 columns, pair 0 .. 3. Q4_0 is biased by 8
 * and Q5_0 by 16, so that they are unsigned; Q8_0 keeps its signs.
 */
PI2_UNPACK_INLINE_AVX2 void pi2_unpack_pair_avx2(pi2_weight_type type, const uint8_t *values,
                                                 int pair, __m256i *even, __m256i *odd) {
    if (type == PI2_Q8_0) {
        *even = pi2_load_avx2(values + 128 * pair);
        *odd = pi2_load_avx2(values + 128 * pair + 64);
        return;
    }
    const __m256i low_half = _mm256_set1_epi8(15);
    const __m256i nibbles = pi2_load_avx2(values + 64 * pair);
    *even = _mm256_and_si256(nibbles, low_half);
    *odd = _mm256_and_si256(_mm256_srli_epi16(nibbles, 4), low_half);
    if (type == PI2_Q5_0 || type == PI2_Q5_1) {
        const __m256i bit4 = _mm256_set1_epi8(16);
        const __m256i fifth = pi2_load_avx2(values + 256);
        const __m256i of_even = pi2_bit_to_bit4_avx2(fifth, 2 * pair);
        const __m256i of_odd = pi2_bit_to_bit4_avx2(fifth, 2 * pair + 1);
        *even = _mm256_or_si256(*even, _mm256_and_si256(of_even, bit4));
        *odd = _mm256_or_si256(*odd, _mm256_and_si256(of_odd, bit4));
    }
}

/** The four groups of a sub-block of 16 columns of Q6_K, biased by 32. */
PI2_UNPACK_INLINE_AVX2 void pi2_unpack_six_bits_avx2(const uint8_t *values, __m256i groups[4]) {
    const __m256i low_half = _mm256_set1_epi8(15), bits45 = _mm256_set1_epi8(0x30);
    const __m256i high = pi2_load_avx2(values);
    const __m256i first = pi2_load_avx2(values + 64);
    const __m256i second = pi2_load_avx2(values + 128);
    const __m256i high0 = _mm256_and_si256(_mm256_slli_epi16(high, 4), bits45);
    const __m256i high1 = _mm256_and_si256(_mm256_slli_epi16(high, 2), bits45);
    const __m256i high2 = _mm256_and_si256(high, bits45);
    const __m256i high3 = _mm256_and_si256(_mm256_srli_epi16(high, 2), bits45);
    groups[0] = _mm256_or_si256(high0, _mm256_and_si256(first, low_half));
    groups[1] = _mm256_or_si256(high1, _mm256_and_si256(_mm256_srli_epi16(first, 4), low_half));
    groups[2] = _mm256_or_si256(high2, _mm256_and_si256(second, low_half));
    groups[3] = _mm256_or_si256(high3, _mm256_and_si256(_mm256_srli_epi16(second, 4), low_half));
}

/** 8 halves as floats. */
PI2_UNPACK_INLINE_AVX2 __m256 pi2_load_halves_avx2(const uint8_t *halves) {
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)halves));
}

/** Q4_K: sub-block scales and minimums of 8 rows; byte i of a lane belongs to sub-block i. */
typedef struct pi2_q4_k_scales_avx2 {
    __m256i scales_0_3, scales_4_7, minimums_0_3, minimums_4_7;
} pi2_q4_k_scales_avx2;

PI2_UNPACK_INLINE_AVX2 pi2_q4_k_scales_avx2 pi2_unpack_q4_k_scales_avx2(const uint8_t *words) {
    const __m256i six = _mm256_set1_epi32(0x3f3f3f3f), four = _mm256_set1_epi32(0x0f0f0f0f);
    const __m256i top = _mm256_set1_epi32(0x30303030);
    const __m256i word0 = pi2_load_avx2(words);
    const __m256i word1 = pi2_load_avx2(words + 64);
    const __m256i word2 = pi2_load_avx2(words + 128);
    const __m256i top_scales = _mm256_and_si256(_mm256_srli_epi32(word0, 2), top);
    const __m256i top_minimums = _mm256_and_si256(_mm256_srli_epi32(word1, 2), top);
    const __m256i low_minimums = _mm256_and_si256(_mm256_srli_epi32(word2, 4), four);
    return (pi2_q4_k_scales_avx2){
        .scales_0_3 = _mm256_and_si256(word0, six),
        .minimums_0_3 = _mm256_and_si256(word1, six),
        .scales_4_7 = _mm256_or_si256(top_scales, _mm256_and_si256(word2, four)),
        .minimums_4_7 = _mm256_or_si256(top_minimums, low_minimums),
    };
}

/** One column of 8 rows of a tile of floats. */
PI2_UNPACK_INLINE_AVX2 __m256 pi2_load_column_avx2(pi2_weight_type type, const uint8_t *values) {
    if (type == PI2_F32) return _mm256_load_ps((const float *)(const void *)values);
    if (type == PI2_F16) return pi2_load_halves_avx2(values);
    const __m128i bits = _mm_load_si128((const __m128i *)(const void *)values);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

#endif
