/* forward_states.c: the states of sequences between passes. */
#include <string.h>

#include <xxhash.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "base/little_endian.h"
#include "kernels/attention/kv_layout.h"
#include "pipeline/forward_internal.h"

static uint8_t *states_of(const pi2_forward *forward, uint32_t sequence) {
    return (uint8_t *)forward->options.cache + sequence * forward->sequence_bytes;
}

/* A block's state, the second place for what of it cannot be taken back, and where it is marked. */
typedef struct block_state {
    pi2_block_needs needs;
    uint8_t *state, *saved, *marked;
} block_state;
typedef pi2_status block_act(const block_state *block, void *user);

static pi2_status each_block(const pi2_forward *forward, uint32_t sequence, block_act *act, void *user) {
    const pi2_model_shape *model = &forward->model->shape;
    uint8_t *state = states_of(forward, sequence), *saved = state + forward->saved_at;
    uint8_t *marked = saved + pi2_forward_saved_bytes(forward->model, &forward->options.shape);
    for (uint32_t i = 0; i < model->layer_count; i++) {
        for (uint32_t b = 0; b < model->layers[i].block_count; b++) {
            const block_state block = { pi2_block_needs_of(model, i, b, &forward->options.shape), state, saved,
                                        marked };
            PI2_TRY(act(&block, user));
            state += pi2_block_state_bytes(&block.needs);
            if (block.needs.is_recurrent) marked += pi2_block_state_bytes(&block.needs);
            saved += pi2_block_saved_bytes(&block.needs);
        }
    }
    return PI2_OK;
}

/* ---- tiles ---- */

/* Of positions up to `end`. */
static uint32_t tiles_up_to(uint32_t end) {
    return (uint32_t)(((uint64_t)end + PI2_KV_TILE - 1) / PI2_KV_TILE);
}

/* The first one that a token at `position` sees. */
static uint32_t first_seen(const pi2_block_needs *needs, uint32_t position) {
    return needs->window && position >= needs->window ? (position - needs->window + 1) / PI2_KV_TILE : 0;
}

/* Tiles from `first` up to `end`, of every area: in parts that lie in a row, in the order of positions. */
static pi2_status visit_tiles(const pi2_block_needs *needs, uint32_t first, uint32_t end, uint8_t *state,
                              pi2_state_visitor *visit, void *user) {
    for (uint32_t r = 0; r < needs->repeats; r++) {
        for (uint32_t a = 0; a < 2; state += needs->areas[a++].bytes) {
            const size_t tile = needs->areas[a].tile_bytes;
            for (uint32_t at = first, count; tile && at < end; at += count) {
                const uint32_t place = at % needs->tiles, left = needs->tiles - place;
                count = end - at < left ? end - at : left;
                PI2_TRY(visit(user, state + place * tile, count * tile));
            }
        }
    }
    return PI2_OK;
}

/* ---- what cannot be taken back ---- */

static pi2_status clear_block(const block_state *block, void *user) {
    (void)user;
    if (block->needs.is_recurrent) memset(block->state, 0, pi2_block_state_bytes(&block->needs));
    return PI2_OK;
}

void pi2_forward_clear_states(pi2_forward *forward, uint32_t sequence) {
    (void)each_block(forward, sequence, clear_block, NULL);
}

/* Parts of a state go to the second place, or come from there. */
typedef struct exchange {
    uint32_t position;
    bool restores;
    uint8_t *saved; /* of the next part */
} exchange;

static pi2_status exchange_part(void *user, void *bytes, size_t count) {
    exchange *with = user;
    memcpy(with->restores ? bytes : with->saved, with->restores ? with->saved : bytes, count);
    with->saved += count;
    return PI2_OK;
}

static pi2_status exchange_block(const block_state *block, void *user) {
    const pi2_block_needs *needs = &block->needs;
    exchange *with = user;
    with->saved = block->saved;
    if (needs->is_recurrent) return exchange_part(with, block->state, pi2_block_state_bytes(needs));
    if (needs->saved_tiles == 0) return PI2_OK;
    const uint32_t back = with->position > PI2_TAKEN_BACK ? with->position - PI2_TAKEN_BACK : 0;
    return visit_tiles(needs, first_seen(needs, back), tiles_up_to(with->position), block->state,
                       exchange_part, with);
}

void pi2_forward_save_states(pi2_forward *forward, uint32_t sequence, uint32_t position) {
    (void)each_block(forward, sequence, exchange_block, &(exchange){ .position = position });
}

void pi2_forward_restore_states(pi2_forward *forward, uint32_t sequence, uint32_t position) {
    (void)each_block(forward, sequence, exchange_block, &(exchange){ .position = position, .restores = true });
}

static pi2_status return_block(const block_state *block, void *user) {
    (void)user;
    if (block->needs.is_recurrent) memcpy(block->state, block->marked, pi2_block_state_bytes(&block->needs));
    return PI2_OK;
}

void pi2_forward_return_to_mark(pi2_forward *forward, uint32_t sequence) {
    (void)each_block(forward, sequence, return_block, NULL);
}

/* ---- windows ---- */

typedef struct window_question {
    uint32_t position, answer;
} window_question;

