/*
 * matmul_avx2.c: strip kernels for AVX2, one template for each shape of block.
 *
 * A vector is half a column group: 8 rows by 4 columns. vpmaddubsw multiplies unsigned weights
 * by signed activations and adds neighbours: two 16-bit sums a row. Activations are within
 * -127 .. 127 (activations.h), so such a sum is at most 15 * 127 * 2 = 3810 for 4 bits, 7874 for
 * 5 and 16002 for 6, and 8, 4 or 2 groups can be added up before they need 32 bits. Q8_0 takes
 * |w| as the unsigned operand and gives its sign to the activation: at most 128 * 127 * 2 = 32512.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/matmul/matmul_driver.h"
#include "kernels/matmul/matmul_kernels.h"
#include "weight_formats/tile_values.h"
#include "weight_formats/unpack_avx2.h"

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

/* Rows come in halves of a tile: a strip of R tiles has 2 * R of them. */
enum { HALF_ROWS = 8, HALVES = 2, TOKENS = 4, FLOAT_HALVES = 8 };

typedef const pi2_matmul_strip strip;

PI2_UNPACK_INLINE_AVX2 __m256i four_activations(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

PI2_UNPACK_INLINE_AVX2 float *out_at(strip *s, size_t tile, int h, int t) {
    return s->out + (size_t)t * s->out_stride + tile * PI2_TILE_ROWS + (size_t)h * HALF_ROWS;
}

PI2_UNPACK_INLINE_AVX2 void load_chains(strip *s, size_t tile, int H, int T,
                                        __m256 chain[][TOKENS]) {
    UNROLLED
    for (int h = 0; h < H; h++) {
        UNROLLED
        for (int t = 0; t < T; t++) {
            chain[h][t] = s->start ? _mm256_setzero_ps() : _mm256_loadu_ps(out_at(s, tile, h, t));
        }
    }
}

PI2_UNPACK_INLINE_AVX2 void store_chains(strip *s, size_t tile, int H, int T,
                                         __m256 chain[][TOKENS]) {
    UNROLLED
    for (int h = 0; h < H; h++) {
        UNROLLED
        for (int t = 0; t < T; t++) _mm256_storeu_ps(out_at(s, tile, h, t), chain[h][t]);
    }
}

PI2_UNPACK_INLINE_AVX2 void clear(int T, __m256i sums[HALVES][TOKENS]) {
    UNROLLED
    for (int h = 0; h < HALVES; h++) {
        UNROLLED
        for (int t = 0; t < T; t++) sums[h][t] = _mm256_setzero_si256();
    }
}

/* sums16[h][t] += one unsigned column group times the 4 activations at a. */
PI2_UNPACK_INLINE_AVX2 void add_group(int T, __m256i sums16[HALVES][TOKENS],
                                      const __m256i group[HALVES], const int8_t *a,
                                      size_t a_stride) {
    UNROLLED
    for (int t = 0; t < T; t++) {
        const __m256i x = four_activations(a + (size_t)t * a_stride);
        UNROLLED
        for (int h = 0; h < HALVES; h++) {
            sums16[h][t] = _mm256_add_epi16(sums16[h][t], _mm256_maddubs_epi16(group[h], x));
        }
    }
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
        }
    }
}

/* dot[h][t] += the pairs of 16-bit sums, times `factor` (the same in both halves of a lane). */
PI2_UNPACK_INLINE_AVX2 void widen(int T, __m256i dot[HALVES][TOKENS],
                                  __m256i sums16[HALVES][TOKENS], const __m256i factor[HALVES]) {
    UNROLLED
    for (int h = 0; h < HALVES; h++) {
        UNROLLED
        for (int t = 0; t < T; t++) {
            dot[h][t] = _mm256_add_epi32(dot[h][t], _mm256_madd_epi16(sums16[h][t], factor[h]));
        }
    }
}

/* ---- blocks of 32 columns: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 ---- */

