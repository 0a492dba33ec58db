/* block_lanes_neon.h: as block_lanes_avx2.h, of NEON with its int8 dot product: 4 rows are a vector. */
#ifndef PI2_WEIGHT_FORMATS_BLOCK_LANES_NEON_H
#define PI2_WEIGHT_FORMATS_BLOCK_LANES_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES_INLINE static inline __attribute__((always_inline))

typedef uint32x4_t lanes;
typedef float32x4_t float_lanes;

enum { LANE_ROWS = 4, SUM_LIMIT = INT32_MAX, MOVES_SIGNED = 0 };
/* matmul_spread_template.h: tiles, vectors of rows at once, tokens that 32 registers hold the sums of. */
enum { SPREAD_TILES = 1, SPREAD_MOST_PARTS = 2, SPREAD_TOKENS = 4 };

LANES_INLINE uint8x16_t bytes_of(lanes a) { return vreinterpretq_u8_u32(a); }
LANES_INLINE lanes of_bytes(uint8x16_t a) { return vreinterpretq_u32_u8(a); }

LANES_INLINE lanes load_words(const uint8_t *words) { return of_bytes(vld1q_u8(words)); }
LANES_INLINE lanes load_halves_as_integers(const uint8_t *halves) {
    return vmovl_u16(vreinterpret_u16_u8(vld1_u8(halves)));
}
LANES_INLINE lanes load_bytes_as_integers(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(word))));
}
LANES_INLINE lanes set_lanes(uint32_t x) { return vdupq_n_u32(x); }
LANES_INLINE lanes four_activations(const int8_t *a) {
    uint32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return vdupq_n_u32(bytes);
}
LANES_INLINE lanes both(lanes a, lanes b) { return vandq_u32(a, b); }
LANES_INLINE lanes either(lanes a, lanes b) { return vorrq_u32(a, b); }
LANES_INLINE lanes differ(lanes a, lanes b) { return veorq_u32(a, b); }
LANES_INLINE lanes right(lanes a, int bits) { return a >> bits; }
LANES_INLINE lanes left(lanes a, int bits) { return a << bits; }
LANES_INLINE lanes add_integers(lanes a, lanes b) { return vaddq_u32(a, b); }
LANES_INLINE lanes multiply_integers(lanes a, lanes b) { return vmulq_u32(a, b); }
LANES_INLINE lanes multiply_16(lanes a, lanes b) {
    return vreinterpretq_u32_u16(vmulq_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b)));
}
LANES_INLINE lanes subtract_bytes(lanes a, lanes b) { return of_bytes(vsubq_u8(bytes_of(a), bytes_of(b))); }

/* The lowest byte of each lane in all four. */
LANES_INLINE lanes spread_byte(lanes a) {
    static const uint8_t order[16] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};
    return of_bytes(vqtbl1q_u8(bytes_of(a), vld1q_u8(order)));
}

LANES_INLINE lanes look_up(const int8_t book[16], lanes places) {
    return vreinterpretq_u32_s8(vqtbl1q_s8(vld1q_s8(book), bytes_of(places)));
}

/* Bytes whose one bit of `pattern` is set in `bits` are negated. */
LANES_INLINE lanes negate_where(lanes a, lanes bits, lanes pattern) {
    const uint8x16_t mask = vtstq_u8(bytes_of(bits), bytes_of(pattern));
    return of_bytes(vsubq_u8(veorq_u8(bytes_of(a), mask), mask));
}

/* Of a table of 8 bytes an entry: the first four and the last four of each lane's entry. */
LANES_INLINE void gather_pairs(const void *table, lanes index, lanes *first, lanes *last) {
    uint32_t numbers[4], entries[8];
    vst1q_u32(numbers, index);
    for (int i = 0; i < 4; i++) memcpy(entries + 2 * i, (const uint8_t *)table + 8 * (size_t)numbers[i], 8);
    const uint32x4x2_t pairs = vld2q_u32(entries);
    *first = pairs.val[0];
    *last = pairs.val[1];
}

/* Entries of 4 bytes. */
LANES_INLINE lanes gather(const void *table, lanes index) {
    uint32_t numbers[4], entries[4];
    vst1q_u32(numbers, index);
    for (int i = 0; i < 4; i++) memcpy(&entries[i], (const uint8_t *)table + 4 * (size_t)numbers[i], 4);
    return vld1q_u32(entries);
}

LANES_INLINE float_lanes floats_of_bits(lanes a) { return vreinterpretq_f32_u32(a); }
LANES_INLINE float_lanes load_halves(const uint8_t *halves) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves)));
}
LANES_INLINE float_lanes set_floats(float x) { return vdupq_n_f32(x); }
LANES_INLINE float_lanes load_floats(const float *x) { return vld1q_f32(x); }
LANES_INLINE void store_floats(float *to, float_lanes a) { vst1q_f32(to, a); }
LANES_INLINE float_lanes to_floats(lanes a) { return vcvtq_f32_s32(vreinterpretq_s32_u32(a)); }
LANES_INLINE float_lanes multiply(float_lanes a, float_lanes b) { return vmulq_f32(a, b); }
LANES_INLINE float_lanes fused(float_lanes a, float_lanes b, float_lanes c) { return vfmaq_f32(c, a, b); }
LANES_INLINE float_lanes fused_negative(float_lanes a, float_lanes b, float_lanes c) { return vfmsq_f32(c, a, b); }

/* ---- products ---- */

typedef struct weights {
    int8x16_t columns;
} weights;

LANES_INLINE weights weights_of(lanes columns, bool is_signed, bool moved) {
    (void)is_signed;
    (void)moved;
    return (weights){vreinterpretq_s8_u32(columns)};
}

LANES_INLINE lanes add_products(lanes sums, weights w, lanes x, bool is_signed) {
    (void)is_signed;
    return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(sums), w.columns, vreinterpretq_s8_u32(x)));
}

LANES_INLINE lanes factor_of(lanes scale) { return scale; }

LANES_INLINE lanes add_scaled(lanes total, lanes sums, lanes factor) { return vmlaq_u32(total, sums, factor); }

/* For matmul_spread_template.h: nothing is moved. */
LANES_INLINE lanes moved_columns(lanes columns) { return columns; }
LANES_INLINE lanes short_factor(lanes factor) { return factor; }
LANES_INLINE lanes add_scaled_short(lanes total, lanes sums, lanes factor) { return add_scaled(total, sums, factor); }

/* sum + both products of two pairs of 16 bits. */
LANES_INLINE lanes add_pairs(lanes sum, lanes a, lanes b) {
    const int16x8_t x = vreinterpretq_s16_u32(a), y = vreinterpretq_s16_u32(b);
    const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
    return vaddq_u32(sum, vreinterpretq_u32_s32(vpaddq_s32(low, high)));
}

#endif
