/* neuron_bank_verify.h: proves that a file's banks of neurons hold what its tiles hold. */
#ifndef PI2_CLUSTERS_NEURON_BANK_VERIFY_H
#define PI2_CLUSTERS_NEURON_BANK_VERIFY_H

#include "clusters/neuron_bank.h"
#include "powerinfer2/callbacks.h"

/**
 * Reads every head and unit of every bank, compares checksums, and rebuilds each Up row and Down column from them: they
 * must be, bit for bit, what the tiles give back. It holds one head and some MB.
 *
 * gguf, layout, banks  in  the cluster file and what it says; its extents' checksums are compared too
 * callbacks            in  progress: "comparing neurons", bytes of tiles; NULL: none
 * Errors  FORMAT (file, layer, tensor or byte offset of the first difference), IO, MEMORY, INTERRUPTED
 */
pi2_status pi2_neuron_banks_verify(const pi2_gguf *gguf, const pi2_extent_layout *layout, const pi2_neuron_banks *banks,
                                   const pi2_callbacks *callbacks);

#endif
