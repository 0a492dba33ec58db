/* activations_quantize.c: one token's activations through the vector kernels. */
#include <assert.h>
#include <stdatomic.h>

#include "base/cpu_features.h"
#include "kernels/activations.h"
#include "kernels/vector/vector.h"

/* The features of a process never change, so threads that race here store one value. */
static const pi2_vector_kernels *selected_kernels(void) {
    static _Atomic(const pi2_vector_kernels *) selected;
    const pi2_vector_kernels *kernels = atomic_load_explicit(&selected, memory_order_relaxed);
    if (!kernels) {
        kernels = pi2_vector_select(pi2_cpu_features());
        atomic_store_explicit(&selected, kernels, memory_order_relaxed);
    }
    return kernels;
}

/* The caller owns the memory behind the read-only pointers: pi2_activations_layout() set them. */
void pi2_activations_quantize(pi2_activations *activations, size_t token, size_t column_begin,
                              size_t column_count, const float *x) {
    assert(token < activations->token_count);
    assert(column_begin + column_count <= activations->columns);
    if (activations->kind == PI2_ACTIVATION_F32) return; /* read where they are */
    const size_t scale_columns = activations->kind == PI2_ACTIVATION_Q8_256 ? 256 : 32;
    const size_t sum_columns = activations->kind == PI2_ACTIVATION_Q8_256 ? 16 : 32;
    assert(column_begin % scale_columns == 0 && column_count % scale_columns == 0);

    signed char *values = (signed char *)activations->values +
                          token * activations->value_stride + column_begin;
    float *scales = (float *)activations->scales + token * activations->block_stride +
                    column_begin / scale_columns;
    short *sums = (short *)activations->sums + token * activations->sum_stride +
                  column_begin / sum_columns;
    const pi2_vector_kernels *kernels = selected_kernels();
    if (activations->kind == PI2_ACTIVATION_Q8_256) {
        kernels->quantize_q8_256(values, scales, sums, x, column_count);
    } else {
        kernels->quantize_q8_32(values, scales, sums, x, column_count);
    }
}
