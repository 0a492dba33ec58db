/*
 * matmul_avx512.c: strip kernels for AVX-512 with VNNI, one template for each shape of block.
 *
 * A vector is a column group: 16 rows by 4 columns. vpdpbusd adds its 4 products to each row's
 * 32-bit sum, with the token's 4 activations broadcast. So a row never leaves its lane.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/matmul/matmul_driver.h"
#include "kernels/matmul/matmul_kernels.h"
#include "weight_formats/tile_values.h"
#include "weight_formats/unpack_avx512.h"

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

enum { TILES = 4, TOKENS = 6 };

typedef const pi2_matmul_strip strip;

PI2_UNPACK_INLINE __m512i four_activations(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

PI2_UNPACK_INLINE float *out_at(strip *s, size_t tile, int r, int t) {
    return s->out + (size_t)t * s->out_stride + (tile + (size_t)r * s->tiles_apart) * PI2_TILE_ROWS;
}

PI2_UNPACK_INLINE void load_chains(strip *s, size_t tile, int R, int T, __m512 chain[][TOKENS]) {
    UNROLLED
    for (int r = 0; r < R; r++) {
        UNROLLED
        for (int t = 0; t < T; t++) {
            chain[r][t] = s->start ? _mm512_setzero_ps() : _mm512_loadu_ps(out_at(s, tile, r, t));
        }
    }
}

PI2_UNPACK_INLINE void store_chains(strip *s, size_t tile, int R, int T, __m512 chain[][TOKENS]) {
    UNROLLED
    for (int r = 0; r < R; r++) {
        UNROLLED
        for (int t = 0; t < T; t++) _mm512_storeu_ps(out_at(s, tile, r, t), chain[r][t]);
    }
}

/* dot[r][t] += the two column groups whose activations begin at a. */
PI2_UNPACK_INLINE void dot_pair(int R, int T, __m512i dot[TILES][TOKENS], const __m512i even[TILES],
                                const __m512i odd[TILES], const int8_t *a, size_t a_stride) {
    UNROLLED
    for (int t = 0; t < T; t++) {
        const __m512i x = four_activations(a + (size_t)t * a_stride);
        UNROLLED
        for (int r = 0; r < R; r++) dot[r][t] = _mm512_dpbusd_epi32(dot[r][t], even[r], x);
    }
    UNROLLED
    for (int t = 0; t < T; t++) {
        const __m512i x = four_activations(a + (size_t)t * a_stride + 4);
        UNROLLED
        for (int r = 0; r < R; r++) dot[r][t] = _mm512_dpbusd_epi32(dot[r][t], odd[r], x);
    }
}

/* ---- blocks of 32 columns: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 ---- */

PI2_UNPACK_INLINE void strip_of_32(pi2_weight_type type, int R, int T, uint32_t scale_bytes,
                                   uint32_t value_bytes, strip *s) {
    const bool minimums = type == PI2_Q4_1 || type == PI2_Q5_1;
    const size_t tile_bytes = s->tile_bytes, apart = s->tiles_apart * tile_bytes, a_stride = s->a_stride;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *scales = s->scales + tile * tile_bytes;
        const uint8_t *values = s->values + tile * tile_bytes;
        const int8_t *a = s->a;
        __m512 chain[TILES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        load_chains(s, tile, R, T, chain);
        for (size_t b = 0; b < s->block_count; b++) {
            __m512i dot[TILES][TOKENS];
            if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, scale_bytes + value_bytes);
            UNROLLED
            for (int t = 0; t < T; t++) {
                const int32_t *entry =
                    (const int32_t *)s->prepared + (size_t)t * s->prepared_stride + b;
                const __m512i first = minimums ? _mm512_setzero_si512() : _mm512_set1_epi32(*entry);
                UNROLLED
                for (int r = 0; r < R; r++) dot[r][t] = first;
            }
            UNROLLED
            for (int pair = 0; pair < 4; pair++) {
                __m512i even[TILES], odd[TILES];
                UNROLLED
                for (int r = 0; r < R; r++) {
                    pi2_unpack_pair_avx512(type, values + (size_t)r * apart, pair, &even[r],
                                           &odd[r]);
                }
                dot_pair(R, T, dot, even, odd, a + 8 * pair, a_stride);
            }
            UNROLLED
            for (int r = 0; r < R; r++) {
                const uint8_t *row_scales = scales + (size_t)r * apart;
                const __m512 d = pi2_load_halves_avx512(row_scales);
                const __m512 m =
                    minimums ? pi2_load_halves_avx512(row_scales + 32) : _mm512_setzero_ps();
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const __m512 dx =
                        _mm512_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + b]);
                    chain[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][t]),
                                                  _mm512_mul_ps(d, dx), chain[r][t]);
                    if (minimums) {
                        const float *entry =
                            (const float *)s->prepared + (size_t)t * s->prepared_stride + b;
                        chain[r][t] = _mm512_fmadd_ps(m, _mm512_set1_ps(*entry), chain[r][t]);
                    }
                }
            }
            scales += scale_bytes;
            values += value_bytes;
            a += 32;
        }
        store_chains(s, tile, R, T, chain);
    }
}

