/*
 * forward_keep.c: what a pass of all neurons leaves in the store of single ones. It streams every neuron past, in
 * tiles; those for which the store has an empty slot are taken out of them on the way, so that the tokens behind a
 * prompt find them without another read. Nothing that the pass computes depends on it.
 *
 *   rows       of Up, where bundles have it of Gate too, by the thread that has just computed them for the last time:
 *              by then it is known who fires for the prompt's last tokens, and those are kept
 *   columns    of Down, in a stage between a run's Gate and Up and its Down, 32 neurons at a time
 */
#include <string.h>

#include "pipeline/ffn_unit.h"

bool pi2_forward_may_keep(const pi2_forward *forward, const pi2_neuron_bank *bank) {
    const pi2_weight_format *formats[] = { bank->gate_format, bank->up_format, bank->down_format };
    if (bank->expert != UINT32_MAX) return false; /* whole experts are read for prompts, by another way */
    const bool is_cut = pi2_layer_cuts_gate(&forward->model->shape, bank->layer);
    if (bank->gate_format && is_cut) return false; /* Gate is gone before its Up */
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        if (formats[i] && !pi2_neuron_comes_of_tiles(formats[i])) return false;
    }
    return true;
}

/* The bank of which the layer's neurons are kept; PI2_NO_BANK: none are. */
static uint32_t kept_bank(const pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    if (!forward->keeps) return PI2_NO_BANK;
    const uint32_t number = forward->bank_of[walk->layer];
    return number != PI2_NO_BANK && forward->may_keep[number] ? number : PI2_NO_BANK;
}

/* ---- rows ---- */

/* A neuron's row of a matrix, then zeros up to `room`. False: the pass fails. */
static bool keep_row(const pi2_forward_walk *walk, const pi2_operand *operand, uint32_t neuron, uint8_t *values,
                     uint32_t room) {
    const pi2_weight_format *format = operand->tensor->format;
    const size_t bytes = pi2_neuron_row_value_bytes(format, operand->tensor->columns);
    const pi2_tiles tiles = pi2_forward_tiles(walk->forward, operand, neuron / PI2_TILE_ROWS, 0);
    if (!tiles.memory) return false;
    pi2_neuron_row_of_tile(format, values, tiles.memory, neuron % PI2_TILE_ROWS,
                           operand->tensor->columns / format->block_columns);
    memset(values + bytes, 0, room - bytes);
    return true;
}

bool pi2_forward_keeps_rows(const pi2_forward_walk *walk) { return kept_bank(walk) != PI2_NO_BANK; }

void pi2_forward_keep_rows(const pi2_forward_walk *walk, uint32_t begin, uint32_t end) {
    const pi2_forward *forward = walk->forward;
    const uint32_t number = kept_bank(walk);
    if (number == PI2_NO_BANK || pi2_forward_failed(forward)) return;
    pi2_neuron_store_choose_kept(forward->options.neurons, number, begin, end);
    const pi2_neuron_bank *bank = &forward->options.banks->banks[number];
    const pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    for (uint32_t neuron = begin; neuron < end; neuron++) {
        uint8_t *bundle = pi2_neuron_store_place(forward->options.neurons, number, neuron);
        if (!bundle) continue;
        const uint32_t gate_room = bank->up_format ? bank->up_offset : bank->down_offset;
        if (bank->gate_format && !keep_row(walk, unit.gate, neuron, bundle, gate_room)) return;
        if (bank->up_format && !keep_row(walk, unit.up, neuron, bundle + bank->up_offset,
                                         bank->down_offset - bank->up_offset)) return;
    }
}

/* ---- columns ---- */

/* Down's tiles of a cluster's columns, one after the other. */
typedef struct tile_walk {
    pi2_forward *forward;
    const pi2_operand *down;
    uint32_t column; /* where the cluster begins */
    pi2_tiles tiles;
} tile_walk;

static const uint8_t *next_tile(tile_walk *at, uint32_t tile) {
    if (!at->tiles.memory || tile >= at->tiles.end) {
        at->tiles = pi2_forward_tiles(at->forward, at->down, tile, at->column);
        if (!at->tiles.memory) return NULL;
        return at->tiles.memory;
    }
    return at->tiles.memory + (size_t)(tile - at->tiles.first) * at->tiles.bytes;
}

/* Of the columns of 32 neurons those that have a place. False: the pass fails. */
static bool keep_columns(const pi2_forward_walk *walk, uint32_t begin, uint8_t *const *columns) {
    const pi2_layer_weights *layer = &walk->forward->model->layers[walk->layer];
    const pi2_dense_ffn ffn = pi2_layer_dense_ffn(layer);
    const uint32_t cluster = walk->forward->model->layout->groups[ffn.group].cluster_neurons;
    tile_walk at = { .forward = walk->forward, .down = ffn.down, .column = begin / cluster * cluster };
    const uint32_t tiles = ffn.down->tile_count;
    for (uint32_t tile = 0; tile < tiles; tile += 2) {
        const uint8_t *first = next_tile(&at, tile);
        const uint8_t *second = first && tile + 1 < tiles ? next_tile(&at, tile + 1) : NULL;
        if (!first || (!second && tile + 1 < tiles)) return false;
        pi2_neuron_columns_of_tiles(ffn.down->tensor->format, columns, tile / 2, first, second, at.tiles.columns,
                                    (begin - at.column) / PI2_NEURON_PLANE_COLUMNS);
    }
    return true;
}

static void keep_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    pi2_neuron_store *neurons = walk->forward->options.neurons;
    const uint32_t number = kept_bank(walk), begin = walk->run.begin + chunk * PI2_NEURON_PLANE_COLUMNS;
    const pi2_neuron_bank *bank = &walk->forward->options.banks->banks[number];
    const size_t bytes = pi2_neuron_column_value_bytes(bank->down_format, bank->width);
    uint8_t *columns[PI2_NEURON_PLANE_COLUMNS];
    bool any = false;
    for (uint32_t i = 0; i < PI2_NEURON_PLANE_COLUMNS; i++) {
        uint8_t *bundle = begin + i < walk->run.end ? pi2_neuron_store_place(neurons, number, begin + i) : NULL;
        columns[i] = bundle ? bundle + bank->down_offset : NULL;
        any |= bundle != NULL;
    }
    if (!any || !keep_columns(walk, begin, columns)) return;
    for (uint32_t i = 0; i < PI2_NEURON_PLANE_COLUMNS; i++) {
        if (!columns[i]) continue;
        memset(columns[i] + bytes, 0, bank->bundle_bytes - bank->down_offset - bytes);
        pi2_neuron_store_keep(neurons, number, begin + i);
    }
}

void pi2_forward_keep_columns(pi2_forward_walk *walk) {
    if (kept_bank(walk) == PI2_NO_BANK) return;
    const uint32_t neurons = walk->run.end - walk->run.begin;
    walk->stage_name = "keep neurons";
    pi2_forward_stage(walk, (neurons + PI2_NEURON_PLANE_COLUMNS - 1) / PI2_NEURON_PLANE_COLUMNS, keep_chunk, NULL);
}
