/*
 * matmul_avx2_template.h: strip kernels in vectors of 32 bytes, one template for each shape of
 * block. A vector is half a column group: 8 rows by 4 columns. The including file defines
 *
 *   MATMUL_SUFFIX   how the names of its kernels end, as in matmul.inc
 *
 * and, after this, how products are added up: the functions that are only declared here.
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
enum { HALF_ROWS = 8, HALVES = 2, TOKENS = 4, MOST_TILES = 4 };

typedef const pi2_matmul_strip strip;

/* ---- what the including file defines ---- */

/* sums + the products of unsigned weights w and signed activations x, neighbours added up. */
PI2_UNPACK_INLINE_AVX2 __m256i add_products(__m256i sums, __m256i w, __m256i x);

/* dot + scale * (the sums of a lane), in lanes of 32 bits; factor_of makes the factor of a scale. */
PI2_UNPACK_INLINE_AVX2 __m256i add_scaled(__m256i dot, __m256i sums, __m256i factor);
PI2_UNPACK_INLINE_AVX2 __m256i factor_of(__m256i scale);

/*
 * dot[h][t] = the exact sum of products of a block of 32 columns. `entry` is what the driver
 * prepared of the first token's activations in that block.
 */
PI2_UNPACK_INLINE_AVX2 void dot_of_32(pi2_weight_type type, int T, __m256i dot[HALVES][TOKENS],
                                      const uint8_t *values, const int8_t *a, size_t a_stride,
                                      const int32_t *entry, size_t entry_stride);

/* dot[h][t] = the scaled dot products of a Q6_K block's 16 sub-blocks, an entry each. */
PI2_UNPACK_INLINE_AVX2 void dot_of_q6_k(int T, __m256i dot[HALVES][TOKENS], const uint8_t *scales,
                                        const uint8_t *values, const int8_t *a, size_t a_stride,
                                        const int32_t *entries, size_t entry_stride);

/* ---- the parts of a block ---- */

PI2_UNPACK_INLINE_AVX2 __m256i four_activations(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

PI2_UNPACK_INLINE_AVX2 float *out_at(strip *s, size_t tile, int h, int t) {
    const size_t row = (tile + (size_t)(h / 2) * s->tiles_apart) * PI2_TILE_ROWS;
    return s->out + (size_t)t * s->out_stride + row + (size_t)(h % 2) * HALF_ROWS;
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

/* sums[h][t] += one unsigned column group times the 4 activations at a. */
PI2_UNPACK_INLINE_AVX2 void add_group(int T, __m256i sums[HALVES][TOKENS],
                                      const __m256i group[HALVES], const int8_t *a,
                                      size_t a_stride) {
    UNROLLED
    for (int t = 0; t < T; t++) {
        const __m256i x = four_activations(a + (size_t)t * a_stride);
        UNROLLED
        for (int h = 0; h < HALVES; h++) {
            sums[h][t] = add_products(sums[h][t], group[h], x);
        }
    }
}

/* dot[h][t] += the sums of a lane times its scale, which `factor` stands for. */
PI2_UNPACK_INLINE_AVX2 void widen(int T, __m256i dot[HALVES][TOKENS],
                                  __m256i sums[HALVES][TOKENS], const __m256i factor[HALVES]) {
    UNROLLED
    for (int h = 0; h < HALVES; h++) {
        UNROLLED
        for (int t = 0; t < T; t++) dot[h][t] = add_scaled(dot[h][t], sums[h][t], factor[h]);
    }
}

/* Column groups 2 * pair and 2 * pair + 1 of a block of 32 columns, both halves. */
PI2_UNPACK_INLINE_AVX2 void unpack_pair(pi2_weight_type type, const uint8_t *values, int pair,
                                        __m256i even[HALVES], __m256i odd[HALVES]) {
    UNROLLED
    for (int h = 0; h < HALVES; h++) {
        pi2_unpack_pair_avx2(type, values + 32 * h, pair, &even[h], &odd[h]);
    }
}

PI2_UNPACK_INLINE_AVX2 __m256i eight_scales(const uint8_t *scales) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)scales));
}

