/* neuron_order.h: in which order a bank holds its neurons. */
#ifndef PI2_CLUSTERS_NEURON_ORDER_H
#define PI2_CLUSTERS_NEURON_ORDER_H

#include "clusters/neuron_bank.h"
#include "statistics/neuron_statistics.h"

/** Bytes for each neuron that ordering them takes meanwhile. */
enum { PI2_NEURON_ORDER_BYTES = 8 };

/**
 * Compares statistics with the banks that they shall order. name: of their file, for error texts
 * Errors  FORMAT (of another model, or of FFNs of another size)
 */
pi2_status pi2_neuron_order_check(const pi2_neuron_statistics *statistics, const char *name, uint64_t model_hash,
                                  const pi2_neuron_banks *banks);

/**
 * The order of a bank's neurons: that of the statistics where they have one; else hot neurons first, the fewest that
 * give four fifths of the firings, most frequent first (of equal ones the lower number), then the others in the model's
 * order. Without statistics, or where nothing was counted: the model's order.
 *
 * statistics  in   passed pi2_neuron_order_check(); NULL: none
 * order       out  shape [bank's neuron_count]: order[place] = neuron
 * Errors  MEMORY
 */
pi2_status pi2_neuron_order_make(const pi2_neuron_statistics *statistics, const pi2_neuron_bank *bank, uint32_t *order);

#endif
