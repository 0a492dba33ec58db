/* neuron_order.h: in which order a bank holds its neurons. */
#ifndef PI2_CLUSTERS_NEURON_ORDER_H
#define PI2_CLUSTERS_NEURON_ORDER_H

#include "clusters/neuron_bank.h"
#include "statistics/neuron_statistics.h"

/** Bytes for each neuron that ordering them takes meanwhile. */
enum { PI2_NEURON_ORDER_BYTES = 48 };

/**
 * Compares statistics with the banks that they shall order. name: of their file, for error texts
 * Errors  FORMAT (of another model, or of FFNs of another size)
 */
pi2_status pi2_neuron_order_check(const pi2_neuron_statistics *statistics, const char *name, uint64_t model_hash,
                                  const pi2_neuron_banks *banks);

/**
 * The order of a bank's neurons: that of the statistics where they have one; else the most frequent first, of equal
 * ones the lower number. With at least 64 samples only the hot ones lie so, the fewest that give four fifths of the
 * firings; the others form a chain, from the most frequent on: after each neuron the one that fires in the same samples
 * most, of what is left. Without statistics, or where nothing was counted: the model's order.
 *
 * statistics  in   passed pi2_neuron_order_check(); NULL: none
 * order       out  shape [bank's neuron_count]: order[place] = neuron
 * Errors  MEMORY
 */
pi2_status pi2_neuron_order_make(const pi2_neuron_statistics *statistics, const pi2_neuron_bank *bank, uint32_t *order);

/** The same without chains, which take the square of the neurons: for who asks which are hot. */
pi2_status pi2_neuron_order_estimate(const pi2_neuron_statistics *statistics, const pi2_neuron_bank *bank,
                                     uint32_t *order);

#endif
