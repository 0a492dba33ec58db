/*
 * qwen35.c: Qwen 3.5 and 3.6, dense and with experts, and Qwen3 Next, whose heads of delta nets lie in another order
 * (block_delta_net.c): gated delta nets, and in every fourth layer attention whose result is gated; a mixture has an
 * FFN beside its experts, gated too. A layer behind the last one guesses further tokens (engine/drafter_mtp.c).
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { FULL_INTERVAL = 4 };

static pi2_status qwen35_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->head_norms = true;
    shape->gated_queries = true;
    shape->ffn_norm_name = "post_attention_norm";
    if (shape->key_length != shape->value_length) { /* a head's gate is as long as its query, and gates its result */
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: %s.attention.key_length is %u and attention.value_length %u: gates "
                        "of attention are computed where both are the same", pi2_gguf_file_path(model->gguf, 0),
                        shape->architecture, shape->key_length, shape->value_length);
    }
    return pi2_decoder_read_mix(model, shape, "delta net", true);
}

static pi2_status dense_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(qwen35_read_shape(model, shape));
    return pi2_decoder_refuse_experts(model, shape);
}

static pi2_status mixture_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(qwen35_read_shape(model, shape));
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    shape->shared_is_gated = true;
    return pi2_decoder_read_shared(model, shape);
}

/* Files of 2025 and Ollama's have queries, keys, values and gates of each head behind one another in one matrix. */
static pi2_status next_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    if (pi2_architecture_tensor(model, 0, "ssm_in.weight")) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.0.ssm_in.weight' is of an old form of Qwen3 Next, which "
                        "is not computed: get a file that has 'blk.0.attn_qkv.weight', such as run -hf "
                        "unsloth/Qwen3-Coder-Next-GGUF", pi2_gguf_file_path(model->gguf, 0));
    }
    return mixture_read_shape(model, shape);
}

static pi2_status qwen35_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                    pi2_layer_shape *layer) {
    uint32_t interval, is_recurrent = false;
    PI2_TRY(pi2_architecture_u32_or(model, shape->architecture, "full_attention_interval", FULL_INTERVAL, &interval));
    const bool is_full = interval > 0 && (number + 1) % interval == 0;
    if (!shape->is_next) {
        PI2_TRY(pi2_architecture_layer_u32_or(model, shape->architecture, "attention.recurrent_layers", number,
                                              !is_full, &is_recurrent));
    }
    layer->block_count = 0;
    pi2_layer_add(layer, is_recurrent ? PI2_BLOCK_delta_net : PI2_BLOCK_attention);
    pi2_decoder_add_ffn(layer, shape, number);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_qwen35 = {
    .name = "qwen35", .has_next_layer = true, .activation = PI2_FFN_silu,
    .read_shape = dense_read_shape, .read_layer = qwen35_read_layer,
};

const pi2_architecture pi2_architecture_qwen35moe = {
    .name = "qwen35moe", .has_next_layer = true, .activation = PI2_FFN_silu,
    .read_shape = mixture_read_shape, .read_layer = qwen35_read_layer,
};

const pi2_architecture pi2_architecture_qwen3next = {
    .name = "qwen3next", .activation = PI2_FFN_silu, .read_shape = next_read_shape, .read_layer = qwen35_read_layer,
};
