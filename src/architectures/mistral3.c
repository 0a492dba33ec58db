/*
 * mistral3.c: Ministral 3: a Llama whose rotations are scaled by YaRN without its magnitude, and whose queries grow
 * with the position.
 */
#include <math.h>

#include "architectures/decoder.h"
#include "base/fail.h"

/* YaRN's own magnitude for a factor and a multiplier. */
static double magnitude_of(double factor, double multiplier) {
    return factor <= 1.0 ? 1.0 : 1.0 + 0.1 * multiplier * log(factor);
}

static pi2_status read_magnitude(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    pi2_rope_shape *rope = &shape->rope;
    float multiplier = 0.0f;
    PI2_TRY(pi2_architecture_f32_or(model, shape->architecture, "rope.scaling.yarn_log_multiplier", 0.0f, &multiplier));
    if (!rope->yarn) return PI2_OK;
    const double factor = 1.0 / (double)rope->linear_scale, own = magnitude_of(factor, 1.0);
    const double wanted = multiplier != 0.0f ? own / magnitude_of(factor, (double)multiplier) : 1.0;
    rope->attention_factor = (float)(wanted / own);
    return PI2_OK;
}

static pi2_status mistral3_read_shape(const pi2_tensor_directory *model, pi2_model_shape *shape) {
    PI2_TRY(pi2_decoder_read_shape(model, shape));
    PI2_TRY(read_magnitude(model, shape));
    PI2_TRY(pi2_architecture_f32_or(model, shape->architecture, "attention.temperature_scale", 0.0f,
                                    &shape->temperature_scale));
    if (shape->temperature_scale == 0.0f) return PI2_OK;
    if (shape->rope.original_context > 0 && fabsf(shape->temperature_scale) <= 1e3f) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: %s.attention.temperature_scale is %g, with an original context of %u "
                    "positions", pi2_gguf_file_path(model->gguf, 0), shape->architecture,
                    (double)shape->temperature_scale, shape->rope.original_context);
}

const pi2_architecture pi2_architecture_mistral3 = {
    .name = "mistral3", .activation = PI2_FFN_silu, .read_shape = mistral3_read_shape,
};
