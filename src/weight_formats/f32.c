/* f32.c: 32-bit floats. A block is one column; its tile is that of plain_floats.h. */
#include "weight_formats/plain_floats.h"

static void decode_row(float *out, const void *blocks, size_t block_count) {
    memcpy(out, blocks, block_count * sizeof *out);
}

PI2_FORMAT_OF_FLOATS(f32, F32, 4)
