/*
 * unpack_blocks_template.h: columns and scales of the formats that are read by whole blocks, for every instruction
 * set: in lanes of rows, which block_lanes_<isa>.h defines and whoever includes this has included. Each format
 * `name` has
 *
 *   unpack_<name>     unit: 32 columns, numbered in the block. groups[g]: 4 bytes a row, its columns 4 g .. 4 g + 3
 *   scale_<name>      of blocks of 256: the integer scale of sub-block `sub`
 *   minimum_<name>    of formats with minimums: likewise
 *   step_<name>       the float that a block's (or, of smaller blocks, sub-block's) integers are multiplied by
 *
 * and says just what its read_block says. Words, halves and bytes are where the arrays of its file put them.
 */
#include "weight_formats/code_books.h"
#include "weight_formats/tile_values.h"

#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

/* A block of a tile, and the first of the rows that are wanted. */
typedef struct block_place {
    const uint8_t *scales, *values;
    size_t row;
} block_place;

enum { ARRAY_OF_WORDS = 4 * PI2_TILE_ROWS, ARRAY_OF_HALVES = 2 * PI2_TILE_ROWS };

LANES_INLINE lanes value_word(const block_place *p, int word) {
    return load_words(p->values + (size_t)ARRAY_OF_WORDS * (size_t)word + 4 * p->row);
}

/* Word `word` of the scale area, which `halves` arrays of halves precede. */
LANES_INLINE lanes scale_word(const block_place *p, int halves, int word) {
    return load_words(p->scales + ARRAY_OF_HALVES * halves + ARRAY_OF_WORDS * word + 4 * p->row);
}

LANES_INLINE const uint8_t *scale_halves(const block_place *p, int half) {
    return p->scales + ARRAY_OF_HALVES * half + 2 * p->row;
}

/* `mask` of the lane's bits from `bit` on. */
LANES_INLINE lanes field(lanes word, int bit, uint32_t mask) { return both(right(word, bit), set_lanes(mask)); }

/* 2 x + 1 */
LANES_INLINE lanes odd_number(lanes x) { return either(left(x, 1), set_lanes(1)); }

/* d, a half, times a power of two. */
LANES_INLINE float_lanes half_step(const block_place *p, float factor) {
    return multiply(load_halves(scale_halves(p, 0)), set_floats(factor));
}

/* ---- Q2_K, Q3_K, TQ2_0: two bits ---- */

LANES_INLINE void unpack_two_bits(const block_place *p, int first_word, int unit, lanes groups[8]) {
    UNROLLED
    for (int g = 0; g < 8; g++) {
        groups[g] = field(value_word(p, first_word + unit / 4 * 8 + g), unit % 4 * 2, 0x03030303u);
    }
}

LANES_INLINE void unpack_q2_k(const block_place *p, int unit, lanes groups[8]) { unpack_two_bits(p, 0, unit, groups); }
LANES_INLINE lanes scale_q2_k(const block_place *p, int sub) {
    return field(scale_word(p, 2, sub / 4), sub % 4 * 8, 15);
}
LANES_INLINE lanes minimum_q2_k(const block_place *p, int sub) {
    return field(scale_word(p, 2, sub / 4), sub % 4 * 8 + 4, 15);
}
LANES_INLINE float_lanes step_q2_k(const block_place *p, int sub) {
    (void)sub; /* one d for all */
    return load_halves(scale_halves(p, 0));
}

LANES_INLINE void unpack_q3_k(const block_place *p, int unit, lanes groups[8]) {
    unpack_two_bits(p, 8, unit, groups);
    UNROLLED
    for (int g = 0; g < 8; g++) {
        const lanes high = left(field(value_word(p, g), unit, 0x01010101u), 2);
        groups[g] = subtract_bytes(either(groups[g], high), set_lanes(0x04040404u));
    }
}
LANES_INLINE lanes scale_q3_k(const block_place *p, int sub) {
    const lanes low = field(scale_word(p, 1, sub % 8 / 4), sub % 4 * 8 + sub / 8 * 4, 15);
    const lanes high = left(field(scale_word(p, 1, 2), sub % 4 * 8 + sub / 4 * 2, 3), 4);
    return add_integers(either(low, high), set_lanes((uint32_t)-32));
}
LANES_INLINE float_lanes step_q3_k(const block_place *p, int sub) { return step_q2_k(p, sub); }

