/* block_attention.h: what attention over all positions and over a window share. */
#ifndef PI2_BLOCKS_BLOCK_ATTENTION_H
#define PI2_BLOCKS_BLOCK_ATTENTION_H

#include "architectures/block.h"

/** The functions of pi2_block_kind: what a layer's attention sees is what its shape says. */
pi2_status pi2_attention_list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                              pi2_model_requests *requests);
void pi2_attention_needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                         pi2_block_needs *needs_out);
void pi2_attention_run(struct pi2_forward_walk *walk);

#endif
