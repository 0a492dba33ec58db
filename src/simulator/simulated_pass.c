/* simulated_pass.c: see simulated_pass.h. */
#include "simulator/simulated_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "planner/prediction_internal.h"
#include "planner/run_prediction_neurons.h"
#include "simulator/simulated_pass_internal.h"

enum { SMALL_READ = 64 << 10 };

/* ---- time ---- */

void pi2_simulated_work(pi2_simulated_walk *walk, double seconds) {
    walk->disk->now += seconds + walk->disk->lost;
    walk->computing += seconds + walk->disk->lost;
    walk->disk->lost = 0;
}

/* The reading thread takes the processors of those who wait first. */
void pi2_simulated_wait(pi2_simulated_walk *walk, double until) {
    const double idle = until - walk->disk->now;
    if (idle <= 0) return;
    walk->disk->lost = fmax(0, walk->disk->lost - idle);
    walk->waiting += idle;
    walk->disk->now = until;
}

static double seconds_a_byte(pi2_simulated_walk *walk, const char *type, uint32_t columns, double weights_a_byte,
                             uint32_t tokens) {
    for (uint32_t i = 0; i < walk->speed_count; i++) {
        const pi2_simulated_speed *known = &walk->speeds[i];
        if (known->columns == columns && known->tokens == tokens && strcmp(known->type, type) == 0) {
            return known->seconds;
        }
    }
    const double bytes = 1e9;
    pi2_workload one = { .threads = walk->workload->threads, .part_count = 1,
                         .touched_bytes = walk->workload->touched_bytes };
    one.parts[0] = (pi2_workload_weights){ .type = type, .columns = columns, .role = PI2_ROLE_PLAIN,
                                           .bytes = (uint64_t)bytes, .weights = (uint64_t)(bytes * weights_a_byte) };
    const pi2_prediction_setting setting = {&one, walk->profile, &pi2_as_it_is};
    double spread = 0;
    const pi2_pass pass = { .tokens = tokens };
    const double seconds = pi2_prediction_matrices(&setting, &pass, PI2_ROLE_PLAIN, &spread) / bytes;
    /* A prompt's batches have few sizes; beyond the list each is asked for anew. */
    if (walk->speed_count < PI2_SIMULATED_SPEEDS) {
        walk->speeds[walk->speed_count++] = (pi2_simulated_speed){ type, columns, tokens, seconds };
    }
    return seconds;
}

double pi2_simulated_piece_seconds(pi2_simulated_walk *walk, uint32_t piece, uint32_t tokens) {
    const pi2_extent_layout *layout = walk->run->source.model->layout;
    const pi2_piece *of = &layout->pieces[piece];
    const double bytes = (double)pi2_piece_bytes(layout, of);
    const double weights = (double)of->row_count * of->column_count;
    return bytes * seconds_a_byte(walk, layout->tensors[of->tensor].format->name, of->column_count, weights / bytes,
                                  tokens);
}

double pi2_simulated_extent_seconds(pi2_simulated_walk *walk, uint32_t e, uint32_t tokens) {
    const pi2_extent *extent = &walk->run->source.model->layout->extents[e];
    double seconds = 0;
    for (uint32_t p = 0; p < extent->piece_count; p++) {
        seconds += pi2_simulated_piece_seconds(walk, extent->first_piece + p, tokens);
    }
    return seconds;
}

/* ---- extents that a pass comes to in its order ---- */

pi2_status pi2_simulated_await_extent(pi2_simulated_walk *walk, uint32_t e) {
    const uint8_t *memory;
    PI2_TRY(pi2_weight_store_extent(walk->stores->weights, e, &memory));
    pi2_simulated_wait(walk, walk->disk->extent_there[e]);
    return PI2_OK;
}

void pi2_simulated_leave_extent(pi2_simulated_walk *walk, uint32_t e) {
    const pi2_extent_layout *layout = walk->run->source.model->layout;
    uint32_t tiles = 0;
    for (uint32_t p = 0; p < layout->extents[e].piece_count; p++) {
        tiles += pi2_piece_tiles(&layout->pieces[layout->extents[e].first_piece + p]);
    }
    pi2_weight_store_used(walk->stores->weights, e, tiles);
}

