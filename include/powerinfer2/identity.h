/* identity.h: whose weights an engine has, and what of its options makes results differ from the exact ones. */
#ifndef POWERINFER2_IDENTITY_H
#define POWERINFER2_IDENTITY_H

#include "powerinfer2/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A number that names the weights, the same for a GGUF and a cluster file made from it: of the header, of samples
 * of every tensor, since models that were trained on have one header, and of the FFN's activation.
 * Errors  INVALID (the engine was opened without identifies_weights)
 */
PI2_API pi2_status pi2_engine_weights_hash(const pi2_engine *engine, uint64_t *hash_out);

/** In words, such as "cache q8_0" or "sparsity 0.3, predictor low_bit 0123456789abcdef", which tells predictors apart
 *  by their content; "exact": nothing does. Fewer than 120 bytes; lives as long as the engine. */
PI2_API const char *pi2_engine_arithmetic(const pi2_engine *engine);

#ifdef __cplusplus
}
#endif
#endif
