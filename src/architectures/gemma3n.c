/*
 * gemma3n.c: Gemma 3n (text; E2B, E4B): several residual streams, a learned residual layer beside attention, vectors of
 * each token in each layer; four layers of five see a window, the last ones use earlier ones' keys and values, and the
 * first ten leave out most of what Gate says.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { PERIOD = 5, KEYED_LAYERS = 20, CUT_LAYERS = 10, TOKEN_LENGTH = 256, STREAMS = 4 };

static pi2_status read_streams(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture, *path = pi2_gguf_file_path(model->gguf, 0);
    const pi2_gguf_tensor *laurel = pi2_architecture_tensor(model, 0, "laurel_l.weight");
    PI2_TRY(pi2_architecture_u32_or(model, name, "embedding_length_per_layer_input", TOKEN_LENGTH,
                                    &shape->token_length));
    PI2_TRY(pi2_architecture_u32_or(model, name, "altup.num_inputs", STREAMS, &shape->stream_count));
    PI2_TRY(pi2_architecture_u32_or(model, name, "altup.active_idx", 0, &shape->active_stream));
    if (shape->stream_count < 2 || shape->stream_count > PI2_MOST_STREAMS ||
        shape->active_stream >= shape->stream_count) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.altup.num_inputs is %u and altup.active_idx %u: 2 to %d streams are "
                        "computed, one of which is active", path, name, shape->stream_count, shape->active_stream,
                        PI2_MOST_STREAMS);
    }
    if (shape->token_length == 0 || shape->embedding_length % PI2_TILE_ROWS != 0) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: %s.embedding_length_per_layer_input is %u and embedding_length %u: the "
                        "first must not be 0, and the second a multiple of %d", path, name, shape->token_length,
                        shape->embedding_length, PI2_TILE_ROWS);
    }
    if (!laurel || laurel->dimensions[1] < 1 || laurel->dimensions[1] > 1u << 16) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor 'blk.0.laurel_l.weight' is missing, or has no rows or too many",
                        path);
    }
    shape->laurel_rank = (uint32_t)laurel->dimensions[1];
    return PI2_OK;
}

static pi2_status gemma3n_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    const char *name = shape->architecture;
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    pi2_decoder_be_gemma(shape, UINT32_MAX);
    shape->attention_scale = 1.0f;
    shape->head_norms = shape->norms_values = true;
    shape->cut_layers = CUT_LAYERS;
    PI2_TRY(pi2_decoder_read_window(model, shape, 0));
    PI2_TRY(pi2_architecture_f32_or(model, name, "rope.freq_base_swa", 10000.0f, &shape->local_rope.base));
    pi2_decoder_unscale_local_rope(shape);
    PI2_TRY(pi2_decoder_read_shared_keys(model, shape, shape->layer_count > KEYED_LAYERS
                                                           ? shape->layer_count - KEYED_LAYERS : 0));
    PI2_TRY(read_streams(model, shape));
    return pi2_architecture_f32_or(model, name, "final_logit_softcapping", 30.0f, &shape->logit_cap);
}

static pi2_status gemma3n_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                     pi2_layer_shape *layer) {
    bool is_local;
    layer->block_count = 0;
    if (number == 0) pi2_layer_add(layer, PI2_BLOCK_token_inputs);
    pi2_layer_add(layer, PI2_BLOCK_streams_predict);
    pi2_layer_add(layer, PI2_BLOCK_laurel);
    pi2_layer_add(layer, PI2_BLOCK_attention);
    pi2_decoder_add_ffn(layer, shape, number);
    pi2_layer_add(layer, PI2_BLOCK_streams_correct);
    pi2_layer_add(layer, PI2_BLOCK_token_vector);
    if (number + 1 == shape->layer_count) pi2_layer_add(layer, PI2_BLOCK_streams_end);
    PI2_TRY(pi2_decoder_read_layer_window(model, shape, number, PERIOD, layer, &is_local));
    if (is_local) layer->rope = 1;
    if (number >= shape->keyed_layers) layer->kv_layer = shape->keyed_layers - (is_local ? 2 : 1);
    return PI2_OK;
}

const pi2_architecture pi2_architecture_gemma3n = {
    .name = "gemma3n", .activation = PI2_FFN_gelu_topk, .read_shape = gemma3n_read_shape,
    .read_layer = gemma3n_read_layer,
};
