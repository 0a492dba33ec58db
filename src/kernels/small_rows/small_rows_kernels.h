/* small_rows_kernels.h: prototypes of every kernel of small rows, from the list. */
#ifndef PI2_KERNELS_SMALL_ROWS_SMALL_ROWS_KERNELS_H
#define PI2_KERNELS_SMALL_ROWS_SMALL_ROWS_KERNELS_H

#include "base/cpu_features.h"
#include "kernels/small_rows/small_rows.h"

#define KERNEL(name, cpu)                            \
    pi2_small_low_bit_fn pi2_small_rows_low_bit_##name; \
    pi2_small_int8_fn pi2_small_rows_int8_##name;
#include "kernels/small_rows/small_rows.inc"
#undef KERNEL

#endif
