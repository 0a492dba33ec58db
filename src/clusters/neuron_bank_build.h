/* neuron_bank_build.h: makes the units and the head of a bank of neurons out of a GGUF's rows. */
#ifndef PI2_CLUSTERS_NEURON_BANK_BUILD_H
#define PI2_CLUSTERS_NEURON_BANK_BUILD_H

#include "clusters/extent_build.h"
#include "clusters/neuron_bank.h"
#include "weight_formats/neuron_form.h"

/** Which units of a bank are built, and where. */
typedef struct pi2_neuron_bank_part {
    const pi2_neuron_bank *bank;
    const uint32_t *place_of;        /* shape [neuron_count]: place_of[neuron], the inverse of the head's order */
    uint32_t first_unit, unit_count; /* unit_count may be 0: the head alone */
    uint8_t *units;                  /* out, unit_count * unit_bytes, aligned to 64 */
    uint8_t *head;                   /* out: its scales; NULL: they are there already */
} pi2_neuron_bank_part;

/** Rows of Down that the builder's scratch memory must hold: what the column form puts together. */
enum { PI2_NEURON_BANK_LEAST_ROWS = PI2_NEURON_GROUP_ROWS };

/**
 * Reads the bank's matrices of its layer or expert once, wholly or as far as the part needs them.
 * *can_be_skipped_out: whether every weight that was read is one that a sum may leave out where it is multiplied with
 *         zero (pi2_neuron_weights_can_be_skipped); where head is given, that is all of them
 * Errors  IO (file, tensor, byte offset). What was written by then is undefined.
 */
pi2_status pi2_neuron_bank_build(pi2_extent_builder *builder, const pi2_neuron_bank_part *part,
                                 bool *can_be_skipped_out);

#endif
