/* decoder.c: keys and tensors that the families of decoders have in common. */
#include "architectures/decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "kernels/recurrent/recurrent.h"

enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2 }; /* expert_gating_func */

/* What a layer that guesses a further token may have of its own, in place of the model's. */
static const char own_rows[] = "nextn.embed_tokens.weight", own_head[] = "nextn.shared_head_head.weight",
                  own_norm[] = "nextn.shared_head_norm.weight";

/* A key that must be there: the largest of its numbers, where it has one for each layer. */
static pi2_status read_most(const pi2_tensor_directory *model, const char *name, const char *suffix, uint32_t *value) {
    char key[128];
    (void)snprintf(key, sizeof key, "%s.%s", name, suffix);
    if (!pi2_gguf_is_array(model->gguf, key)) return pi2_architecture_u32(model, name, suffix, value);
    return pi2_architecture_layer_u32_or(model, name, suffix, UINT32_MAX, 0, value);
}

static pi2_status read_attention(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(read_most(model, name, "attention.head_count", &shape->head_count));
    PI2_TRY(pi2_architecture_layer_u32_or(model, name, "attention.head_count_kv", UINT32_MAX, shape->head_count,
                                          &shape->head_count_kv));
    PI2_TRY(pi2_architecture_f32_or(model, name, "attention.layer_norm_rms_epsilon", 1e-5f,
                                    &shape->norm_epsilon));
    const uint32_t head = shape->head_count ? shape->embedding_length / shape->head_count : 0;
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.key_length", head, &shape->key_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.value_length", head, &shape->value_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "rope.dimension_count", shape->key_length,
                                    &shape->rope.dimensions));
    shape->rope.pairing = PI2_ROPE_NORM;
    shape->attention_scale = shape->key_length ? 1.0f / sqrtf((float)shape->key_length) : 1.0f;
    return pi2_architecture_read_rope(model, name, &shape->rope);
}

/* A group is as good as its two best experts, so it has two. */
static pi2_status read_expert_groups(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_group_count", 0, &shape->expert_groups));
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_group_used_count", 0, &shape->expert_groups_used));
    const uint64_t groups = shape->expert_groups, used = shape->expert_groups_used, experts = shape->expert_count;
    if (groups <= 1) return PI2_OK;
    if (groups <= PI2_MOST_EXPERT_GROUPS && experts % groups == 0 && experts / groups >= 2 && used >= 1 &&
        used <= groups && experts / groups * used >= shape->expert_used_count) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.expert_group_count is %u, of which expert_group_used_count %u: these are "
                    "no groups of %u experts, %u of which are used", pi2_gguf_file_path(model->gguf, 0), name,
                    shape->expert_groups, shape->expert_groups_used, shape->expert_count, shape->expert_used_count);
}

static pi2_status read_feed_forward(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_count", 0, &shape->expert_count));
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_used_count", 0, &shape->expert_used_count));
    if (shape->expert_count == 0) {
        return read_most(model, name, "feed_forward_length", &shape->feed_forward_length);
    }
    if (shape->expert_used_count == 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.expert_used_count is missing or 0, with %u experts",
                        pi2_gguf_file_path(model->gguf, 0), name, shape->expert_count);
    }
    PI2_TRY(pi2_architecture_layer_u32_or(model, name, "feed_forward_length", UINT32_MAX, 0,
                                          &shape->feed_forward_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_feed_forward_length", shape->feed_forward_length,
                                    &shape->expert_feed_forward_length));
    if (shape->feed_forward_length == 0) shape->feed_forward_length = shape->expert_feed_forward_length;
    return read_expert_groups(model, shape);
}

