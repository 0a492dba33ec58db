/* small_rows_avx512.c: small rows as the compiler makes them for AVX-512. */
#define SMALL_ROWS(name) pi2_small_rows_##name##_avx512
#include "kernels/small_rows/small_rows_template.h"
