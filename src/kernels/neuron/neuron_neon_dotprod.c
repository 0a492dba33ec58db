/* neuron_neon_dotprod.c: neuron_template.h in vectors of one lane, for NEON with its int8 dot product. */
#include <arm_neon.h>
#include <string.h>

#include "weight_formats/unpack_neon.h"

#define NEURON_INLINE static inline __attribute__((always_inline))

typedef float32x4_t vf;
typedef float32x4_t v4f;
typedef int32x4_t vi; /* bytes, too */
typedef int32x4_t v4i;

enum { LANES = 1, Q8_OFFSET = 0 };
#define NEURON_SUFFIX dotprod

NEURON_INLINE uint8x16_t bytes_of(vi a) { return vreinterpretq_u8_s32(a); }
NEURON_INLINE vi of_bytes(uint8x16_t a) { return vreinterpretq_s32_u8(a); }

NEURON_INLINE vi zeros(void) { return vdupq_n_s32(0); }
NEURON_INLINE vi set_ints(int32_t x) { return vdupq_n_s32(x); }
NEURON_INLINE vi load(const uint8_t *bytes) { return of_bytes(vld1q_u8(bytes)); }
NEURON_INLINE vi load_some(const uint8_t *bytes, size_t count) {
    (void)count; /* a group fills a vector */
    return load(bytes);
}
NEURON_INLINE vi add(vi a, vi b) { return vaddq_s32(a, b); }
NEURON_INLINE vi subtract(vi a, vi b) { return vsubq_s32(a, b); }
NEURON_INLINE vi times(vi a, int32_t b) { return vmulq_n_s32(a, b); }
NEURON_INLINE vi multiply_ints(vi a, vi b) { return vmulq_s32(a, b); }
NEURON_INLINE vi dot(vi sum, vi w, vi a) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(a));
}
NEURON_INLINE vi as_bytes(vi w) { return w; }
NEURON_INLINE vi dot_bytes(vi sum, vi w, vi a) { return dot(sum, w, a); }

NEURON_INLINE vf set_floats(float x) { return vdupq_n_f32(x); }
NEURON_INLINE vf load_floats(const float *x) { return vld1q_f32(x); }
NEURON_INLINE void store(float *to, vf a) { vst1q_f32(to, a); }
NEURON_INLINE vf multiply(vf a, vf b) { return vmulq_f32(a, b); }
NEURON_INLINE vf fused(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
NEURON_INLINE vf fused_negative(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
NEURON_INLINE vf to_floats(vi a) { return vcvtq_f32_s32(a); }

NEURON_INLINE v4f zeros4(void) { return set_floats(0.0f); }
NEURON_INLINE v4f set4(float x) { return set_floats(x); }
NEURON_INLINE v4f multiply4(v4f a, v4f b) { return multiply(a, b); }
NEURON_INLINE v4f fma4(v4f a, v4f b, v4f c) { return fused(a, b, c); }
NEURON_INLINE v4f fnma4(v4f a, v4f b, v4f c) { return fused_negative(a, b, c); }
NEURON_INLINE v4f to_floats4(v4i a) { return to_floats(a); }
NEURON_INLINE void store4(float *to, v4f a) { store(to, a); }

NEURON_INLINE void split_nibbles(vi bytes, vi *low, vi *high) {
    *low = of_bytes(vandq_u8(bytes_of(bytes), vdupq_n_u8(15)));
    *high = of_bytes(vshrq_n_u8(bytes_of(bytes), 4));
}

/* ---- rows ---- */

NEURON_INLINE void load_halves_of_blocks(const int8_t *bytes, vi *low, vi *high) {
    *low = load((const uint8_t *)bytes);
    *high = load((const uint8_t *)bytes + 16);
}

NEURON_INLINE void add_fifth_bits(const uint8_t *fifth, vi *low, vi *high) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u)), sixteen = vdupq_n_u8(16);
    const uint8x16_t of_low = vcombine_u8(vdup_n_u8(fifth[0]), vdup_n_u8(fifth[1]));
    const uint8x16_t of_high = vcombine_u8(vdup_n_u8(fifth[2]), vdup_n_u8(fifth[3]));
    *low = of_bytes(vorrq_u8(bytes_of(*low), vandq_u8(vtstq_u8(of_low, bit), sixteen)));
    *high = of_bytes(vorrq_u8(bytes_of(*high), vandq_u8(vtstq_u8(of_high, bit), sixteen)));
}

NEURON_INLINE vi reduce_rows(const vi rows[4]) {
    return vpaddq_s32(vpaddq_s32(rows[0], rows[1]), vpaddq_s32(rows[2], rows[3]));
}