/* Layers behind the others guess further tokens: a file of any family may have them. */
static pi2_status leave_out_next(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    uint32_t count = 0;
    PI2_TRY(pi2_architecture_u32_or(model, shape->architecture, "nextn_predict_layers", 0, &count));
    if (count >= shape->layer_count) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.nextn_predict_layers is %u of %u layers",
                        pi2_gguf_file_path(model->gguf, 0), shape->architecture, count, shape->layer_count);
    }
    shape->layer_count -= count;
    if (model->first_layer == 0) return PI2_OK;
    shape->is_next = true;
    shape->layer_count = 1;
    const bool has_own_rows = pi2_architecture_tensor(model, 0, own_rows) != NULL;
    shape->tied_head = has_own_rows ? false : shape->tied_head && !pi2_architecture_tensor(model, 0, own_head);
    shape->borrows_rows = !has_own_rows && !shape->tied_head; /* which the head's rows are, too */
    return PI2_OK;
}

pi2_status pi2_decoder_read_keys(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_architecture_u32(model, name, "embedding_length", &shape->embedding_length));
    PI2_TRY(pi2_architecture_u32(model, name, "block_count", &shape->layer_count));
    PI2_TRY(pi2_architecture_u32(model, name, "context_length", &shape->context_length));
    PI2_TRY(read_feed_forward(model, shape));
    return read_attention(model, shape);
}

pi2_status pi2_decoder_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    PI2_TRY(pi2_decoder_read_keys(model, shape));
    const pi2_gguf_tensor *embedding = pi2_architecture_tensor(model, UINT32_MAX, "token_embd.weight");
    if (!embedding) return pi2_fail(PI2_ERR_FORMAT, "%s: tensor 'token_embd.weight' is missing", path);
    shape->vocabulary_size = embedding->dimensions[1] <= UINT32_MAX ? (uint32_t)embedding->dimensions[1] : 0;
    shape->tied_head = pi2_architecture_tensor(model, UINT32_MAX, "output.weight") == NULL;
    shape->ungated = shape->expert_count == 0 && !pi2_architecture_tensor(model, 0, "ffn_gate.weight");
    PI2_TRY(pi2_decoder_read_short_rope(model, shape, shape->context_length));
    return leave_out_next(model, shape);
}

pi2_status pi2_decoder_use_layer_norm(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    shape->norm = PI2_NORM_LAYER;
    return pi2_architecture_f32_or(model, shape->architecture, "attention.layer_norm_epsilon", 1e-5f,
                                   &shape->norm_epsilon);
}

pi2_status pi2_decoder_refuse_experts(const pi2_tensor_directory *model, const pi2_model_shape *shape) {
    if (shape->expert_count == 0) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a %s with %u experts is not supported",
                    pi2_gguf_file_path(model->gguf, 0), shape->architecture, shape->expert_count);
}

pi2_status pi2_decoder_require_experts(const pi2_tensor_directory *model, const pi2_model_shape *shape) {
    if (shape->expert_count > 0) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.expert_count is missing or 0", pi2_gguf_file_path(model->gguf, 0),
                    shape->architecture);
}

pi2_status pi2_decoder_read_short_rope(const pi2_tensor_directory *model, pi2_model_shape *shape, uint32_t original) {
    static const char factors[] = "rope_factors_short.weight", key[] = "rope.scaling.original_context_length";
    const char *name = shape->architecture;
    if (!shape->rope.has_factors && !pi2_architecture_tensor(model, UINT32_MAX, factors)) return PI2_OK;
    shape->rope_factors_name = factors;
    shape->needs_rope_factors = true;
    PI2_TRY(pi2_architecture_u32_or(model, name, key, original, &original));
    if (original == 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.%s is missing or 0, and tensor '%s' is for contexts up to it",
                        pi2_gguf_file_path(model->gguf, 0), name, key, factors);
    }
    if (original < shape->context_length) shape->context_length = original;
    return PI2_OK;
}

/* ---- layers ---- */

pi2_status pi2_decoder_read_window(const pi2_tensor_directory *model, pi2_model_shape *shape, uint32_t fallback) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.sliding_window", fallback, &shape->window));
    shape->local_rope = shape->rope;
    return pi2_architecture_f32_or(model, name, "rope.freq_base_swa", shape->rope.base, &shape->local_rope.base);
}

