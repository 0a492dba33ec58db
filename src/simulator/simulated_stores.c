/* simulated_stores.c: see simulated_stores.h. As engine/engine.c makes them. */
#include "simulator/simulated_stores.h"

#include <string.h>

#include "base/fail.h"
#include "base/pages.h"
#include "machine/read_gaps.h"

static pi2_status reserve(uint64_t bytes, const char *what, void **memory_out, size_t *bytes_out) {
    if (bytes == 0) return PI2_OK;
    PI2_TRY(pi2_pages_reserve_addresses((size_t)bytes, what, memory_out));
    *bytes_out = (size_t)bytes;
    return PI2_OK;
}

static pi2_status open_store(const pi2_planned_run *run, pi2_simulated_disk *disk, pi2_simulated_stores *stores) {
    struct pi2_reader *reader = NULL;
    PI2_TRY(pi2_simulated_disk_open(disk, run->source.weights_path, &reader));
    const pi2_store_options options = { .reader = reader, .is_described = true };
    return pi2_store_create(&options, &stores->store);
}

static pi2_status open_weights(const pi2_planned_run *run, pi2_simulated_stores *stores) {
    const pi2_run_plan *plan = &run->plan;
    PI2_TRY(reserve(plan->resident_room_bytes, "weights", &stores->resident, &stores->resident_bytes));
    PI2_TRY(reserve(plan->memory.ring_bytes + plan->memory.dense_scratch_bytes, "the stream buffer", &stores->ring,
                    &stores->ring_bytes));
    const pi2_weight_store_options options = {
        .layout = run->source.model->layout, .path = run->source.weights_path, .sequence = plan->sequence,
        .sequence_count = plan->memory.everything_resident ? plan->sequence_count : plan->pass_end,
        .head_begin = plan->head_begin, .pass_end = plan->pass_end, .resident = plan->resident,
        .resident_memory = stores->resident, .resident_loaded = plan->memory.everything_resident,
        .ring = plan->memory.ring_bytes ? stores->ring : NULL, .ring_bytes = (size_t)plan->memory.ring_bytes,
        .ring_planned = true,
        .may_give_back = plan->memory.ring_bytes > 0, .store = stores->store, .by_neuron = plan->by_neuron };
    return pi2_weight_store_create(&options, &stores->weights);
}

static pi2_status open_experts(const pi2_planned_run *run, pi2_simulated_stores *stores) {
    const pi2_run_plan *plan = &run->plan;
    const pi2_extent_layout *layout = run->source.model->layout;
    if (!pi2_model_has_experts(&run->source.model->shape)) return PI2_OK;
    /* Where all fit they may come to lie in slots of one size. */
    const bool all_fit = plan->memory.expert_bytes >= pi2_expert_cache_all_bytes(layout);
    const uint64_t slots = pi2_expert_cache_slot_bytes(layout) * pi2_expert_cache_keys(layout);
    PI2_TRY(reserve(all_fit ? slots : plan->memory.expert_bytes, "experts", &stores->slots, &stores->slot_bytes));
    const pi2_expert_cache_options options = {
        .layout = layout, .path = run->source.weights_path, .memory = stores->slots,
        .bytes = plan->memory.expert_bytes, .loaded = plan->memory.everything_resident, .policy = plan->policy,
        .layer_keys = pi2_layer_ffns(&run->source.model->shape), .store = stores->store,
        .least_slots = pi2_token_ffns(&run->source.model->shape) };
    return pi2_expert_cache_create(&options, &stores->experts);
}

static uint32_t gap_units(const pi2_planned_run *run, const pi2_simulated_disk *disk) {
    uint32_t largest = 0;
    for (uint32_t b = 0; b < run->plan.banks->count; b++) {
        if (largest < run->plan.banks->banks[b].unit_bytes) largest = run->plan.banks->banks[b].unit_bytes;
    }
    return pi2_read_gap_units(disk->profile, disk->workload->read_method, disk->workload->disk, largest);
}

static pi2_status open_neurons(const pi2_planned_run *run, const pi2_simulated_disk *disk,
                               pi2_simulated_stores *stores) {
    const pi2_memory_plan *memory = &run->plan.memory;
    if (memory->neuron_bytes == 0) return PI2_OK;
    PI2_TRY(reserve(memory->neuron_bytes - memory->shared_bytes, "neurons", &stores->units, &stores->unit_bytes));
    const pi2_neuron_store_options options = {
        .banks = run->plan.banks, .path = run->source.weights_path, .store = stores->store, .memory = stores->units,
        .memory_bytes = stores->unit_bytes, .shared = memory->shared_bytes ? stores->ring : NULL,
        .shared_bytes = memory->shared_bytes, .rule = run->plan.neuron_rule, .keeps_nothing = !run->plan.neuron_rule,
        .gap_units = gap_units(run, disk) };
    return pi2_neuron_store_create(&options, &stores->neurons);
}

static pi2_status open_all(const pi2_planned_run *run, pi2_simulated_disk *disk, pi2_simulated_stores *stores) {
    PI2_TRY(open_store(run, disk, stores));
    PI2_TRY(open_weights(run, stores));
    PI2_TRY(open_neurons(run, disk, stores));
    return open_experts(run, stores);
}

pi2_status pi2_simulated_stores_open(const pi2_planned_run *run, pi2_simulated_disk *disk,
                                     pi2_simulated_stores *stores) {
    memset(stores, 0, sizeof *stores);
    const pi2_status status = open_all(run, disk, stores);
    if (status != PI2_OK) pi2_simulated_stores_close(stores);
    return status;
}

void pi2_simulated_stores_close(pi2_simulated_stores *stores) {
    pi2_weight_store_free(stores->weights);
    pi2_expert_cache_free(stores->experts);
    pi2_neuron_store_free(stores->neurons);
    pi2_store_free(stores->store);
    pi2_pages_release(stores->ring, stores->ring_bytes);
    pi2_pages_release(stores->resident, stores->resident_bytes);
    pi2_pages_release(stores->slots, stores->slot_bytes);
    pi2_pages_release(stores->units, stores->unit_bytes);
    memset(stores, 0, sizeof *stores);
}
