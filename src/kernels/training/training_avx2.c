/* training_avx2.c: what training computes with AVX2 and FMA. */
#include "base/cpu_features.h"
#include "kernels/vector/lanes_avx2.h"

enum { ROWS = 6, WIDE = 1 };
#define TRAINING_KERNELS_SYMBOL pi2_training_kernels_avx2
#define TRAINING_KERNELS_NAME "avx2"
#define TRAINING_KERNELS_CPU PI2_CPU_AVX2
#include "kernels/training/training_template.h"
