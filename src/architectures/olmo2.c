/*
 * olmo2.c: OLMo 2 and 3: blocks read the residual stream as it is, and their results are normed; queries and keys are
 * normed, all heads of a token as one. OLMo 3 has windows: three layers of four see one, and are rotated without the
 * scaling of the fourth.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { PERIOD = 4 };

static pi2_status olmo2_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->whole_norms = true;
    shape->bare_inputs = true;
    shape->post_norms = true;
    PI2_TRY(pi2_decoder_read_window(model, shape, 0));
    pi2_decoder_unscale_local_rope(shape);
    return PI2_OK;
}

static pi2_status olmo2_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                   pi2_layer_shape *layer) {
    bool is_local;
    PI2_TRY(pi2_decoder_read_layer_window(model, shape, number, PERIOD, layer, &is_local));
    if (is_local) layer->rope = 1;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_olmo2 = {
    .name = "olmo2", .activation = PI2_FFN_silu, .read_shape = olmo2_read_shape, .read_layer = olmo2_read_layer,
};
