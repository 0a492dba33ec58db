/*
 * code_books.h: what codes of weight files stand for: facts of those formats, as tables. Private to weight_formats/
 * and to the kernels' unpackers.
 *
 * A grid's point is a word for each 4 columns, the first one in its lowest byte: magnitudes, to which signs come.
 */
#ifndef PI2_WEIGHT_FORMATS_CODE_BOOKS_H
#define PI2_WEIGHT_FORMATS_CODE_BOOKS_H

#include <stddef.h>
#include <stdint.h>

extern const int8_t pi2_code_book_iq4[16]; /* IQ4_NL, IQ4_XS */
extern const int8_t pi2_code_book_fp4[16]; /* MXFP4, NVFP4: floats of 1 sign, 2 exponent and 1 fraction bit, doubled */

extern const uint32_t pi2_grid_iq2_xxs[256 * 2]; /* 8 columns a point: two words */
extern const uint32_t pi2_grid_iq2_xs[512 * 2];
extern const uint32_t pi2_grid_iq2_s[1024 * 2];
extern const uint32_t pi2_grid_iq3_xxs[256]; /* 4 columns a point */
extern const uint32_t pi2_grid_iq3_s[512];

extern const uint32_t pi2_e8m0_halved[256]; /* 2^(e - 128), as the bits of floats: the smallest are no normal ones */
extern const float pi2_ue4m3_halved[256];   /* half of a float of 4 exponent bits and 3 of fraction, without sign */

/** 7 signs and an eighth that makes the number of minus signs even. */
static inline uint32_t pi2_even_signs(uint32_t seven) {
    uint32_t odd = seven ^ seven >> 4;
    odd = (0x6996u >> (odd & 15)) & 1;
    return seven | odd << 7;
}

/** q = `count` columns of the grid's words from `point` on; those whose bit is set in `signs` are negative. */
static inline void pi2_read_grid(int8_t *q, const uint32_t *point, size_t count, uint32_t signs) {
    for (size_t k = 0; k < count; k++) {
        const int magnitude = (int)(point[k / 4] >> (k % 4 * 8) & 255);
        q[k] = (int8_t)(signs >> k & 1 ? -magnitude : magnitude);
    }
}

#endif
