/* small_rows_neon.c: a block of 32 values at a time, in vectors of 16 bytes. */
#include <arm_neon.h>
#include <string.h>

#include "kernels/small_rows/small_rows_four_template.h"

/* What 32 bits of a lane hold: a block's eight products come to at most 7 * 32767 * 8, times a scale below 2^8 below
 * 2^29. */
enum { BLOCKS_OF_32_BITS = 4 };

static inline int32x4_t add_products(int32x4_t sum, int8x16_t values, const int16_t *x) {
    const int16x8_t low = vmovl_s8(vget_low_s8(values)), high = vmovl_s8(vget_high_s8(values));
    const int16x8_t x_low = vld1q_s16(x), x_high = vld1q_s16(x + 8);
    sum = vmlal_s16(sum, vget_low_s16(low), vget_low_s16(x_low));
    sum = vmlal_s16(sum, vget_high_s16(low), vget_high_s16(x_low));
    sum = vmlal_s16(sum, vget_low_s16(high), vget_low_s16(x_high));
    return vmlal_s16(sum, vget_high_s16(high), vget_high_s16(x_high));
}

/* Bits 2 k and 2 k + 1 of the eight bytes, k and k + 1. */
static inline uint8x16_t lower_bits(uint8x8_t bytes, int8_t k) {
    const uint8x16_t moved = vcombine_u8(vshl_u8(bytes, vdup_n_s8((int8_t)(-2 * k))),
                                         vshl_u8(bytes, vdup_n_s8((int8_t)(-2 * k - 2))));
    return vandq_u8(moved, vdupq_n_u8(3));
}

/* Bits k to k + 3 of the four bytes, as bit 2: four bytes each. */
static inline uint8x16_t third_bit(uint32_t bytes, int8_t k) {
    static const int8_t places[16] = { 0, 0, 0, 0, -1, -1, -1, -1, -2, -2, -2, -2, -3, -3, -3, -3 };
    const uint8x16_t all = vreinterpretq_u8_u32(vdupq_n_u32(bytes));
    const uint8x16_t moved = vshlq_u8(all, vaddq_s8(vld1q_s8(places), vdupq_n_s8((int8_t)-k)));
    return vshlq_n_u8(vandq_u8(moved, vdupq_n_u8(1)), 2);
}

static inline int8x16_t values_of(uint8x16_t codes, int most) {
    return vsubq_s8(vreinterpretq_s8_u8(vshlq_n_u8(codes, 1)), vdupq_n_s8((int8_t)most));
}

static inline int32x4_t block_products(const uint8_t *block, unsigned bits, const int16_t *x) {
    const uint8x8_t bytes = vld1_u8(block);
    const int most = (1 << bits) - 1;
    uint8x16_t first = lower_bits(bytes, 0), second = lower_bits(bytes, 2);
    if (bits == 3) {
        uint32_t upper;
        memcpy(&upper, block + 8, sizeof upper);
        first = vorrq_u8(first, third_bit(upper, 0));
        second = vorrq_u8(second, third_bit(upper, 4));
    }
    return add_products(add_products(vdupq_n_s32(0), values_of(first, most), x), values_of(second, most), x + 16);
}

int64_t pi2_small_rows_low_bit_neon(const uint8_t *blocks, const uint8_t *scales, unsigned bits, const int16_t *x,
                                    size_t columns) {
    const size_t count = columns / PI2_SMALL_BLOCK, bytes = pi2_small_block_bytes(bits);
    int64x2_t sum = vdupq_n_s64(0);
    for (size_t begin = 0; begin < count; begin += BLOCKS_OF_32_BITS) {
        const size_t end = count - begin < BLOCKS_OF_32_BITS ? count : begin + BLOCKS_OF_32_BITS;
        int32x4_t part = vdupq_n_s32(0);
        for (size_t b = begin; b < end; b++) {
            const int32x4_t products = block_products(blocks + b * bytes, bits, x + b * PI2_SMALL_BLOCK);
            part = vmlaq_n_s32(part, products, scales[b]);
        }
        sum = vpadalq_s32(sum, part);
    }
    return vaddvq_s64(sum);
}

static inline void sums_of_four(int32_t sums[ROWS], const four_of_rows *four, const int16_t *x, size_t columns) {
    const int8_t *const *rows = four->rows;
    int32x4_t part[ROWS];
    for (int r = 0; r < ROWS; r++) part[r] = vdupq_n_s32(0);
    for (size_t c = 0; c < columns; c += PI2_SMALL_BLOCK) {
        for (int r = 0; r < ROWS; r++) {
            __builtin_prefetch(four->ahead[r] + c);
            part[r] = add_products(part[r], vld1q_s8(rows[r] + c), x + c);
            part[r] = add_products(part[r], vld1q_s8(rows[r] + c + 16), x + c + 16);
        }
    }
    vst1q_s32(sums, vpaddq_s32(vpaddq_s32(part[0], part[1]), vpaddq_s32(part[2], part[3])));
}

void pi2_small_rows_int8_neon(float *sums, const int8_t *rows, const uint32_t *numbers, size_t row_count,
                              const int16_t *x, size_t columns) {
    int8_rows(sums, rows, numbers, row_count, x, columns);
}