/* ---- Q4_K ---- */

/* sum over the 8 sub-blocks of minimum * sum of activations */
PI2_UNPACK_INLINE __m512i minimum_sum(const pi2_q4_k_scales_avx512 *k, const int32_t *pairs) {
    const __m512i bytes02 = _mm512_set1_epi32(0x00ff00ff);
    const __m512i m02 = _mm512_and_si512(k->minimums_0_3, bytes02);
    const __m512i m13 = _mm512_and_si512(_mm512_srli_epi32(k->minimums_0_3, 8), bytes02);
    const __m512i m46 = _mm512_and_si512(k->minimums_4_7, bytes02);
    const __m512i m57 = _mm512_and_si512(_mm512_srli_epi32(k->minimums_4_7, 8), bytes02);
    __m512i sum = _mm512_madd_epi16(m02, _mm512_set1_epi32(pairs[0]));
    sum = _mm512_dpwssd_epi32(sum, m13, _mm512_set1_epi32(pairs[1]));
    sum = _mm512_dpwssd_epi32(sum, m46, _mm512_set1_epi32(pairs[2]));
    return _mm512_dpwssd_epi32(sum, m57, _mm512_set1_epi32(pairs[3]));
}

PI2_UNPACK_INLINE void strip_of_q4_k(int R, int T, strip *s) {
    const size_t tile_bytes = s->tile_bytes, apart = s->tiles_apart * tile_bytes, a_stride = s->a_stride;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *scales = s->scales + tile * tile_bytes;
        const uint8_t *values = s->values + tile * tile_bytes;
        const int8_t *a = s->a;
        __m512 chain[TILES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        load_chains(s, tile, R, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += 256) {
            __m512i sum[TILES][TOKENS];
            pi2_q4_k_scales_avx512 k[TILES];
            UNROLLED
            for (int r = 0; r < R; r++) {
                k[r] = pi2_unpack_q4_k_scales_avx512(scales + (size_t)r * apart + 64);
                UNROLLED
                for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_si512();
            }
            for (int half = 0; half < 2; half++) {
                __m512i bytes[TILES];
                UNROLLED
                for (int r = 0; r < R; r++) bytes[r] = half ? k[r].scales_4_7 : k[r].scales_0_3;
                for (int sub = 0; sub < 4; sub++, values += 256, a += 32) {
                    __m512i dot[TILES][TOKENS];
                    if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, 32 + 256);
                    UNROLLED
                    for (int r = 0; r < R; r++) {
                        UNROLLED
                        for (int t = 0; t < T; t++) dot[r][t] = _mm512_setzero_si512();
                    }
                    UNROLLED
                    for (int pair = 0; pair < 4; pair++) {
                        __m512i even[TILES], odd[TILES];
                        UNROLLED
                        for (int r = 0; r < R; r++) {
                            pi2_unpack_pair_avx512(PI2_Q4_K, values + (size_t)r * apart, pair,
                                                   &even[r], &odd[r]);
                        }
                        dot_pair(R, T, dot, even, odd, a + 8 * pair, a_stride);
                    }
                    UNROLLED
                    for (int r = 0; r < R; r++) {
                        const __m512i scale = _mm512_and_si512(bytes[r], _mm512_set1_epi32(255));
                        bytes[r] = _mm512_srli_epi32(bytes[r], 8);
                        UNROLLED
                        for (int t = 0; t < T; t++) {
                            sum[r][t] =
                                _mm512_add_epi32(sum[r][t], _mm512_mullo_epi32(dot[r][t], scale));
                        }
                    }
                }
            }
            UNROLLED
            for (int r = 0; r < R; r++) {
                const uint8_t *row_scales = scales + (size_t)r * apart;
                const __m512 d = pi2_load_halves_avx512(row_scales);
                const __m512 dmin = pi2_load_halves_avx512(row_scales + 32);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const int32_t *pairs =
                        (const int32_t *)s->prepared + (size_t)t * s->prepared_stride + 4 * b;
                    const __m512 dx =
                        _mm512_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + b]);
                    const __m512 minimum = _mm512_cvtepi32_ps(minimum_sum(&k[r], pairs));
                    chain[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][t]),
                                                  _mm512_mul_ps(d, dx), chain[r][t]);
                    chain[r][t] = _mm512_fnmadd_ps(minimum, _mm512_mul_ps(dmin, dx), chain[r][t]);
                }
            }
        }
        store_chains(s, tile, R, T, chain);
    }
}

