/* powerinfer.h: PowerInfer's files as the families see them: with an ordinary Down, and checked. */
#ifndef PI2_ARCHITECTURES_POWERINFER_H
#define PI2_ARCHITECTURES_POWERINFER_H

#include "architectures/architecture.h"

/**
 * Gives the directory of a PowerInfer file a matrix blk.N.ffn_down.weight for each blk.N.ffn_down_t.weight: turned
 * round, of its own type where that is floats, else F32. In blocks Down is quantised along each neuron there, so that
 * its neurons have scales of their own and no block of an ordinary Down can hold them; their values are exact in F32.
 * Other files: nothing. Errors MEMORY.
 */
pi2_status pi2_powerinfer_directory(pi2_tensor_directory *directory);

/** Down by neuron and predictor of a layer of a PowerInfer file; other files: nothing.
 *  Errors  FORMAT (which tensor is missing or of another shape), UNSUPPORTED (of an architecture without such files) */
pi2_status pi2_powerinfer_check_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer);

#endif
