/* q4_0.c: 4 bits around 8: weight = d * (q - 8). The block and its tile are those of block_of_32.h. */
#include "weight_formats/block_of_32.h"

PI2_FORMAT_OF_32(q4_0, Q4_0, 1, false, 8)
