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
/** The same of keys alone: vocabulary, tied head and ungated FFN are not told. Errors as above */
pi2_status pi2_decoder_read_keys(const pi2_tensor_directory *model, pi2_model_shape *shape_out);

/** The norms of the residual stream are LayerNorm, with an epsilon of their own key. Errors FORMAT (the key). */
pi2_status pi2_decoder_use_layer_norm(const pi2_tensor_directory *model, pi2_model_shape *shape);

/** Taps of convolutions, by a key of the family's. Errors FORMAT (the key). */
pi2_status pi2_decoder_read_taps(const pi2_tensor_directory *model, pi2_model_shape *shape, const char *suffix);
/** How a router's scores become weights: what expert_gating_func says, else `fallback`. Errors UNSUPPORTED. */
pi2_status pi2_decoder_read_gating(const pi2_tensor_directory *model, pi2_model_shape *shape,
                                   pi2_expert_gating fallback);
/** The same, and what becomes of the weights of those that are chosen: expert_weights_norm, expert_weights_scale.
 *  Errors FORMAT (the key), UNSUPPORTED. */
pi2_status pi2_decoder_read_weighing(const pi2_tensor_directory *model, pi2_model_shape *shape,
                                     pi2_expert_gating fallback);
/** So many of the first layers have a dense FFN in place of experts: not all. Errors FORMAT (the key). */
pi2_status pi2_decoder_read_leading(const pi2_tensor_directory *model, pi2_model_shape *shape);
/** An FFN beside the experts that is as long as so many of those; 0: there is none. Errors FORMAT (the key). */
pi2_status pi2_decoder_read_shared_count(const pi2_tensor_directory *model, pi2_model_shape *shape);
/** State spaces (Mamba 2) and delta nets, which keys call the same. what: for the message; is_square: a head keeps as
 *  many directions as it has values. Errors FORMAT (the key). */
pi2_status pi2_decoder_read_mix(const pi2_tensor_directory *model, pi2_model_shape *shape, const char *what,
                                bool is_square);
/** An FFN beside the experts, of a length of its own: layers' feed_forward_length is that. Errors FORMAT (the key). */
pi2_status pi2_decoder_read_shared(const pi2_tensor_directory *model, pi2_model_shape *shape);
/** What the Gemmas have in common: norms before and behind blocks, a scaled embedding, halves rotated against each
 *  other, and in the model of so many layers scores that are scaled by the embedding's share of a head. */
void pi2_decoder_be_gemma(pi2_model_shape *shape, uint32_t layers_of_27b);

/** The number of the layer that guesses a further token, in a file whose family has one that is computed and that has
 *  its tensors; 0: there is none. Errors FORMAT (keys) */
pi2_status pi2_decoder_find_next(const pi2_gguf *gguf, uint32_t *layer_out);

/**
 * Of a model that has rotations for short contexts and others for long ones ("longrope") the short ones: the context is
 * held to what they are for. original: that, where the file does not say it. Nothing where the file has none.
 * Errors FORMAT
 */
pi2_status pi2_decoder_read_short_rope(const pi2_tensor_directory *model, pi2_model_shape *shape, uint32_t original);

/**
 * A hybrid's layer attends where it has key-value heads, else it has the block `mix`, whose first matrix is `first`;
 * nothing more yet. Where the key says another thing than the layer's matrices, these are right: converters wrote one
 * number for all layers, or none but zeros. The family's read_shape calls pi2_decoder_find_heads() for the latter.
 */
void pi2_decoder_mix_or_attend(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                               pi2_block_id mix, const char *first, pi2_layer_shape *layer);
void pi2_decoder_find_heads(const pi2_tensor_directory *model, pi2_model_shape *shape);
/** Appends the FFN of layer `number`: a dense one where the model has no experts or the layer is one of the leading
 *  ones, else router and experts, with the FFN beside them where the model has one. */
