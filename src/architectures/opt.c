/*
 * opt.c: OPT: each position has a vector that is added to the embedding, after two rows that no position uses; nothing
 * is rotated; LayerNorm; biases everywhere; an ungated FFN with ReLU. OPT-350M, whose embedding has another width, and
 * which norms after it adds, is refused by that width.
 */
#include "architectures/decoder.h"
#include "base/fail.h"

/* As many positions as the table has vectors for, and no longer a context. */
static pi2_status read_positions(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    static const char name[] = "position_embd.weight";
    const char *path = pi2_gguf_file_path(model->gguf, 0);
    const pi2_gguf_tensor *positions = pi2_architecture_tensor(model, UINT32_MAX, name);
    if (!positions) return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' is missing", path, name);
    const uint64_t rows = positions->dimensions[1];
    if (rows <= PI2_POSITION_OFFSET || rows > 1u << 24) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: tensor '%s' has %llu rows, of which the first %d are of no position", path,
                        name, (unsigned long long)rows, PI2_POSITION_OFFSET);
    }
    shape->learned_positions = (uint32_t)rows - PI2_POSITION_OFFSET;
    if (shape->context_length > shape->learned_positions) shape->context_length = shape->learned_positions;
    return PI2_OK;
}

static pi2_status opt_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(pi2_decoder_refuse_experts(model, shape));
    PI2_TRY(pi2_decoder_use_layer_norm(model, shape));
    return read_positions(model, shape);
}

const pi2_architecture pi2_architecture_opt = {
    .name = "opt", .activation = PI2_FFN_relu, .has_powerinfer_files = true, .read_shape = opt_read_shape,
};
