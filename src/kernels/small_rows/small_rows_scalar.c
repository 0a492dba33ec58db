/* small_rows_scalar.c: small rows on any CPU: the specification. */
#define SMALL_ROWS(name) pi2_small_rows_##name##_scalar
#include "kernels/small_rows/small_rows_template.h"