NEURON_INLINE v4i reduce_rows4(const v4i rows[4]) { return reduce_rows(rows); }
NEURON_INLINE v4i add_lanes(vi a) { return a; }
NEURON_INLINE vf spread_floats(const float *x) { return vdupq_n_f32(*x); }
NEURON_INLINE vi spread_sums(const int16_t *sums) { return vdupq_n_s32(*sums); }

NEURON_INLINE v4f lane_of(vf a, int lane) {
    (void)lane;
    return a;
}

/* The half at `offset` of each row's scales. */
NEURON_INLINE void load_four_halves(const uint8_t *const scales[4], size_t offset, v4f *to) {
    uint16_t halves[4];
    for (int r = 0; r < 4; r++) memcpy(&halves[r], scales[r] + offset, sizeof halves[r]);
    *to = pi2_load_halves_neon((const uint8_t *)halves);
}

NEURON_INLINE void load_row_scales(const uint8_t *const rows[4], bool minimums, vf *d, vf *m) {
    load_four_halves(rows, 0, d);
    *m = zeros4();
    if (minimums) load_four_halves(rows, 2, m);
}

/* Q4_K: products of the 8 minimums with the activations' sums over 32 columns, four sums of two. */
NEURON_INLINE v4i minimum_products(uint64_t minimums, const int16_t *sums) {
    const int16x8_t over_32 = vpaddq_s16(vld1q_s16(sums), vld1q_s16(sums + 8));
    const int16x8_t factors = vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(minimums)));
    const int32x4_t low = vmull_s16(vget_low_s16(factors), vget_low_s16(over_32));
    return vmlal_s16(low, vget_high_s16(factors), vget_high_s16(over_32));
}

NEURON_INLINE void load_q4_k_activations(const int8_t *a, int chunk, vi *low, vi *high) {
    const uint8_t *from = (const uint8_t *)a + 64 * (chunk / 2) + 16 * (chunk % 2);
    *low = load(from);
    *high = load(from + 32);
}

NEURON_INLINE vi scaled_dot_q4_k(vi sum, vi w, vi a, uint64_t scales, int chunk, int high) {
    const int32_t scale = (int32_t)(scales >> (8 * (chunk / 2 * 2 + high)) & 255);
    return vmlaq_n_s32(sum, dot(zeros(), w, a), scale);
}

typedef struct q6_k_scales {
    const uint8_t *bytes;
} q6_k_scales;

NEURON_INLINE q6_k_scales load_q6_k_scales(const uint8_t *scales) { return (q6_k_scales){scales}; }

NEURON_INLINE vi scaled_dot_q6_k(vi sum, vi w, vi a, const q6_k_scales *scales, int first) {
    return vmlaq_n_s32(sum, dot(zeros(), w, a), (int8_t)scales->bytes[first]);
}

/* Q6_K: products of a row's 16 scales with the activations' sums over 16 columns, four sums of four. */
NEURON_INLINE vi scale_products(const uint8_t *scales, const int16_t *sums) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(scales));
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    const int16x8_t low_sums = vld1q_s16(sums), high_sums = vld1q_s16(sums + 8);
    int32x4_t products = vmull_s16(vget_low_s16(low), vget_low_s16(low_sums));
    products = vmlal_s16(products, vget_high_s16(low), vget_high_s16(low_sums));
    products = vmlal_s16(products, vget_low_s16(high), vget_low_s16(high_sums));
    return vmlal_s16(products, vget_high_s16(high), vget_high_s16(high_sums));
}

/* Bits 2 k and 2 k + 1 as bits 4 and 5. */
NEURON_INLINE uint8x16_t upper_as_bits45(uint8x16_t upper, int k) {
    const uint8x16_t bits45 = vdupq_n_u8(0x30);
    switch (k) {
    case 0: return vandq_u8(vshlq_n_u8(upper, 4), bits45);
    case 1: return vandq_u8(vshlq_n_u8(upper, 2), bits45);
    case 2: return vandq_u8(upper, bits45);
    default: return vandq_u8(vshrq_n_u8(upper, 2), bits45);
    }
}

NEURON_INLINE void load_q6_k_values(const uint8_t *values, int chunk, vi *low, vi *high) {
    const uint8x16_t upper = vld1q_u8(values + 128 + 32 * (chunk / 4) + 16 * (chunk % 2));
    const int quarter = chunk % 4 / 2;
    split_nibbles(load(values + 16 * chunk), low, high);
    *low = of_bytes(vorrq_u8(bytes_of(*low), upper_as_bits45(upper, quarter)));
    *high = of_bytes(vorrq_u8(bytes_of(*high), upper_as_bits45(upper, quarter + 2)));
}

NEURON_INLINE vf load_quads(pi2_weight_type type, const uint8_t *const *rows) {
    return pi2_load_column_neon(type, rows[0]);
}