static pi2_status use_extent(pi2_simulated_walk *walk, uint32_t e, uint32_t tokens) {
    PI2_TRY(pi2_simulated_await_extent(walk, e));
    pi2_simulated_work(walk, pi2_simulated_extent_seconds(walk, e, tokens));
    pi2_simulated_leave_extent(walk, e);
    return PI2_OK;
}

/* ---- an FFN, whole: runs of its clusters, as pipeline/forward_ffn.c has them ---- */

typedef struct cluster_run {
    uint32_t first, end;           /* extents */
    uint64_t streamed_bytes;
} cluster_run;

static bool is_down(const pi2_simulated_walk *walk, const pi2_operand *down, uint32_t piece) {
    const pi2_extent_layout *layout = walk->run->source.model->layout;
    return &layout->tensors[layout->pieces[piece].tensor] == down->tensor;
}

/* The next run of a group, of at most so much of the ring as a pass cuts runs by. */
static cluster_run next_run(const pi2_simulated_walk *walk, uint32_t first, uint32_t end) {
    const pi2_planned_run *run = walk->run;
    const uint64_t most = pi2_forward_run_bytes((size_t)run->plan.memory.ring_bytes);
    cluster_run next = { first, first, 0 };
    for (; next.end < end; next.end++) {
        const pi2_extent *extent = &run->source.model->layout->extents[next.end];
        const uint64_t bytes = run->plan.resident[next.end] ? 0 : pi2_extent_read_bytes(extent);
        if (next.end > first && bytes && next.streamed_bytes + bytes > most) break;
        next.streamed_bytes += bytes;
    }
    return next;
}

static pi2_status work_on_neurons(pi2_simulated_walk *walk, const pi2_operand *down, const cluster_run *run) {
    const pi2_extent *extents = walk->run->source.model->layout->extents;
    for (uint32_t e = run->first; e < run->end; e++) {
        PI2_TRY(pi2_simulated_await_extent(walk, e));
        for (uint32_t p = 0; p < extents[e].piece_count; p++) {
            const uint32_t piece = extents[e].first_piece + p;
            if (is_down(walk, down, piece)) continue;
            pi2_simulated_work(walk, pi2_simulated_piece_seconds(walk, piece, walk->tokens));
        }
    }
    return PI2_OK;
}

static void work_on_down(pi2_simulated_walk *walk, const pi2_operand *down, const cluster_run *run) {
    const pi2_extent *extents = walk->run->source.model->layout->extents;
    for (uint32_t e = run->first; e < run->end; e++) {
        for (uint32_t p = 0; p < extents[e].piece_count; p++) {
            const uint32_t piece = extents[e].first_piece + p;
            if (!is_down(walk, down, piece)) continue;
            pi2_simulated_work(walk, pi2_simulated_piece_seconds(walk, piece, walk->tokens));
        }
        pi2_simulated_leave_extent(walk, e);
    }
}

static bool both_fit(const pi2_simulated_walk *walk, const cluster_run *run, const cluster_run *next) {
    const uint64_t room = walk->run->plan.memory.ring_bytes, both = run->streamed_bytes + next->streamed_bytes;
    const uint64_t margin = pi2_extent_layout_largest(walk->run->source.model->layout);
    return both == 0 || (room > margin && both <= room - margin);
}

static pi2_status whole_ffn(pi2_simulated_walk *walk, const pi2_operand *down, const pi2_group *group) {
    const uint32_t end = group->first_extent + group->extent_count;
    cluster_run run = next_run(walk, group->first_extent, end);
    PI2_TRY(work_on_neurons(walk, down, &run));
    for (;;) {
        const cluster_run next = next_run(walk, run.end, end);
        const bool is_last = next.first == end, goes_ahead = !is_last && both_fit(walk, &run, &next);
        if (goes_ahead) PI2_TRY(work_on_neurons(walk, down, &next));
        work_on_down(walk, down, &run);
        if (is_last) return PI2_OK;
        if (!goes_ahead) PI2_TRY(work_on_neurons(walk, down, &next));
        run = next;
    }
}

/* ---- passes ---- */

static bool goes_by_neuron(const pi2_simulated_walk *walk, uint32_t layer) {
    return walk->uses->banks && walk->uses->keys && walk->bank_of[layer] != PI2_NO_RUN;
}

