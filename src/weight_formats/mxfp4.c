/*
 * mxfp4.c: 32 columns = a byte e; 16 bytes: floats of 4 bits, in the order of IQ4_NL, twice as large as integers of
 * a code book. weight = 2^(e - 128) * book[place].
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { VALUES = 1 };

static const pi2_block_arrays arrays = {1, 2, {{0, 1, 1}, {VALUES, 4, 4}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_float_of_bits(pi2_e8m0_halved[block[0]]);
    pi2_read_code_book(w->q, block + VALUES, 16, 16, pi2_code_book_fp4);
}

PI2_BLOCK_FORMAT(mxfp4, MXFP4, 17, 1, Q8_32, .scales = 0, .scale_bytes = 1)
