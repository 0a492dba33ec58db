/*
 * matmul_neon_dotprod.c: strip kernels for 64-bit ARM with the dot-product instructions, one
 * template for each shape of block.
 *
 * A vector is a quarter of a column group: 4 rows by 4 columns. sdot by a lane adds its 4 products
 * to each row's 32-bit sum; a vector of 16 activations is the lanes of 4 groups.
 */
#include <arm_neon.h>

#include "kernels/matmul/matmul_driver.h"
#include "kernels/matmul/matmul_kernels.h"
#include "weight_formats/tile_values.h"
#include "weight_formats/unpack_neon.h"

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

enum { QUARTERS = 4, QUARTER_ROWS = 4, TOKENS = 4 };

typedef const pi2_matmul_strip strip;

PI2_UNPACK_INLINE_NEON float *out_at(strip *s, size_t tile, int q, int t) {
    return s->out + (size_t)t * s->out_stride + tile * PI2_TILE_ROWS + (size_t)q * QUARTER_ROWS;
}

PI2_UNPACK_INLINE_NEON void load_chains(strip *s, size_t tile, int T,
                                        float32x4_t chain[QUARTERS][TOKENS]) {
    UNROLLED
    for (int q = 0; q < QUARTERS; q++) {
        UNROLLED
        for (int t = 0; t < T; t++) {
            chain[q][t] = s->start ? vdupq_n_f32(0.0f) : vld1q_f32(out_at(s, tile, q, t));
        }
    }
}

PI2_UNPACK_INLINE_NEON void store_chains(strip *s, size_t tile, int T,
                                         float32x4_t chain[QUARTERS][TOKENS]) {
    UNROLLED
    for (int q = 0; q < QUARTERS; q++) {
        UNROLLED
        for (int t = 0; t < T; t++) vst1q_f32(out_at(s, tile, q, t), chain[q][t]);
    }
}

PI2_UNPACK_INLINE_NEON void set_sums(int T, int32x4_t sums[QUARTERS][TOKENS],
                                     const int32_t *entries, size_t stride) {
    UNROLLED
    for (int t = 0; t < T; t++) {
        const int32x4_t first = vdupq_n_s32(entries ? entries[(size_t)t * stride] : 0);
        UNROLLED
        for (int q = 0; q < QUARTERS; q++) sums[q][t] = first;
    }
}

/* Literal lane numbers, also where nothing is optimised. */
PI2_UNPACK_INLINE_NEON int32x4_t dot_lane(int32x4_t sum, int8x16_t weights, int8x16_t a, int lane) {
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, weights, a, 0);
    case 1: return vdotq_laneq_s32(sum, weights, a, 1);
    case 2: return vdotq_laneq_s32(sum, weights, a, 2);
    default: return vdotq_laneq_s32(sum, weights, a, 3);
    }
}

/* dot[q][t] += 16 columns, the block's column groups `first_group` .. + 3. */
PI2_UNPACK_INLINE_NEON void dot_of_16(pi2_weight_type type, int T, int32x4_t dot[QUARTERS][TOKENS],
                                      const uint8_t *values, int first_group, const int8_t *a,
                                      size_t a_stride) {
    int8x16_t x[TOKENS];
    UNROLLED
    for (int t = 0; t < T; t++) x[t] = vld1q_s8(a + (size_t)t * a_stride);
    UNROLLED
    for (int q = 0; q < QUARTERS; q++) {
        int8x16_t groups[4];
        if (type == PI2_Q6_K) {
            pi2_unpack_six_bits_neon(values + 16 * q, groups);
        } else {
            const int pair = first_group / 2;
            pi2_unpack_pair_neon(type, values + 16 * q, pair, &groups[0], &groups[1]);
            pi2_unpack_pair_neon(type, values + 16 * q, pair + 1, &groups[2], &groups[3]);
        }
        UNROLLED
        for (int lane = 0; lane < 4; lane++) {
            UNROLLED
            for (int t = 0; t < T; t++) dot[q][t] = dot_lane(dot[q][t], groups[lane], x[t], lane);
        }
    }
}

