/*
 * matmul_avx2.c: matrix products with AVX2, FMA and F16C.
 *
 * vpmaddubsw multiplies unsigned weights by signed activations and adds neighbours: two 16-bit
 * sums a row. Activations are within -127 .. 127 (activations.h), so such a sum is at most
 * 15 * 127 * 2 = 3810 for 4 bits, 7874 for 5 and 16002 for 6, and 8, 4 or 2 groups can be added
 * up before they need 32 bits. Q8_0 takes |w| as the unsigned operand and gives its sign to the
 * activation: at most 128 * 127 * 2 = 32512.
 */
#define MATMUL_SUFFIX avx2
#include "kernels/matmul/matmul_avx2_template.h"

/*
 * Keeps additions in the order in which they stand: GCC would make trees of them, and the 64 products
 * of a block, all computed first, do not fit in 16 registers (prefill was 1.5 times slower).
 */
#define IN_ORDER(sum) __asm__("" : "+x"(sum))

PI2_UNPACK_INLINE_AVX2 __m256i add_products(__m256i sums, __m256i w, __m256i x) {
    __m256i more = _mm256_add_epi16(sums, _mm256_maddubs_epi16(w, x));
    IN_ORDER(more);
    return more;
}

PI2_UNPACK_INLINE_AVX2 __m256i add_scaled(__m256i dot, __m256i sums, __m256i factor) {
    return _mm256_add_epi32(dot, _mm256_madd_epi16(sums, factor));
}

/* A scale, which fits in 16 bits, meets both sums of its lane. */
PI2_UNPACK_INLINE_AVX2 __m256i factor_of(__m256i scale) {
    return _mm256_blend_epi16(scale, _mm256_slli_epi32(scale, 16), 0xAA);
}

/* dot[h][t] += one signed column group times the 4 activations at a. */
PI2_UNPACK_INLINE_AVX2 void add_signed_group(int T, __m256i dot[HALVES][TOKENS],
                                             const __m256i group[HALVES], const int8_t *a,
                                             size_t a_stride) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i magnitude[HALVES];
    UNROLLED
    for (int h = 0; h < HALVES; h++) magnitude[h] = _mm256_abs_epi8(group[h]);
    UNROLLED
    for (int t = 0; t < T; t++) {
        const __m256i x = four_activations(a + (size_t)t * a_stride);
        UNROLLED
        for (int h = 0; h < HALVES; h++) {
            const __m256i products =
                _mm256_maddubs_epi16(magnitude[h], _mm256_sign_epi8(x, group[h]));
            dot[h][t] = _mm256_add_epi32(dot[h][t], _mm256_madd_epi16(products, ones));
            IN_ORDER(dot[h][t]);
        }
    }
}

/* dot[h][t] += the token's entry: minus offset times the sum of its activations. */
PI2_UNPACK_INLINE_AVX2 void add_bias(int T, __m256i dot[HALVES][TOKENS], const int32_t *entry,
                                     size_t entry_stride) {
    UNROLLED
    for (int h = 0; h < HALVES; h++) {
        UNROLLED
        for (int t = 0; t < T; t++) {
            const __m256i bias = _mm256_set1_epi32(entry[(size_t)t * entry_stride]);
            dot[h][t] = _mm256_add_epi32(dot[h][t], bias);
        }
    }
}

PI2_UNPACK_INLINE_AVX2 void dot_of_32(pi2_weight_type type, int T, __m256i dot[HALVES][TOKENS],
                                      const uint8_t *values, const int8_t *a, size_t a_stride,
                                      const int32_t *entry, size_t entry_stride) {
    const bool five_bits = type == PI2_Q5_0 || type == PI2_Q5_1;
    const bool biased = type == PI2_Q4_0 || type == PI2_Q5_0;
    const __m256i ones[HALVES] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    __m256i sums[HALVES][TOKENS];
    clear(T, dot);
    clear(T, sums);
    UNROLLED
    for (int pair = 0; pair < 4; pair++) {
        __m256i even[HALVES], odd[HALVES];
        unpack_pair(type, values, pair, even, odd);
        if (type == PI2_Q8_0) {
            add_signed_group(T, dot, even, a + 8 * pair, a_stride);
            add_signed_group(T, dot, odd, a + 8 * pair + 4, a_stride);
        } else {
            add_group(T, sums, even, a + 8 * pair, a_stride);
            add_group(T, sums, odd, a + 8 * pair + 4, a_stride);
        }
        if (five_bits && pair == 1) {
            widen(T, dot, sums, ones);
            clear(T, sums);
        }
    }
    if (type != PI2_Q8_0) widen(T, dot, sums, ones);
    if (biased) add_bias(T, dot, entry, entry_stride);
}

