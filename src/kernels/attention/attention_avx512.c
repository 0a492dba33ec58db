/* attention_avx512.c: attention with AVX-512 F, BW, DQ and VL. */
#include "kernels/vector/lanes_avx512.h"

#define ATTENTION_KERNELS_SYMBOL pi2_attention_kernels_avx512
#define ATTENTION_KERNELS_NAME "avx512"
#define ATTENTION_KERNELS_CPU (PI2_CPU_AVX2 | PI2_CPU_AVX512)
/* 32 registers hold up to 16 tiles' scores, their keys and a query. */
#define KEY_QUERIES 8
#define KEY_TILES(queries) ((queries) <= 4 ? 4 : 2)
#define VALUE_QUERIES 4
#define VALUE_VECTORS 4
#include "kernels/attention/attention_template.h"
