/* decoder.c: keys and tensors that the families of decoders have in common. */
#include "architectures/decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/powerinfer.h"
#include "base/fail.h"

static pi2_status read_attention(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_architecture_u32(model, name, "attention.head_count", &shape->head_count));
    PI2_TRY(pi2_architecture_u32_or(model, name, "attention.head_count_kv", shape->head_count,
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

static pi2_status read_feed_forward(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_count", 0, &shape->expert_count));
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_used_count", 0, &shape->expert_used_count));
    if (shape->expert_count == 0) {
        return pi2_architecture_u32(model, name, "feed_forward_length", &shape->feed_forward_length);
    }
    if (shape->expert_used_count == 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.expert_used_count is missing or 0, with %u experts",
                        pi2_gguf_file_path(model->gguf, 0), name, shape->expert_count);
    }
    PI2_TRY(pi2_architecture_u32_or(model, name, "feed_forward_length", 0, &shape->feed_forward_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "expert_feed_forward_length", shape->feed_forward_length,
                                    &shape->expert_feed_forward_length));
    if (shape->feed_forward_length == 0) shape->feed_forward_length = shape->expert_feed_forward_length;
    return PI2_OK;
}

pi2_status pi2_decoder_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    PI2_TRY(pi2_architecture_u32(model, name, "embedding_length", &shape->embedding_length));
    PI2_TRY(pi2_architecture_u32(model, name, "block_count", &shape->layer_count));
    PI2_TRY(pi2_architecture_u32(model, name, "context_length", &shape->context_length));
    PI2_TRY(read_feed_forward(model, shape));
    PI2_TRY(read_attention(model, shape));
    const pi2_gguf_tensor *embedding = pi2_architecture_tensor(model, UINT32_MAX, "token_embd.weight");
    if (!embedding) return pi2_fail(PI2_ERR_FORMAT, "%s: tensor 'token_embd.weight' is missing", path);
    shape->vocabulary_size = embedding->dimensions[1] <= UINT32_MAX ? (uint32_t)embedding->dimensions[1] : 0;
    shape->tied_head = pi2_architecture_tensor(model, UINT32_MAX, "output.weight") == NULL;
    shape->ungated = shape->expert_count == 0 && !pi2_architecture_tensor(model, 0, "ffn_gate.weight");
    return PI2_OK;
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

/* ---- tensors ---- */

static pi2_group_request group_request(pi2_group_kind kind, uint32_t layer, uint32_t tensor_count) {
    return (pi2_group_request){ .kind = kind, .layer = layer, .expert = UINT32_MAX, .expert_count = 1,
                                .tensor_count = tensor_count };
}

static pi2_status list_fused_attention(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                       uint32_t layer, pi2_group_request *attention) {
    const uint64_t heads = shape->head_count, kv_heads = shape->head_count_kv;
    const uint64_t rows = (heads + kv_heads) * shape->key_length + kv_heads * shape->value_length;
    *attention = group_request(PI2_GROUP_ATTENTION, layer, 2);
    PI2_TRY(pi2_architecture_matrix(model, layer, "attn_qkv.weight", shape->embedding_length, rows,
                                    &attention->tensors[0]));
    return pi2_architecture_matrix(model, layer, "attn_output.weight", heads * shape->value_length,
                                   shape->embedding_length, &attention->tensors[1]);
}

static pi2_status list_attention(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                 uint32_t layer, pi2_group_request *attention) {
    const uint64_t width = shape->embedding_length, kv_heads = shape->head_count_kv;
    if (shape->fused_qkv) return list_fused_attention(model, shape, layer, attention);
    *attention = group_request(PI2_GROUP_ATTENTION, layer, 4);
    PI2_TRY(pi2_architecture_matrix(model, layer, "attn_q.weight", width,
                                    (uint64_t)shape->head_count * shape->key_length, &attention->tensors[0]));
    PI2_TRY(pi2_architecture_matrix(model, layer, "attn_k.weight", width, kv_heads * shape->key_length,
                                    &attention->tensors[1]));
    PI2_TRY(pi2_architecture_matrix(model, layer, "attn_v.weight", width, kv_heads * shape->value_length,
                                    &attention->tensors[2]));
    return pi2_architecture_matrix(model, layer, "attn_output.weight",
                                   (uint64_t)shape->head_count * shape->value_length, width,
                                   &attention->tensors[3]);
}

/* The one matrix before Down has Up's name in files, and Gate's place here: it is what tells who fires. */
static pi2_status list_ungated(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                               pi2_group_request *ffn) {
    const uint64_t width = shape->embedding_length, neurons = shape->feed_forward_length;
    ffn->tensor_count = 2;
    if (pi2_architecture_tensor(model, layer, "ffn_gate.weight")) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.%u.ffn_gate.weight' is there, but layer 0 has no Gate: "
                        "layers of both kinds in one model are not supported", pi2_gguf_file_path(model->gguf, 0),
                        layer);
    }
    PI2_TRY(pi2_architecture_matrix(model, layer, "ffn_up.weight", width, neurons, &ffn->tensors[0]));
    return pi2_architecture_matrix(model, layer, "ffn_down.weight", neurons, width, &ffn->tensors[1]);
}