/* dot[h][t] = the exact sum of products of one block, without the bias. */
PI2_UNPACK_INLINE_AVX2 void dot_of_32(pi2_weight_type type, int T, __m256i dot[HALVES][TOKENS],
                                      const uint8_t *values, const int8_t *a, size_t a_stride) {
    const bool five_bits = type == PI2_Q5_0 || type == PI2_Q5_1;
    const __m256i ones[HALVES] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
    __m256i sums16[HALVES][TOKENS];
    clear(T, dot);
    clear(T, sums16);
    UNROLLED
    for (int pair = 0; pair < 4; pair++) {
        __m256i even[HALVES], odd[HALVES];
        UNROLLED
        for (int h = 0; h < HALVES; h++) {
            pi2_unpack_pair_avx2(type, values + 32 * h, pair, &even[h], &odd[h]);
        }
        if (type == PI2_Q8_0) {
            add_signed_group(T, dot, even, a + 8 * pair, a_stride);
            add_signed_group(T, dot, odd, a + 8 * pair + 4, a_stride);
        } else {
            add_group(T, sums16, even, a + 8 * pair, a_stride);
            add_group(T, sums16, odd, a + 8 * pair + 4, a_stride);
        }
        if (five_bits && pair == 1) {
            widen(T, dot, sums16, ones);
            clear(T, sums16);
        }
    }
    if (type != PI2_Q8_0) widen(T, dot, sums16, ones);
}

PI2_UNPACK_INLINE_AVX2 void strip_of_32(pi2_weight_type type, int T, uint32_t scale_bytes,
                                        uint32_t value_bytes, strip *s) {
    const bool minimums = type == PI2_Q4_1 || type == PI2_Q5_1;
    const bool biased = type == PI2_Q4_0 || type == PI2_Q5_0;
    for (size_t tile = 0; tile < s->tile_count; tile++) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        const int8_t *a = s->a;
        __m256 chain[HALVES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile, 1);
        load_chains(s, tile, HALVES, T, chain);
        for (size_t b = 0; b < s->block_count; b++) {
            __m256i dot[HALVES][TOKENS];
            if (ahead) ahead = pi2_prefetch(ahead, scale_bytes + value_bytes);
            dot_of_32(type, T, dot, values, a, s->a_stride);
            UNROLLED
            for (int h = 0; h < HALVES; h++) {
                const __m256 d = pi2_load_halves_avx2(scales + 16 * h);
                const __m256 m =
                    minimums ? pi2_load_halves_avx2(scales + 32 + 16 * h) : _mm256_setzero_ps();
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const size_t entry = (size_t)t * s->prepared_stride + b;
                    const __m256 dx =
                        _mm256_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + b]);
                    __m256i sum = dot[h][t];
                    if (biased) {
                        const int32_t bias = ((const int32_t *)s->prepared)[entry];
                        sum = _mm256_add_epi32(sum, _mm256_set1_epi32(bias));
                    }
                    chain[h][t] =
                        _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(d, dx), chain[h][t]);
                    if (minimums) {
                        const float product = ((const float *)s->prepared)[entry];
                        chain[h][t] = _mm256_fmadd_ps(m, _mm256_set1_ps(product), chain[h][t]);
                    }
                }
            }
            scales += scale_bytes;
            values += value_bytes;
            a += 32;
        }
        store_chains(s, tile, HALVES, T, chain);
    }
}

/* ---- Q4_K ---- */

