/* bf16.c: the upper halves of 32-bit floats. A block is one column; its tile is that of plain_floats.h. */
#include "weight_formats/half_float.h"
#include "weight_formats/plain_floats.h"

static void decode_row(float *out, const void *blocks, size_t block_count) {
    const uint8_t *values = blocks;
    for (size_t k = 0; k < block_count; k++) out[k] = pi2_float_of_bf16(pi2_load_u16(values + 2 * k));
}

PI2_FORMAT_OF_FLOATS(bf16, BF16, 2)
