/*
 * iq4_nl.c: 32 columns = half d; 16 bytes: column j in the low half of byte j, column j + 16 in the high half, each a
 * place in a code book. weight = d * book[place].
 */
#include "weight_formats/block_format.h"
#include "weight_formats/code_books.h"

enum { VALUES = 2 };

static const pi2_block_arrays arrays = {1, 2, {{0, 2, 1}, {VALUES, 4, 4}}};

static void read_block(pi2_block_values *w, const uint8_t *block) {
    w->d[0] = pi2_load_half(block);
    pi2_read_code_book(w->q, block + VALUES, 16, 16, pi2_code_book_iq4);
}

PI2_BLOCK_FORMAT(iq4_nl, IQ4_NL, 18, 2, Q8_32, .halves = 0, .half_count = 1)
