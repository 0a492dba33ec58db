/* block_ffn_dense.c: the FFN that every token of a layer uses, gated or not; by neuron where the pass goes so. */
#include "architectures/block.h"
#include "architectures/decoder.h"
#include "architectures/powerinfer.h"
#include "base/fail.h"
#include "pipeline/forward_internal.h"

/* The one matrix before Down has Up's name in files, and Gate's place here: it is what tells who fires. */
static pi2_status list_ungated(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                               pi2_group_request *ffn) {
    const uint64_t width = shape->embedding_length, neurons = shape->layers[layer].feed_forward_length;
    if (pi2_architecture_tensor(model, layer, "ffn_gate.weight")) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: tensor 'blk.%u.ffn_gate.weight' is there, but layer 0 has no Gate: "
                        "layers of both kinds in one model are not supported", pi2_gguf_file_path(model->gguf, 0),
                        layer);
    }
    PI2_TRY(pi2_requests_matrix(model, ffn, PI2_MATRIX_GATE, "ffn_up.weight", width, neurons));
    return pi2_requests_matrix(model, ffn, PI2_MATRIX_DOWN, "ffn_down.weight", neurons, width);
}

static pi2_status list_matrices(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                                pi2_model_requests *requests) {
    const uint64_t width = shape->embedding_length, neurons = shape->layers[layer].feed_forward_length;
    pi2_group_request *ffn = pi2_requests_group(requests, PI2_GROUP_FFN, layer);
    PI2_TRY(pi2_powerinfer_check_layer(model, shape, layer));
    if (shape->ungated) return list_ungated(model, shape, layer, ffn);
    PI2_TRY(pi2_requests_matrix(model, ffn, PI2_MATRIX_GATE, "ffn_gate.weight", width, neurons));
    PI2_TRY(pi2_requests_matrix(model, ffn, PI2_MATRIX_UP, "ffn_up.weight", width, neurons));
    return pi2_requests_matrix(model, ffn, PI2_MATRIX_DOWN, "ffn_down.weight", neurons, width);
}

static pi2_status list(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t layer,
                       pi2_model_requests *requests) {
    const uint32_t width = shape->embedding_length, neurons = shape->layers[layer].feed_forward_length;
    PI2_TRY(list_matrices(model, shape, layer, requests));
    pi2_requests_ffn_norms(model, shape, requests, layer);
    if (shape->norms_hidden) {
        (void)pi2_requests_table(model, requests, PI2_TABLE_HIDDEN_NORM, layer, "ffn_sub_norm.weight", neurons);
    }
    const char *gate_bias = shape->ungated ? "ffn_up.bias" : "ffn_gate.bias";
    pi2_requests_table(model, requests, PI2_TABLE_GATE_BIAS, layer, gate_bias, neurons)->required = false;
    if (!shape->ungated) {
        pi2_requests_table(model, requests, PI2_TABLE_UP_BIAS, layer, "ffn_up.bias", neurons)->required = false;
    }
    pi2_table_request *down = pi2_requests_table(model, requests, PI2_TABLE_DOWN_BIAS, layer, "ffn_down.bias", width);
    down->required = false;
    /* Where Down lies by neuron its bias goes by that name too, in a cluster file as well. */
    if (!down->tensor) down->tensor = pi2_architecture_tensor(model, layer, "ffn_down_t.bias");
    return PI2_OK;
}

static void needs(const pi2_model_shape *model, uint32_t layer, const struct pi2_forward_shape *shape,
                  pi2_block_needs *needs_out) {
    const uint32_t cut = pi2_layer_cuts_gate(model, layer) ? PI2_STAGES_OF_A_CUTOFF : 0;
    (void)shape;
    needs_out->neuron_stages = PI2_STAGES_OF_NEURONS + cut;
    needs_out->stages = PI2_STAGES_OF_A_RUN + cut; /* and as many for each further run, which residency decides */
}

static void run(struct pi2_forward_walk *walk) {
    if (pi2_forward_takes_neurons(walk)) pi2_forward_neurons(walk);
    else pi2_forward_ffn(walk);
}

const pi2_block_kind pi2_block_ffn_dense = {
    .name = "ffn_dense", .norm = PI2_TABLE_FFN_NORM, .post_norm = PI2_TABLE_POST_FFN_NORM,
    .list = list, .needs = needs, .run = run,
};
