/* forward_states.c: the states of sequences between passes. */
#include <string.h>

#include "architectures/block.h"
#include "kernels/attention/kv_layout.h"
#include "pipeline/forward_internal.h"

typedef enum states_act { STATES_CLEAR, STATES_SAVE, STATES_RESTORE } states_act;

static uint8_t *states_of(const pi2_forward *forward, uint32_t sequence) {
    return (uint8_t *)forward->options.cache + sequence * forward->sequence_bytes;
}

static void act_on_states(pi2_forward *forward, uint32_t sequence, states_act act) {
    const pi2_model_shape *model = &forward->model->shape;
    uint8_t *cache = states_of(forward, sequence), *saved = cache + forward->saved_at;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        for (uint32_t b = 0; b < model->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(model, i, b, &forward->options.shape);
            const size_t bytes = pi2_block_state_bytes(&needs);
            uint8_t *state = cache + forward->state_at[i];
            if (!needs.is_recurrent) continue;
            if (act == STATES_CLEAR) memset(state, 0, bytes);
            else if (act == STATES_SAVE) memcpy(saved, state, bytes);
            else memcpy(state, saved, bytes);
            saved += bytes;
        }
    }
}

void pi2_forward_clear_states(pi2_forward *forward, uint32_t sequence) {
    act_on_states(forward, sequence, STATES_CLEAR);
}

void pi2_forward_save_states(pi2_forward *forward, uint32_t sequence) {
    act_on_states(forward, sequence, STATES_SAVE);
}

void pi2_forward_restore_states(pi2_forward *forward, uint32_t sequence) {
    act_on_states(forward, sequence, STATES_RESTORE);
}

/* Of an area that fills by tiles, those that positions have begun. */
static void copy_block(const pi2_block_needs *needs, uint32_t positions, const uint8_t *from, uint8_t *to) {
    const size_t tiles = (positions + (size_t)PI2_KV_TILE - 1) / PI2_KV_TILE;
    size_t at = 0;
    for (uint32_t r = 0; r < needs->repeats; r++) {
        for (uint32_t a = 0; a < 2; at += needs->areas[a++].bytes) {
            const pi2_state_area *area = &needs->areas[a];
            const size_t filled = area->tile_bytes ? tiles * area->tile_bytes : area->bytes;
            memcpy(to + at, from + at, filled < area->bytes ? filled : area->bytes);
        }
    }
}

void pi2_forward_copy_states(pi2_forward *forward, uint32_t from, uint32_t to, uint32_t positions) {
    const pi2_model_shape *model = &forward->model->shape;
    const uint8_t *source = states_of(forward, from);
    uint8_t *target = states_of(forward, to);
    for (uint32_t i = 0; i < model->layer_count; i++) {
        size_t at = forward->state_at[i];
        for (uint32_t b = 0; b < model->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(model, i, b, &forward->options.shape);
            copy_block(&needs, positions, source + at, target + at);
            at += pi2_block_state_bytes(&needs);
        }
    }
    memcpy(target + forward->saved_at, source + forward->saved_at, pi2_forward_saved_bytes(forward->model,
                                                                                           &forward->options.shape));
}
