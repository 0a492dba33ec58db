/*
 * code_books.c: see the header. The grids are written as their points' codes, 2 or 3 bits a column, the first column
 * lowest; they are those of ggml's formats, as the Python package gguf has them.
 */
#include "weight_formats/code_books.h"

const int8_t pi2_code_book_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t pi2_code_book_fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Twelve points a line of the list, then some alone. */
#define P12(a, b, c, d, e, f, g, h, i, j, k, l) P(a) P(b) P(c) P(d) P(e) P(f) P(g) P(h) P(i) P(j) P(k) P(l)

/* IQ2: 8, 25, 43. */
#define COLUMN(code, bit) (8u + 17u * ((code) >> (bit) & 3u) + ((code) >> (bit) & 3u) / 2)
#define WORD(code, bit) \
    (COLUMN(code, bit) | COLUMN(code, (bit) + 2) << 8 | COLUMN(code, (bit) + 4) << 16 | COLUMN(code, (bit) + 6) << 24)
#define P(code) WORD(code, 0), WORD(code, 8),
const uint32_t pi2_grid_iq2_xxs[256 * 2] = {
#include "weight_formats/grid_iq2_xxs.inc"
};
const uint32_t pi2_grid_iq2_xs[512 * 2] = {
#include "weight_formats/grid_iq2_xs.inc"
};
const uint32_t pi2_grid_iq2_s[1024 * 2] = {
#include "weight_formats/grid_iq2_s.inc"
};
#undef COLUMN
#undef WORD
#undef P

/* IQ3_XXS: 4, 12, 20, 28, 36, 44, 52, 62. */
#define COLUMN(code, bit) (4u + 8u * ((code) >> (bit) & 7u) + ((code) >> (bit) & 7u) / 7 * 2)
#define P(code) COLUMN(code, 0) | COLUMN(code, 3) << 8 | COLUMN(code, 6) << 16 | COLUMN(code, 9) << 24,
const uint32_t pi2_grid_iq3_xxs[256] = {
#include "weight_formats/grid_iq3_xxs.inc"
};
#undef COLUMN

/* IQ3_S: 1, 3, .. 15. */
#define COLUMN(code, bit) (1u + 2u * ((code) >> (bit) & 7u))
const uint32_t pi2_grid_iq3_s[512] = {
#include "weight_formats/grid_iq3_s.inc"
};
#undef COLUMN
#undef P

/* 256 entries, of the numbers 0 to 255. */
#define BY_4(n) ENTRY(n), ENTRY((n) + 1), ENTRY((n) + 2), ENTRY((n) + 3)
#define BY_16(n) BY_4(n), BY_4((n) + 4), BY_4((n) + 8), BY_4((n) + 12)
#define BY_64(n) BY_16(n), BY_16((n) + 16), BY_16((n) + 32), BY_16((n) + 48)
#define BY_256 BY_64(0), BY_64(64), BY_64(128), BY_64(192)

#define ENTRY(e) ((e) < 2 ? UINT32_C(0x00200000) << ((e) & 1) : (uint32_t)((e) - 1) << 23)
const uint32_t pi2_e8m0_halved[256] = {BY_256};
#undef ENTRY

#define EXPONENT(x) ((x) >> 3 & 15)
#define ENTRY(x)        \
    ((x) == 0x7f ? 0.0f \
                 : (float)(EXPONENT(x) ? (8 + ((x) & 7)) << EXPONENT(x) : 2 * ((x) & 7)) * 0x1p-11f)
const float pi2_ue4m3_halved[256] = {BY_256};