NEURON_INLINE void transpose_quads(vf w[4]) {
    const float64x2_t even01 = vreinterpretq_f64_f32(vtrn1q_f32(w[0], w[1]));
    const float64x2_t odd01 = vreinterpretq_f64_f32(vtrn2q_f32(w[0], w[1]));
    const float64x2_t even23 = vreinterpretq_f64_f32(vtrn1q_f32(w[2], w[3]));
    const float64x2_t odd23 = vreinterpretq_f64_f32(vtrn2q_f32(w[2], w[3]));
    w[0] = vreinterpretq_f32_f64(vtrn1q_f64(even01, even23));
    w[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23));
    w[2] = vreinterpretq_f32_f64(vtrn2q_f64(even01, even23));
    w[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23));
}

/* ---- columns ---- */

NEURON_INLINE void interleave(const vi from[4], vi to[4]) {
    const uint16x8_t low01 = vreinterpretq_u16_u8(vzip1q_u8(bytes_of(from[0]), bytes_of(from[1])));
    const uint16x8_t high01 = vreinterpretq_u16_u8(vzip2q_u8(bytes_of(from[0]), bytes_of(from[1])));
    const uint16x8_t low23 = vreinterpretq_u16_u8(vzip1q_u8(bytes_of(from[2]), bytes_of(from[3])));
    const uint16x8_t high23 = vreinterpretq_u16_u8(vzip2q_u8(bytes_of(from[2]), bytes_of(from[3])));
    to[0] = vreinterpretq_s32_u16(vzip1q_u16(low01, low23));
    to[1] = vreinterpretq_s32_u16(vzip2q_u16(low01, low23));
    to[2] = vreinterpretq_s32_u16(vzip1q_u16(high01, high23));
    to[3] = vreinterpretq_s32_u16(vzip2q_u16(high01, high23));
}

/* Of four columns the 4 bytes of the group, interleaved. */
NEURON_INLINE vi load_upper(const uint8_t *const columns[4], size_t offset, size_t groups, bool tail) {
    uint8x8_t from[4];
    (void)groups;
    (void)tail;
    for (int n = 0; n < 4; n++) {
        uint32_t word;
        memcpy(&word, columns[n] + offset, sizeof word);
        from[n] = vcreate_u8(word);
    }
    const uint16x4_t first = vreinterpret_u16_u8(vzip1_u8(from[0], from[1]));
    const uint16x4_t second = vreinterpret_u16_u8(vzip1_u8(from[2], from[3]));
    return vreinterpretq_s32_u16(vcombine_u16(vzip1_u16(first, second), vzip2_u16(first, second)));
}

NEURON_INLINE vi with_fifth_bit(vi w, vi upper, int bit) {
    return of_bytes(vorrq_u8(bytes_of(w), pi2_bit_to_bit4_neon(bytes_of(upper), bit)));
}

NEURON_INLINE vi with_upper_bits(vi w, vi upper, int k) {
    return of_bytes(vorrq_u8(bytes_of(w), upper_as_bits45(bytes_of(upper), k)));
}

/* The one lane's rows are in order. */
NEURON_INLINE void order_rows(const vi sums[4], vi to[4]) { memcpy(to, sums, 4 * sizeof to[0]); }
NEURON_INLINE void disorder_rows(const vi tiles[4], vi to[4]) { memcpy(to, tiles, 4 * sizeof to[0]); }

NEURON_INLINE vf load_halves(const uint8_t *halves) { return pi2_load_halves_neon(halves); }

/* Of 4 rows, `words` as in a tile: byte i of low is the scale of sub-block i, of high that of i + 4. */
NEURON_INLINE void q4_k_scales(const uint8_t *words, vi *low, vi *high) {
    const pi2_q4_k_scales_neon k = pi2_unpack_q4_k_scales_neon(words);
    *low = vreinterpretq_s32_u32(k.scales_0_3);
    *high = vreinterpretq_s32_u32(k.scales_4_7);
}

NEURON_INLINE void q4_k_minimums(const uint8_t *words, vi *low, vi *high) {
    const pi2_q4_k_scales_neon k = pi2_unpack_q4_k_scales_neon(words);
    *low = vreinterpretq_s32_u32(k.minimums_0_3);
    *high = vreinterpretq_s32_u32(k.minimums_4_7);
}

NEURON_INLINE vi byte_of_words(vi words, int byte) {
    const uint32x4_t moved = vshlq_u32(vreinterpretq_u32_s32(words), vdupq_n_s32(-8 * byte));
    return vreinterpretq_s32_u32(vandq_u32(moved, vdupq_n_u32(255)));
}

NEURON_INLINE vi load_sub_scales(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(vcreate_u8(word)))));
}

NEURON_INLINE vf load_weights(pi2_weight_type type, const uint8_t *values) {
    return pi2_load_column_neon(type, values);
}

#include "kernels/neuron/neuron_template.h"
