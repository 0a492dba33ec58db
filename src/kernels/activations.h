/* activations.h: a batch of activation vectors as weight kernels take them. */
#ifndef PI2_KERNELS_ACTIVATIONS_H
#define PI2_KERNELS_ACTIVATIONS_H

#include <stddef.h>
#include <stdint.h>

#include "weight_formats/weight_format.h"

/**
 * token_count vectors of `columns` floats, quantised once and used by every matrix that
 * reads them. Only the members of its kind are set. All pointers are 64-byte aligned and
 * belong to the caller.
 *
 *   Q8_32:  block of 32:  scale = max|x| / 127, value = round to nearest even (x / scale)
 *   Q8_256: block of 256: the same over 256
 * A block of zeros has scale 0 and values 0. Sums are of the int8 values, so exact.
 */
typedef struct pi2_activations {
    pi2_activation_kind kind;
    uint32_t token_count;
    uint32_t columns;        /* multiple of the kind's block */
    size_t value_stride;     /* bytes between tokens in values: columns rounded up to 64 */
    size_t block_stride;     /* floats between tokens in scales: blocks rounded up to 16 */
    size_t sum_stride;       /* entries between tokens in sums */
    const int8_t *values;    /* Q8: [token][columns] */
    const float *scales;     /* Q8: [token][blocks] */
    const int16_t *sums;     /* Q8_32: [token][columns / 32]; Q8_256: [token][columns / 16] */
    size_t float_stride;     /* floats between tokens in floats */
    const float *floats;     /* F32: [token][columns] */
} pi2_activations;

/** Bytes that pi2_activations_layout() needs for this shape; a multiple of 64. F32: 0. */
size_t pi2_activations_bytes(pi2_activation_kind kind, size_t token_count, size_t columns);

/**
 * Points the members of `activations` into `memory` (pi2_activations_bytes() of it, 64-byte
 * aligned) and sets the strides. F32: memory is not used; set floats and float_stride yourself.
 */
void pi2_activations_layout(pi2_activations *activations, pi2_activation_kind kind,
                            size_t token_count, size_t columns, void *memory);

/**
 * Quantises the column_count floats at x into the slot of `token` (0 .. token_count - 1), as its
 * columns column_begin .. column_begin + column_count (multiples of the block).
 * A block with an infinity or a NaN gets scale NaN. F32: nothing to do. Threads: distinct
 * tokens or column ranges may be quantised at the same time. Every ISA gives equal bits.
 */
void pi2_activations_quantize(pi2_activations *activations, size_t token, size_t column_begin,
                              size_t column_count, const float *x);
#endif
