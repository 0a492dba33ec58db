/* vector_avx2.c: the vector operations with AVX2, FMA and F16C. */
#include "kernels/vector/lanes_avx2.h"

#define VECTOR_KERNELS_SYMBOL pi2_vector_kernels_avx2
#define VECTOR_KERNELS_NAME "avx2"
#define VECTOR_KERNELS_CPU PI2_CPU_AVX2
#include "kernels/vector/vector_template.h"
