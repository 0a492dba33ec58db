/* forward_states.c: the states of sequences between passes. */
#include <string.h>

#include <xxhash.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "base/little_endian.h"
#include "pipeline/forward_internal.h"

/* Where a sequence's recurrent states lie that are kept, those of all layers together. */
static uint8_t *kept_states(const pi2_forward *forward, uint32_t sequence, pi2_kept_states which) {
    return pi2_forward_sequence_states(forward, sequence) + (size_t)which * forward->recurrent_bytes;
}

void pi2_forward_clear_states(pi2_forward *forward, uint32_t sequence) {
    memset(kept_states(forward, sequence, PI2_STATES_LAST), 0, forward->recurrent_bytes);
}

void pi2_forward_return_to_mark(pi2_forward *forward, uint32_t sequence) {
    memcpy(kept_states(forward, sequence, PI2_STATES_LAST), kept_states(forward, sequence, PI2_STATES_MARKED),
           forward->recurrent_bytes);
}

/* ---- keys and values by page ---- */

pi2_kv_pages *pi2_forward_pages(const pi2_forward *forward) { return forward->pages; }

/* Of positions up to `end`. */
static uint32_t tiles_up_to(uint32_t end) {
    return (uint32_t)(((uint64_t)end + PI2_KV_TILE - 1) / PI2_KV_TILE);
}

/* The first one that a token at `position` sees. */
static uint32_t first_seen(const pi2_block_needs *needs, uint32_t position) {
    return needs->window && position >= needs->window ? (position - needs->window + 1) / PI2_KV_TILE : 0;
}

/* Of a layer that has keys and values: memory of one area, for all sequences. */
typedef struct key_area {
    const pi2_block_needs *needs;
    uint32_t layer;
    uint8_t *memory;
    size_t tile_bytes;
} key_area;
typedef pi2_status area_visitor(void *user, const key_area *area);

static pi2_status visit_areas(const pi2_forward *forward, uint32_t layer, area_visitor *visit, void *user) {
    const pi2_model_shape *model = &forward->model->shape;
    uint8_t *keys = pi2_forward_keys(forward, layer);
    for (uint32_t b = 0; b < model->layers[layer].block_count; b++) {
        const pi2_block_needs needs = pi2_block_needs_of(model, layer, b, &forward->options.shape);
        for (uint32_t r = 0; !needs.is_recurrent && r < needs.repeats; r++) {
            for (uint32_t a = 0; a < 2; keys += needs.areas[a++].bytes) {
                PI2_TRY(visit(user, &(key_area){ &needs, layer, keys, needs.areas[a].tile_bytes }));
            }
        }
    }
    return PI2_OK;
}

static void visit_all_areas(const pi2_forward *forward, area_visitor *visit, void *user) {
    for (uint32_t i = 0; i < forward->model->shape.layer_count; i++) (void)visit_areas(forward, i, visit, user);
}

typedef struct page_copy { uint32_t from, to; } page_copy;

static pi2_status copy_tile(void *user, const key_area *area) {
    const page_copy *copy = user;
    if (area->needs->tiles) return PI2_OK; /* a ring is the sequence's own */
    memcpy(area->memory + copy->to * area->tile_bytes, area->memory + copy->from * area->tile_bytes, area->tile_bytes);
    return PI2_OK;
}

void pi2_forward_copy_pages(pi2_forward *forward, uint32_t sequence) {
    page_copy copy;
    while (pi2_kv_pages_next_copy(forward->pages, sequence, &copy.from, &copy.to)) {
        visit_all_areas(forward, copy_tile, &copy);
    }
}

/* Tiles of an area, in the order of their positions; those that lie one behind the other are one part. */
static pi2_status visit_tiles(const key_area *area, const uint32_t *pages, uint32_t first, uint32_t end,
                              pi2_state_visitor *visit, void *user) {
    for (uint32_t t = first, next; t < end; t = next) {
        for (next = t + 1; next < end && pages[next] == pages[next - 1] + 1;) next++;
        PI2_TRY(visit(user, area->memory + pages[t] * area->tile_bytes, (next - t) * area->tile_bytes));
    }
    return PI2_OK;
}

/* ---- what cannot be taken back ---- */

/* What windows see goes to the second place, or comes from there: tiles of all rings, one after another. */
typedef struct exchange {
    const pi2_forward *forward;
    uint32_t sequence, position;
    bool restores;
    uint8_t *saved; /* of the next part */
} exchange;

static pi2_status exchange_part(void *user, void *bytes, size_t count) {
    exchange *with = user;
    memcpy(with->restores ? bytes : with->saved, with->restores ? with->saved : bytes, count);
    with->saved += count;
    return PI2_OK;
}

static pi2_status exchange_area(void *user, const key_area *area) {
    exchange *with = user;
    if (area->needs->tiles == 0) return PI2_OK;
    const uint32_t back = with->position > PI2_TAKEN_BACK ? with->position - PI2_TAKEN_BACK : 0;
    const uint32_t *pages = pi2_forward_layer_pages(with->forward, area->layer, with->sequence);
    return visit_tiles(area, pages, first_seen(area->needs, back), tiles_up_to(with->position), exchange_part, with);
}

static void exchange_windows(const pi2_forward *forward, uint32_t sequence, uint32_t position, bool restores) {
    exchange with = { forward, sequence, position, restores, pi2_forward_sequence_states(forward, sequence) };
    with.saved += pi2_forward_state_copies(&forward->options.shape) * forward->recurrent_bytes;
    if (forward->has_rings) visit_all_areas(forward, exchange_area, &with);
}

void pi2_forward_save_states(pi2_forward *forward, uint32_t sequence, uint32_t position) {
    memcpy(kept_states(forward, sequence, PI2_STATES_SAVED), kept_states(forward, sequence, PI2_STATES_LAST),
           forward->recurrent_bytes);
    exchange_windows(forward, sequence, position, false);
}