LANES_INLINE void unpack_tq2_0(const block_place *p, int unit, lanes groups[8]) {
    unpack_two_bits(p, 0, unit, groups);
    UNROLLED
    for (int g = 0; g < 8; g++) groups[g] = subtract_bytes(groups[g], set_lanes(0x01010101u));
}
LANES_INLINE lanes scale_tq2_0(const block_place *p, int sub) {
    (void)p;
    (void)sub;
    return set_lanes(1);
}
LANES_INLINE float_lanes step_tq2_0(const block_place *p, int sub) { return step_q2_k(p, sub); }

/* ---- TQ1_0: digits to the base of 3 ---- */

/* Digit n of each byte, less 1: the byte times 3^n, modulo 256, times 3, is a number of 256ths. */
LANES_INLINE lanes digit(lanes bytes, int n) {
    static const uint32_t powers[5] = {0x00010001u, 0x00030003u, 0x00090009u, 0x001b001bu, 0x00510051u};
    const lanes low = set_lanes(0x00ff00ffu), power = set_lanes(powers[n]), three = set_lanes(0x00030003u);
    const lanes even = multiply_16(both(multiply_16(both(bytes, low), power), low), three);
    const lanes odd = multiply_16(both(multiply_16(both(right(bytes, 8), low), power), low), three);
    return subtract_bytes(either(both(right(even, 8), low), both(odd, set_lanes(0xff00ff00u))), set_lanes(0x01010101u));
}

LANES_INLINE void unpack_tq1_0(const block_place *p, int unit, lanes groups[8]) {
    UNROLLED
    for (int g = 0; g < 8; g++) {
        const int sixteen = 2 * (unit - 5) + g / 4; /* of the columns from 160 on */
        if (unit < 5) groups[g] = digit(value_word(p, g), unit);
        else if (sixteen < 5) groups[g] = digit(value_word(p, 8 + g % 4), sixteen);
        else groups[g] = digit(value_word(p, 12), g - 4);
    }
}
LANES_INLINE lanes scale_tq1_0(const block_place *p, int sub) { return scale_tq2_0(p, sub); }
LANES_INLINE float_lanes step_tq1_0(const block_place *p, int sub) { return step_q2_k(p, sub); }

/* ---- Q5_K ---- */

LANES_INLINE void unpack_q5_k(const block_place *p, int unit, lanes groups[8]) {
    UNROLLED
    for (int g = 0; g < 8; g++) {
        const lanes low = field(value_word(p, 8 + unit / 2 * 8 + g), unit % 2 * 4, 0x0f0f0f0fu);
        groups[g] = either(low, left(field(value_word(p, g), unit, 0x01010101u), 4));
    }
}

/* Six bits of Q4_K's twelve bytes: of scales (0) or of minimums (1). */
LANES_INLINE lanes six_bits(const block_place *p, int which, int sub) {
    const lanes word = scale_word(p, 2, which);
    if (sub < 4) return field(word, sub * 8, 63);
    const lanes low = field(scale_word(p, 2, 2), sub % 4 * 8 + 4 * which, 15);
    return either(low, left(field(word, sub % 4 * 8 + 6, 3), 4));
}
LANES_INLINE lanes scale_q5_k(const block_place *p, int sub) { return six_bits(p, 0, sub); }
LANES_INLINE lanes minimum_q5_k(const block_place *p, int sub) { return six_bits(p, 1, sub); }
LANES_INLINE float_lanes step_q5_k(const block_place *p, int sub) { return step_q2_k(p, sub); }

/* ---- code books of 16 values: IQ4_NL, IQ4_XS, MXFP4, NVFP4 ---- */