PI2_UNPACK_INLINE_AVX2 void dot_of_q6_k(int T, __m256i dot[HALVES][TOKENS], const uint8_t *scales,
                                        const uint8_t *values, const int8_t *a, size_t a_stride,
                                        const int32_t *entries, size_t entry_stride) {
    clear(T, dot);
    for (int sub = 0; sub < 16; sub++, values += 192, scales += 16, a += 16, entries++) {
        __m256i groups[HALVES][4], factor[HALVES];
        UNROLLED
        for (int h = 0; h < HALVES; h++) {
            pi2_unpack_six_bits_avx2(values + 32 * h, groups[h]);
            factor[h] = factor_of(eight_scales(scales + HALF_ROWS * h));
            /* -32 * sum fits in 17 bits: multiply the sum by scale first, then shift. */
            UNROLLED
            for (int t = 0; t < T; t++) {
                const __m256i low16 = _mm256_set1_epi32(entries[(size_t)t * entry_stride] & 0xffff);
                const __m256i product = _mm256_madd_epi16(factor[h], low16);
                dot[h][t] = _mm256_sub_epi32(dot[h][t], _mm256_slli_epi32(product, 5));
            }
        }
        UNROLLED
        for (int two = 0; two < 4; two += 2) {
            const __m256i even[HALVES] = {groups[0][two], groups[1][two]};
            const __m256i odd[HALVES] = {groups[0][two + 1], groups[1][two + 1]};
            __m256i sums[HALVES][TOKENS];
            clear(T, sums);
            add_group(T, sums, even, a + 4 * two, a_stride);
            add_group(T, sums, odd, a + 4 * two + 4, a_stride);
            widen(T, dot, sums, factor);
        }
    }
}

/* ---- F32, F16, BF16 ---- */

PI2_UNPACK_INLINE_AVX2 void strip_of_floats(pi2_weight_type type, int R, int T,
                                            uint32_t value_bytes, strip *s) {
    const size_t apart = s->tiles_apart * s->tile_bytes;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *values = s->values + tile * s->tile_bytes;
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        __m256 chain[MOST_TILES * HALVES][TOKENS];
        load_chains(s, tile, 2 * R, T, chain);
        for (size_t k = 0; k < s->block_count; k++, values += value_bytes) {
            if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, value_bytes);
            UNROLLED
            for (int h = 0; h < 2 * R; h++) {
                const uint8_t *half =
                    values + (size_t)(h / 2) * apart + (size_t)(h % 2) * (value_bytes / 2);
                const __m256 w = pi2_load_column_avx2(type, half);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const __m256 x = _mm256_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + k]);
                    chain[h][t] = _mm256_fmadd_ps(w, x, chain[h][t]);
                }
            }
        }
        store_chains(s, tile, 2 * R, T, chain);
    }
}

KERNEL_OF(f32, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_F32, tiles_, tokens_, 64, s))
KERNEL_OF(f16, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_F16, tiles_, tokens_, 32, s))
KERNEL_OF(bf16, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_BF16, tiles_, tokens_, 32, s))
KERNEL_OF(q4_0, PI2_PREPARED_OFFSET, 8, strip_of_32(PI2_Q4_0, tiles_, tokens_, 32, 256, s))
KERNEL_OF(q4_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q4_1, tiles_, tokens_, 64, 256, s))
KERNEL_OF(q5_0, PI2_PREPARED_OFFSET, 16, strip_of_32(PI2_Q5_0, tiles_, tokens_, 32, 320, s))
KERNEL_OF(q5_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q5_1, tiles_, tokens_, 64, 320, s))
KERNEL_OF(q8_0, PI2_PREPARED_NONE, 0, strip_of_32(PI2_Q8_0, tiles_, tokens_, 32, 512, s))
KERNEL_OF(q4_k, PI2_PREPARED_PAIRS, 0, strip_of_q4_k(tiles_, tokens_, s))
KERNEL_OF(q6_k, PI2_PREPARED_OFFSET, -1, strip_of_q6_k(tiles_, tokens_, s))
