/* small_rows.c: the list of kernels as a table, and the choice from it. */
#include "kernels/small_rows/small_rows_kernels.h"

const pi2_small_kernel pi2_small_kernels[] = {
#define KERNEL(name, cpu) {#name, cpu, pi2_small_rows_low_bit_##name, pi2_small_rows_int8_##name},
#include "kernels/small_rows/small_rows.inc"
#undef KERNEL
};
const size_t pi2_small_kernel_count = sizeof pi2_small_kernels / sizeof pi2_small_kernels[0];

const pi2_small_kernel *pi2_small_select(unsigned cpu_features) {
    const pi2_small_kernel *best = &pi2_small_kernels[0];
    for (size_t i = 1; i < pi2_small_kernel_count; i++) {
        if ((pi2_small_kernels[i].cpu_required & ~cpu_features) == 0) best = &pi2_small_kernels[i];
    }
    return best;
}
