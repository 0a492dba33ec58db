/* neuron_kernels.h: prototypes of every neuron kernel, from the list. */
#ifndef PI2_KERNELS_NEURON_NEURON_KERNELS_H
#define PI2_KERNELS_NEURON_NEURON_KERNELS_H

#include "base/cpu_features.h"
#include "kernels/neuron/neuron.h"

#define KERNEL(name, format, cpu)             \
    pi2_neuron_rows_fn pi2_neuron_rows_##name; \
    pi2_neuron_columns_fn pi2_neuron_columns_##name;
#include "kernels/neuron/neuron.inc"
#undef KERNEL

#endif