void pi2_decoder_add_ffn(pi2_layer_shape *layer, const pi2_model_shape *shape, uint32_t number);

/** What a layer is made of by the shape alone: attention that sees everything, then the FFN or the experts. */
void pi2_decoder_layer(const pi2_model_shape *shape, uint32_t number, pi2_layer_shape *layer_out);
/** The layer's attention sees `window` positions. */
void pi2_decoder_set_window(pi2_layer_shape *layer, uint32_t window);

/**
 * Windows: how many positions, and a rotation of their own (local_rope: the model's, with a base of its own key; the
 * family says what of its scaling stays). fallback: of files that do not say how many; 0: then there are none.
 */
pi2_status pi2_decoder_read_window(const pi2_tensor_directory *model, pi2_model_shape *shape, uint32_t fallback);
/** The layers from shape->keyed_layers on use keys and values of the last two before: of those with a window, of those
 *  without. fallback: how many, where the file does not say. Errors FORMAT (the key). */
pi2_status pi2_decoder_read_shared_keys(const pi2_tensor_directory *model, pi2_model_shape *shape, uint32_t fallback);
/** Layers with a rotation of their own are rotated as if the model's context had not been stretched. */
void pi2_decoder_unscale_local_rope(pi2_model_shape *shape);
/** Gives layer `number` a window where it has one: all but the last of each `period`, unless the metadata says
 *  otherwise. has_window_out: may be NULL. */
pi2_status pi2_decoder_read_layer_window(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                         uint32_t number, uint32_t period, pi2_layer_shape *layer,
                                         bool *has_window_out);

/** Names the tensors of the layers' blocks, the embedding and the head. Free with pi2_model_requests_free(), after an
 *  error too. Errors FORMAT (one that is missing or of another shape), UNSUPPORTED (one we cannot honour), MEMORY. */
pi2_status pi2_decoder_list_tensors(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                    pi2_model_requests *requests_out);

/* ---- for blocks: naming tensors ---- */

/** Appends a group of a layer. */
pi2_group_request *pi2_requests_group(pi2_model_requests *requests, pi2_group_kind kind, uint32_t layer);
/** Appends a matrix to a group: what its layer calls `name`. Errors FORMAT: it is missing or of another shape. */
pi2_status pi2_requests_matrix(const pi2_tensor_directory *model, pi2_group_request *request, pi2_matrix_role role,
                               const char *name, uint64_t columns, uint64_t rows);
/** Appends a vector of floats, which must be there unless the caller says otherwise. */
pi2_table_request *pi2_requests_table(const pi2_tensor_directory *model, pi2_model_requests *requests,
                                      pi2_table_role role, uint32_t layer, const char *name, uint32_t length);
/** Appends a matrix whose rows stay in memory as floats, one behind another, and which must be there. */
void pi2_requests_rows(const pi2_tensor_directory *model, pi2_model_requests *requests, pi2_table_role role,
                       uint32_t layer, const char *name, uint32_t length, uint32_t rows);
/** Appends a norm of the residual stream, "<stem>.weight", with its bias where the model's norms have one. */
void pi2_requests_norm(const pi2_tensor_directory *model, const pi2_model_shape *shape, pi2_model_requests *requests,
                       pi2_table_role role, uint32_t layer, const char *stem);

/** The norms of a layer's attention, or of what stands in its place; and of its FFN: before them, and behind them. */
void pi2_requests_attention_norms(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                  pi2_model_requests *requests, uint32_t layer);
void pi2_requests_ffn_norms(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                            pi2_model_requests *requests, uint32_t layer);

/** For families that have no experts. Errors UNSUPPORTED when the metadata says that there are some. */
pi2_status pi2_decoder_refuse_experts(const pi2_tensor_directory *model, const pi2_model_shape *shape);
/** For families that are nothing without experts. Errors FORMAT. */
pi2_status pi2_decoder_require_experts(const pi2_tensor_directory *model, const pi2_model_shape *shape);

#endif