/* Words first .. first + 3: their low halves are groups 0 to 3, their high ones 4 to 7. */
LANES_INLINE void unpack_book(const block_place *p, int first, const int8_t book[16], lanes groups[8]) {
    UNROLLED
    for (int g = 0; g < 8; g++) groups[g] = look_up(book, field(value_word(p, first + g % 4), g / 4 * 4, 0x0f0f0f0fu));
}

LANES_INLINE void unpack_iq4_nl(const block_place *p, int unit, lanes groups[8]) {
    (void)unit;
    unpack_book(p, 0, pi2_code_book_iq4, groups);
}
LANES_INLINE float_lanes step_iq4_nl(const block_place *p, int sub) { return step_q2_k(p, sub); }

LANES_INLINE void unpack_iq4_xs(const block_place *p, int unit, lanes groups[8]) {
    unpack_book(p, 4 * unit, pi2_code_book_iq4, groups);
}
LANES_INLINE lanes scale_iq4_xs(const block_place *p, int sub) {
    const lanes high = field(load_halves_as_integers(scale_halves(p, 1)), 2 * sub, 3);
    return add_integers(either(field(scale_word(p, 2, 0), 4 * sub, 15), left(high, 4)), set_lanes((uint32_t)-32));
}
LANES_INLINE float_lanes step_iq4_xs(const block_place *p, int sub) { return step_q2_k(p, sub); }

LANES_INLINE void unpack_mxfp4(const block_place *p, int unit, lanes groups[8]) {
    (void)unit;
    unpack_book(p, 0, pi2_code_book_fp4, groups);
}
LANES_INLINE float_lanes step_mxfp4(const block_place *p, int sub) {
    (void)sub;
    return floats_of_bits(gather(pi2_e8m0_halved, load_bytes_as_integers(p->scales + p->row)));
}

LANES_INLINE void unpack_nvfp4(const block_place *p, int unit, lanes groups[8]) {
    UNROLLED
    for (int g = 0; g < 8; g++) {
        const lanes word = value_word(p, 4 * unit + g / 4 * 2 + g % 2);
        groups[g] = look_up(pi2_code_book_fp4, field(word, g % 4 / 2 * 4, 0x0f0f0f0fu));
    }
}
LANES_INLINE float_lanes step_nvfp4(const block_place *p, int sub) {
    return floats_of_bits(gather(pi2_ue4m3_halved, field(scale_word(p, 0, 0), 8 * sub, 255)));
}

/* ---- grids: IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S ---- */

/* pi2_even_signs of each lane: the eighth bit is 1 where the low halves of both nibbles, combined, are odd. */
LANES_INLINE lanes even_signs(lanes seven) {
    static const int8_t eighth[16] = {0,    -128, -128, 0,    -128, 0,    0,    -128,
                                      -128, 0,    0,    -128, 0,    -128, -128, 0};
    return either(seven, look_up(eighth, both(differ(seven, right(seven, 4)), set_lanes(15))));
}

/* groups[0 .. 1]: columns whose magnitudes are words, negative where the lowest 8 bits of `signs` say so. */
LANES_INLINE void sign_pair(lanes groups[2], lanes first, lanes second, lanes signs) {
    const lanes bits = spread_byte(signs);
    groups[0] = negate_where(first, bits, set_lanes(0x08040201u));
    groups[1] = negate_where(second, bits, set_lanes(0x80402010u));
}

/* 8 columns from one point of a grid. */
LANES_INLINE void grid_pair(lanes groups[2], const uint32_t *grid, lanes point, lanes signs) {
    lanes first, last;
    gather_pairs(grid, point, &first, &last);
    sign_pair(groups, first, last, signs);
}

/* The scales of IQ2_XS and IQ2_S: a nibble for 16 columns. */
LANES_INLINE lanes scale_of_nibble(const block_place *p, int sub) {
    return odd_number(field(scale_word(p, 1, sub / 8), sub % 8 * 4, 15));
}

