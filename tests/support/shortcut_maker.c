#include "support/shortcut_maker.h"

#include <stdlib.h>
#include <string.h>

#include "support/tiny_model.h"

void pi2_shortcut_maker_init(pi2_shortcut_maker *maker) {
    *maker = (pi2_shortcut_maker){ .layer_count = 6, .width = 512, .first = 1, .end = 5, .type = PI2_Q8_0,
                                   .scale = 1, .seed = 5 };
}

static bool is_there(const pi2_shortcut_maker *maker, const char *name) {
    return !maker->without || strcmp(maker->without, name) != 0;
}

static void add_tensor(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder, const char *name, uint32_t type,
                       uint32_t dimension_count, const uint64_t *dimensions, unsigned char *data, size_t length) {
    const bool is_altered = maker->altered && strcmp(maker->altered, name) == 0;
    if (is_altered) memcpy(data + 3 * sizeof(float), &maker->number, sizeof maker->number);
    if (is_there(maker, name)) {
        pi2_gguf_builder_tensor(builder, name, type, dimension_count, dimensions, data, length);
    }
}

static void add_weights(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder) {
    const uint64_t dimensions[] = { maker->width, maker->rows ? maker->rows : maker->width };
    /* A type that is none of weights has numbers of four bytes. */
    const pi2_weight_type drawn = pi2_weight_format_find(maker->type) ? maker->type : PI2_F32;
    size_t length = 0;
    unsigned char *weights = pi2_tiny_weights(drawn, dimensions[0] * dimensions[1],
                                              maker->deviation > 0 ? maker->deviation : 1, maker->seed, &length);
    if (!(maker->deviation > 0)) memset(weights, 0, length);
    add_tensor(maker, builder, "shortcut.weight", maker->type, 2, dimensions, weights, length);
    free(weights);
}

static void add_vector(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder, const char *name, float middle,
                       float spread, uint64_t length) {
    uint64_t state = maker->seed + 1;
    pi2_test_bytes bytes = { 0 };
    for (uint64_t i = 0; i < length; i++) {
        const float unit = (float)(pi2_tiny_random(&state) >> 40) / 16777216.0f;
        pi2_test_bytes_add_f32(&bytes, middle + spread * (unit - 0.5f));
    }
    add_tensor(maker, builder, name, PI2_F32, 1, &length, bytes.data, bytes.length);
    pi2_test_bytes_free(&bytes);
}

static void add_key(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder, const char *key, uint32_t value) {
    if (is_there(maker, key)) pi2_gguf_builder_u32(builder, key, value);
}

void pi2_shortcut_maker_build(const pi2_shortcut_maker *maker, pi2_gguf_builder *builder) {
    pi2_gguf_builder_init(builder);
    pi2_gguf_builder_string(builder, "general.architecture", "shortcut");
    add_key(maker, builder, "shortcut.block_count", maker->layer_count);
    add_key(maker, builder, "shortcut.embedding_length", maker->width);
    add_key(maker, builder, "shortcut.first_layer", maker->first);
    add_key(maker, builder, "shortcut.end_layer", maker->end);
    add_weights(maker, builder);
    add_vector(maker, builder, "shortcut.bias", 0, maker->deviation, maker->length ? maker->length : maker->width);
    add_vector(maker, builder, "shortcut.scale", maker->scale, maker->scale, maker->width);
}

int pi2_shortcut_maker_write(const pi2_shortcut_maker *maker, const char *path) {
    pi2_gguf_builder builder;
    pi2_shortcut_maker_build(maker, &builder);
    const int error = pi2_gguf_builder_write(&builder, path);
    pi2_gguf_builder_free(&builder);
    return error;
}
