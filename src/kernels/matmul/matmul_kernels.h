/* matmul_kernels.h: prototypes of every kernel in the list. */
#ifndef PI2_KERNELS_MATMUL_MATMUL_KERNELS_H
#define PI2_KERNELS_MATMUL_MATMUL_KERNELS_H

#include "base/cpu_features.h"
#include "kernels/matmul/matmul.h"

#define KERNEL(function, format, cpu) pi2_matmul_fn function;
#include "kernels/matmul/matmul.inc"
#undef KERNEL

#endif
