/* recurrent_avx512.c: recurrent steps with AVX-512. */
#include "base/cpu_features.h"
#include "kernels/vector/lanes_avx512.h"

enum { WIDE = 4 };
#define RECURRENT_KERNELS_SYMBOL pi2_recurrent_kernels_avx512
#define RECURRENT_KERNELS_NAME "avx512"
#define RECURRENT_KERNELS_CPU (PI2_CPU_AVX2 | PI2_CPU_AVX512)
#include "kernels/recurrent/recurrent_template.h"