LANES_INLINE void unpack_iq2_xxs(const block_place *p, int unit, lanes groups[8]) {
    const lanes points = value_word(p, 2 * unit), signs = value_word(p, 2 * unit + 1);
    UNROLLED
    for (int i = 0; i < 4; i++) {
        grid_pair(groups + 2 * i, pi2_grid_iq2_xxs, field(points, 8 * i, 255), even_signs(field(signs, 7 * i, 127)));
    }
}
LANES_INLINE lanes scale_iq2_xxs(const block_place *p, int sub) {
    return odd_number(right(value_word(p, 2 * sub + 1), 28));
}
LANES_INLINE float_lanes step_iq2_xxs(const block_place *p, int sub) {
    (void)sub;
    return half_step(p, 0.125f);
}

LANES_INLINE void unpack_iq2_xs(const block_place *p, int unit, lanes groups[8]) {
    UNROLLED
    for (int i = 0; i < 4; i++) {
        const lanes two = value_word(p, 2 * unit + i / 2);
        const lanes point = field(two, i % 2 * 16, 511), signs = field(two, i % 2 * 16 + 9, 127);
        grid_pair(groups + 2 * i, pi2_grid_iq2_xs, point, even_signs(signs));
    }
}
LANES_INLINE lanes scale_iq2_xs(const block_place *p, int sub) { return scale_of_nibble(p, sub); }
LANES_INLINE float_lanes step_iq2_xs(const block_place *p, int sub) {
    (void)sub;
    return half_step(p, 0.125f);
}

LANES_INLINE void unpack_iq2_s(const block_place *p, int unit, lanes groups[8]) {
    const lanes low = value_word(p, unit), signs = value_word(p, 8 + unit), high = value_word(p, 16 + unit / 4);
    UNROLLED
    for (int i = 0; i < 4; i++) {
        const lanes bits = left(field(high, unit % 4 * 8 + 2 * i, 3), 8);
        grid_pair(groups + 2 * i, pi2_grid_iq2_s, either(field(low, 8 * i, 255), bits), right(signs, 8 * i));
    }
}
LANES_INLINE lanes scale_iq2_s(const block_place *p, int sub) { return scale_of_nibble(p, sub); }
LANES_INLINE float_lanes step_iq2_s(const block_place *p, int sub) {
    (void)sub;
    return half_step(p, 0.125f);
}

LANES_INLINE void unpack_iq3_xxs(const block_place *p, int unit, lanes groups[8]) {
    const lanes signs = value_word(p, 16 + unit);
    UNROLLED
    for (int i = 0; i < 4; i++) {
        const lanes points = value_word(p, 2 * unit + i / 2);
        const lanes first = gather(pi2_grid_iq3_xxs, field(points, i % 2 * 16, 255));
        const lanes second = gather(pi2_grid_iq3_xxs, field(points, i % 2 * 16 + 8, 255));
        sign_pair(groups + 2 * i, first, second, even_signs(field(signs, 7 * i, 127)));
    }
}
LANES_INLINE lanes scale_iq3_xxs(const block_place *p, int sub) {
    return odd_number(right(value_word(p, 16 + sub), 28));
}
LANES_INLINE float_lanes step_iq3_xxs(const block_place *p, int sub) {
    (void)sub;
    return half_step(p, 0.25f);
}

/* Point i of the unit's 8. */
LANES_INLINE lanes point_iq3_s(const block_place *p, int unit, int i) {
    const lanes high = left(field(value_word(p, 16 + unit / 4), unit % 4 * 8 + i, 1), 8);
    return gather(pi2_grid_iq3_s, either(field(value_word(p, 2 * unit + i / 4), i % 4 * 8, 255), high));
}

LANES_INLINE void unpack_iq3_s(const block_place *p, int unit, lanes groups[8]) {
    const lanes signs = value_word(p, 18 + unit);
    UNROLLED
    for (int i = 0; i < 4; i++) {
        sign_pair(groups + 2 * i, point_iq3_s(p, unit, 2 * i), point_iq3_s(p, unit, 2 * i + 1), right(signs, 8 * i));
    }
}
LANES_INLINE lanes scale_iq3_s(const block_place *p, int sub) {
    return odd_number(field(scale_word(p, 1, 0), 4 * sub, 15));
}
LANES_INLINE float_lanes step_iq3_s(const block_place *p, int sub) { return step_q2_k(p, sub); }
