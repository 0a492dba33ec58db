/* small_rows_avx2.c: small rows as the compiler makes them for AVX2. */
#define SMALL_ROWS(name) pi2_small_rows_##name##_avx2
#include "kernels/small_rows/small_rows_template.h"
