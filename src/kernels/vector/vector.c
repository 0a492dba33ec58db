/* vector.c: the list becomes declarations, then the table. */
#include "kernels/vector/vector.h"

#define VECTOR_KERNELS(name) extern const pi2_vector_kernels pi2_vector_kernels_##name;
#include "kernels/vector/vector.inc"
#undef VECTOR_KERNELS

const pi2_vector_kernels *const pi2_vector_kernel_sets[] = {
#define VECTOR_KERNELS(name) &pi2_vector_kernels_##name,
#include "kernels/vector/vector.inc"
#undef VECTOR_KERNELS
};
const size_t pi2_vector_kernel_set_count =
    sizeof pi2_vector_kernel_sets / sizeof pi2_vector_kernel_sets[0];

const pi2_vector_kernels *pi2_vector_select(unsigned cpu_features) {
    const pi2_vector_kernels *best = pi2_vector_kernel_sets[0];
    for (size_t i = 1; i < pi2_vector_kernel_set_count; i++) {
        if ((pi2_vector_kernel_sets[i]->cpu_required & ~cpu_features) == 0) {
            best = pi2_vector_kernel_sets[i];
        }
    }
    return best;
}