/* chain[q][t] = fma(dot, d * dx, chain) */
PI2_UNPACK_INLINE_NEON void add_scaled_sums(strip *s, int T, size_t b, const uint8_t *scales,
                                            int32x4_t dot[QUARTERS][TOKENS],
                                            float32x4_t chain[QUARTERS][TOKENS]) {
    UNROLLED
    for (int q = 0; q < QUARTERS; q++) {
        const float32x4_t d = pi2_load_halves_neon(scales + 8 * q);
        UNROLLED
        for (int t = 0; t < T; t++) {
            const float dx = s->a_scales[(size_t)t * s->a_scale_stride + b];
            chain[q][t] = vfmaq_f32(chain[q][t], vcvtq_f32_s32(dot[q][t]), vmulq_n_f32(d, dx));
        }
    }
}

/* ---- blocks of 32 columns: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 ---- */

PI2_UNPACK_INLINE_NEON void strip_of_32(pi2_weight_type type, int T, uint32_t scale_bytes,
                                        uint32_t value_bytes, strip *s) {
    const bool minimums = type == PI2_Q4_1 || type == PI2_Q5_1;
    const bool biased = type == PI2_Q4_0 || type == PI2_Q5_0;
    for (size_t tile = 0; tile < s->tile_end; tile++) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        float32x4_t chain[QUARTERS][TOKENS];
        load_chains(s, tile, T, chain);
        for (size_t b = 0; b < s->block_count; b++) {
            const int8_t *a = s->a + 32 * b;
            int32x4_t dot[QUARTERS][TOKENS];
            if (ahead) ahead = pi2_prefetch(ahead, scale_bytes + value_bytes);
            set_sums(T, dot, biased ? (const int32_t *)s->prepared + b : NULL, s->prepared_stride);
            dot_of_16(type, T, dot, values, 0, a, s->a_stride);
            dot_of_16(type, T, dot, values, 4, a + 16, s->a_stride);
            add_scaled_sums(s, T, b, scales, dot, chain);
            if (minimums) {
                UNROLLED
                for (int q = 0; q < QUARTERS; q++) {
                    const float32x4_t m = pi2_load_halves_neon(scales + 32 + 8 * q);
                    UNROLLED
                    for (int t = 0; t < T; t++) {
                        const float *entry =
                            (const float *)s->prepared + (size_t)t * s->prepared_stride + b;
                        chain[q][t] = vfmaq_n_f32(chain[q][t], m, *entry);
                    }
                }
            }
            scales += scale_bytes;
            values += value_bytes;
        }
        store_chains(s, tile, T, chain);
    }
}

/* ---- Q4_K ---- */

/* sum += the 4 bytes of each lane times the activations' sums at the four places. */
PI2_UNPACK_INLINE_NEON int32x4_t add_four_minimums(int32x4_t sum, uint32x4_t bytes,
                                                   const int16_t *sums) {
    static const uint8_t place[4] = {0, 2, 1, 3}; /* PI2_PREPARED_PAIRS */
    UNROLLED
    for (int i = 0; i < 4; i++) {
        const int32x4_t minimum = vreinterpretq_s32_u32(vandq_u32(bytes, vdupq_n_u32(255)));
        sum = vmlaq_n_s32(sum, minimum, sums[place[i]]);
        bytes = vshrq_n_u32(bytes, 8);
    }
    return sum;
}

/* sum[q][t] = the scaled dot products of a block's 8 sub-blocks. */
PI2_UNPACK_INLINE_NEON void dot_of_q4_k(int T, int32x4_t sum[QUARTERS][TOKENS],
                                        const pi2_q4_k_scales_neon k[QUARTERS],
                                        const uint8_t *values, const int8_t *a, size_t a_stride) {
    set_sums(T, sum, NULL, 0);
    for (int half = 0; half < 2; half++) {
        uint32x4_t bytes[QUARTERS];
        UNROLLED
        for (int q = 0; q < QUARTERS; q++) bytes[q] = half ? k[q].scales_4_7 : k[q].scales_0_3;
        for (int sub = 0; sub < 4; sub++, values += 256, a += 32) {
            int32x4_t dot[QUARTERS][TOKENS];
            set_sums(T, dot, NULL, 0);
            dot_of_16(PI2_Q4_K, T, dot, values, 0, a, a_stride);
            dot_of_16(PI2_Q4_K, T, dot, values, 4, a + 16, a_stride);
            UNROLLED
            for (int q = 0; q < QUARTERS; q++) {
                const int32x4_t scale =
                    vreinterpretq_s32_u32(vandq_u32(bytes[q], vdupq_n_u32(255)));
                bytes[q] = vshrq_n_u32(bytes[q], 8);
                UNROLLED
                for (int t = 0; t < T; t++) sum[q][t] = vmlaq_s32(sum[q][t], dot[q][t], scale);
            }
        }
    }
}

