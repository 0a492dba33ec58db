/* recurrent_avx2.c: recurrent steps with AVX2. */
#include "base/cpu_features.h"
#include "kernels/vector/lanes_avx2.h"

enum { WIDE = 2 };
#define RECURRENT_KERNELS_SYMBOL pi2_recurrent_kernels_avx2
#define RECURRENT_KERNELS_NAME "avx2"
#define RECURRENT_KERNELS_CPU PI2_CPU_AVX2
#include "kernels/recurrent/recurrent_template.h"