/* ---- Q6_K ---- */

PI2_UNPACK_INLINE void strip_of_q6_k(int R, int T, strip *s) {
    const size_t tile_bytes = s->tile_bytes, apart = s->tiles_apart * tile_bytes, a_stride = s->a_stride;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *scales = s->scales + tile * tile_bytes;
        const uint8_t *values = s->values + tile * tile_bytes;
        const int8_t *a = s->a;
        const int32_t *entries = s->prepared;
        __m512 chain[TILES][TOKENS];
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        load_chains(s, tile, R, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += 288) {
            __m512i sum[TILES][TOKENS];
            UNROLLED
            for (int r = 0; r < R; r++) {
                UNROLLED
                for (int t = 0; t < T; t++) sum[r][t] = _mm512_setzero_si512();
            }
            for (size_t sub = 0; sub < 16; sub++, values += 192, a += 16, entries++) {
                __m512i dot[TILES][TOKENS], even[TILES], odd[TILES], even2[TILES], odd2[TILES];
                if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, 18 + 192);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const __m512i first =
                        _mm512_set1_epi32(entries[(size_t)t * s->prepared_stride]);
                    UNROLLED
                    for (int r = 0; r < R; r++) dot[r][t] = first;
                }
                UNROLLED
                for (int r = 0; r < R; r++) {
                    __m512i groups[4];
                    pi2_unpack_six_bits_avx512(values + (size_t)r * apart, groups);
                    even[r] = groups[0];
                    odd[r] = groups[1];
                    even2[r] = groups[2];
                    odd2[r] = groups[3];
                }
                dot_pair(R, T, dot, even, odd, a, a_stride);
                dot_pair(R, T, dot, even2, odd2, a + 8, a_stride);
                UNROLLED
                for (int r = 0; r < R; r++) {
                    const __m128i bytes = _mm_load_si128(
                        (const __m128i *)(const void *)(scales + (size_t)r * apart + 32 +
                                                        16 * sub));
                    const __m512i scale = _mm512_cvtepi8_epi32(bytes);
                    UNROLLED
                    for (int t = 0; t < T; t++) {
                        sum[r][t] =
                            _mm512_add_epi32(sum[r][t], _mm512_mullo_epi32(dot[r][t], scale));
                    }
                }
            }
            UNROLLED
            for (int r = 0; r < R; r++) {
                const __m512 d = pi2_load_halves_avx512(scales + (size_t)r * apart);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const __m512 dx =
                        _mm512_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + b]);
                    chain[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][t]),
                                                  _mm512_mul_ps(d, dx), chain[r][t]);
                }
            }
        }
        store_chains(s, tile, R, T, chain);
    }
}

/* ---- F32, F16, BF16 ---- */

PI2_UNPACK_INLINE void strip_of_floats(pi2_weight_type type, int R, int T, uint32_t value_bytes,
                                       strip *s) {
    const size_t tile_bytes = s->tile_bytes, apart = s->tiles_apart * tile_bytes;
    for (size_t tile = 0; tile < s->tile_end; tile += s->tile_step) {
        const uint8_t *values = s->values + tile * tile_bytes;
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        __m512 chain[TILES][TOKENS];
        load_chains(s, tile, R, T, chain);
        for (size_t k = 0; k < s->block_count; k++, values += value_bytes) {
            if (ahead) ahead = pi2_prefetch_strip(ahead, s, R, T, value_bytes);
            UNROLLED
            for (int r = 0; r < R; r++) {
                const __m512 w = pi2_load_column_avx512(type, values + (size_t)r * apart);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const __m512 x = _mm512_set1_ps(s->a_scales[(size_t)t * s->a_scale_stride + k]);
                    chain[r][t] = _mm512_fmadd_ps(w, x, chain[r][t]);
                }
            }
        }
        store_chains(s, tile, R, T, chain);
    }
}