static pi2_status list_dense(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                             pi2_group_request *ffn) {
    const uint64_t width = shape->embedding_length, neurons = shape->feed_forward_length;
    *ffn = group_request(PI2_GROUP_FFN, layer, 3);
    PI2_TRY(pi2_powerinfer_check_layer(model, shape, layer));
    if (shape->ungated) return list_ungated(model, shape, layer, ffn);
    PI2_TRY(pi2_architecture_matrix(model, layer, "ffn_gate.weight", width, neurons, &ffn->tensors[0]));
    PI2_TRY(pi2_architecture_matrix(model, layer, "ffn_up.weight", width, neurons, &ffn->tensors[1]));
    return pi2_architecture_matrix(model, layer, "ffn_down.weight", neurons, width, &ffn->tensors[2]);
}

/* Parts of mixtures of experts that would change the result and that we do not compute. */
static pi2_status refuse_parts(const pi2_tensor_directory *model, uint32_t layer) {
    static const char *const parts[] = {
        "exp_probs_b.bias", "ffn_gate_inp.bias", "ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias",
        "ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_gate_inp_shexp.weight", "ffn_gate_up_exps.weight",
        "ffn_gate_exps.scale", "ffn_up_exps.scale", "ffn_down_exps.scale", "ffn_gate.0.weight" };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (!pi2_architecture_tensor(model, layer, parts[i])) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.%u.%s' is not supported: experts are expected "
                        "stacked in ffn_gate_exps, ffn_up_exps and ffn_down_exps, without biases or scales",
                        pi2_gguf_file_path(model->gguf, 0), layer, parts[i]);
    }
    return PI2_OK;
}

static pi2_status list_experts(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                               pi2_group_request *groups) {
    const uint64_t width = shape->embedding_length, neurons = shape->expert_feed_forward_length;
    const uint64_t experts = shape->expert_count;
    PI2_TRY(refuse_parts(model, layer));
    pi2_group_request request = group_request(PI2_GROUP_EXPERT, layer, 3);
    request.expert_count = shape->expert_count;
    PI2_TRY(pi2_architecture_matrix(model, layer, "ffn_gate_exps.weight", width, neurons * experts,
                                    &request.tensors[0]));
    PI2_TRY(pi2_architecture_matrix(model, layer, "ffn_up_exps.weight", width, neurons * experts,
                                    &request.tensors[1]));
    PI2_TRY(pi2_architecture_matrix(model, layer, "ffn_down_exps.weight", neurons, width * experts,
                                    &request.tensors[2]));
    for (uint32_t e = 0; e < shape->expert_count; e++) {
        groups[e] = request;
        groups[e].expert = e;
    }
    return PI2_OK;
}

/* Each of two parallel norms has the name that the FFN's goes by where there is one: what attention reads is then
 * the second. */
static void list_norms(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const char *attention = shape->two_norms ? "attn_norm_2" : "attn_norm";
    const char *ffn = shape->parallel ? "attn_norm" : "ffn_norm";
    const bool has_bias = shape->norm == PI2_NORM_LAYER, has_two = !shape->parallel || shape->two_norms;
    const struct { pi2_table_role role; const char *stem, *part; bool wanted; } tables[] = {
        { PI2_TABLE_ATTENTION_NORM, attention, "weight", true },
        { PI2_TABLE_ATTENTION_NORM_BIAS, attention, "bias", has_bias },
        { PI2_TABLE_FFN_NORM, ffn, "weight", has_two },
        { PI2_TABLE_FFN_NORM_BIAS, ffn, "bias", has_two && has_bias } };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        char name[32];
        if (!tables[i].wanted) continue;
        (void)snprintf(name, sizeof name, "%s.%s", tables[i].stem, tables[i].part);
        requests->tables[requests->table_count++] = (pi2_table_request){
            tables[i].role, layer, pi2_architecture_tensor(model, layer, name), shape->embedding_length, true, 0,
            false };
    }
}

