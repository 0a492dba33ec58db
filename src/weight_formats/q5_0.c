/* q5_0.c: 5 bits around 16: weight = d * (q - 16). The block and its tile are those of block_of_32.h. */
#include "weight_formats/block_of_32.h"

PI2_FORMAT_OF_32(q5_0, Q5_0, 1, true, 16)
