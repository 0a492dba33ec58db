#include "support/shortcut_maker.h"

#include <stdlib.h>
#include <string.h>

#include "support/tiny_model.h"

void pi2_shortcut_maker_init(pi2_shortcut_maker *maker) {
    *maker = (pi2_shortcut_maker){ .layer_count = 6, .width = 512, .first = 1, .end = 5, .type = PI2_Q8_0,
                                   .scale = 1, .seed = 5 };
}

static void add_weights(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder) {
    const uint64_t dimensions[] = { maker->width, maker->width };
    size_t length = 0;
    unsigned char *weights = pi2_tiny_weights(maker->type, dimensions[0] * dimensions[1],
                                              maker->deviation > 0 ? maker->deviation : 1, maker->seed, &length);
    if (!(maker->deviation > 0)) memset(weights, 0, length);
    pi2_gguf_builder_tensor(builder, "shortcut.weight", maker->type, 2, dimensions, weights, length);
    free(weights);
}

static void add_vector(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder, const char *name, float middle,
                       float spread) {
    const uint64_t width = maker->width;
    uint64_t state = maker->seed + 1;
    pi2_test_bytes bytes = { 0 };
    for (uint64_t i = 0; i < width; i++) {
        const float unit = (float)(pi2_tiny_random(&state) >> 40) / 16777216.0f;
        pi2_test_bytes_add_f32(&bytes, middle + spread * (unit - 0.5f));
    }
    pi2_gguf_builder_tensor(builder, name, PI2_F32, 1, &width, bytes.data, bytes.length);
    pi2_test_bytes_free(&bytes);
}

void pi2_shortcut_maker_build(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder) {
    pi2_gguf_builder_init(builder);
    pi2_gguf_builder_string(builder, "general.architecture", "shortcut");
    pi2_gguf_builder_u32(builder, "shortcut.block_count", maker->layer_count);
    pi2_gguf_builder_u32(builder, "shortcut.embedding_length", maker->width);
    pi2_gguf_builder_u32(builder, "shortcut.first_layer", maker->first);
    pi2_gguf_builder_u32(builder, "shortcut.end_layer", maker->end);
    add_weights(maker, builder);
    add_vector(maker, builder, "shortcut.bias", 0, maker->deviation);
    add_vector(maker, builder, "shortcut.scale", maker->scale, maker->scale);
}

int pi2_shortcut_maker_write(const pi2_shortcut_maker *maker, const char *path) {
    pi2_gguf_builder builder;
    pi2_shortcut_maker_build(maker, &builder);
    const int error = pi2_gguf_builder_write(&builder, path);
    pi2_gguf_builder_free(&builder);
    return error;
}
