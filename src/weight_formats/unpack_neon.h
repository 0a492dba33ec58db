/*
 * unpack_neon.h: quarters of column groups of a tile (tile_values.h) as vectors of 16 bytes: 4
 * lanes, one a row, of 4 columns. Every pointer is that of the quarter's 4 rows already: 16 bytes
 * further a quarter for values and scale words, 8 bytes for halves. `type` is a constant where
 * inlined.
 */
#ifndef PI2_WEIGHT_FORMATS_UNPACK_NEON_H
#define PI2_WEIGHT_FORMATS_UNPACK_NEON_H
#if defined(__aarch64__) /* the header compiles, empty, on every machine */

#include <arm_neon.h>

#include "weight_formats/weight_format.h"

#define PI2_UNPACK_INLINE_NEON static inline __attribute__((always_inline))

/* Bit `bit` of each byte as bit 4. Immediate shifts want literal counts, also unoptimised. */
PI2_UNPACK_INLINE_NEON uint8x16_t pi2_bit_to_bit4_neon(uint8x16_t bits, int bit) {
    const uint8x16_t bit4 = vdupq_n_u8(16);
    switch (bit) {
    case 0: return vandq_u8(vshlq_n_u8(bits, 4), bit4);
    case 1: return vandq_u8(vshlq_n_u8(bits, 3), bit4);
    case 2: return vandq_u8(vshlq_n_u8(bits, 2), bit4);
    case 3: return vandq_u8(vshlq_n_u8(bits, 1), bit4);
    case 5: return vandq_u8(vshrq_n_u8(bits, 1), bit4);
    case 6: return vandq_u8(vshrq_n_u8(bits, 2), bit4);
    case 7: return vandq_u8(vshrq_n_u8(bits, 3), bit4);
    default: return vandq_u8(bits, bit4);
    }
}

/**
 * Groups 2 * pair and 2 * pair + 1 of a block of 32 columns, pair 0 .. 3. Q4_0 is biased by 8 and
 * Q5_0 by 16; Q8_0 keeps its signs. All fit in signed bytes.
 */
PI2_UNPACK_INLINE_NEON void pi2_unpack_pair_neon(pi2_weight_type type, const uint8_t *values,
                                                 int pair, int8x16_t *even, int8x16_t *odd) {
    if (type == PI2_Q8_0) {
        *even = vreinterpretq_s8_u8(vld1q_u8(values + 128 * pair));
        *odd = vreinterpretq_s8_u8(vld1q_u8(values + 128 * pair + 64));
        return;
    }
    const uint8x16_t nibbles = vld1q_u8(values + 64 * pair);
    uint8x16_t low = vandq_u8(nibbles, vdupq_n_u8(15));
    uint8x16_t high = vshrq_n_u8(nibbles, 4);
    if (type == PI2_Q5_0 || type == PI2_Q5_1) {
        const uint8x16_t fifth = vld1q_u8(values + 256);
        low = vorrq_u8(low, pi2_bit_to_bit4_neon(fifth, 2 * pair));
        high = vorrq_u8(high, pi2_bit_to_bit4_neon(fifth, 2 * pair + 1));
    }
    *even = vreinterpretq_s8_u8(low);
    *odd = vreinterpretq_s8_u8(high);
}

/** The four groups of a sub-block of 16 columns of Q6_K, biased by 32. */
PI2_UNPACK_INLINE_NEON void pi2_unpack_six_bits_neon(const uint8_t *values, int8x16_t groups[4]) {
    const uint8x16_t low_half = vdupq_n_u8(15), bits45 = vdupq_n_u8(0x30);
    const uint8x16_t high = vld1q_u8(values);
    const uint8x16_t first = vld1q_u8(values + 64), second = vld1q_u8(values + 128);
    const uint8x16_t high0 = vandq_u8(vshlq_n_u8(high, 4), bits45);
    const uint8x16_t high1 = vandq_u8(vshlq_n_u8(high, 2), bits45);
    const uint8x16_t high2 = vandq_u8(high, bits45);
    const uint8x16_t high3 = vandq_u8(vshrq_n_u8(high, 2), bits45);
    groups[0] = vreinterpretq_s8_u8(vorrq_u8(high0, vandq_u8(first, low_half)));
    groups[1] = vreinterpretq_s8_u8(vorrq_u8(high1, vshrq_n_u8(first, 4)));
    groups[2] = vreinterpretq_s8_u8(vorrq_u8(high2, vandq_u8(second, low_half)));
    groups[3] = vreinterpretq_s8_u8(vorrq_u8(high3, vshrq_n_u8(second, 4)));
}

/** 4 halves as floats. */
PI2_UNPACK_INLINE_NEON float32x4_t pi2_load_halves_neon(const uint8_t *halves) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves)));
}

/** Q4_K: sub-block scales and minimums of 4 rows; byte i of a lane belongs to sub-block i. */
typedef struct pi2_q4_k_scales_neon {
    uint32x4_t scales_0_3, scales_4_7, minimums_0_3, minimums_4_7;
} pi2_q4_k_scales_neon;

PI2_UNPACK_INLINE_NEON pi2_q4_k_scales_neon pi2_unpack_q4_k_scales_neon(const uint8_t *words) {
    const uint8x16_t six = vdupq_n_u8(0x3f), four = vdupq_n_u8(0x0f), top = vdupq_n_u8(0x30);
    const uint8x16_t word0 = vld1q_u8(words);
    const uint8x16_t word1 = vld1q_u8(words + 64);
    const uint8x16_t word2 = vld1q_u8(words + 128);
    const uint8x16_t top_scales = vandq_u8(vshrq_n_u8(word0, 2), top);
    const uint8x16_t top_minimums = vandq_u8(vshrq_n_u8(word1, 2), top);
    return (pi2_q4_k_scales_neon){
        .scales_0_3 = vreinterpretq_u32_u8(vandq_u8(word0, six)),
        .minimums_0_3 = vreinterpretq_u32_u8(vandq_u8(word1, six)),
        .scales_4_7 = vreinterpretq_u32_u8(vorrq_u8(top_scales, vandq_u8(word2, four))),
        .minimums_4_7 = vreinterpretq_u32_u8(vorrq_u8(top_minimums, vshrq_n_u8(word2, 4))),
    };
}

/** One column of 4 rows of a tile of floats. */
PI2_UNPACK_INLINE_NEON float32x4_t pi2_load_column_neon(pi2_weight_type type,
                                                        const uint8_t *values) {
    if (type == PI2_F32) return vreinterpretq_f32_u8(vld1q_u8(values));
    if (type == PI2_F16) return pi2_load_halves_neon(values);
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(values)), 16));
}

#endif
#endif