/* ---- blocks of 32 columns: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 ---- */

/* chain[h][t] += scale * dot[h][t], and what a minimum adds, of block b. */
PI2_UNPACK_INLINE_AVX2 void add_block_of_32(bool minimums, int T, __m256i dot[HALVES][TOKENS], const uint8_t *scales,
                                            strip *s, size_t b, __m256 chain[][TOKENS]) {
    UNROLLED
    for (int h = 0; h < HALVES; h++) {
        const __m256 d = pi2_load_halves_avx2(scales + 16 * h);
        const __m256 m =
            minimums ? pi2_load_halves_avx2(scales + 32 + 16 * h) : _mm256_setzero_ps();
        UNROLLED
        for (int t = 0; t < T; t++) {
            const __m256 dx = _mm256_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + b]);
            chain[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[h][t]), _mm256_mul_ps(d, dx),
                                          chain[h][t]);
            if (minimums) {
                const float product =
                    ((const float *)s->prepared)[(size_t)t * s->prepared_stride + b];
                chain[h][t] = _mm256_fmadd_ps(m, _mm256_set1_ps(product), chain[h][t]);
            }
        }
    }
}

PI2_UNPACK_INLINE_AVX2 void strip_of_32(pi2_weight_type type, int R, int T, uint32_t scale_bytes,
                                        uint32_t value_bytes, strip *s) {
    const bool minimums = type == PI2_Q4_1 || type == PI2_Q5_1;
    const size_t apart = s->tiles_apart * s->tile_bytes;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        __m256 chain[MOST_TILES * HALVES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        load_chains(s, tile, R * HALVES, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += scale_bytes, values += value_bytes) {
            if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, scale_bytes + value_bytes);
            UNROLLED
            for (int r = 0; r < R; r++) {
                __m256i dot[HALVES][TOKENS];
                dot_of_32(type, T, dot, values + (size_t)r * apart, s->a + 32 * b, s->a_stride,
                          (const int32_t *)s->prepared + b, s->prepared_stride);
                add_block_of_32(minimums, T, dot, scales + (size_t)r * apart, s, b, chain + r * HALVES);
            }
        }
        store_chains(s, tile, R * HALVES, T, chain);
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
            __m256i sums[HALVES][TOKENS], factor[HALVES];
            clear(T, sums);
            UNROLLED
            for (int pair = 0; pair < 4; pair++) {
                __m256i even[HALVES], odd[HALVES];
                unpack_pair(PI2_Q4_K, values, pair, even, odd);
                add_group(T, sums, even, a + 8 * pair, a_stride);
                add_group(T, sums, odd, a + 8 * pair + 4, a_stride);
            }
            UNROLLED
            for (int h = 0; h < HALVES; h++) {
                factor[h] = factor_of(_mm256_and_si256(bytes[h], _mm256_set1_epi32(255)));
                bytes[h] = _mm256_srli_epi32(bytes[h], 8);
            }
            widen(T, sum, sums, factor);
        }
    }
}

/* chain[h][t] += block b of one tile. */
PI2_UNPACK_INLINE_AVX2 void add_block_of_q4_k(int T, const uint8_t *scales, const uint8_t *values, strip *s, size_t b,
                                              __m256 chain[][TOKENS]) {
    __m256i sum[HALVES][TOKENS];
    pi2_q4_k_scales_avx2 k[HALVES];
    UNROLLED
    for (int h = 0; h < HALVES; h++) k[h] = pi2_unpack_q4_k_scales_avx2(scales + 64 + 32 * h);
    dot_of_q4_k(T, sum, k, values, s->a + 256 * b, s->a_stride);
    UNROLLED
    for (int h = 0; h < HALVES; h++) {
        const __m256 d = pi2_load_halves_avx2(scales + 16 * h);
        const __m256 dmin = pi2_load_halves_avx2(scales + 32 + 16 * h);
        UNROLLED
        for (int t = 0; t < T; t++) {
            const int32_t *pairs =
                (const int32_t *)s->prepared + (size_t)t * s->prepared_stride + 4 * b;
            const __m256 dx = _mm256_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + b]);
            const __m256 minimum = _mm256_cvtepi32_ps(minimum_sum(&k[h], pairs));
            chain[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[h][t]), _mm256_mul_ps(d, dx),
                                          chain[h][t]);
            chain[h][t] = _mm256_fnmadd_ps(minimum, _mm256_mul_ps(dmin, dx), chain[h][t]);
        }
    }
}

