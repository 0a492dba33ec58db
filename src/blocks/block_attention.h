/* block_attention.h: what attention over all positions, over a window and latent attention share. */
#ifndef PI2_BLOCKS_BLOCK_ATTENTION_H
#define PI2_BLOCKS_BLOCK_ATTENTION_H

#include "architectures/block.h"
#include "pipeline/forward_internal.h"

/** The functions of pi2_block_kind: what a layer's attention sees is what its shape says. */
pi2_status pi2_attention_list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                              pi2_model_requests *requests);
void pi2_attention_needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                         pi2_block_needs *needs_out);
void pi2_attention_run(struct pi2_forward_walk *walk);
/** The same, of what was prepared in another set than normed_set. */
void pi2_attention_run_on(struct pi2_forward_walk *walk, const pi2_activation_set *input);
/** A stage: the queries in `q` over the layer's keys and values, into `attended`. */
void pi2_attention_attend(struct pi2_forward_walk *walk, pi2_token_tail *tail);

#endif