/* Extents of one group, which follow each other in the pass's order. */
static pi2_status walk_group(pi2_simulated_walk *walk, const pi2_group *group, bool by_neuron) {
    const pi2_model *model = walk->run->source.model;
    const uint32_t end = group->first_extent + group->extent_count;
    if (group->kind == PI2_GROUP_FFN) {
        if (by_neuron && goes_by_neuron(walk, group->layer)) return pi2_simulated_neurons_of(walk, group);
        return whole_ffn(walk, pi2_layer_dense_ffn(&model->layers[group->layer]).down, group);
    }
    for (uint32_t e = group->first_extent; e < end; e++) PI2_TRY(use_extent(walk, e, walk->tokens));
    return PI2_OK;
}

static pi2_status end_layer(pi2_simulated_walk *walk, uint32_t layer, bool has_uses) {
    const pi2_layer_weights *weights = &walk->run->source.model->layers[layer];
    pi2_simulated_work(walk, walk->fixed_seconds);
    return pi2_layer_has_experts(weights) && has_uses ? pi2_simulated_experts_of(walk, layer) : PI2_OK;
}

/* What a pass of so many tokens takes beside its extents. */
static void set_times(pi2_simulated_walk *walk, bool by_neuron) {
    const pi2_workload *w = walk->workload;
    const pi2_prediction_setting setting = {w, walk->profile, &pi2_as_it_is};
    const pi2_pass pass = { .tokens = walk->tokens, .position = walk->position };
    const uint32_t stages = by_neuron ? w->neurons.stages_per_pass : w->stages_per_pass;
    double spread = 0;
    walk->fixed_seconds = (pi2_prediction_between(&setting, &pass) + pi2_prediction_stages(&setting, stages)) /
                          w->layer_count + walk->layer_seconds;
    if (!by_neuron) return;
    const pi2_workload_neurons *n = &w->neurons;
    const double each = n->used_units > 0 ? n->fires / n->used_units / walk->neuron_efficiency : 0;
    walk->gate_seconds = pi2_prediction_matrices(&setting, &pass, PI2_ROLE_GATE, &spread) / n->layers;
    if (n->is_named) {
        const double rows = pi2_prediction_rows(&setting, PI2_ROLE_GATE, &spread);
        const double gate = pi2_prediction_predictor(&setting, &spread) + n->fires * rows;
        walk->gate_seconds = walk->tokens * gate / n->layers;
    } else {
        walk->gate_seconds += pi2_prediction_store(&setting, "tell", (double)walk->tokens * w->feed_forward, &spread);
    }
    walk->find_seconds = pi2_prediction_store(&setting, "find", 1, &spread);
    walk->bring_seconds = pi2_prediction_bringing(&setting, 1, &spread);
    walk->neuron_seconds = each * pi2_prediction_rows(&setting, PI2_ROLE_UP, &spread);
    const double given = n->fires > 0 ? n->gives / n->fires : 1;
    walk->column_seconds = each * given * pi2_prediction_columns(&setting, PI2_ROLE_DOWN, n->gives, &spread);
}

/* As pipeline/forward.c begins one. */
static pi2_status begin_pass(pi2_simulated_walk *walk, bool by_neuron) {
    pi2_simulated_stores *stores = walk->stores;
    const pi2_memory_plan *memory = &walk->run->plan.memory;
    if (stores->neurons && !by_neuron) {
        pi2_neuron_store_close_shared(stores->neurons);
        pi2_neuron_store_begin_pass(stores->neurons, walk->tokens, walk->tokens);
    }
    pi2_weight_store_begin_pass(stores->weights, &(pi2_weight_store_pass){
        .with_head = true, .by_neuron = by_neuron,
        .is_last = stores->neurons && !by_neuron && walk->tokens < memory->shape.batch_tokens });
    if (!by_neuron) return PI2_OK;
    const bool ring_is_shared = memory->shared_bytes && memory->ring_bytes;
    if (!ring_is_shared || pi2_weight_store_lend_ring(stores->weights)) pi2_neuron_store_open_shared(stores->neurons);
    else pi2_neuron_store_close_shared(stores->neurons);
    if (pi2_neuron_store_wants_filling(stores->neurons)) {
        PI2_TRY(pi2_neuron_store_fill(stores->neurons, NULL));
        pi2_simulated_wait(walk, walk->disk->last_end);
    }
    pi2_neuron_store_begin_pass(stores->neurons, walk->tokens, 1);
    pi2_neuron_store_begin_layer(stores->neurons);
    return PI2_OK;
}