/* Two layers at least, one of each kind, have keys and values for those that have none. */
pi2_status pi2_decoder_read_shared_keys(const pi2_tensor_directory *model, pi2_model_shape *shape, uint32_t fallback) {
    uint32_t shared = 0;
    PI2_TRY(pi2_architecture_u32_or(model, shape->architecture, "attention.shared_kv_layers", fallback, &shared));
    shape->keyed_layers = shape->layer_count - shared;
    if (shared == 0 || (shared < shape->layer_count && shape->keyed_layers >= 2)) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.attention.shared_kv_layers is %u of %u layers",
                    pi2_gguf_file_path(model->gguf, 0), shape->architecture, shared, shape->layer_count);
}

void pi2_decoder_unscale_local_rope(pi2_model_shape *shape) {
    shape->local_rope.linear_scale = 1.0f;
    shape->local_rope.attention_factor = 1.0f;
    shape->local_rope.yarn = false;
}

pi2_status pi2_decoder_read_layer_window(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                         uint32_t number, uint32_t period, pi2_layer_shape *layer,
                                         bool *has_window_out) {
    static const char suffix[] = "attention.sliding_window_pattern";
    char key[128];
    (void)snprintf(key, sizeof key, "%s.%s", shape->architecture, suffix);
    uint32_t value = period;
    PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, suffix, number, period, &value));
    const bool is_array = pi2_gguf_is_array(model->gguf, key);
    const bool has_one = shape->window > 0 && (is_array ? value != 0 : value > 0 && number % value + 1 < value);
    if (has_one) pi2_decoder_set_window(layer, shape->window);
    if (has_window_out) *has_window_out = has_one;
    return PI2_OK;
}

/* As many key-value heads as the layer's matrix has room for. */
static uint32_t heads_of_matrix(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number) {
    const pi2_gguf_tensor *keys = pi2_architecture_tensor(model, number, "attn_k.weight");
    if (!keys || shape->key_length == 0 || keys->dimensions[1] > UINT32_MAX) return 0;
    return (uint32_t)keys->dimensions[1] / shape->key_length;
}

void pi2_decoder_find_heads(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    for (uint32_t i = 0; shape->head_count_kv == 0 && i < shape->layer_count && i < PI2_MOST_LAYERS; i++) {
        shape->head_count_kv = heads_of_matrix(model, shape, i);
    }
}

void pi2_decoder_mix_or_attend(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                               pi2_block_id mix, const char *first, pi2_layer_shape *layer) {
    const bool mixes = pi2_architecture_tensor(model, number, first) != NULL;
    const uint32_t heads = heads_of_matrix(model, shape, number);
    if (mixes && heads == 0) layer->head_count_kv = 0;
    if (!mixes && layer->head_count_kv == 0) layer->head_count_kv = heads;
    layer->block_count = 0;
    pi2_layer_add(layer, layer->head_count_kv ? PI2_BLOCK_attention : mix);
}

void pi2_decoder_add_ffn(pi2_layer_shape *layer, const pi2_model_shape *shape, uint32_t number) {
    if (shape->expert_count == 0 || number < shape->leading_dense) {
        pi2_layer_add(layer, PI2_BLOCK_ffn_dense);
        return;
    }
    if (!shape->router_sees_layer_input) pi2_layer_add(layer, PI2_BLOCK_router);
    if (shape->shared_length) {
        pi2_layer_add(layer, PI2_BLOCK_ffn_shared);
        layer->feed_forward_length = shape->shared_length;
    }
    pi2_layer_add(layer, PI2_BLOCK_ffn_experts);
}

