/* training_neon.c: what training computes with NEON. */
#include "base/cpu_features.h"
#include "kernels/vector/lanes_neon.h"

enum { ROWS = 6, WIDE = 1 };
#define TRAINING_KERNELS_SYMBOL pi2_training_kernels_neon
#define TRAINING_KERNELS_NAME "neon"
#define TRAINING_KERNELS_CPU PI2_CPU_NEON
#include "kernels/training/training_template.h"
