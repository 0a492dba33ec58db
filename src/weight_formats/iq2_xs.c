/*
 * iq2_xs.c: 256 columns = half d; 32 times 16 bits: the grid point of 8 columns (9 bits) and 7 sign bits, as in
 * IQ2_XXS; 8 bytes: the scale of each 16 columns, scale s in nibble s. weight = d / 8 * (2 * scale + 1) * (+-grid).
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { VALUES = 2, SCALES = 66 };

static const pi2_block_arrays arrays = {2, 3, {{0, 2, 1}, {SCALES, 4, 2}, {VALUES, 4, 16}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block) * 0.125f;
    for (size_t s = 0; s < 16; s++) w->scales[s] = (int16_t)(2 * (block[SCALES + s / 2] >> (s % 2 * 4) & 15) + 1);
    for (size_t i = 0; i < 32; i++) {
        const uint32_t code = pi2_load_u16(block + VALUES + 2 * i);
        pi2_read_grid(w->q + 8 * i, &pi2_grid_iq2_xs[2 * (code & 511)], 8, pi2_even_signs(code >> 9));
    }
}

PI2_BLOCK_FORMAT(iq2_xs, IQ2_XS, 74, 10, Q8_256, .halves = 0, .half_count = 1)
