/* matmul_blocks_avx2.c: matmul_blocks_template.h in vectors of 8 rows, for AVX2. */
#include "weight_formats/block_lanes_avx2.h"

#define BLOCKS_SUFFIX avx2
#define UNROLLED_UNITS UNROLLED
#include "kernels/matmul/matmul_blocks_template.h"
