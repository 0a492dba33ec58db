/*
 * nvfp4.c: 64 columns = 4 bytes: the scale of each 16 columns, a float of 4 bits of exponent and 3 of fraction; 4
 * times 8 bytes: column j of the 16 in the low half of byte j, column j + 8 in the high half, as in MXFP4. weight =
 * scale / 2 * book[place]. (A file may have a float beside each matrix by which results are multiplied.)
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { VALUES = 4 };

static const pi2_block_arrays arrays = {1, 2, {{0, 4, 1}, {VALUES, 4, 8}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    for (size_t s = 0; s < 4; s++) {
        w->d[s] = pi2_ue4m3_halved[block[s]];
        pi2_read_code_book(w->q + 16 * s, block + VALUES + 8 * s, 8, 8, pi2_code_book_fp4);
    }
}

PI2_BLOCK_FORMAT(nvfp4, NVFP4, 36, 4, Q8_32, .scales = 0, .scale_bytes = 4)
