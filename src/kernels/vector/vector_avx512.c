/* vector_avx512.c: the vector operations with AVX-512 F, BW, DQ and VL. */
#include "kernels/vector/lanes_avx512.h"

#define VECTOR_KERNELS_SYMBOL pi2_vector_kernels_avx512
#define VECTOR_KERNELS_NAME "avx512"
#define VECTOR_KERNELS_CPU (PI2_CPU_AVX2 | PI2_CPU_AVX512)
#include "kernels/vector/vector_template.h"
