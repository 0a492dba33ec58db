/*
 * exaone4.c: EXAONE 4: blocks read the residual stream as it is, and their results are normed; queries and keys are
 * normed, head by head. With windows three layers of four see one, and the fourth is not rotated.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

enum { PERIOD = 4 };

static pi2_status exaone4_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->head_norms = true;
    shape->bare_inputs = true;
    shape->post_norms = true;
    return pi2_decoder_read_window(model, shape, 0);
}

static pi2_status exaone4_read_layer(const pi2_tensor_directory *model, const pi2_model_shape *shape, uint32_t number,
                                     pi2_layer_shape *layer) {
    bool is_local;
    PI2_TRY(pi2_decoder_read_layer_window(model, shape, number, PERIOD, layer, &is_local));
    if (!is_local && shape->window > 0) layer->rope = PI2_NO_ROPE;
    return PI2_OK;
}

const pi2_architecture pi2_architecture_exaone4 = {
    .name = "exaone4", .activation = PI2_FFN_silu, .read_shape = exaone4_read_shape, .read_layer = exaone4_read_layer,
};
