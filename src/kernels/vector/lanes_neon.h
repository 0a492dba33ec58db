/* lanes_neon.h: sixteen floats in four NEON registers; see lanes_avx512.h. For *_neon.c only. */
#ifndef PI2_KERNELS_VECTOR_LANES_NEON_H
#define PI2_KERNELS_VECTOR_LANES_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/vector/exp_constants.h"

enum { LANES = 16 };
typedef struct lanes {
    float32x4_t a;
    float32x4_t b;
    float32x4_t c;
    float32x4_t d;
} lanes;

static inline lanes lanes_of(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
    const lanes all = {a, b, c, d};
    return all;
}

/* Applies an operation of four floats to each quarter. */
#define LANES_MAP2(op, x, y) \
    lanes_of(op((x).a, (y).a), op((x).b, (y).b), op((x).c, (y).c), op((x).d, (y).d))

static inline lanes lanes_load(const float *x) {
    return lanes_of(vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12));
}
static inline void lanes_store(float *x, lanes v) {
    vst1q_f32(x, v.a);
    vst1q_f32(x + 4, v.b);
    vst1q_f32(x + 8, v.c);
    vst1q_f32(x + 12, v.d);
}

static inline lanes lanes_load_first(const float *x, size_t count) {
    float padded[LANES] = {0.0f};
    for (size_t i = 0; i < count; i++) padded[i] = x[i];
    return lanes_load(padded);
}
static inline void lanes_store_first(float *x, lanes v, size_t count) {
    float padded[LANES];
    lanes_store(padded, v);
    for (size_t i = 0; i < count; i++) x[i] = padded[i];
}

static inline lanes lanes_set(float x) {
    const float32x4_t four = vdupq_n_f32(x);
    return lanes_of(four, four, four, four);
}
static inline lanes lanes_zero(void) { return lanes_set(0.0f); }
static inline lanes lanes_add(lanes x, lanes y) { return LANES_MAP2(vaddq_f32, x, y); }
static inline lanes lanes_sub(lanes x, lanes y) { return LANES_MAP2(vsubq_f32, x, y); }
static inline lanes lanes_mul(lanes x, lanes y) { return LANES_MAP2(vmulq_f32, x, y); }
static inline lanes lanes_div(lanes x, lanes y) { return LANES_MAP2(vdivq_f32, x, y); }
static inline lanes lanes_fma(lanes x, lanes y, lanes z) {
    return lanes_of(vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
                    vfmaq_f32(z.d, x.d, y.d));
}

/* NEON's own maximum would return the NaN. */
static inline float32x4_t lanes_max_of_four(float32x4_t x, float32x4_t y) {
    return vbslq_f32(vcgtq_f32(x, y), x, y);
}
static inline float32x4_t lanes_min_of_four(float32x4_t x, float32x4_t y) {
    return vbslq_f32(vcltq_f32(x, y), x, y);
}
static inline lanes lanes_max(lanes x, lanes y) { return LANES_MAP2(lanes_max_of_four, x, y); }
static inline lanes lanes_min(lanes x, lanes y) { return LANES_MAP2(lanes_min_of_four, x, y); }

static inline lanes lanes_keep(lanes x, lanes other, size_t first, size_t end) {
    float kept[LANES];
    float all[LANES];
    lanes_store(kept, other);
    lanes_store(all, x);
    for (size_t i = first; i < end; i++) kept[i] = all[i];
    return lanes_load(kept);
}

static inline float32x4_t lanes_scale_four(float32x4_t p, float32x4_t shifted) {
    const int32x4_t zero = vreinterpretq_s32_f32(vdupq_n_f32(PI2_ROUNDING_SHIFT));
    const int32x4_t offset = vsubq_s32(vdupq_n_s32(256), zero);
    const int32x4_t n_plus_256 = vaddq_s32(vreinterpretq_s32_f32(shifted), offset);
    const int32x4_t first = vshrq_n_s32(n_plus_256, 1);
    const int32x4_t second = vsubq_s32(n_plus_256, first);
    const int32x4_t one = vdupq_n_s32(1);
    const float32x4_t first_power =
        vreinterpretq_f32_s32(vshlq_n_s32(vsubq_s32(first, one), 23));
    const float32x4_t second_power =
        vreinterpretq_f32_s32(vshlq_n_s32(vsubq_s32(second, one), 23));
    return vmulq_f32(vmulq_f32(p, first_power), second_power);
}
static inline lanes lanes_scale_by_power(lanes p, lanes shifted) {
    return LANES_MAP2(lanes_scale_four, p, shifted);
}

