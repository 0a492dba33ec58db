/* matmul_blocks_neon_dotprod.c: matmul_blocks_template.h in vectors of 4 rows, for NEON with its int8 dot product. */
#include "weight_formats/block_lanes_neon.h"

#define BLOCKS_SUFFIX dotprod
#define UNROLLED_UNITS /* there are too few registers */
#include "kernels/matmul/matmul_blocks_template.h"