/* sum over the 8 sub-blocks of minimum * sum of activations */
PI2_UNPACK_INLINE_AVX2 __m256i minimum_sum(const pi2_q4_k_scales_avx2 *k, const int32_t *pairs) {
    const __m256i bytes02 = _mm256_set1_epi32(0x00ff00ff);
    const __m256i m02 = _mm256_and_si256(k->minimums_0_3, bytes02);
    const __m256i m13 = _mm256_and_si256(_mm256_srli_epi32(k->minimums_0_3, 8), bytes02);
    const __m256i m46 = _mm256_and_si256(k->minimums_4_7, bytes02);
    const __m256i m57 = _mm256_and_si256(_mm256_srli_epi32(k->minimums_4_7, 8), bytes02);
    const __m256i sum02 = _mm256_madd_epi16(m02, _mm256_set1_epi32(pairs[0]));
    const __m256i sum13 = _mm256_madd_epi16(m13, _mm256_set1_epi32(pairs[1]));
    const __m256i sum46 = _mm256_madd_epi16(m46, _mm256_set1_epi32(pairs[2]));
    const __m256i sum57 = _mm256_madd_epi16(m57, _mm256_set1_epi32(pairs[3]));
    return _mm256_add_epi32(_mm256_add_epi32(sum02, sum13), _mm256_add_epi32(sum46, sum57));
}

/* sum[h][t] = the scaled dot products of a block's 8 sub-blocks. */
PI2_UNPACK_INLINE_AVX2 void dot_of_q4_k(int T, __m256i sum[HALVES][TOKENS],
                                        const pi2_q4_k_scales_avx2 k[HALVES], const uint8_t *values,
                                        const int8_t *a, size_t a_stride) {
    clear(T, sum);
    for (int half = 0; half < 2; half++) {
        __m256i bytes[HALVES];
        UNROLLED
        for (int h = 0; h < HALVES; h++) bytes[h] = half ? k[h].scales_4_7 : k[h].scales_0_3;
        for (int sub = 0; sub < 4; sub++, values += 256, a += 32) {
            __m256i sums16[HALVES][TOKENS], factor[HALVES];
            clear(T, sums16);
            UNROLLED
            for (int pair = 0; pair < 4; pair++) {
                __m256i even[HALVES], odd[HALVES];
                UNROLLED
                for (int h = 0; h < HALVES; h++) {
                    pi2_unpack_pair_avx2(PI2_Q4_K, values + 32 * h, pair, &even[h], &odd[h]);
                }
                add_group(T, sums16, even, a + 8 * pair, a_stride);
                add_group(T, sums16, odd, a + 8 * pair + 4, a_stride);
            }
            UNROLLED
            for (int h = 0; h < HALVES; h++) {
                const __m256i low = _mm256_and_si256(bytes[h], _mm256_set1_epi32(255));
                factor[h] = _mm256_or_si256(low, _mm256_slli_epi32(low, 16));
                bytes[h] = _mm256_srli_epi32(bytes[h], 8);
            }
            widen(T, sum, sums16, factor);
        }
    }
}

PI2_UNPACK_INLINE_AVX2 void strip_of_q4_k(int T, strip *s) {
    for (size_t tile = 0; tile < s->tile_count; tile++) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        __m256 chain[HALVES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile, 1);
        load_chains(s, tile, HALVES, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += 256, values += 2048) {
            __m256i sum[HALVES][TOKENS];
            if (ahead) ahead = pi2_prefetch(ahead, 256 + 2048);
            pi2_q4_k_scales_avx2 k[HALVES];
            UNROLLED
            for (int h = 0; h < HALVES; h++) {
                k[h] = pi2_unpack_q4_k_scales_avx2(scales + 64 + 32 * h);
            }
            dot_of_q4_k(T, sum, k, values, s->a + 256 * b, s->a_stride);
            UNROLLED
            for (int h = 0; h < HALVES; h++) {
                const __m256 d = pi2_load_halves_avx2(scales + 16 * h);
                const __m256 dmin = pi2_load_halves_avx2(scales + 32 + 16 * h);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const int32_t *pairs =
                        (const int32_t *)s->prepared + (size_t)t * s->prepared_stride + 4 * b;
                    const __m256 dx =
                        _mm256_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + b]);
                    const __m256 minimum = _mm256_cvtepi32_ps(minimum_sum(&k[h], pairs));
                    chain[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[h][t]),
                                                  _mm256_mul_ps(d, dx), chain[h][t]);
                    chain[h][t] = _mm256_fnmadd_ps(minimum, _mm256_mul_ps(dmin, dx), chain[h][t]);
                }
            }
        }
        store_chains(s, tile, HALVES, T, chain);
    }
}

