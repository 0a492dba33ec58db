/*
 * iq2_xxs.c: 256 columns = half d; for each 32 columns 8 bytes: 4 bytes, the grid points of 8 columns each; a word:
 * 4 times 7 sign bits, then a scale of 4 bits. The eighth sign makes the number of minus signs even. weight = d / 8
 * * (2 * scale + 1) * (+-grid).
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { VALUES = 2 };

static const pi2_block_arrays arrays = {1, 2, {{0, 2, 1}, {VALUES, 4, 16}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block) * 0.125f;
    for (size_t s = 0; s < 8; s++) {
        const uint8_t *points = block + VALUES + 8 * s;
        const uint32_t word = pi2_load_u32(points + 4);
        w->scales[s] = (int16_t)(2 * (word >> 28) + 1);
        for (size_t i = 0; i < 4; i++) {
            const uint32_t signs = pi2_even_signs(word >> (7 * i) & 127);
            pi2_read_grid(w->q + 32 * s + 8 * i, &pi2_grid_iq2_xxs[2 * points[i]], 8, signs);
        }
    }
}

PI2_BLOCK_FORMAT(iq2_xxs, IQ2_XXS, 66, 2, Q8_256, .halves = 0, .half_count = 1)
