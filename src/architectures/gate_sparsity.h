/* gate_sparsity.h: which share of its Gates each layer of a gelu_topk model leaves out. */
#ifndef PI2_ARCHITECTURES_GATE_SPARSITY_H
#define PI2_ARCHITECTURES_GATE_SPARSITY_H

#include "architectures/architecture.h"

/**
 * Fills shape->gate_deviations, where the activation is gelu_topk: from PI2_KEY_GATE_SPARSITY, else from Gemma 3n's key
 * PI2_KEY_GATE_DEVIATIONS, else what Gemma 3n's first layers have, for all or for shape->cut_layers. The shape's other
 * numbers are checked.
 * Errors  UNSUPPORTED (a mixture of experts), FORMAT (type, count, a value, with the key)
 */
pi2_status pi2_gate_sparsity_read(const pi2_gguf *gguf, pi2_model_shape *shape);

#endif
