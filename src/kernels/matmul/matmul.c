/* matmul.c: the list of kernels as a table, and the choice from it. */
#include "kernels/matmul/matmul.h"

#include "kernels/matmul/matmul_kernels.h"

const pi2_matmul_kernel pi2_matmul_kernels[] = {
#define KERNEL(function, format, cpu) {#function, format, cpu, function},
#include "kernels/matmul/matmul.inc"
#undef KERNEL
};
const size_t pi2_matmul_kernel_count = sizeof pi2_matmul_kernels / sizeof pi2_matmul_kernels[0];

const pi2_matmul_kernel *pi2_matmul_select(pi2_weight_type format, unsigned cpu_features) {
    const pi2_matmul_kernel *best = NULL;
    for (size_t i = 0; i < pi2_matmul_kernel_count; i++) {
        const pi2_matmul_kernel *kernel = &pi2_matmul_kernels[i];
        if (kernel->format == format && (kernel->cpu_required & ~cpu_features) == 0) best = kernel;
    }
    return best;
}
