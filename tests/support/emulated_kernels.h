/* emulated_kernels.h: kernels with a step that this CPU may lack put together from others. */
#ifndef PI2_TESTS_SUPPORT_EMULATED_KERNELS_H
#define PI2_TESTS_SUPPORT_EMULATED_KERNELS_H

#include "kernels/matmul/matmul.h"

/** Not in the library's list. `cpu_required` is what they need so; count is 0 but on x86-64. */
extern const pi2_matmul_kernel test_emulated_kernels[];
extern const size_t test_emulated_kernel_count;

#endif
