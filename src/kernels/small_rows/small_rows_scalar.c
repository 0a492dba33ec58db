/* small_rows_scalar.c: small rows on any CPU: the specification. */
#include "kernels/small_rows/small_rows_kernels.h"

/* Of a block at most 7 * 32 * 32767 < 2^23, times a scale below 2^8 < 2^31. */
static int32_t block_sum(const uint8_t *block, unsigned bits, const int16_t *x) {
    const int most = (1 << bits) - 1;
    int32_t sum = 0;
    for (int i = 0; i < PI2_SMALL_BLOCK; i++) {
        int code = block[i % 8] >> (2 * (i / 8)) & 3;
        if (bits == 3) code += (block[8 + i % 4] >> (i / 4) & 1) << 2;
        sum += (2 * code - most) * x[i];
    }
    return sum;
}

int64_t pi2_small_rows_low_bit_scalar(const uint8_t *blocks, const uint8_t *scales, unsigned bits, const int16_t *x,
                                      size_t columns) {
    const size_t bytes = pi2_small_block_bytes(bits);
    int64_t sum = 0;
    for (size_t b = 0; b < columns / PI2_SMALL_BLOCK; b++) {
        sum += scales[b] * block_sum(blocks + b * bytes, bits, x + b * PI2_SMALL_BLOCK);
    }
    return sum;
}

void pi2_small_rows_int8_scalar(float *sums, const int8_t *rows, const uint32_t *numbers, size_t row_count,
                                const int16_t *x, size_t columns) {
    for (size_t r = 0; r < row_count; r++) {
        const int8_t *row = rows + (numbers ? numbers[r] : r) * columns;
        int64_t sum = 0;
        for (size_t c = 0; c < columns; c++) sum += row[c] * x[c];
        sums[r] = (float)sum;
    }
}
