/* matmul_blocks_avx512.c: matmul_blocks_template.h in vectors of 16 rows, for AVX-512 with VNNI. */
#include "weight_formats/block_lanes_avx512.h"

#define BLOCKS_SUFFIX avx512
#define UNROLLED_UNITS UNROLLED
#include "kernels/matmul/matmul_blocks_template.h"