void pi2_decoder_layer(const pi2_model_shape *shape, uint32_t number, pi2_layer_shape *layer) {
    *layer = (pi2_layer_shape){ .head_count_kv = shape->head_count_kv, .key_length = shape->key_length,
                                .value_length = shape->value_length, .kv_layer = number,
                                .rope = shape->learned_positions || shape->is_unrotated ? PI2_NO_ROPE : 0,
                                .feed_forward_length = shape->feed_forward_length };
    if (shape->expert_count && shape->router_sees_layer_input) pi2_layer_add(layer, PI2_BLOCK_router);
    pi2_layer_add(layer, PI2_BLOCK_attention);
    pi2_decoder_add_ffn(layer, shape, number);
}

pi2_status pi2_decoder_read_taps(const pi2_tensor_directory *model, pi2_model_shape *shape, const char *suffix) {
    PI2_TRY(pi2_architecture_u32(model, shape->architecture, suffix, &shape->convolution_taps));
    if (shape->convolution_taps >= 2 && shape->convolution_taps <= PI2_CONVOLUTION_MOST) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.%s is %u, which is outside 2 .. %d", pi2_gguf_file_path(model->gguf, 0),
                    shape->architecture, suffix, shape->convolution_taps, PI2_CONVOLUTION_MOST);
}

pi2_status pi2_decoder_read_mix(const pi2_tensor_directory *model, pi2_model_shape *shape, const char *what,
                                bool is_square) {
    const char *name = shape->architecture;
    uint32_t inner = 0;
    PI2_TRY(pi2_decoder_read_taps(model, shape, "ssm.conv_kernel"));
    PI2_TRY(pi2_architecture_u32(model, name, "ssm.inner_size", &inner));
    PI2_TRY(pi2_architecture_u32(model, name, "ssm.state_size", &shape->mix_state_length));
    PI2_TRY(pi2_architecture_u32(model, name, "ssm.time_step_rank", &shape->mix_value_heads));
    PI2_TRY(pi2_architecture_u32(model, name, "ssm.group_count", &shape->mix_key_heads));
    const uint32_t heads = shape->mix_value_heads, groups = shape->mix_key_heads, state = shape->mix_state_length;
    shape->mix_head_length = heads ? inner / heads : 0;
    if (heads >= 1 && heads <= 1024 && inner % heads == 0 && shape->mix_head_length >= 1 &&
        shape->mix_head_length <= PI2_DELTA_MOST && groups >= 1 && heads % groups == 0 && inner % groups == 0 &&
        state >= 1 && state <= 4096 && (!is_square || state == shape->mix_head_length)) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: a %s of ssm.inner_size %u, ssm.state_size %u, ssm.time_step_rank %u and "
                    "ssm.group_count %u is not possible here: heads of at most %d values%s make up the first, and the "
                    "last divides their number", pi2_gguf_file_path(model->gguf, 0), what, inner, state, heads, groups,
                    PI2_DELTA_MOST, is_square ? ", as many as the second," : "");
}

pi2_status pi2_decoder_read_gating(const pi2_tensor_directory *model, pi2_model_shape *shape,
                                   pi2_expert_gating fallback) {
    uint32_t gating = 0;
    PI2_TRY(pi2_architecture_u32_or(model, shape->architecture, "expert_gating_func", 0, &gating));
    if (gating > GATING_SIGMOID) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: %s.expert_gating_func is %u; 1 (softmax) and 2 (sigmoid) are "
                        "supported", pi2_gguf_file_path(model->gguf, 0), shape->architecture, gating);
    }
    shape->gating = gating == 0 ? fallback : gating == GATING_SIGMOID ? PI2_GATING_SIGMOID : PI2_GATING_SOFTMAX;
    return PI2_OK;
}

