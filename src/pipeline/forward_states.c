/* forward_states.c: the states of sequences between passes. */
#include <string.h>

#include <xxhash.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "base/little_endian.h"
#include "kernels/attention/kv_layout.h"
#include "pipeline/forward_internal.h"

typedef enum states_act { STATES_CLEAR, STATES_SAVE, STATES_RESTORE, STATES_RETURN } states_act;

static uint8_t *states_of(const pi2_forward *forward, uint32_t sequence) {
    return (uint8_t *)forward->options.cache + sequence * forward->sequence_bytes;
}

/* Where states that are kept beside the last ones lie, all recurrent ones together. */
static size_t kept_at(const pi2_forward *forward, pi2_kept_states which) {
    const size_t bytes = pi2_forward_saved_bytes(forward->model, &forward->options.shape);
    return forward->saved_at + (which == PI2_STATES_MARKED ? bytes : 0);
}

static void act_on_states(pi2_forward *forward, uint32_t sequence, states_act act) {
    const pi2_model_shape *model = &forward->model->shape;
    uint8_t *cache = states_of(forward, sequence);
    uint8_t *saved = cache + kept_at(forward, act == STATES_RETURN ? PI2_STATES_MARKED : PI2_STATES_SAVED);
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

void pi2_forward_return_to_mark(pi2_forward *forward, uint32_t sequence) {
    act_on_states(forward, sequence, STATES_RETURN);
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
    memcpy(target + forward->saved_at, source + forward->saved_at, forward->sequence_bytes - forward->saved_at);
}

/* ---- states as bytes ---- */

/* Tiles from `first` up to `end`, of an area's. */
static pi2_status visit_block(const pi2_block_needs *needs, uint32_t first, uint32_t end, uint8_t *state,
                              pi2_state_visitor *visit, void *user) {
    const size_t first_tile = first / PI2_KV_TILE, end_tile = (end + (size_t)PI2_KV_TILE - 1) / PI2_KV_TILE;
    for (uint32_t r = 0; r < needs->repeats; r++) {
        for (uint32_t a = 0; a < 2; state += needs->areas[a++].bytes) {
            const size_t tile = needs->areas[a].tile_bytes;
            if (tile) PI2_TRY(visit(user, state + first_tile * tile, (end_tile - first_tile) * tile));
        }
    }
    return PI2_OK;
}

pi2_status pi2_forward_visit_positions(const pi2_forward *forward, uint32_t sequence, uint32_t layer, uint32_t first,
                                       uint32_t end, pi2_state_visitor *visit, void *user) {
    const pi2_model_shape *model = &forward->model->shape;
    uint8_t *state = states_of(forward, sequence) + forward->state_at[layer];
    for (uint32_t b = 0; b < model->layers[layer].block_count && first < end; b++) {
        const pi2_block_needs needs = pi2_block_needs_of(model, layer, b, &forward->options.shape);
        if (!needs.is_recurrent) PI2_TRY(visit_block(&needs, first, end, state, visit, user));
        state += pi2_block_state_bytes(&needs);
    }
    return PI2_OK;
}

pi2_status pi2_forward_visit_recurrent(const pi2_forward *forward, uint32_t sequence, pi2_kept_states which,
                                       pi2_state_visitor *visit, void *user) {
    const pi2_model_shape *model = &forward->model->shape;
    uint8_t *state = states_of(forward, sequence), *kept = state + kept_at(forward, which);
    for (uint32_t i = 0; i < model->layer_count; i++) {
        for (uint32_t b = 0; b < model->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(model, i, b, &forward->options.shape);
            const size_t bytes = pi2_block_state_bytes(&needs);
            if (needs.is_recurrent) {
                PI2_TRY(visit(user, which == PI2_STATES_LAST ? state : kept, bytes));
                kept += bytes;
            }
            state += bytes;
        }
    }
    return PI2_OK;
}

uint64_t pi2_forward_hash_states(const pi2_forward *forward) {
    const pi2_model_shape *model = &forward->model->shape;
    uint64_t hash = model->layer_count;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        for (uint32_t b = 0; b < model->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(model, i, b, &forward->options.shape);
            const uint64_t numbers[] = { hash, needs.is_recurrent, needs.repeats,
                                         needs.areas[0].tile_bytes, needs.areas[1].tile_bytes,
                                         needs.is_recurrent ? pi2_block_state_bytes(&needs) : 0 };
            uint8_t bytes[sizeof numbers];
            for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) pi2_store_le64(bytes + 8 * n, numbers[n]);
            hash = XXH3_64bits(bytes, sizeof bytes);
        }
    }
    return hash;
}