static void list_layer_tables(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                              pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length, neurons = shape->feed_forward_length;
    const bool dense = shape->expert_count == 0, gated = !shape->ungated;
    const struct { pi2_table_role role; const char *name; uint32_t length; bool wanted, required; uint32_t rows; }
    tables[] = {
        { PI2_TABLE_Q_BIAS, "attn_q.bias", shape->head_count * shape->key_length, true, false, 0 },
        { PI2_TABLE_K_BIAS, "attn_k.bias", shape->head_count_kv * shape->key_length, true, false, 0 },
        { PI2_TABLE_V_BIAS, "attn_v.bias", shape->head_count_kv * shape->value_length, true, false, 0 },
        { PI2_TABLE_OUTPUT_BIAS, "attn_output.bias", width, true, false, 0 },
        { PI2_TABLE_GATE_BIAS, gated ? "ffn_gate.bias" : "ffn_up.bias", neurons, dense, false, 0 },
        { PI2_TABLE_UP_BIAS, "ffn_up.bias", neurons, dense && gated, false, 0 },
        { PI2_TABLE_DOWN_BIAS, "ffn_down.bias", width, dense, false, 0 },
        { PI2_TABLE_Q_NORM, "attn_q_norm.weight", shape->key_length, shape->head_norms, true, 0 },
        { PI2_TABLE_K_NORM, "attn_k_norm.weight", shape->key_length, shape->head_norms, true, 0 },
        { PI2_TABLE_ROUTER, "ffn_gate_inp.weight", width, !dense, true, shape->expert_count },
    };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (!tables[i].wanted) continue;
        const pi2_gguf_tensor *tensor = pi2_architecture_tensor(model, layer, tables[i].name);
        /* Where Down lies by neuron its bias goes by that name too, in a cluster file as well. */
        if (!tensor && tables[i].role == PI2_TABLE_DOWN_BIAS) {
            tensor = pi2_architecture_tensor(model, layer, "ffn_down_t.bias");
        }
        requests->tables[requests->table_count++] = (pi2_table_request){
            tables[i].role, layer, tensor, tables[i].length, tables[i].required, tables[i].rows, false };
    }
}

static pi2_status list_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                             pi2_model_requests *requests) {
    PI2_TRY(list_attention(model, shape, layer, &requests->groups[requests->group_count++]));
    pi2_group_request *groups = &requests->groups[requests->group_count];
    if (shape->expert_count > 0) {
        PI2_TRY(list_experts(model, shape, layer, groups));
        requests->group_count += shape->expert_count;
    } else {
        PI2_TRY(list_dense(model, shape, layer, groups));
        requests->group_count++;
    }
    list_norms(model, shape, layer, requests);
    list_layer_tables(model, shape, layer, requests);
    return PI2_OK;
}

pi2_status pi2_decoder_list_tensors(const pi2_tensor_directory *model, const pi2_model_shape *shape,
                                    pi2_model_requests *requests) {
    memset(requests, 0, sizeof *requests);
    const size_t layers = shape->layer_count;
    const size_t layer_groups = 1 + (shape->expert_count ? shape->expert_count : 1);
    requests->groups = calloc(layers * layer_groups + 2, sizeof *requests->groups);
    requests->tables = calloc(layers * PI2_TABLE_LAYER_ROLES + PI2_TABLE_ROLES - PI2_TABLE_LAYER_ROLES,
                              sizeof *requests->tables);
    if (!requests->groups || !requests->tables) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of tensors");
    }
    const uint64_t width = shape->embedding_length, vocabulary = shape->vocabulary_size;
    if (!shape->tied_head) {
        pi2_group_request *embedding = &requests->groups[requests->group_count++];
        *embedding = group_request(PI2_GROUP_EMBEDDING, UINT32_MAX, 1);
        PI2_TRY(pi2_architecture_matrix(model, UINT32_MAX, "token_embd.weight", width, vocabulary,
                                        &embedding->tensors[0]));
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        PI2_TRY(list_layer(model, shape, layer, requests));
    }
    pi2_group_request *head = &requests->groups[requests->group_count++];
    *head = group_request(PI2_GROUP_HEAD, UINT32_MAX, 1);
    PI2_TRY(pi2_architecture_matrix(model, UINT32_MAX, shape->tied_head ? "token_embd.weight" : "output.weight",
                                    width, vocabulary, &head->tensors[0]));
    requests->tables[requests->table_count++] = (pi2_table_request){ PI2_TABLE_OUTPUT_NORM, UINT32_MAX,
        pi2_architecture_tensor(model, UINT32_MAX, "output_norm.weight"), shape->embedding_length, true, 0, false };
    if (shape->learned_positions) {
        requests->tables[requests->table_count++] = (pi2_table_request){ PI2_TABLE_POSITIONS, UINT32_MAX,
            pi2_architecture_tensor(model, UINT32_MAX, "position_embd.weight"), shape->embedding_length, true,
            shape->learned_positions + PI2_POSITION_OFFSET, true };
    }
    if (shape->norm == PI2_NORM_LAYER) {
        requests->tables[requests->table_count++] = (pi2_table_request){ PI2_TABLE_OUTPUT_NORM_BIAS, UINT32_MAX,
            pi2_architecture_tensor(model, UINT32_MAX, "output_norm.bias"), shape->embedding_length, true, 0, false };
    }
    requests->tables[requests->table_count++] = (pi2_table_request){ PI2_TABLE_ROPE_FACTORS, UINT32_MAX,
        pi2_architecture_tensor(model, UINT32_MAX, "rope_freqs.weight"), shape->rope.dimensions / 2, false, 0, false };
    return PI2_OK;
}
