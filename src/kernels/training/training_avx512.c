/* training_avx512.c: what training computes with AVX-512 F, BW, DQ and VL. */
#include "base/cpu_features.h"
#include "kernels/vector/lanes_avx512.h"

enum { ROWS = 12, WIDE = 2 };
#define TRAINING_KERNELS_SYMBOL pi2_training_kernels_avx512
#define TRAINING_KERNELS_NAME "avx512"
#define TRAINING_KERNELS_CPU (PI2_CPU_AVX2 | PI2_CPU_AVX512)
#include "kernels/training/training_template.h"