/* The body, group by group; a layer's experts come when its other extents are done. */
static pi2_status walk_body(pi2_simulated_walk *walk, bool by_neuron, bool has_uses) {
    const pi2_run_plan *plan = &walk->run->plan;
    const pi2_extent_layout *layout = walk->run->source.model->layout;
    uint32_t layer = UINT32_MAX;
    for (uint32_t i = 0; i < plan->head_begin;) {
        const pi2_group *group = &layout->groups[layout->extents[plan->sequence[i]].group];
        if (group->layer != layer && layer != UINT32_MAX) PI2_TRY(end_layer(walk, layer, has_uses));
        layer = group->layer;
        PI2_TRY(walk_group(walk, group, by_neuron));
        i += group->extent_count;
    }
    return layer == UINT32_MAX ? PI2_OK : end_layer(walk, layer, has_uses);
}

pi2_status pi2_simulated_walk_pass(pi2_simulated_walk *walk, uint32_t tokens, uint32_t position, bool has_uses) {
    const pi2_run_plan *plan = &walk->run->plan;
    const bool by_neuron = has_uses && walk->stores->neurons;
    walk->tokens = tokens;
    walk->position = position;
    set_times(walk, by_neuron);
    PI2_TRY(begin_pass(walk, by_neuron));
    if (walk->stores->experts) pi2_expert_cache_begin_pass(walk->stores->experts, tokens);
    if (walk->workload->embedding_streams) {
        const pi2_prediction_setting setting = {walk->workload, walk->profile, &pi2_as_it_is};
        const double speed = pi2_prediction_disk(&setting, SMALL_READ, 1, NULL);
        if (speed > 0) pi2_simulated_wait(walk, walk->disk->now + SMALL_READ / speed);
    }
    PI2_TRY(walk_body(walk, by_neuron, has_uses));
    for (uint32_t i = plan->head_begin; i < plan->pass_end; i++) PI2_TRY(use_extent(walk, plan->sequence[i], 1));
    return PI2_OK;
}

/* ---- setting up ---- */

static pi2_status make_lists(pi2_simulated_walk *walk) {
    const pi2_model *model = walk->run->source.model;
    const pi2_neuron_banks *banks = walk->uses->banks;
    const size_t layers = model->shape.layer_count, experts = pi2_layer_ffns(&model->shape);
    const size_t keys = pi2_model_has_experts(&model->shape) ? pi2_expert_cache_keys(model->layout) : 0;
    const size_t units = banks ? pi2_neuron_store_layer_keys(banks) : 0;
    walk->bank_of = malloc((layers + 1) * sizeof *walk->bank_of);
    walk->late = calloc(units + 1, sizeof *walk->late);
    walk->late_first = calloc(PI2_SIMULATED_GATE_PARTS + 1, sizeof *walk->late_first);
    walk->expert_keys = calloc(experts + 1, sizeof *walk->expert_keys);
    walk->expert_groups = calloc(keys + 1, sizeof *walk->expert_groups);
    walk->alike = calloc(experts + 1, sizeof *walk->alike);
    if (!walk->bank_of || !walk->late || !walk->late_first || !walk->expert_keys || !walk->expert_groups ||
        !walk->alike) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory to simulate passes");
    }
    for (size_t i = 0; i < layers; i++) walk->bank_of[i] = PI2_NO_RUN;
    for (uint32_t b = 0; banks && b < banks->count; b++) walk->bank_of[banks->banks[b].layer] = b;
    for (size_t e = 0; e < experts; e++) walk->alike[e] = (pi2_batch_use){ 1, 1 };
    uint32_t key = 0;
    for (uint32_t g = 0; g < model->layout->group_count; g++) {
        if (model->layout->groups[g].kind == PI2_GROUP_EXPERT && key < keys) walk->expert_groups[key++] = g;
    }
    return PI2_OK;
}

pi2_status pi2_simulated_walk_begin(pi2_simulated_walk *walk) {
    const pi2_status status = make_lists(walk);
    if (status != PI2_OK) pi2_simulated_walk_end(walk);
    return status;
}

void pi2_simulated_walk_end(pi2_simulated_walk *walk) {
    free(walk->bank_of);
    free(walk->late);
    free(walk->late_first);
    free(walk->expert_keys);
    free(walk->expert_groups);
    free(walk->alike);
    walk->bank_of = walk->late = walk->late_first = walk->expert_keys = walk->expert_groups = NULL;
    walk->alike = NULL;
}
