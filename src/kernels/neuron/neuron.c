/* neuron.c: the list of kernels as a table, the choice from it, and when zeros may be left out. */
#include "kernels/neuron/neuron.h"

#include <math.h>

#include "kernels/neuron/neuron_kernels.h"

const pi2_neuron_kernel pi2_neuron_kernels[] = {
#define KERNEL(name, format, cpu) {#name, format, cpu, pi2_neuron_rows_##name, pi2_neuron_columns_##name},
#include "kernels/neuron/neuron.inc"
#undef KERNEL
};
const size_t pi2_neuron_kernel_count = sizeof pi2_neuron_kernels / sizeof pi2_neuron_kernels[0];

const pi2_neuron_kernel *pi2_neuron_select(pi2_weight_type format, unsigned cpu_features) {
    const pi2_neuron_kernel *best = NULL;
    for (size_t i = 0; i < pi2_neuron_kernel_count; i++) {
        const pi2_neuron_kernel *kernel = &pi2_neuron_kernels[i];
        if (kernel->format == format && (kernel->cpu_required & ~cpu_features) == 0) best = kernel;
    }
    return best;
}
