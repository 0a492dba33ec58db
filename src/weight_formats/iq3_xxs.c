/*
 * iq3_xxs.c: 256 columns = half d; 64 bytes: the grid point of 4 columns each; 8 words: signs and a scale of 32
 * columns, as in IQ2_XXS. weight = d / 4 * (2 * scale + 1) * (+-grid).
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { POINTS = 2, SIGNS = 66 };

static const pi2_block_arrays arrays = {1, 3, {{0, 2, 1}, {POINTS, 4, 16}, {SIGNS, 4, 8}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block) * 0.25f;
    for (size_t s = 0; s < 8; s++) {
        const uint32_t word = pi2_load_u32(block + SIGNS + 4 * s);
        w->scales[s] = (int16_t)(2 * (word >> 28) + 1);
        for (size_t i = 0; i < 8; i++) {
            const uint32_t signs = pi2_even_signs(word >> (7 * (i / 2)) & 127) >> (i % 2 * 4);
            pi2_read_grid(w->q + 32 * s + 4 * i, &pi2_grid_iq3_xxs[block[POINTS + 8 * s + i]], 4, signs);
        }
    }
}

PI2_BLOCK_FORMAT(iq3_xxs, IQ3_XXS, 98, 2, Q8_256, .halves = 0, .half_count = 1)