PI2_UNPACK_INLINE_NEON void strip_of_q4_k(int T, strip *s) {
    for (size_t tile = 0; tile < s->tile_end; tile++) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        float32x4_t chain[QUARTERS][TOKENS];
        load_chains(s, tile, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += 256, values += 2048) {
            int32x4_t sum[QUARTERS][TOKENS];
            pi2_q4_k_scales_neon k[QUARTERS];
            if (ahead) ahead = pi2_prefetch(ahead, 256 + 2048);
            UNROLLED
            for (int q = 0; q < QUARTERS; q++) {
                k[q] = pi2_unpack_q4_k_scales_neon(scales + 64 + 16 * q);
            }
            dot_of_q4_k(T, sum, k, values, s->a + 256 * b, s->a_stride);
            add_scaled_sums(s, T, b, scales, sum, chain);
            UNROLLED
            for (int q = 0; q < QUARTERS; q++) {
                const float32x4_t dmin = pi2_load_halves_neon(scales + 32 + 8 * q);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const int32_t *pairs =
                        (const int32_t *)s->prepared + (size_t)t * s->prepared_stride + 4 * b;
                    const int16_t *sums = (const int16_t *)pairs;
                    const float dx = s->a_scales[(size_t)t * s->a_scale_stride + b];
                    int32x4_t minimum = add_four_minimums(vdupq_n_s32(0), k[q].minimums_0_3, sums);
                    minimum = add_four_minimums(minimum, k[q].minimums_4_7, sums + 4);
                    chain[q][t] =
                        vfmsq_f32(chain[q][t], vcvtq_f32_s32(minimum), vmulq_n_f32(dmin, dx));
                }
            }
        }
        store_chains(s, tile, T, chain);
    }
}

/* ---- Q6_K ---- */

PI2_UNPACK_INLINE_NEON void strip_of_q6_k(int T, strip *s) {
    for (size_t tile = 0; tile < s->tile_end; tile++) {
        const uint8_t *scales = s->scales + tile * s->tile_bytes;
        const uint8_t *values = s->values + tile * s->tile_bytes;
        const int32_t *entries = s->prepared;
        const int8_t *a = s->a;
        uintptr_t ahead = pi2_prefetch_begin(s, tile);
        float32x4_t chain[QUARTERS][TOKENS];
        load_chains(s, tile, T, chain);
        for (size_t b = 0; b < s->block_count; b++, scales += 288) {
            int32x4_t sum[QUARTERS][TOKENS];
            if (ahead) ahead = pi2_prefetch(ahead, 288 + 3072);
            set_sums(T, sum, NULL, 0);
            for (size_t sub = 0; sub < 16; sub++, values += 192, a += 16, entries++) {
                const int8x16_t bytes = vld1q_s8((const int8_t *)scales + 32 + 16 * sub);
                const int16x8_t low = vmovl_s8(vget_low_s8(bytes));
                const int16x8_t high = vmovl_s8(vget_high_s8(bytes));
                const int32x4_t scale[QUARTERS] = {
                    vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)),
                    vmovl_s16(vget_low_s16(high)), vmovl_s16(vget_high_s16(high))};
                int32x4_t dot[QUARTERS][TOKENS];
                set_sums(T, dot, entries, s->prepared_stride);
                dot_of_16(PI2_Q6_K, T, dot, values, 0, a, s->a_stride);
                UNROLLED
                for (int q = 0; q < QUARTERS; q++) {
                    UNROLLED
                    for (int t = 0; t < T; t++) {
                        sum[q][t] = vmlaq_s32(sum[q][t], dot[q][t], scale[q]);
                    }
                }
            }
            add_scaled_sums(s, T, b, scales, sum, chain);
        }
        store_chains(s, tile, T, chain);
    }
}

