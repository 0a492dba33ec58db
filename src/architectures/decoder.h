/*
 * decoder.h: what the supported families share: pre-norm decoders with grouped-query attention and
 * an FFN, gated or not, dense or of experts. A family fills in what the metadata does not say.
 */
#ifndef PI2_ARCHITECTURES_DECODER_H
#define PI2_ARCHITECTURES_DECODER_H

#include "architectures/architecture.h"

/**
 * Reads the keys that every family has; feed_forward_length may be missing when there are experts.
 * The rest of the shape is zero: SiLU, softmax gating, adjacent pairs, RMS norms, no norms of heads, the FFN after
 * attention. A family whose norms are LayerNorm asks for their epsilon too.
 * Errors  FORMAT, UNSUPPORTED
 */
pi2_status pi2_decoder_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape_out);

/** The norms of the residual stream are LayerNorm, with an epsilon of their own key. Errors FORMAT (the key). */
pi2_status pi2_decoder_use_layer_norm(const pi2_tensor_directory *model, pi2_model_shape *shape);

/** Names the tensors that the shape asks for. Errors FORMAT, UNSUPPORTED (a tensor we cannot honour), MEMORY. */
pi2_status pi2_decoder_list_tensors(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                    pi2_model_requests *requests_out);

/** For families that have no experts. Errors UNSUPPORTED when the metadata says that there are some. */
pi2_status pi2_decoder_refuse_experts(const pi2_tensor_directory *model, const pi2_model_shape *shape);
/** For families that are nothing without experts. Errors FORMAT. */
pi2_status pi2_decoder_require_experts(const pi2_tensor_directory *model, const pi2_model_shape *shape);

#endif
