/*
 * forward_hot.c: hot neurons of a pass by neuron (PowerInfer-2, sections 3.2 and 4.1): a layer's leading ones, which
 * devices compute whole, from tiles, while the threads compute the cold ones one by one.
 *
 * Why the leading ones: Down's sum is one chain over the model's order of neurons (docs/arithmetic.md, Sums of parts).
 * A chain may stop and go on, so the device's part of it is where it begins; the columns of cold neurons go on from
 * there. It is merged once a layer, and no bit depends on how many are hot. So a model whose most active neurons have
 * the lowest numbers gains most.
 */
#include <math.h>

#include "pipeline/ffn_unit.h"

/* Neurons of a layer before the first whose Up or Down is not in memory to stay: what a pass by neuron does not ask
 * for never comes. */
static uint32_t leading_residents(const pi2_forward *forward, uint32_t layer) {
    const pi2_extent_layout *layout = forward->model->layout;
    const pi2_dense_ffn ffn = pi2_layer_dense_ffn(&forward->model->layers[layer]);
    const pi2_group *group = &layout->groups[ffn.group];
    uint32_t least = ffn.down->tensor->columns;
    for (uint32_t e = group->first_extent; e < group->first_extent + group->extent_count; e++) {
        if (pi2_weight_store_peek(forward->options.weights, e)) continue;
        const pi2_extent *extent = &layout->extents[e];
        for (uint32_t p = extent->first_piece; p < extent->first_piece + extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[p];
            const pi2_layout_tensor *tensor = &layout->tensors[piece->tensor];
            const bool is_up = ffn.up && tensor == ffn.up->tensor;
            if (tensor == ffn.gate->tensor) continue; /* asked for by every pass */
            const uint32_t first = is_up ? (uint32_t)(piece->row_begin - ffn.up->row_base) : piece->column_begin;
            if (first < least) least = first;
        }
    }
    return least;
}

static uint32_t hot_neurons(const pi2_forward *forward, uint32_t layer, bool *is_capped) {
    *is_capped = false;
    if (!forward->has_banks[layer] || pi2_layer_cuts_gate(&forward->model->shape, layer)) return 0;
    const pi2_dense_ffn ffn = pi2_layer_dense_ffn(&forward->model->layers[layer]);
    const uint32_t neurons = ffn.down->tensor->columns, room = leading_residents(forward, layer);
    const uint32_t cluster = forward->model->layout->groups[ffn.group].cluster_neurons;
    const uint32_t own = pi2_forward_own_neurons(forward, neurons), hot = own < room ? own : room;
    *is_capped = room < own;
    return hot == neurons ? hot : hot / cluster * cluster; /* Down's columns lie by cluster */
}

void pi2_forward_find_hot(pi2_forward *forward) {
    const bool has_hot = forward->by_neuron && forward->has_devices && !forward->predicts;
    for (uint32_t i = 0; i < forward->model->shape.layer_count; i++) {
        const bool is_dense = !pi2_layer_has_experts(&forward->model->layers[i]);
        bool is_capped = false;
        forward->hot[i] = has_hot && is_dense ? hot_neurons(forward, i, &is_capped) : 0;
        forward->hot_is_capped[i] = is_capped;
    }
}

uint64_t pi2_forward_hot_count(const pi2_forward *forward) { return atomic_load(&forward->hot_count); }

/* The layer's FFN, whose results lie where those of single neurons do. */
static pi2_ffn_unit hot_unit(const pi2_forward_walk *walk) {
    pi2_neuron_buffers *buffers = &walk->forward->buffers.neurons;
    pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    unit.hidden_set = &buffers->hidden_set;
    unit.hidden = buffers->hidden;
    unit.hidden_stride = buffers->stride;
    return unit;
}

void pi2_forward_hot_neurons(const pi2_forward_walk *walk, unsigned member, uint32_t begin, uint32_t end) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *buffers = &forward->buffers.neurons;
    const pi2_ffn_unit unit = hot_unit(walk);
    pi2_ffn_neurons(walk, member, &unit, begin, end, 0, forward->token_count, true);
    (void)atomic_fetch_add_explicit(&walk->forward->hot_count, end - begin, memory_order_relaxed);
    for (uint32_t row = 0; row < forward->token_count; row++) {
        const float *hidden = buffers->hidden + row * buffers->stride;
        bool is_absurd = false;
        for (uint32_t i = begin; i < end; i++) {
            is_absurd |= hidden[i] != 0.0f && fabsf(hidden[i]) < PI2_LEAST_HIDDEN;
        }
        if (is_absurd) atomic_store_explicit(&buffers->careful[row], 1, memory_order_relaxed);
    }
}

pi2_tile_chunks pi2_forward_hot_down_chunks(const pi2_forward_walk *walk) {
    const uint32_t hot = walk->forward->hot[walk->layer];
    if (hot == 0) return (pi2_tile_chunks){ .tiles = 0 }; /* experts have no hot ones, and no such Down */
    const pi2_operand *down = pi2_layer_dense_ffn(&walk->forward->model->layers[walk->layer]).down;
    return pi2_forward_own_chunks(down->tile_count, pi2_tile_bytes(down->tensor->format, hot), PI2_SHARE_FFN);
}

void pi2_forward_hot_down(pi2_forward_walk *walk, const pi2_tile_chunks *chunks, uint32_t chunk) {
    const pi2_ffn_unit unit = hot_unit(walk);
    pi2_ffn_down(walk, &unit, pi2_tile_chunk_begin(chunks, chunk), pi2_tile_chunk_begin(chunks, chunk + 1), 0,
                 walk->forward->hot[walk->layer], 0, walk->forward->token_count, walk->forward->buffers.out);
    pi2_forward_tiles_done(walk, chunks, chunk);
}
