/* recurrent_neon.c: recurrent steps with NEON. */
#include "base/cpu_features.h"
#include "kernels/vector/lanes_neon.h"

enum { WIDE = 2 };
#define RECURRENT_KERNELS_SYMBOL pi2_recurrent_kernels_neon
#define RECURRENT_KERNELS_NAME "neon"
#define RECURRENT_KERNELS_CPU PI2_CPU_NEON
#include "kernels/recurrent/recurrent_template.h"