pi2_status pi2_decoder_read_weighing(const pi2_tensor_directory *model, pi2_model_shape *shape,
                                     pi2_expert_gating fallback) {
    const char *name = shape->architecture;
    bool sums_to_one = false;
    PI2_TRY(pi2_decoder_read_gating(model, shape, fallback));
    PI2_TRY(pi2_architecture_bool_or(model, name, "expert_weights_norm", false, &sums_to_one));
    PI2_TRY(pi2_architecture_f32_or(model, name, "expert_weights_scale", 0.0f, &shape->expert_scale));
    shape->keeps_probabilities = !sums_to_one;
    if (fabsf(shape->expert_scale) <= 1e6f) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.expert_weights_scale is %g", pi2_gguf_file_path(model->gguf, 0), name,
                    (double)shape->expert_scale);
}

pi2_status pi2_decoder_read_leading(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    if (shape->is_next) return PI2_OK; /* it is none of the first */
    PI2_TRY(pi2_architecture_u32_or(model, shape->architecture, "leading_dense_block_count", 0, &shape->leading_dense));
    if (shape->leading_dense < shape->layer_count) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.leading_dense_block_count is %u of %u layers: none is left for the experts",
                    pi2_gguf_file_path(model->gguf, 0), shape->architecture, shape->leading_dense, shape->layer_count);
}

pi2_status pi2_decoder_read_shared_count(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    uint32_t count = 0;
    PI2_TRY(pi2_architecture_u32(model, shape->architecture, "expert_shared_count", &count));
    const uint64_t length = (uint64_t)count * shape->expert_feed_forward_length;
    if (length <= 1u << 20) {
        shape->shared_length = (uint32_t)length;
        return PI2_OK;
    }
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.expert_shared_count is %u, with experts of %u neurons",
                    pi2_gguf_file_path(model->gguf, 0), shape->architecture, count, shape->expert_feed_forward_length);
}

pi2_status pi2_decoder_read_shared(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_shared_feed_forward_length", 0, &shape->shared_length));
    if (shape->shared_length >= 1 && shape->shared_length <= 1u << 20) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.expert_shared_feed_forward_length is %u, which is outside 1 .. %u",
                    pi2_gguf_file_path(model->gguf, 0), name, shape->shared_length, 1u << 20);
}

void pi2_decoder_be_gemma(pi2_model_shape *shape, uint32_t layers_of_27b) {
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->post_norms = true;
    shape->embedding_scale = sqrtf((float)shape->embedding_length);
    if (shape->layer_count != layers_of_27b || shape->head_count == 0) return;
    shape->attention_scale = 1.0f / sqrtf((float)(shape->embedding_length / shape->head_count));
}

pi2_status pi2_decoder_find_next(const pi2_gguf *gguf, uint32_t *layer_out) {
    const pi2_architecture *architecture;
    pi2_tensor_directory directory = { .gguf = gguf };
    uint32_t count = 0, layers = 0;
    *layer_out = 0;
    PI2_TRY(pi2_architecture_find(gguf, &architecture));
    if (!architecture->has_next_layer) return PI2_OK;
    PI2_TRY(pi2_architecture_u32_or(&directory, architecture->name, "nextn_predict_layers", 0, &count));
    PI2_TRY(pi2_architecture_u32(&directory, architecture->name, "block_count", &layers));
    if (count == 0 || count >= layers) return PI2_OK;
    directory.first_layer = layers - count;
    if (pi2_architecture_tensor(&directory, 0, "nextn.eh_proj.weight")) *layer_out = directory.first_layer;
    return PI2_OK;
}

void pi2_decoder_set_window(pi2_layer_shape *layer, uint32_t window) {
    layer->window = window;
    for (uint32_t i = 0; i < layer->block_count; i++) {
        if (layer->blocks[i] == PI2_BLOCK_attention) layer->blocks[i] = PI2_BLOCK_attention_window;
    }
}

/* ---- tensors ---- */

pi2_group_request *pi2_requests_group(pi2_model_requests *requests, pi2_group_kind kind, uint32_t layer) {
    pi2_group_request *request = &requests->groups[requests->group_count++];
    *request = (pi2_group_request){ .kind = kind, .layer = layer, .expert = UINT32_MAX, .expert_count = 1 };
    return request;
}