/* ---- F32, F16, BF16 ---- */

PI2_UNPACK_INLINE_NEON void strip_of_floats(pi2_weight_type type, int T, uint32_t value_bytes,
                                            strip *s) {
    for (size_t tile = 0; tile < s->tile_end; tile++) {
        const uint8_t *values = s->values + tile * s->tile_bytes;
        float32x4_t chain[QUARTERS][TOKENS];
        load_chains(s, tile, T, chain);
        for (size_t k = 0; k < s->block_count; k++, values += value_bytes) {
            UNROLLED
            for (int q = 0; q < QUARTERS; q++) {
                const uint8_t *quarter = values + (size_t)q * (value_bytes / QUARTERS);
                const float32x4_t w = pi2_load_column_neon(type, quarter);
                UNROLLED
                for (int t = 0; t < T; t++) {
                    const float x = s->a_scales[(size_t)t * s->a_scale_stride + k];
                    chain[q][t] = vfmaq_n_f32(chain[q][t], w, x);
                }
            }
        }
        store_chains(s, tile, T, chain);
    }
}

/* ---- one function for each format and strip ---- */

#define STRIP_FUNCTION(name, T, body)                     \
    static void name##_1x##T(const pi2_matmul_strip *s) { \
        enum { tokens_ = T };                             \
        body;                                             \
    }

#define KERNEL_OF(name, kind, bias, body)                                                    \
    STRIP_FUNCTION(name, 1, body)                                                            \
    STRIP_FUNCTION(name, 2, body)                                                            \
    STRIP_FUNCTION(name, 3, body)                                                            \
    STRIP_FUNCTION(name, 4, body)                                                            \
    static const pi2_matmul_strips name##_strips = {                                         \
        .format = &pi2_weight_format_##name,                                                 \
        .prepared = kind,                                                                    \
        .offset = bias,                                                                      \
        .max_tokens = TOKENS,                                                                \
        .one_tile = {name##_1x1, name##_1x2, name##_1x3, name##_1x4},                        \
    };                                                                                       \
    void pi2_matmul_##name##_dotprod(float *out, size_t out_stride, const void *tiles,       \
                                     size_t tile_count, size_t columns, size_t column_begin, \
                                     const pi2_activations *x, size_t token_begin,           \
                                     size_t token_count, bool start) {                       \
        pi2_matmul_drive(&name##_strips, out, out_stride, tiles, tile_count, columns,        \
                         column_begin, x, token_begin, token_count, start);                  \
    }

KERNEL_OF(f32, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_F32, tokens_, 64, s))
KERNEL_OF(f16, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_F16, tokens_, 32, s))
KERNEL_OF(bf16, PI2_PREPARED_NONE, 0, strip_of_floats(PI2_BF16, tokens_, 32, s))
KERNEL_OF(q4_0, PI2_PREPARED_OFFSET, 8, strip_of_32(PI2_Q4_0, tokens_, 32, 256, s))
KERNEL_OF(q4_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q4_1, tokens_, 64, 256, s))
KERNEL_OF(q5_0, PI2_PREPARED_OFFSET, 16, strip_of_32(PI2_Q5_0, tokens_, 32, 320, s))
KERNEL_OF(q5_1, PI2_PREPARED_MINIMUM, 0, strip_of_32(PI2_Q5_1, tokens_, 64, 320, s))
KERNEL_OF(q8_0, PI2_PREPARED_NONE, 0, strip_of_32(PI2_Q8_0, tokens_, 32, 512, s))
KERNEL_OF(q4_k, PI2_PREPARED_PAIRS, 0, strip_of_q4_k(tokens_, s))
KERNEL_OF(q6_k, PI2_PREPARED_OFFSET, 32, strip_of_q6_k(tokens_, s))