/* ---- Q6_K ---- */

PI2_UNPACK_INLINE_AVX2 __m256i eight_scales(const uint8_t *scales) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)scales));
}

/* Each 32-bit value, which fits in 16 bits, twice as 16 bits. */
PI2_UNPACK_INLINE_AVX2 __m256i twice_16_bits(__m256i values) {
    return _mm256_blend_epi16(values, _mm256_slli_epi32(values, 16), 0xAA);
}

/* sum[h][t] = the scaled dot products of a block's 16 sub-blocks, bias included. */
PI2_UNPACK_INLINE_AVX2 void dot_of_q6_k(int T, __m256i sum[HALVES][TOKENS], const uint8_t *scales,
                                        const uint8_t *values, const int8_t *a, size_t a_stride,
                                        const int32_t *sums, size_t sums_stride) {
    clear(T, sum);
    for (int sub = 0; sub < 16; sub++, values += 192, scales += 16, a += 16, sums++) {
        __m256i groups[HALVES][4], factor[HALVES];
        UNROLLED
        for (int h = 0; h < HALVES; h++) {
            pi2_unpack_six_bits_avx2(values + 32 * h, groups[h]);
            const __m256i scale = eight_scales(scales + HALF_ROWS * h);
            factor[h] = twice_16_bits(scale);
            /* -32 * sum fits in 17 bits: multiply the sum by scale first, then shift. */
            UNROLLED
            for (int t = 0; t < T; t++) {
                const __m256i low16 = _mm256_set1_epi32(sums[(size_t)t * sums_stride] & 0xffff);
                const __m256i product = _mm256_madd_epi16(factor[h], low16);
                sum[h][t] = _mm256_sub_epi32(sum[h][t], _mm256_slli_epi32(product, 5));
            }
        }
        UNROLLED
        for (int two = 0; two < 4; two += 2) {
            const __m256i even[HALVES] = {groups[0][two], groups[1][two]};
            const __m256i odd[HALVES] = {groups[0][two + 1], groups[1][two + 1]};
            __m256i sums16[HALVES][TOKENS];
            clear(T, sums16);
            add_group(T, sums16, even, a + 4 * two, a_stride);
            add_group(T, sums16, odd, a + 4 * two + 4, a_stride);
            widen(T, sum, sums16, factor);
        }
    }
}

PI2_UNPACK_INLINE_AVX2 void strip_of_q6_k(int T, strip *s) {
    for (size_t tile = 0; tile < s->tile_count; tile++) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        __m256 chain[HALVES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile, 1);
        load_chains(s, tile, HALVES, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += 288, values += 3072) {
            __m256i sum[HALVES][TOKENS];
            if (ahead) ahead = pi2_prefetch(ahead, 288 + 3072);
            dot_of_q6_k(T, sum, scales + 32, values, s->a + 256 * b, s->a_stride,
                        (const int32_t *)s->prepared + 16 * b, s->prepared_stride);
            UNROLLED
            for (int h = 0; h < HALVES; h++) {
                const __m256 d = pi2_load_halves_avx2(scales + 16 * h);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const __m256 dx =
                        _mm256_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + b]);
                    chain[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[h][t]),
                                                  _mm256_mul_ps(d, dx), chain[h][t]);
                }
            }
        }
        store_chains(s, tile, HALVES, T, chain);
    }
}

/* ---- F32, F16, BF16 ---- */