pi2_status pi2_requests_matrix(const pi2_tensor_directory *model, pi2_group_request *request, pi2_matrix_role role,
                               const char *name, uint64_t columns, uint64_t rows) {
    request->roles[request->tensor_count] = (uint8_t)role;
    return pi2_architecture_matrix(model, request->layer, name, columns, rows,
                                   &request->tensors[request->tensor_count++]);
}

pi2_table_request *pi2_requests_table(const pi2_tensor_directory *model, pi2_model_requests *requests,
                                      pi2_table_role role, uint32_t layer, const char *name, uint32_t length) {
    pi2_table_request *request = &requests->tables[requests->table_count++];
    *request = (pi2_table_request){ .role = role, .layer = layer, .length = length, .required = true };
    (void)snprintf(request->name, sizeof request->name, "%s", name);
    request->tensor = pi2_architecture_tensor(model, layer, name);
    return request;
}

void pi2_requests_rows(const pi2_tensor_directory *model, pi2_model_requests *requests, pi2_table_role role,
                       uint32_t layer, const char *name, uint32_t length, uint32_t rows) {
    pi2_table_request *request = pi2_requests_table(model, requests, role, layer, name, length);
    request->rows = rows;
    request->keeps_rows = true;
}

void pi2_requests_norm(const pi2_tensor_directory *model, const pi2_model_shape *shape, pi2_model_requests *requests,
                       pi2_table_role role, uint32_t layer, const char *stem) {
    char name[PI2_TABLE_NAME_BYTES];
    (void)snprintf(name, sizeof name, "%s.weight", stem);
    (void)pi2_requests_table(model, requests, role, layer, name, shape->embedding_length);
    if (shape->norm != PI2_NORM_LAYER) return;
    (void)snprintf(name, sizeof name, "%s.bias", stem);
    const pi2_table_role bias = role == PI2_TABLE_OUTPUT_NORM ? PI2_TABLE_OUTPUT_NORM_BIAS
                                : role == PI2_TABLE_FFN_NORM ? PI2_TABLE_FFN_NORM_BIAS : PI2_TABLE_ATTENTION_NORM_BIAS;
    (void)pi2_requests_table(model, requests, bias, layer, name, shape->embedding_length);
}

/* Each of two parallel norms has the name that the FFN's goes by where there is one: what attention reads is then
 * the second. */
void pi2_requests_attention_norms(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                  pi2_model_requests *requests, uint32_t layer) {
    if (!shape->bare_inputs) {
        pi2_requests_norm(model, shape, requests, PI2_TABLE_ATTENTION_NORM, layer,
                          shape->two_norms ? "attn_norm_2" : "attn_norm");
    }
    if (!shape->post_norms) return;
    (void)pi2_requests_table(model, requests, PI2_TABLE_POST_ATTENTION_NORM, layer, "post_attention_norm.weight",
                             shape->embedding_length);
}

void pi2_requests_ffn_norms(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                            pi2_model_requests *requests, uint32_t layer) {
    const char *own = shape->ffn_norm_name ? shape->ffn_norm_name : "ffn_norm";
    if (!shape->bare_inputs && (!shape->parallel || shape->two_norms)) {
        pi2_requests_norm(model, shape, requests, PI2_TABLE_FFN_NORM, layer, shape->parallel ? "attn_norm" : own);
    }
    if (!shape->post_norms) return;
    (void)pi2_requests_table(model, requests, PI2_TABLE_POST_FFN_NORM, layer, "post_ffw_norm.weight",
                             shape->embedding_length);
}

