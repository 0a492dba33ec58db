/*
 * minimax_m2.c: MiniMax M2: all of a token's queries are normed as one, its keys too; a router of sigmoids whose bias
 * says which experts are chosen, and whose weights sum to 1.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

static pi2_status minimax_m2_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    shape->rope.pairing = PI2_ROPE_NEOX;
    shape->whole_norms = true;
    shape->router_has_bias = true;
    PI2_TRY(pi2_decoder_require_experts(model, shape));
    return pi2_decoder_read_gating(model, shape, PI2_GATING_SIGMOID);
}

const pi2_architecture pi2_architecture_minimax_m2 = {
    .name = "minimax-m2", .activation = PI2_FFN_silu, .read_shape = minimax_m2_read_shape,
};
