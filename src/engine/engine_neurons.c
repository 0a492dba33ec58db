/* engine_neurons.c: whether decoding computes single neurons, and the store that they are in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/engine_internal.h"

/* Whether an extent of a layer's FFN holds no Gate rows: passes by neuron do without it. */
static bool is_up_or_down(const pi2_model *model, uint32_t layer, const pi2_extent *extent) {
    for (uint32_t p = extent->first_piece; p < extent->first_piece + extent->piece_count; p++) {
        if (&model->layout->tensors[model->layout->pieces[p].tensor] == model->layers[layer].gate.tensor) return false;
    }
    return true;
}

static void mark_layer(pi2_engine *engine, uint32_t layer) {
    const pi2_model *model = engine->source.model;
    const pi2_group *group = &model->layout->groups[model->layers[layer].ffn_group];
    for (uint32_t e = group->first_extent; e < group->first_extent + group->extent_count; e++) {
        engine->plan.by_neuron[e] = is_up_or_down(model, layer, &model->layout->extents[e]);
    }
}

bool pi2_engine_is_dense(const pi2_engine *engine) {
    return engine->options.sparsity && strcmp(engine->options.sparsity, "off") == 0;
}

pi2_status pi2_engine_find_neurons(pi2_engine *engine) {
    const pi2_model *model = engine->source.model;
    const char *sparsity = engine->options.sparsity ? engine->options.sparsity : "exact";
    free(engine->plan.by_neuron);
    engine->plan.by_neuron = NULL;
    engine->plan.banks = NULL;
    if (pi2_engine_is_dense(engine)) return PI2_OK;
    if (strcmp(sparsity, "exact") != 0) {
        return pi2_fail(PI2_ERR_INVALID, "unknown sparsity '%s'; there are: exact, off", sparsity);
    }
    if (!model->banks || model->banks->count == 0 || !pi2_model_shape_fires(&model->shape)) return PI2_OK;
    engine->plan.by_neuron = calloc(model->layout->extent_count ? model->layout->extent_count : 1, 1);
    if (!engine->plan.by_neuron) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of extents");
    for (uint32_t b = 0; b < model->banks->count; b++) mark_layer(engine, model->banks->banks[b].layer);
    engine->plan.banks = model->banks;
    return PI2_OK;
}

uint64_t pi2_engine_mark_by_neuron(pi2_engine *engine, uint64_t room) {
    const pi2_extent_layout *layout = engine->source.model->layout;
    uint32_t *tiles = engine->plan.sequence + engine->plan.sequence_count; /* there is room for as many */
    uint32_t tile_count = 0;
    uint64_t kept = 0;
    for (uint32_t i = 0; i < engine->plan.pass_end; i++) {
        const uint32_t e = engine->plan.sequence[i];
        if (engine->plan.by_neuron[e]) tiles[tile_count++] = e;
        else kept += pi2_extent_read_bytes(&layout->extents[e]);
    }
    const uint64_t left = room > kept ? room - kept : 0;
    const uint64_t marked = pi2_memory_plan_residents(layout, tiles, tile_count, left, engine->plan.resident);
    for (uint32_t i = 0; i < engine->plan.pass_end; i++) {
        const uint32_t e = engine->plan.sequence[i];
        if (!engine->plan.by_neuron[e]) engine->plan.resident[e] = 1;
    }
    return kept + marked;
}

pi2_status pi2_engine_start_neurons(pi2_engine *engine, unsigned spin_us) {
    if (engine->plan.memory.neuron_bytes == 0) return PI2_OK;
    const pi2_neuron_store_options options = {
        .banks = engine->plan.banks, .path = engine->source.weights_path, .reader = engine->reader,
        .memory = engine->memory.neurons.pages, .memory_bytes = engine->memory.neurons.bytes, .spin_us = spin_us,
        .trace = pi2_run_trace_events(engine->traces.run) };
    return pi2_neuron_store_create(&options, &engine->neuron_store);
}
