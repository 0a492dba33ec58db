/* neuron_bundles.h: bundles of a bank outside of passes, in the model's order of neurons: to compare or copy them. */
#ifndef PI2_CLUSTERS_NEURON_BUNDLES_H
#define PI2_CLUSTERS_NEURON_BUNDLES_H

#include "clusters/neuron_bank.h"
#include "store/weight_file.h"

/** One bank at work. Closed when zeroed. */
typedef struct pi2_neuron_bundles {
    const pi2_neuron_bank *bank;
    const uint8_t *head;             /* read and checked */
    const uint8_t *bundles;          /* [count][bundle_bytes]: of the neurons [first, first + count) */
    uint32_t first, count;
    uint32_t step;                   /* neurons that one fetch may ask for: whole blocks of Down */
    pi2_weight_file *file;
    uint32_t *place_of;              /* [neuron_count] */
    uint8_t *memory, *head_memory, *units; /* of bundles; of the head and of reads, with their slack */
    size_t unit_bytes;               /* of `units`, without it */
} pi2_neuron_bundles;

/** Takes about 2 MB beside the head, which is read. file: open; it and bank outlive the bundles.
 *  Errors  IO, FORMAT (the head's checksum, an order that is none), MEMORY: it is closed */
pi2_status pi2_neuron_bundles_open(pi2_neuron_bundles *bundles, pi2_weight_file *file, const pi2_neuron_bank *bank);
void pi2_neuron_bundles_close(pi2_neuron_bundles *bundles);

/** Fetches some neurons' bundles, at most `step`, unless they are there. Units are compared with their checksums.
 *  Errors  IO, FORMAT (unit, byte offset) */
pi2_status pi2_neuron_bundles_fetch(pi2_neuron_bundles *bundles, uint32_t first, uint32_t count);

#endif
