/* powerinfer_model.c: random matrices under the names and in the shapes that PowerInfer's files have. */
#include "support/powerinfer_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add(pi2_gguf_builder *builder, uint32_t layer, const char *name, pi2_weight_type type, uint64_t columns,
                uint64_t rows, uint64_t seed) {
    const uint64_t dimensions[2] = {columns, rows};
    char full[64];
    size_t length = 0;
    (void)snprintf(full, sizeof full, "blk.%u.%s", layer, name);
    unsigned char *data = pi2_tiny_weights(type, columns * rows, 1.0f / sqrtf((float)columns), seed + layer, &length);
    pi2_gguf_builder_tensor(builder, full, (uint32_t)type, rows > 1 ? 2 : 1, dimensions, data, length);
    free(data);
}

/** Values of `bytes` bytes, one row for each neuron, as one row for each output. */
static void turn(const unsigned char *by_neuron, unsigned char *by_output, size_t neurons, size_t outputs,
                 size_t bytes) {
    for (size_t n = 0; n < neurons; n++) {
        for (size_t o = 0; o < outputs; o++) {
            memcpy(by_output + (o * neurons + n) * bytes, by_neuron + (n * outputs + o) * bytes, bytes);
        }
    }
}

static void add_ordinary(pi2_gguf_builder *builder, const char *name, pi2_weight_type type,
                         const unsigned char *by_neuron, size_t neurons, size_t outputs) {
    const pi2_weight_format *format = pi2_weight_format_find((uint32_t)type);
    const bool has_blocks = format->block_columns > 1;
    const size_t bytes = has_blocks ? sizeof(float) : format->block_bytes;
    const uint64_t dimensions[2] = {neurons, outputs};
    float *floats = malloc(neurons * outputs * sizeof *floats);
    unsigned char *by_output = malloc(neurons * outputs * bytes);
    if (!floats || !by_output) abort();
    if (has_blocks) format->decode_row(floats, by_neuron, neurons * outputs / format->block_columns);
    turn(has_blocks ? (const unsigned char *)floats : by_neuron, by_output, neurons, outputs, bytes);
    pi2_gguf_builder_tensor(builder, name, has_blocks ? PI2_F32 : (uint32_t)type, 2, dimensions, by_output,
                            neurons * outputs * bytes);
    free(by_output);
    free(floats);
}

void pi2_powerinfer_add_down(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, uint32_t layer) {
    const uint64_t neurons = options->feed_forward_length, outputs = options->embedding_length;
    const uint64_t dimensions[2] = {outputs, neurons};
    size_t length = 0;
    char name[64];
    unsigned char *data = pi2_tiny_weights(options->down_type, neurons * outputs, 1.0f / sqrtf((float)neurons),
                                           options->seed + 1000 + layer, &length);
    (void)snprintf(name, sizeof name, "blk.%u.ffn_down%s.weight", layer, options->predictor_rank ? "_t" : "");
    if (options->predictor_rank) {
        pi2_gguf_builder_tensor(builder, name, (uint32_t)options->down_type, 2, dimensions, data, length);
    } else {
        add_ordinary(builder, name, options->down_type, data, (size_t)neurons, (size_t)outputs);
    }
    free(data);
}

void pi2_powerinfer_add_predictor(const pi2_tiny_model_options *options, pi2_gguf_builder *builder, uint32_t layer) {
    const uint64_t rank = options->predictor_rank;
    add(builder, layer, "fc1.weight", PI2_F16, options->embedding_length, rank, options->seed + 2000);
    add(builder, layer, "fc2.weight", PI2_F16, rank, options->feed_forward_length, options->seed + 3000);
}