void pi2_forward_restore_states(pi2_forward *forward, uint32_t sequence, uint32_t position) {
    memcpy(kept_states(forward, sequence, PI2_STATES_LAST), kept_states(forward, sequence, PI2_STATES_SAVED),
           forward->recurrent_bytes);
    exchange_windows(forward, sequence, position, true);
}

typedef struct ring_copy { uint32_t from, to, tiles; } ring_copy;

static pi2_status copy_ring(void *user, const key_area *area) {
    const ring_copy *copy = user;
    const size_t ring = area->needs->tiles * area->tile_bytes;
    const uint32_t tiles = copy->tiles < area->needs->tiles ? copy->tiles : area->needs->tiles;
    memcpy(area->memory + copy->to * ring, area->memory + copy->from * ring, tiles * area->tile_bytes);
    return PI2_OK;
}

void pi2_forward_copy_own(pi2_forward *forward, uint32_t from, uint32_t to, uint32_t positions) {
    ring_copy copy = { from, to, tiles_up_to(positions) };
    memcpy(pi2_forward_sequence_states(forward, to), pi2_forward_sequence_states(forward, from), forward->own_bytes);
    if (forward->has_rings) visit_all_areas(forward, copy_ring, &copy);
}

/* ---- windows ---- */

typedef struct window_question {
    uint32_t position, answer;
} window_question;

/* Of those that begin anew: tiles up to the position have overwritten others. */
static pi2_status ask_least_return(void *user, const key_area *area) {
    const pi2_block_needs *needs = area->needs;
    window_question *question = user;
    const uint32_t tiles = tiles_up_to(question->position);
    if (needs->tiles == 0 || tiles <= needs->tiles) return PI2_OK;
    const uint32_t least = (tiles - needs->tiles) * PI2_KV_TILE + needs->window - 1;
    if (least > question->answer) question->answer = least;
    return PI2_OK;
}

uint32_t pi2_forward_least_return(const pi2_forward *forward, uint32_t written) {
    window_question question = { .position = written };
    if (forward->has_rings) visit_all_areas(forward, ask_least_return, &question);
    return question.answer;
}

static pi2_status ask_first_seen(void *user, const key_area *area) {
    window_question *question = user;
    if (area->needs->window == 0) return PI2_OK;
    const uint32_t first = first_seen(area->needs, question->position) * PI2_KV_TILE;
    if (first < question->answer) question->answer = first;
    return PI2_OK;
}

uint32_t pi2_forward_first_seen(const pi2_forward *forward, uint32_t position) {
    window_question question = { .position = position, .answer = UINT32_MAX };
    visit_all_areas(forward, ask_first_seen, &question);
    return question.answer;
}

/* ---- states as bytes ---- */

/* Positions of one layer's areas; pages: of the sequence, NULL: they are only counted. */
typedef struct shown {
    const pi2_positions *positions;
    const uint32_t *pages;
    pi2_state_visitor *visit;
    void *user;
    uint64_t bytes;
} shown;

static pi2_status show_area(void *user, const key_area *area) {
    shown *show = user;
    const uint32_t end = show->positions->end;
    uint32_t first = show->positions->first / PI2_KV_TILE;
    if (end <= show->positions->first) return PI2_OK;
    if (show->positions->seen_only && first_seen(area->needs, end) > first) first = first_seen(area->needs, end);
    const uint32_t tiles = tiles_up_to(end);
    show->bytes += first < tiles ? (tiles - first) * area->tile_bytes : 0;
    return show->pages ? visit_tiles(area, show->pages, first, tiles, show->visit, show->user) : PI2_OK;
}

pi2_status pi2_forward_visit_positions(const pi2_forward *forward, uint32_t sequence, uint32_t layer,
                                       const pi2_positions *positions, pi2_state_visitor *visit, void *user) {
    shown show = { positions, pi2_forward_layer_pages(forward, layer, sequence), visit, user, 0 };
    return visit_areas(forward, layer, show_area, &show);
}

uint64_t pi2_forward_positions_bytes(const pi2_forward *forward, uint32_t layer, const pi2_positions *positions) {
    shown show = { .positions = positions };
    (void)visit_areas(forward, layer, show_area, &show);
    return show.bytes;
}

pi2_status pi2_forward_visit_recurrent(const pi2_forward *forward, uint32_t sequence, pi2_kept_states which,
                                       pi2_state_visitor *visit, void *user) {
    if (forward->recurrent_bytes == 0) return PI2_OK;
    return visit(user, kept_states(forward, sequence, which), forward->recurrent_bytes);
}

/* A window decides which tiles a file has. */
static uint64_t hash_needs(uint64_t hash, const pi2_block_needs *needs) {
    const uint64_t numbers[] = { hash, needs->is_recurrent, needs->repeats,
                                 needs->areas[0].tile_bytes, needs->areas[1].tile_bytes,
                                 needs->is_recurrent ? pi2_block_state_bytes(needs) : 0, needs->window };
    const size_t count = sizeof numbers / sizeof *numbers - (needs->window ? 0 : 1);
    uint8_t bytes[sizeof numbers];
    for (size_t n = 0; n < count; n++) pi2_store_le64(bytes + 8 * n, numbers[n]);
    return XXH3_64bits(bytes, 8 * count);
}

uint64_t pi2_forward_hash_states(const pi2_forward *forward) {
    const pi2_model_shape *model = &forward->model->shape;
    uint64_t hash = model->layer_count;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        for (uint32_t b = 0; b < model->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(model, i, b, &forward->options.shape);
            hash = hash_needs(hash, &needs);
        }
    }
    return hash;
}
