/* block_ffn_experts.c: the experts that the layer's router chose, and their sum; by neuron where the pass goes so. */
#include "architectures/block.h"
#include "architectures/decoder.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

/* Parts of mixtures of experts that would change the result and that we do not compute. */
static pi2_status refuse_parts(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer) {
    const bool has_biases = shape->experts_have_biases;
    const bool has_shared = pi2_layer_has(&shape->layers[layer], PI2_BLOCK_ffn_shared);
    const struct { const char *name; bool is_known; } parts[] = {
        { "exp_probs_b.bias", shape->router_has_bias }, { "ffn_gate_inp.bias", has_biases },
        { "ffn_gate_exps.weight", !shape->ungated },
        { "ffn_gate_exps.bias", has_biases }, { "ffn_up_exps.bias", has_biases }, { "ffn_down_exps.bias", has_biases },
        { "ffn_gate_shexp.weight", has_shared && !shape->ungated }, { "ffn_up_shexp.weight", has_shared },
        { "ffn_latent_down.weight", false },
        { "ffn_gate_inp_shexp.weight", shape->shared_is_gated }, { "ffn_gate_up_exps.weight", false },
        { "ffn_gate_up_exps.bias", false }, { "ffn_gate_inp.scale", shape->experts_have_norms } };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].is_known || !pi2_architecture_tensor(model, layer, parts[i].name)) continue;
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.%u.%s' is not supported: experts are expected "
                        "stacked in ffn_gate_exps, ffn_up_exps and ffn_down_exps, without biases",
                        pi2_gguf_file_path(model->gguf, 0), layer, parts[i].name);
    }
    return PI2_OK;
}

static void list_biases(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                        pi2_model_requests *requests) {
    const uint32_t neurons = shape->expert_feed_forward_length;
    const struct { pi2_table_role role; const char *name; uint32_t length; } biases[] = {
        { PI2_TABLE_GATE_BIAS, "ffn_gate_exps.bias", neurons }, { PI2_TABLE_UP_BIAS, "ffn_up_exps.bias", neurons },
        { PI2_TABLE_DOWN_BIAS, "ffn_down_exps.bias", shape->embedding_length } };
    for (size_t i = 0; i < sizeof biases / sizeof biases[0]; i++) {
        pi2_table_request *table = pi2_requests_table(model, requests, biases[i].role, layer, biases[i].name,
                                                      biases[i].length);
        table->rows = shape->expert_count;
        table->keeps_rows = true;
    }
}

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint64_t width = shape->embedding_length, neurons = shape->expert_feed_forward_length;
    const uint64_t experts = shape->expert_count;
    PI2_TRY(refuse_parts(model, shape, layer));
    pi2_group_request *first = pi2_requests_group(requests, PI2_GROUP_EXPERT, layer);
    first->expert_count = shape->expert_count;
    if (!shape->ungated) {
        PI2_TRY(pi2_requests_matrix(model, first, PI2_MATRIX_GATE, "ffn_gate_exps.weight", width, neurons * experts));
    }
    PI2_TRY(pi2_requests_matrix(model, first, shape->ungated ? PI2_MATRIX_GATE : PI2_MATRIX_UP, "ffn_up_exps.weight",
                                width, neurons * experts));
    PI2_TRY(pi2_requests_matrix(model, first, PI2_MATRIX_DOWN, "ffn_down_exps.weight", neurons, width * experts));
    for (uint32_t e = 0; e < shape->expert_count; e++) {
        first[e] = first[0];
        first[e].expert = e;
    }
    requests->group_count += experts - 1;
    pi2_requests_ffn_norms(model, shape, requests, layer);
    if (shape->experts_have_biases) list_biases(model, shape, layer, requests);
    if (shape->experts_have_norms) {
        pi2_requests_norm(model, shape, requests, PI2_TABLE_EXPERT_NORM, layer, "pre_ffw_norm_2");
        pi2_requests_norm(model, shape, requests, PI2_TABLE_POST_EXPERT_NORM, layer, "post_ffw_norm_2");
    }
    pi2_requests_table(model, requests, PI2_TABLE_EXPERT_SCALE, layer, "ffn_down_exps.scale", shape->expert_count)
        ->required = shape->experts_have_scales;
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    (void)model;
    (void)layer;
    (void)shape;
    needs_out->neuron_stages = PI2_STAGES_OF_NEURONS;
    needs_out->stages = 1;
    needs_out->batch_stages = PI2_STAGES_OF_A_GATHER;
}

static void run(struct pi2_forward_walk *walk) {
    if (pi2_forward_takes_neurons(walk)) pi2_forward_neurons(walk);
    else pi2_forward_experts(walk);
}

const pi2_block_kind pi2_block_ffn_experts = {
    .name = "ffn_experts", .norm = PI2_TABLE_FFN_NORM, .post_norm = PI2_TABLE_POST_FFN_NORM,
    .list = list, .needs = needs, .run = run,
};
