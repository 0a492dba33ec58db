/*
 * matmul_avxvnni.c: the quantised matrix products with AVX2 and AVX-VNNI.
 *
 * vpdpbusd adds the 4 products of a row's unsigned weights and signed activations to its 32-bit
 * sum, which holds a whole block. So Q8_0 is unsigned here, biased by 128, and the sums of biased
 * types start at minus offset times the sum of the activations, as those of AVX-512 do.
 */
/* A machine without AVX-VNNI tests all but this one step: with another, and other names. */
#if !defined(ADD_PRODUCTS_STEP)
#define ADD_PRODUCTS_STEP _mm256_dpbusd_avx_epi32
#define MATMUL_SUFFIX avxvnni
#endif
#include "kernels/matmul/matmul_avx2_template.h"

PI2_UNPACK_INLINE_AVX2 __m256i add_products(__m256i sums, __m256i w, __m256i x) {
    return ADD_PRODUCTS_STEP(sums, w, x);
}

PI2_UNPACK_INLINE_AVX2 __m256i add_scaled(__m256i dot, __m256i sums, __m256i factor) {
    return _mm256_add_epi32(dot, _mm256_mullo_epi32(sums, factor));
}

PI2_UNPACK_INLINE_AVX2 __m256i factor_of(__m256i scale) { return scale; }

/* sums[h][t] = the token's entry: minus offset times the sum of its activations. */
PI2_UNPACK_INLINE_AVX2 void start_at_bias(int T, __m256i sums[HALVES][TOKENS], const int32_t *entry,
                                          size_t entry_stride) {
    UNROLLED
    for (int t = 0; t < T; t++) {
        const __m256i bias = _mm256_set1_epi32(entry[(size_t)t * entry_stride]);
        UNROLLED
        for (int h = 0; h < HALVES; h++) sums[h][t] = bias;
    }
}

PI2_UNPACK_INLINE_AVX2 void dot_of_32(pi2_weight_type type, int T, __m256i dot[HALVES][TOKENS],
                                      const uint8_t *values, const int8_t *a, size_t a_stride,
                                      const int32_t *entry, size_t entry_stride) {
    const bool minimums = type == PI2_Q4_1 || type == PI2_Q5_1;
    const __m256i sign_bits = _mm256_set1_epi8(-128);
    if (minimums) {
        clear(T, dot);
    } else {
        start_at_bias(T, dot, entry, entry_stride);
    }
    UNROLLED
    for (int pair = 0; pair < 4; pair++) {
        __m256i even[HALVES], odd[HALVES];
        unpack_pair(type, values, pair, even, odd);
        if (type == PI2_Q8_0) {
            UNROLLED
            for (int h = 0; h < HALVES; h++) {
                even[h] = _mm256_xor_si256(even[h], sign_bits);
                odd[h] = _mm256_xor_si256(odd[h], sign_bits);
            }
        }
        add_group(T, dot, even, a + 8 * pair, a_stride);
        add_group(T, dot, odd, a + 8 * pair + 4, a_stride);
    }
}

PI2_UNPACK_INLINE_AVX2 void dot_of_q6_k(int T, __m256i dot[HALVES][TOKENS], const uint8_t *scales,
                                        const uint8_t *values, const int8_t *a, size_t a_stride,
                                        const int32_t *entries, size_t entry_stride) {
    clear(T, dot);
    for (int sub = 0; sub < 16; sub++, values += 192, scales += 16, a += 16, entries++) {
        __m256i groups[HALVES][4], factor[HALVES], sums[HALVES][TOKENS];
        UNROLLED
        for (int h = 0; h < HALVES; h++) {
            pi2_unpack_six_bits_avx2(values + 32 * h, groups[h]);
            factor[h] = factor_of(eight_scales(scales + HALF_ROWS * h));
        }
        start_at_bias(T, sums, entries, entry_stride);
        UNROLLED
        for (int g = 0; g < 4; g++) {
            const __m256i group[HALVES] = {groups[0][g], groups[1][g]};
            add_group(T, sums, group, a + 4 * g, a_stride);
        }
        widen(T, dot, sums, factor);
    }
}

KERNEL_OF(q4_0, PI2_PREPARED_OFFSET, 8, strip_of_32(PI2_Q4_0, tiles_, tokens_, 32, 256, s))
KERNEL_OF(q4_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q4_1, tiles_, tokens_, 64, 256, s))
KERNEL_OF(q5_0, PI2_PREPARED_OFFSET, 16, strip_of_32(PI2_Q5_0, tiles_, tokens_, 32, 320, s))
KERNEL_OF(q5_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q5_1, tiles_, tokens_, 64, 320, s))
KERNEL_OF(q8_0, PI2_PREPARED_OFFSET, 128, strip_of_32(PI2_Q8_0, tiles_, tokens_, 32, 512, s))
KERNEL_OF(q4_k, PI2_PREPARED_PAIRS, 0, strip_of_q4_k(tiles_, tokens_, s))
KERNEL_OF(q6_k, PI2_PREPARED_OFFSET, 32, strip_of_q6_k(tiles_, tokens_, s))
