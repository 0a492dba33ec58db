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

/* Zeros and NaNs do not matter: only products too small for a float could leave a chain at -0. */
static bool none_is_below(const float *values, size_t count, float limit) {
    for (size_t i = 0; i < count; i++) {
        if (values[i] != 0.0f && fabsf(values[i]) < limit) return false;
    }
    return true;
}

bool pi2_neuron_activations_can_be_skipped(const pi2_weight_format *format, const pi2_activations *x,
                                           size_t token) {
    if (format->activation == PI2_ACTIVATION_F32) {
        return none_is_below(x->floats + token * x->float_stride, x->columns, 0x1p-53f);
    }
    if (format->type != PI2_Q4_1 && format->type != PI2_Q5_1) return true;
    return none_is_below(x->scales + token * x->block_stride, x->columns / format->block_columns, 0x1p-91f);
}
