/* gate_sparsity.c: the keys that say where gelu_topk cuts Gate off. */
#include "architectures/gate_sparsity.h"

#include <math.h>

#include "base/fail.h"
#include "kernels/vector/gate_cutoff.h"

/* What the first ten layers of Gemma 3n have. */
static const float DEFAULT_SPARSITY = 0.95f;

/* Farther from the mean than this lies nothing that a float can tell. */
static const float MOST_DEVIATIONS = 12.0f;

/* A float for each layer: of an array one each, else the same for all. */
static pi2_status read_floats(const pi2_gguf *gguf, const char *key, uint32_t layers, float *values) {
    const char *path = pi2_gguf_file_path(gguf, 0);
    if (!pi2_gguf_is_array(gguf, key)) {
        PI2_TRY(pi2_gguf_f32_or(gguf, key, DEFAULT_SPARSITY, &values[0]));
        for (uint32_t i = 1; i < layers; i++) values[i] = values[0];
        return PI2_OK;
    }
    pi2_gguf_array array;
    PI2_TRY(pi2_gguf_array_get(gguf, key, &array));
    if (array.element_type != PI2_GGUF_F32 && array.element_type != PI2_GGUF_F64) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' is an array of type %u: it must have floats, one for each layer",
                        path, key, array.element_type);
    }
    if (array.count != layers) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' has %llu values, the model %u layers", path, key,
                        (unsigned long long)array.count, layers);
    }
    for (uint32_t i = 0; i < layers; i++) values[i] = pi2_gguf_array_f32(&array, i);
    return PI2_OK;
}

static pi2_status of_shares(const pi2_gguf *gguf, uint32_t layers, float *values) {
    PI2_TRY(read_floats(gguf, PI2_KEY_GATE_SPARSITY, layers, values));
    for (uint32_t i = 0; i < layers; i++) {
        const float share = values[i];
        if (!(share >= 0.0f && share < 1.0f)) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' has %g for layer %u: a share of zeros is at least 0 and less "
                            "than 1", pi2_gguf_file_path(gguf, 0), PI2_KEY_GATE_SPARSITY, (double)share, i);
        }
        values[i] = share > 0.0f ? pi2_gate_deviations(share) : -INFINITY;
    }
    return PI2_OK;
}

/* Converters write the inverse of the normal distribution: -infinity, or 0 in its place, for a layer without zeros. */
static pi2_status of_deviations(const pi2_gguf *gguf, uint32_t layers, float *values) {
    PI2_TRY(read_floats(gguf, PI2_KEY_GATE_DEVIATIONS, layers, values));
    for (uint32_t i = 0; i < layers; i++) {
        if (values[i] == 0.0f || values[i] == -INFINITY) {
            values[i] = -INFINITY;
        } else if (!(fabsf(values[i]) <= MOST_DEVIATIONS)) {
            return pi2_fail(PI2_ERR_FORMAT, "%s: key '%s' has %g for layer %u, standard deviations above the mean: at "
                            "most %g is possible", pi2_gguf_file_path(gguf, 0), PI2_KEY_GATE_DEVIATIONS,
                            (double)values[i], i, (double)MOST_DEVIATIONS);
        }
    }
    return PI2_OK;
}

pi2_status pi2_gate_sparsity_read(const pi2_gguf *gguf, pi2_model_shape *shape) {
    if (shape->activation != PI2_FFN_gelu_topk) return PI2_OK;
    if (shape->expert_count > 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: activation gelu_topk is computed in dense FFNs only, and this model "
                        "has %u experts", pi2_gguf_file_path(gguf, 0), shape->expert_count);
    }
    if (!pi2_gguf_has(gguf, PI2_KEY_GATE_SPARSITY) && pi2_gguf_has(gguf, PI2_KEY_GATE_DEVIATIONS)) {
        return of_deviations(gguf, shape->layer_count, shape->gate_deviations);
    }
    PI2_TRY(of_shares(gguf, shape->layer_count, shape->gate_deviations));
    for (uint32_t i = shape->cut_layers; shape->cut_layers && i < shape->layer_count; i++) {
        if (!pi2_gguf_has(gguf, PI2_KEY_GATE_SPARSITY)) shape->gate_deviations[i] = -INFINITY;
    }
    return PI2_OK;
}