PI2_UNPACK_INLINE_AVX2 void strip_of_q4_k(int R, int T, strip *s) {
    const size_t apart = s->tiles_apart * s->tile_bytes;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        __m256 chain[MOST_TILES * HALVES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        load_chains(s, tile, R * HALVES, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += 256, values += 2048) {
            if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, 256 + 2048);
            UNROLLED
            for (int r = 0; r < R; r++) {
                add_block_of_q4_k(T, scales + (size_t)r * apart, values + (size_t)r * apart, s, b,
                                  chain + r * HALVES);
            }
        }
        store_chains(s, tile, R * HALVES, T, chain);
    }
}

/* ---- Q6_K ---- */

PI2_UNPACK_INLINE_AVX2 void strip_of_q6_k(int R, int T, strip *s) {
    const size_t apart = s->tiles_apart * s->tile_bytes;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        __m256 chain[MOST_TILES * HALVES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        load_chains(s, tile, R * HALVES, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += 288, values += 3072) {
            if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, 288 + 3072);
            UNROLLED
            for (int r = 0; r < R; r++) {
                __m256i sum[HALVES][TOKENS];
                const uint8_t *own = scales + (size_t)r * apart;
                dot_of_q6_k(T, sum, own + 32, values + (size_t)r * apart, s->a + 256 * b, s->a_stride,
                            (const int32_t *)s->prepared + 16 * b, s->prepared_stride);
                add_block_of_32(false, T, sum, own, s, b, chain + r * HALVES);
            }
        }
        store_chains(s, tile, R * HALVES, T, chain);
    }
}

/* ---- one function for each format and strip ---- */

#define STRIP_FUNCTION(name, R, T, body)                      \
    static void name##_##R##x##T(const pi2_matmul_strip *s) { \
        enum { tiles_ = R, tokens_ = T };                     \
        body;                                                 \
    }

#define SYMBOL_OF(name, suffix) pi2_matmul_##name##_##suffix
#define KERNEL_SYMBOL(name, suffix) SYMBOL_OF(name, suffix)

#define KERNEL_OF_STRIPS(name, kind, bias, wide_count, wide_function)                             \
    static const pi2_matmul_strips name##_strips = {                                              \
        .format = &pi2_weight_format_##name,                                                      \
        .prepared = kind,                                                                         \
        .offset = bias,                                                                           \
        .max_tokens = TOKENS,                                                                     \
        .wide_tiles = {wide_count},                                                               \
        .one_tile = {name##_1x1, name##_1x2, name##_1x3, name##_1x4},                             \
        .wide = {wide_function},                                                                  \
    };                                                                                            \
    void KERNEL_SYMBOL(name, MATMUL_SUFFIX)(float *out, size_t out_stride, const void *tiles,     \
                                            size_t tile_count, size_t columns,                    \
                                            size_t column_begin, const pi2_activations *x,        \
                                            size_t token_begin, size_t token_count, bool start) { \
        pi2_matmul_drive(&name##_strips, out, out_stride, tiles, tile_count, columns,             \
                         column_begin, x, token_begin, token_count, start);                       \
    }

/* One token: four streams of weights. Floats want as many rows besides, for each row adds in sequence. */
#define KERNEL_OF(name, kind, bias, body) \
    STRIP_FUNCTION(name, 1, 1, body)      \
    STRIP_FUNCTION(name, 4, 1, body)      \
    STRIP_FUNCTION(name, 1, 2, body)      \
    STRIP_FUNCTION(name, 1, 3, body)      \
    STRIP_FUNCTION(name, 1, 4, body)      \
    KERNEL_OF_STRIPS(name, kind, bias, 4, name##_4x1)