/* ---- one function for each format and strip ---- */

#define STRIP_FUNCTION(name, R, T, body)                      \
    static void name##_##R##x##T(const pi2_matmul_strip *s) { \
        enum { tiles_ = R, tokens_ = T };                     \
        body;                                                 \
    }

#define STRIP_FUNCTIONS(name, body)  \
    STRIP_FUNCTION(name, 1, 1, body) \
    STRIP_FUNCTION(name, 1, 2, body) \
    STRIP_FUNCTION(name, 1, 3, body) \
    STRIP_FUNCTION(name, 1, 4, body) \
    STRIP_FUNCTION(name, 1, 5, body) \
    STRIP_FUNCTION(name, 1, 6, body) \
    STRIP_FUNCTION(name, 2, 2, body) \
    STRIP_FUNCTION(name, 2, 3, body) \
    STRIP_FUNCTION(name, 2, 4, body) \
    STRIP_FUNCTION(name, 2, 5, body) \
    STRIP_FUNCTION(name, 2, 6, body)

#define KERNEL_OF_STRIPS(name, kind, bias, wide_of_one, wide_function)                        \
    static const pi2_matmul_strips name##_strips = {                                          \
        .format = &pi2_weight_format_##name,                                                  \
        .prepared = kind,                                                                     \
        .offset = bias,                                                                       \
        .max_tokens = TOKENS,                                                                 \
        .wide_tiles = {wide_of_one, 2, 2, 2, 2, 2},                                           \
        .one_tile = {name##_1x1, name##_1x2, name##_1x3, name##_1x4, name##_1x5, name##_1x6}, \
        .wide = {wide_function, name##_2x2, name##_2x3, name##_2x4, name##_2x5, name##_2x6},  \
    };                                                                                        \
    void pi2_matmul_##name##_avx512(float *out, size_t out_stride, const void *tiles,         \
                                    size_t tile_count, size_t columns, size_t column_begin,   \
                                    const pi2_activations *x, size_t token_begin,             \
                                    size_t token_count, bool start) {                         \
        pi2_matmul_drive(&name##_strips, out, out_stride, tiles, tile_count, columns,         \
                         column_begin, x, token_begin, token_count, start);                   \
    }

/* One token: four streams of weights. Floats want as many rows besides, for each row adds in sequence. */
#define KERNEL_OF(name, kind, bias, body) \
    STRIP_FUNCTIONS(name, body)           \
    STRIP_FUNCTION(name, 4, 1, body)      \
    KERNEL_OF_STRIPS(name, kind, bias, 4, name##_4x1)

KERNEL_OF(f32, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_F32, tiles_, tokens_, 64, s))
KERNEL_OF(f16, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_F16, tiles_, tokens_, 32, s))
KERNEL_OF(bf16, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_BF16, tiles_, tokens_, 32, s))
KERNEL_OF(q4_0, PI2_PREPARED_OFFSET, 8, strip_of_32(PI2_Q4_0, tiles_, tokens_, 32, 256, s))
KERNEL_OF(q4_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q4_1, tiles_, tokens_, 64, 256, s))
KERNEL_OF(q5_0, PI2_PREPARED_OFFSET, 16, strip_of_32(PI2_Q5_0, tiles_, tokens_, 32, 320, s))
KERNEL_OF(q5_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q5_1, tiles_, tokens_, 64, 320, s))
KERNEL_OF(q8_0, PI2_PREPARED_OFFSET, 128, strip_of_32(PI2_Q8_0, tiles_, tokens_, 32, 512, s))
KERNEL_OF(q4_k, PI2_PREPARED_PAIRS, 0, strip_of_q4_k(tiles_, tokens_, s))
KERNEL_OF(q6_k, PI2_PREPARED_OFFSET, 32, strip_of_q6_k(tiles_, tokens_, s))
