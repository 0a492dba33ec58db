/* block.c: the list of kinds. They stand in src/blocks, above the pass that they are part of. */
#include "architectures/block.h"

#define BLOCK(name) extern const pi2_block_kind pi2_block_##name;
#include "architectures/blocks.inc"
#undef BLOCK

static const pi2_block_kind *const kinds[] = {
#define BLOCK(name) &pi2_block_##name,
#include "architectures/blocks.inc"
#undef BLOCK
};

const pi2_block_kind *pi2_block_kind_of(uint8_t block) { return kinds[block]; }

uint32_t pi2_layer_next_norm(const pi2_layer_shape *layer, uint32_t block) {
    while (block < layer->block_count && kinds[layer->blocks[block]]->norm == PI2_TABLE_ROLES) block++;
    return block;
}

bool pi2_layer_attends(const pi2_layer_shape *layer) {
    for (uint32_t b = 0; b < layer->block_count; b++) {
        if (kinds[layer->blocks[b]]->attends) return true;
    }
    return false;
}

bool pi2_model_is_recurrent(const pi2_model_shape *shape) {
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        for (uint32_t b = 0; b < shape->layers[i].block_count; b++) {
            if (kinds[shape->layers[i].blocks[b]]->is_recurrent) return true;
        }
    }
    return false;
}

pi2_block_needs pi2_block_needs_of(const pi2_model_shape *model, uint32_t layer, uint32_t block,
                                   const struct pi2_forward_shape *shape) {
    const pi2_block_kind *kind = kinds[model->layers[layer].blocks[block]];
    pi2_block_needs needs = { .is_recurrent = kind->is_recurrent };
    kind->needs(model, layer, shape, &needs);
    return needs;
}

size_t pi2_block_state_bytes(const pi2_block_needs *needs) {
    const size_t bytes = (needs->areas[0].bytes + needs->areas[1].bytes) * needs->repeats;
    return (bytes + 63) / 64 * 64;
}

size_t pi2_block_saved_bytes(const pi2_block_needs *needs) {
    if (needs->is_recurrent) return pi2_block_state_bytes(needs);
    const size_t tile = needs->areas[0].tile_bytes + needs->areas[1].tile_bytes;
    return (tile * needs->saved_tiles * needs->repeats + 63) / 64 * 64;
}