static inline float lanes_sum(lanes x) {
    const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

static inline float lanes_max_of_all(lanes x) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.b), vmaxq_f32(x.c, x.d)));
}

static inline float32x4_t lanes_load_four_halves(const uint8_t *halves) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves)));
}
static inline lanes lanes_load_halves(const void *halves) {
    const uint8_t *at = (const uint8_t *)halves;
    return lanes_of(lanes_load_four_halves(at), lanes_load_four_halves(at + 8),
                    lanes_load_four_halves(at + 16), lanes_load_four_halves(at + 24));
}
static inline void lanes_store_halves(void *halves, lanes x) {
    uint8_t *at = (uint8_t *)halves;
    vst1_u8(at, vreinterpret_u8_f16(vcvt_f16_f32(x.a)));
    vst1_u8(at + 8, vreinterpret_u8_f16(vcvt_f16_f32(x.b)));
    vst1_u8(at + 16, vreinterpret_u8_f16(vcvt_f16_f32(x.c)));
    vst1_u8(at + 24, vreinterpret_u8_f16(vcvt_f16_f32(x.d)));
}
static inline lanes lanes_load_int8(const void *values) {
    const int8x16_t bytes = vld1q_s8((const int8_t *)values);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes));
    const int16x8_t high = vmovl_high_s8(bytes);
    return lanes_of(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                    vcvtq_f32_s32(vmovl_high_s16(low)),
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                    vcvtq_f32_s32(vmovl_high_s16(high)));
}

static inline float32x4_t lanes_rotate_four(float32x4_t x, float32x4_t cos_sin) {
    const uint32_t sign_bits[4] = {UINT32_C(0x80000000), 0, UINT32_C(0x80000000), 0};
    const float32x4_t product = vmulq_f32(vrev64q_f32(x), vtrn2q_f32(cos_sin, cos_sin));
    const float32x4_t signed_product =
        vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(product), vld1q_u32(sign_bits)));
    return vfmaq_f32(signed_product, x, vtrn1q_f32(cos_sin, cos_sin));
}
static inline lanes lanes_rotate_pairs(lanes x, lanes cos_sin) {
    return LANES_MAP2(lanes_rotate_four, x, cos_sin);
}

static inline void lanes_split_pairs(lanes low, lanes high, lanes *even, lanes *odd) {
    *even = lanes_of(vuzp1q_f32(low.a, low.b), vuzp1q_f32(low.c, low.d),
                     vuzp1q_f32(high.a, high.b), vuzp1q_f32(high.c, high.d));
    *odd = lanes_of(vuzp2q_f32(low.a, low.b), vuzp2q_f32(low.c, low.d),
                    vuzp2q_f32(high.a, high.b), vuzp2q_f32(high.c, high.d));
}

static inline float32x4_t lanes_max_magnitude_of_four(float32x4_t largest, float32x4_t x) {
    const uint32x4_t bits = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(UINT32_C(0x7fffffff)));
    return vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(largest), bits));
}
static inline lanes lanes_max_magnitude(lanes largest, lanes x) {
    return LANES_MAP2(lanes_max_magnitude_of_four, largest, x);
}
static inline float lanes_largest_magnitude(lanes largest) {
    const uint32x4_t low = vmaxq_u32(vreinterpretq_u32_f32(largest.a),
                                     vreinterpretq_u32_f32(largest.b));
    const uint32x4_t high = vmaxq_u32(vreinterpretq_u32_f32(largest.c),
                                      vreinterpretq_u32_f32(largest.d));
    const uint32_t bits = vmaxvq_u32(vmaxq_u32(low, high));
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int lanes_store_int8(signed char *values, lanes x) {
    const int16x8_t low = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.a)),
                                       vmovn_s32(vcvtnq_s32_f32(x.b)));
    const int16x8_t high = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.c)),
                                        vmovn_s32(vcvtnq_s32_f32(x.d)));
    const int8x16_t bytes = vcombine_s8(vmovn_s16(low), vmovn_s16(high));
    vst1q_s8(values, bytes);
    return vaddlvq_s8(bytes);
}

#endif