/* Of those that begin anew: tiles up to the position have overwritten others. */
static pi2_status ask_least_return(const block_state *block, void *user) {
    const pi2_block_needs *needs = &block->needs;
    window_question *question = user;
    const uint32_t tiles = tiles_up_to(question->position);
    if (needs->saved_tiles == 0 || tiles <= needs->tiles) return PI2_OK;
    const uint32_t least = (tiles - needs->tiles) * PI2_KV_TILE + needs->window - 1;
    if (least > question->answer) question->answer = least;
    return PI2_OK;
}

uint32_t pi2_forward_least_return(const pi2_forward *forward, uint32_t written) {
    window_question question = { .position = written };
    (void)each_block(forward, 0, ask_least_return, &question);
    return question.answer;
}

static pi2_status ask_first_seen(const block_state *block, void *user) {
    window_question *question = user;
    if (block->needs.window == 0 || block->needs.repeats == 0) return PI2_OK;
    const uint32_t first = first_seen(&block->needs, question->position) * PI2_KV_TILE;
    if (first < question->answer) question->answer = first;
    return PI2_OK;
}

uint32_t pi2_forward_first_seen(const pi2_forward *forward, uint32_t position) {
    window_question question = { .position = position, .answer = UINT32_MAX };
    (void)each_block(forward, 0, ask_first_seen, &question);
    return question.answer;
}

/* ---- a copy ---- */

typedef struct copying {
    uint32_t positions;
    ptrdiff_t distance; /* to the other sequence's states */
} copying;

/* Of an area that fills by tiles, those that positions have begun. */
static pi2_status copy_block(const block_state *block, void *user) {
    const pi2_block_needs *needs = &block->needs;
    const copying *copy = user;
    const size_t tiles = tiles_up_to(copy->positions);
    const uint8_t *from = block->state;
    for (uint32_t r = 0; r < needs->repeats; r++) {
        for (uint32_t a = 0; a < 2; from += needs->areas[a++].bytes) {
            const pi2_state_area *area = &needs->areas[a];
            const size_t filled = area->tile_bytes ? tiles * area->tile_bytes : area->bytes;
            memcpy((uint8_t *)(uintptr_t)from + copy->distance, from, filled < area->bytes ? filled : area->bytes);
        }
    }
    return PI2_OK;
}

void pi2_forward_copy_states(pi2_forward *forward, uint32_t from, uint32_t to, uint32_t positions) {
    const uint8_t *source = states_of(forward, from);
    uint8_t *target = states_of(forward, to);
    copying copy = { positions, target - source };
    (void)each_block(forward, from, copy_block, &copy);
    memcpy(target + forward->saved_at, source + forward->saved_at, forward->sequence_bytes - forward->saved_at);
}

/* ---- states as bytes ---- */

pi2_status pi2_forward_visit_positions(const pi2_forward *forward, uint32_t sequence, uint32_t layer,
                                       const pi2_positions *positions, pi2_state_visitor *visit, void *user) {
    const pi2_model_shape *model = &forward->model->shape;
    const uint32_t first = positions->first, end = positions->end;
    uint8_t *state = states_of(forward, sequence) + forward->state_at[layer];
    for (uint32_t b = 0; b < model->layers[layer].block_count && first < end; b++) {
        const pi2_block_needs needs = pi2_block_needs_of(model, layer, b, &forward->options.shape);
        uint32_t tile = first / PI2_KV_TILE;
        if (positions->seen_only && first_seen(&needs, end) > tile) tile = first_seen(&needs, end);
        if (!needs.is_recurrent) PI2_TRY(visit_tiles(&needs, tile, tiles_up_to(end), state, visit, user));
        state += pi2_block_state_bytes(&needs);
    }
    return PI2_OK;
}

typedef struct recurrent_visit {
    pi2_kept_states which;
    pi2_state_visitor *visit;
    void *user;
} recurrent_visit;

static pi2_status visit_recurrent(const block_state *block, void *user) {
    const recurrent_visit *with = user;
    if (!block->needs.is_recurrent) return PI2_OK;
    uint8_t *state = with->which == PI2_STATES_LAST ? block->state
                   : with->which == PI2_STATES_SAVED ? block->saved : block->marked;
    return with->visit(with->user, state, pi2_block_state_bytes(&block->needs));
}

pi2_status pi2_forward_visit_recurrent(const pi2_forward *forward, uint32_t sequence, pi2_kept_states which,
                                       pi2_state_visitor *visit, void *user) {
    recurrent_visit with = { which, visit, user };
    return each_block(forward, sequence, visit_recurrent, &with);
}

/* A window decides which tiles a file has. */
static pi2_status hash_block(const block_state *block, void *user) {
    const pi2_block_needs *needs = &block->needs;
    uint64_t *hash = user;
    const uint64_t numbers[] = { *hash, needs->is_recurrent, needs->repeats,
                                 needs->areas[0].tile_bytes, needs->areas[1].tile_bytes,
                                 needs->is_recurrent ? pi2_block_state_bytes(needs) : 0, needs->window };
    const size_t count = sizeof numbers / sizeof *numbers - (needs->window ? 0 : 1);
    uint8_t bytes[sizeof numbers];
    for (size_t n = 0; n < count; n++) pi2_store_le64(bytes + 8 * n, numbers[n]);
    *hash = XXH3_64bits(bytes, 8 * count);
    return PI2_OK;
}

uint64_t pi2_forward_hash_states(const pi2_forward *forward) {
    uint64_t hash = forward->model->shape.layer_count;
    (void)each_block(forward, 0, hash_block, &hash);
    return hash;
}