PI2_UNPACK_INLINE_AVX2 void strip_of_floats(pi2_weight_type type, int R, int T,
                                            uint32_t value_bytes, strip *s) {
    for (size_t tile = 0; tile < s->tile_count; tile += (size_t)R) {
        const uint8_t *values = s->values + tile * s->tile_bytes;
        uintptr_t ahead = pi2_prefetch_begin(s, tile, (size_t)R);
        __m256 chain[FLOAT_HALVES][TOKENS];
        load_chains(s, tile, 2 * R, T, chain);
        for (size_t k = 0; k < s->block_count; k++, values += value_bytes) {
            if (ahead) ahead = pi2_prefetch(ahead, (size_t)R * value_bytes);
            UNROLLED
            for (int h = 0; h < 2 * R; h++) {
                const uint8_t *half =
                    values + (size_t)(h / 2) * s->tile_bytes + (size_t)(h % 2) * (value_bytes / 2);
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

/* ---- one function for each format and strip ---- */

#define STRIP_FUNCTION(name, R, T, body)                      \
    static void name##_##R##x##T(const pi2_matmul_strip *s) { \
        enum { tiles_ = R, tokens_ = T };                     \
        (void)tiles_;                                         \
        body;                                                 \
    }

#define KERNEL_OF_STRIPS(name, kind, bias, wide_count, wide_function)                     \
    static const pi2_matmul_strips name##_strips = {                                      \
        .format = &pi2_weight_format_##name,                                              \
        .prepared = kind,                                                                 \
        .offset = bias,                                                                   \
        .max_tokens = TOKENS,                                                             \
        .wide_tiles = {wide_count},                                                       \
        .one_tile = {name##_1x1, name##_1x2, name##_1x3, name##_1x4},                     \
        .wide = {wide_function},                                                          \
    };                                                                                    \
    void pi2_matmul_##name##_avx2(float *out, size_t out_stride, const void *tiles,       \
                                  size_t tile_count, size_t columns, size_t column_begin, \
                                  const pi2_activations *x, size_t token_begin,           \
                                  size_t token_count, bool start) {                       \
        pi2_matmul_drive(&name##_strips, out, out_stride, tiles, tile_count, columns,     \
                         column_begin, x, token_begin, token_count, start);               \
    }

#define KERNEL_OF(name, kind, bias, body) \
    STRIP_FUNCTION(name, 1, 1, body)      \
    STRIP_FUNCTION(name, 1, 2, body)      \
    STRIP_FUNCTION(name, 1, 3, body)      \
    STRIP_FUNCTION(name, 1, 4, body)      \
    KERNEL_OF_STRIPS(name, kind, bias, 0, NULL)

/* One token of floats needs more rows at a time, for each row adds in sequence. */
#define KERNEL_OF_FLOATS(name, body) \
    STRIP_FUNCTION(name, 1, 1, body) \
    STRIP_FUNCTION(name, 4, 1, body) \
    STRIP_FUNCTION(name, 1, 2, body) \
    STRIP_FUNCTION(name, 1, 3, body) \
    STRIP_FUNCTION(name, 1, 4, body) \
    KERNEL_OF_STRIPS(name, PI2_PREPARED_NONE, 0, 4, name##_4x1)

KERNEL_OF_FLOATS(f32, strip_of_floats(PI2_F32, tiles_, tokens_, 64, s))
KERNEL_OF_FLOATS(f16, strip_of_floats(PI2_F16, tiles_, tokens_, 32, s))
KERNEL_OF_FLOATS(bf16, strip_of_floats(PI2_BF16, tiles_, tokens_, 32, s))
KERNEL_OF(q4_0, PI2_PREPARED_OFFSET, 8, strip_of_32(PI2_Q4_0, tokens_, 32, 256, s))
KERNEL_OF(q4_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q4_1, tokens_, 64, 256, s))
KERNEL_OF(q5_0, PI2_PREPARED_OFFSET, 16, strip_of_32(PI2_Q5_0, tokens_, 32, 320, s))
KERNEL_OF(q5_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q5_1, tokens_, 64, 320, s))
KERNEL_OF(q8_0, PI2_PREPARED_NONE, 0, strip_of_32(PI2_Q8_0, tokens_, 32, 512, s))
KERNEL_OF(q4_k, PI2_PREPARED_PAIRS, 0, strip_of_q4_k(tokens_, s))
KERNEL_OF(q6_k, PI2_PREPARED_OFFSET, -1, strip_of_q6_k(tokens_, s))
