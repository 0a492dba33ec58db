/* attention_neon.c: attention with NEON. */
#include "kernels/vector/lanes_neon.h"

#define ATTENTION_KERNELS_SYMBOL pi2_attention_kernels_neon
#define ATTENTION_KERNELS_NAME "neon"
#define ATTENTION_KERNELS_CPU PI2_CPU_NEON
/* 32 registers hold four scores or sums of four registers each, what meets them, a factor. */
#define KEY_QUERIES 4
#define KEY_TILES(queries) ((queries) == 1 ? 4 : (queries) == 2 ? 2 : 1)
#define VALUE_QUERIES 4
#define VALUE_VECTORS 1
#include "kernels/attention/attention_template.h"
