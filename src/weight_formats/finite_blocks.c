/* finite_blocks.c: looks at the exponents of a block's floats. */
#include "weight_formats/finite_blocks.h"

#include "base/little_endian.h"

enum { HALF_EXPONENT = 0x7c00, BF16_EXPONENT = 0x7f80 };

/** Whether none of the 16-bit floats at `at`, each `stride` bytes behind the other, has an exponent of ones alone. */
static bool are_finite(const uint8_t *at, size_t count, size_t stride, uint16_t exponent) {
    bool is_good = true;
    for (size_t i = 0; i < count; i++, at += stride) is_good &= (pi2_load_le16(at) & exponent) != exponent;
    return is_good;
}

bool pi2_blocks_are_finite(const pi2_weight_format *format, const void *blocks, size_t block_count) {
    const uint8_t *at = blocks;
    const size_t bytes = format->block_bytes;
    switch (format->type) {
    case PI2_F32: return are_finite(at + 2, block_count, bytes, BF16_EXPONENT); /* the upper half has the exponent */
    case PI2_BF16: return are_finite(at, block_count, bytes, BF16_EXPONENT);
    case PI2_F16:
    case PI2_Q4_0:
    case PI2_Q5_0:
    case PI2_Q8_0: return are_finite(at, block_count, bytes, HALF_EXPONENT);
    case PI2_Q4_1:
    case PI2_Q5_1:
    case PI2_Q4_K:
        return are_finite(at, block_count, bytes, HALF_EXPONENT) &&
               are_finite(at + 2, block_count, bytes, HALF_EXPONENT);
    case PI2_Q6_K: return are_finite(at + bytes - 2, block_count, bytes, HALF_EXPONENT);
    }
    return false;
}
