/*
 * iq4_xs.c: 256 columns = half d; 16 bits: bits 4 and 5 of the scale of 32 columns s are its bits 2 s and 2 s + 1; 4
 * bytes: the scales' low halves, scale s in nibble s; 128 bytes: 8 times the 16 bytes of IQ4_NL. weight = d * (scale
 * - 32) * book[place].
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { HIGH_SCALES = 2, LOW_SCALES = 4, VALUES = 8 };

static const pi2_block_arrays arrays = {2, 3, {{0, 2, 2}, {LOW_SCALES, 4, 1}, {VALUES, 4, 32}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    const uint32_t high = pi2_load_u16(block + HIGH_SCALES), low = pi2_load_u32(block + LOW_SCALES);
    w->d[0] = pi2_load_half(block);
    for (size_t s = 0; s < 8; s++) {
        w->scales[s] = (int16_t)((int)((low >> (4 * s) & 15) | (high >> (2 * s) & 3) << 4) - 32);
        pi2_read_code_book(w->q + 32 * s, block + VALUES + 16 * s, 16, 16, pi2_code_book_iq4);
    }
}

PI2_BLOCK_FORMAT(iq4_xs, IQ4_XS, 136, 8, Q8_256, .halves = 0, .half_count = 1)
