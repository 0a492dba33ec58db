/* q5_1.c: 5 bits and a least value: weight = d * q + m. The block and its tile are those of block_of_32.h. */
#include "weight_formats/block_of_32.h"

PI2_FORMAT_OF_32(q5_1, Q5_1, 2, true, 0)
