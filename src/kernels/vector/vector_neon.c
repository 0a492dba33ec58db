/* vector_neon.c: the vector operations with NEON. */
#include "kernels/vector/lanes_neon.h"

#define VECTOR_KERNELS_SYMBOL pi2_vector_kernels_neon
#define VECTOR_KERNELS_NAME "neon"
#define VECTOR_KERNELS_CPU PI2_CPU_NEON
#include "kernels/vector/vector_template.h"
