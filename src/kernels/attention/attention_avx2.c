/* attention_avx2.c: attention with AVX2, FMA and F16C. */
#include "kernels/vector/lanes_avx2.h"

#define ATTENTION_KERNELS_SYMBOL pi2_attention_kernels_avx2
#define ATTENTION_KERNELS_NAME "avx2"
#define ATTENTION_KERNELS_CPU PI2_CPU_AVX2
/* 16 registers hold four scores or sums of two registers each, what meets them, and a factor. */
#define KEY_QUERIES 4
#define KEY_TILES(queries) ((queries) == 1 ? 4 : (queries) == 2 ? 2 : 1)
#define VALUE_QUERIES 2
#define VALUE_VECTORS 2
#include "kernels/attention/attention_template.h"
