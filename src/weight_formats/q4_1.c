/* q4_1.c: 4 bits and a least value: weight = d * q + m. The block and its tile are those of block_of_32.h. */
#include "weight_formats/block_of_32.h"

PI2_FORMAT_OF_32(q4_1, Q4_1, 2, false, 0)
