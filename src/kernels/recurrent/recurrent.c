/* recurrent.c: the list as a table, and what is computed once for a head. */
#include "kernels/recurrent/recurrent.h"

#include "kernels/vector/vector.h"

#define RECURRENT_KERNELS(name) extern const pi2_recurrent_kernels pi2_recurrent_kernels_##name;
#include "kernels/recurrent/recurrent.inc"
#undef RECURRENT_KERNELS

const pi2_recurrent_kernels *const pi2_recurrent_kernel_sets[] = {
#define RECURRENT_KERNELS(name) &pi2_recurrent_kernels_##name,
#include "kernels/recurrent/recurrent.inc"
#undef RECURRENT_KERNELS
};
const size_t pi2_recurrent_kernel_set_count = sizeof pi2_recurrent_kernel_sets / sizeof pi2_recurrent_kernel_sets[0];

const pi2_recurrent_kernels *pi2_recurrent_select(unsigned cpu_features) {
    const pi2_recurrent_kernels *best = pi2_recurrent_kernel_sets[0];
    for (size_t i = 1; i < pi2_recurrent_kernel_set_count; i++) {
        if ((pi2_recurrent_kernel_sets[i]->cpu_required & ~cpu_features) == 0) best = pi2_recurrent_kernel_sets[i];
    }
    return best;
}

float pi2_softplus_decay(float x, float rate) {
    return (float)pi2_pow(1.0 + (double)pi2_expf(x), (double)rate);
}

float pi2_softplus(float x) {
    return x > 20.0f ? x : (float)pi2_log(1.0 + (double)pi2_expf(x));
}