/* What the layers' ends and the head have beside matrices. */
static void list_model_tables(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                              pi2_model_requests *requests) {
    if (shape->is_next && pi2_architecture_tensor(model, 0, own_norm)) {
        (void)pi2_requests_table(model, requests, PI2_TABLE_OUTPUT_NORM, 0, own_norm, shape->embedding_length);
    } else {
        pi2_requests_norm(model, shape, requests, PI2_TABLE_OUTPUT_NORM, UINT32_MAX,
                          shape->output_norm_name ? shape->output_norm_name : "output_norm");
    }
    if (shape->learned_positions) {
        pi2_requests_rows(model, requests, PI2_TABLE_POSITIONS, UINT32_MAX, "position_embd.weight",
                          shape->embedding_length, shape->learned_positions + PI2_POSITION_OFFSET);
    }
    if (shape->feature_count) {
        pi2_requests_table(model, requests, PI2_TABLE_TOKEN_IDS, UINT32_MAX, "d2t", shape->vocabulary_size)->required =
            false;
    }
    pi2_requests_table(model, requests, PI2_TABLE_ROPE_FACTORS, UINT32_MAX,
                       shape->rope_factors_name ? shape->rope_factors_name : "rope_freqs.weight",
                       shape->rope.dimensions / 2)->required = shape->needs_rope_factors;
}

static pi2_status list_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                             pi2_model_requests *requests) {
    const pi2_layer_shape *layer = &shape->layers[number];
    for (uint32_t i = 0; i < layer->block_count; i++) {
        PI2_TRY(pi2_block_kind_of(layer->blocks[i])->list(model, shape, number, requests));
    }
    if (!shape->layers_have_scales) return PI2_OK;
    (void)pi2_requests_table(model, requests, PI2_TABLE_LAYER_SCALE, number, "layer_output_scale.weight", 1);
    return PI2_OK;
}

/* A matrix with a row for each token: the model's, or a guessing layer's own. */
static pi2_status list_rows(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                            pi2_model_requests *requests, pi2_matrix_role role, const char *name, const char *own) {
    const bool is_own = shape->is_next && pi2_architecture_tensor(model, 0, own);
    pi2_group_request *group = pi2_requests_group(
        requests, role == PI2_MATRIX_HEAD ? PI2_GROUP_HEAD : PI2_GROUP_EMBEDDING, UINT32_MAX);
    group->roles[group->tensor_count] = (uint8_t)role;
    const uint32_t rows = role == PI2_MATRIX_HEAD ? shape->vocabulary_size : pi2_model_token_ids(shape);
    return pi2_architecture_matrix(model, is_own ? 0 : UINT32_MAX, is_own ? own : name, shape->embedding_length,
                                   rows, &group->tensors[group->tensor_count++]);
}

pi2_status pi2_decoder_list_tensors(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                    pi2_model_requests *requests) {
    memset(requests, 0, sizeof *requests);
    const size_t layers = shape->layer_count;
    const size_t layer_groups = PI2_LAYER_BLOCKS + (size_t)shape->expert_count;
    requests->groups = calloc(layers * layer_groups + 4, sizeof *requests->groups);
    requests->tables = calloc(layers * (PI2_TABLE_LAYER_ROLES + PI2_MATRIX_LAYER_ROLES) + PI2_TABLE_ROLES,
                              sizeof *requests->tables); /* with a scale of each matrix */
    if (!requests->groups || !requests->tables) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of tensors");
    }
    if (!shape->tied_head && !shape->borrows_rows) {
        PI2_TRY(list_rows(model, shape, requests, PI2_MATRIX_EMBEDDING, "token_embd.weight", own_rows));
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        PI2_TRY(list_layer(model, shape, layer, requests));
    }
    const bool has_head = pi2_architecture_tensor(model, UINT32_MAX, "output.weight") != NULL;
    const char *head = shape->tied_head || (shape->is_next && !has_head) ? "token_embd.weight" : "output.weight";
    PI2_TRY(list_rows(model, shape, requests, PI2_MATRIX_HEAD, head, own_head));
    list_model_tables(model, shape, requests);
    return PI2_OK;
}
