/*
 * neuron.h: single neurons of a feed-forward network times activations, from the neuron form
 * (weight_formats/neuron_form.h), with the bits of the dense tile kernels (matmul.h).
 *
 * Gate is computed dense. Of Up only the rows of neurons that may fire are computed; of Down only
 * the columns of neurons whose quantised activation is not 0. What is left out adds nothing to an
 * exact integer, or leaves a chain of floats as it is: docs/arithmetic.md, "Neurons that do not fire".
 */
#ifndef PI2_KERNELS_NEURON_NEURON_H
#define PI2_KERNELS_NEURON_NEURON_H

#include <stdbool.h>

#include "kernels/activations.h"
#include "weight_formats/neuron_form.h"

/**
 * out[j] = the whole chain of row j over x's columns for `token`, from +0: what pi2_matmul_fn with
 * start gives for that row.
 *
 *   values, scales  `count` pointers to rows in row form, of any alignment; of floats scales is unused
 *   columns         of each row, and of x
 * Threads: calls that write different floats may run at the same time.
 */
typedef void pi2_neuron_rows_fn(float *out, size_t count, const uint8_t *const *values,
                                const uint8_t *const *scales, size_t columns, const pi2_activations *x,
                                size_t token);

/** One block of columns of Down: 32 or 256 neurons; of floats one neuron. */
typedef struct pi2_neuron_block {
    const uint8_t *scales; /* its scale block, of all rows, 64-byte aligned; floats: unused */
    float scale;           /* of its activations; floats: the neuron's activation itself */
    uint32_t first, count; /* its active neurons in the arrays of pi2_neuron_columns; floats: 1 */
} pi2_neuron_block;

/**
 * The neurons of Down that take part, for one token. A block must be listed when one of its
 * activations is not 0, or when its scale is a NaN (then its values are 0 and count may be 0).
 * Any other block, and any neuron with activation 0, may be listed: it changes nothing.
 */
typedef struct pi2_neuron_columns {
    size_t rows; /* of Down: what each column in column form has */
    size_t block_count;
    const pi2_neuron_block *blocks; /* ascending */
    const uint8_t *const *values;   /* of each active neuron its column's values, of any alignment */
    const int8_t *activations;      /* of each active neuron; floats: unused */
    const uint8_t *places;          /* its place in its block, ascending within a block; floats: unused */
} pi2_neuron_columns;

/**
 * Continues the chains out[row_begin .. row_begin + row_count - 1] over the given blocks, ascending,
 * or starts them at +0 when `start`.
 *
 *   out        the chains of all rows: out[r] belongs to row r
 *   row_begin  a multiple of PI2_NEURON_GROUP_ROWS; multiples of 128 are fastest
 * Threads: calls for different rows may run at the same time; sums are never split.
 */
typedef void pi2_neuron_columns_fn(float *out, size_t row_begin, size_t row_count,
                                   const pi2_neuron_columns *x, bool start);

typedef struct pi2_neuron_kernel {
    const char *name;
    pi2_weight_type format;
    unsigned cpu_required;
    pi2_neuron_rows_fn *rows;
    pi2_neuron_columns_fn *columns;
} pi2_neuron_kernel;

extern const pi2_neuron_kernel pi2_neuron_kernels[];
extern const size_t pi2_neuron_kernel_count;

/** The best kernels of a format for the CPU features; the scalar ones are the specification. */
const pi2_neuron_kernel *pi2_neuron_select(pi2_weight_type format, unsigned cpu_features);

#endif
