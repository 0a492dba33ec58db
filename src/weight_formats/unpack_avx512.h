/*
 * unpack_avx512.h: column groups of a tile (tile_values.h) as vectors of 64 unsigned bytes:
 * 16 lanes, one a row, of 4 columns. `type` is a constant where these are inlined.
 */
#ifndef PI2_WEIGHT_FORMATS_UNPACK_AVX512_H
#define PI2_WEIGHT_FORMATS_UNPACK_AVX512_H

#include <immintrin.h>

#include "weight_formats/weight_format.h"

#define PI2_UNPACK_INLINE static inline __attribute__((always_inline))

/* Truth table of ternary logic: (first & second) | third. */
enum { PI2_AND_OR = 0xEA };

/* Immediate shifts want literal counts, also where nothing is optimised. */
PI2_UNPACK_INLINE __m512i pi2_bit_to_bit4_avx512(__m512i bits, int bit) {
    switch (bit) {
    case 0: return _mm512_slli_epi16(bits, 4);
    case 1: return _mm512_slli_epi16(bits, 3);
    case 2: return _mm512_slli_epi16(bits, 2);
    case 3: return _mm512_slli_epi16(bits, 1);
    case 5: return _mm512_srli_epi16(bits, 1);
    case 6: return _mm512_srli_epi16(bits, 2);
    case 7: return _mm512_srli_epi16(bits, 3);
    default: return bits;
    }
}

/**
 * Groups 2 * pair and 2 * pair + 1 of a block of 32 columns, pair 0 .. 3. Values are biased so
 * that they are unsigned: Q4_0 by 8, Q5_0 by 16, Q8_0 by 128.
 */
PI2_UNPACK_INLINE void pi2_unpack_pair_avx512(pi2_weight_type type, const uint8_t *values, int pair,
                                              __m512i *even, __m512i *odd) {
    if (type == PI2_Q8_0) {
        const __m512i bias = _mm512_set1_epi8((char)0x80);
        *even = _mm512_xor_si512(_mm512_load_si512(values + 128 * pair), bias);
        *odd = _mm512_xor_si512(_mm512_load_si512(values + 128 * pair + 64), bias);
        return;
    }
    const __m512i low_half = _mm512_set1_epi8(15);
    const __m512i nibbles = _mm512_load_si512(values + 64 * pair);
    *even = _mm512_and_si512(nibbles, low_half);
    *odd = _mm512_and_si512(_mm512_srli_epi16(nibbles, 4), low_half);
    if (type == PI2_Q5_0 || type == PI2_Q5_1) {
        const __m512i bit4 = _mm512_set1_epi8(16);
        const __m512i fifth = _mm512_load_si512(values + 256);
        *even = _mm512_ternarylogic_epi32(pi2_bit_to_bit4_avx512(fifth, 2 * pair), bit4, *even,
                                          PI2_AND_OR);
        *odd = _mm512_ternarylogic_epi32(pi2_bit_to_bit4_avx512(fifth, 2 * pair + 1), bit4, *odd,
                                         PI2_AND_OR);
    }
}

/** The four groups of a sub-block of 16 columns of Q6_K, biased by 32. */
PI2_UNPACK_INLINE void pi2_unpack_six_bits_avx512(const uint8_t *values, __m512i groups[4]) {
    const __m512i low_half = _mm512_set1_epi8(15), bits45 = _mm512_set1_epi8(0x30);
    const __m512i high = _mm512_load_si512(values);
    const __m512i first = _mm512_load_si512(values + 64);
    const __m512i second = _mm512_load_si512(values + 128);
    const __m512i low0 = _mm512_and_si512(first, low_half);
    const __m512i low1 = _mm512_and_si512(_mm512_srli_epi16(first, 4), low_half);
    const __m512i low2 = _mm512_and_si512(second, low_half);
    const __m512i low3 = _mm512_and_si512(_mm512_srli_epi16(second, 4), low_half);
    groups[0] = _mm512_ternarylogic_epi32(_mm512_slli_epi16(high, 4), bits45, low0, PI2_AND_OR);
    groups[1] = _mm512_ternarylogic_epi32(_mm512_slli_epi16(high, 2), bits45, low1, PI2_AND_OR);
    groups[2] = _mm512_ternarylogic_epi32(high, bits45, low2, PI2_AND_OR);
    groups[3] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(high, 2), bits45, low3, PI2_AND_OR);
}

/** 16 halves as floats. */
PI2_UNPACK_INLINE __m512 pi2_load_halves_avx512(const uint8_t *halves) {
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)halves));
}

/** Q4_K: sub-block scales and minimums of all rows; byte i of a lane belongs to sub-block i. */
typedef struct pi2_q4_k_scales_avx512 {
    __m512i scales_0_3, scales_4_7, minimums_0_3, minimums_4_7;
} pi2_q4_k_scales_avx512;

PI2_UNPACK_INLINE pi2_q4_k_scales_avx512 pi2_unpack_q4_k_scales_avx512(const uint8_t *words) {
    const __m512i six = _mm512_set1_epi32(0x3f3f3f3f), four = _mm512_set1_epi32(0x0f0f0f0f);
    const __m512i top = _mm512_set1_epi32(0x30303030);
    const __m512i word0 = _mm512_load_si512(words);
    const __m512i word1 = _mm512_load_si512(words + 64);
    const __m512i word2 = _mm512_load_si512(words + 128);
    const __m512i low_scales = _mm512_and_si512(word2, four);
    const __m512i low_minimums = _mm512_and_si512(_mm512_srli_epi32(word2, 4), four);
    return (pi2_q4_k_scales_avx512){
        .scales_0_3 = _mm512_and_si512(word0, six),
        .minimums_0_3 = _mm512_and_si512(word1, six),
        .scales_4_7 =
            _mm512_ternarylogic_epi32(_mm512_srli_epi32(word0, 2), top, low_scales, PI2_AND_OR),
        .minimums_4_7 =
            _mm512_ternarylogic_epi32(_mm512_srli_epi32(word1, 2), top, low_minimums, PI2_AND_OR),
    };
}

/** One column of a tile of floats. */
PI2_UNPACK_INLINE __m512 pi2_load_column_avx512(pi2_weight_type type, const uint8_t *values) {
    if (type == PI2_F32) return _mm512_load_ps(values);
    if (type == PI2_F16) return pi2_load_halves_avx512(values);
    const __m256i bits = _mm256_load_si256((const __m256i *)(const void *)values);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

#endif
