/* run_prediction.c: from a planned run to what decides about its speed, and to its speed. */
#include "planner/run_prediction.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "base/team.h"
#include "kernels/attention/kv_layout.h"
#include "planner/routing_forecast.h"
#include "planner/run_prediction_neurons.h"
#include "powerinfer2/sizes.h"

/* ---- the workload ---- */

/** A model's workload, and what the prediction of its experts goes by. */
typedef struct planning {
    const pi2_planned_run *run;
    pi2_workload workload;
    pi2_routing_forecast *forecast; /* NULL: a dense model */
    pi2_forecast_run forecast_run;
    pi2_neuron_plan neurons;
    pi2_status failed;              /* of a replay for advice */
} planning;

static void add_part(pi2_workload *workload, const pi2_workload_weights *what) {
    uint32_t at = 0;
    for (; at < workload->part_count; at++) {
        const pi2_workload_weights *part = &workload->parts[at];
        if (strcmp(part->type, what->type) == 0 && part->columns == what->columns &&
            part->role == what->role && part->is_head == what->is_head &&
            part->is_table == what->is_table) break;
    }
    if (at == PI2_WORKLOAD_PARTS) at--; /* no model has so many; the last one takes it */
    if (at == workload->part_count) {
        workload->parts[workload->part_count++] = *what;
        return;
    }
    workload->parts[at].bytes += what->bytes;
    workload->parts[at].weights += what->weights;
}

static void add_extent(const pi2_planned_run *run, const pi2_extent *extent, pi2_workload *workload) {
    const pi2_extent_layout *layout = run->source.model->layout;
    const pi2_group_kind kind = layout->groups[extent->group].kind;
    for (uint32_t p = 0; p < extent->piece_count; p++) {
        const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
        const pi2_workload_weights part = {
            .type = layout->tensors[piece->tensor].format->name, .columns = piece->column_count,
            .role = kind == PI2_GROUP_EXPERT ? PI2_ROLE_EXPERT
                    : kind == PI2_GROUP_FFN ? pi2_run_role_of(run, piece->tensor) : PI2_ROLE_PLAIN,
            .is_head = kind == PI2_GROUP_HEAD,
            .bytes = pi2_piece_bytes(layout, piece), .weights = (uint64_t)piece->row_count * piece->column_count};
        add_part(workload, &part);
    }
}

/* Weights by type, and what streams. */
static void add_extents(const pi2_planned_run *run, pi2_workload *workload) {
    const pi2_extent_layout *layout = run->source.model->layout;
    uint64_t streamed = 0;
    for (uint32_t i = 0; i < run->plan.pass_end; i++) {
        const uint32_t e = run->plan.sequence[i];
        add_extent(run, &layout->extents[e], workload);
        if (run->plan.resident[e]) continue;
        workload->read_bytes += pi2_extent_read_bytes(&layout->extents[e]);
        streamed++;
    }
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (layout->groups[layout->extents[e].group].kind != PI2_GROUP_EXPERT) continue;
        add_extent(run, &layout->extents[e], workload);
    }
    /* A run in the buffer is what is computed with; the rest of it is in flight. */
    const uint64_t ring = run->plan.memory.ring_bytes, beside = ring - pi2_forward_run_bytes((size_t)ring);
    const bool has_experts = pi2_model_has_experts(&run->source.model->shape);
    const uint64_t most = has_experts ? UINT64_MAX : pi2_ring_bytes_in_flight(ring);
    const uint64_t in_flight = beside < most ? beside : most;
    if (streamed) workload->read_depth = (uint32_t)(in_flight * streamed / workload->read_bytes);
    workload->read_block = streamed ? (uint32_t)(workload->read_bytes / streamed) : PI2_EXTENT_TARGET_BYTES;
}

static const char *method_of(const pi2_planned_run *run, const pi2_machine_profile *profile, uint32_t disk) {
    const char *method = run->options.read_method ? run->options.read_method : "auto";
    if (strcmp(method, "pread") == 0) return "pread";
    const bool has_ring = pi2_profile_value(profile, PI2_MEASURED_DISK, "io_uring", 1, 32, disk, NULL) > 0;
    return has_ring ? "io_uring" : "pread";
}

/* What the layers' blocks say. A dense FFN has a run at least, which they count, and one more for each that the ring
 * makes of what streams. */
static void add_blocks(const pi2_planned_run *run, pi2_workload *workload) {
    const pi2_model_shape *shape = &run->source.model->shape;
    const uint64_t run_bytes = pi2_forward_run_bytes((size_t)run->plan.memory.ring_bytes);
    const uint64_t runs = run_bytes && workload->experts.count == 0 ? workload->read_bytes / run_bytes : 0;
    uint64_t query = 0, key_value = 0;
    workload->stages_per_pass = (uint32_t)(pi2_stages_beside_layers(shape) + PI2_STAGES_OF_A_RUN * runs);
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        for (uint32_t b = 0; b < shape->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(shape, i, b, &run->plan.memory.shape);
            workload->stages_per_pass += needs.stages;
            query += needs.query;
            key_value += needs.key_value;
            if (needs.is_recurrent || needs.query == 0) continue;
            const size_t tile = needs.areas[0].tile_bytes + needs.areas[1].tile_bytes;
            workload->attention_layers++;
            workload->cache_bytes_per_position += tile / PI2_KV_TILE * needs.repeats;
            if (needs.window == 0) continue;
            workload->window_layers++;
            workload->window = needs.window;
        }
    }
    workload->query_floats = (uint32_t)(query / shape->layer_count);
    workload->key_value_floats = (uint32_t)(key_value / shape->layer_count);
}

/* A disk that was not measured matters only where one is read. */
static pi2_status find_disk(planning *p, const pi2_machine_profile *profile) {
    pi2_machine_disk disk;
    PI2_TRY(pi2_profile_place(p->run->source.weights_path, &disk));
    p->workload.disk = pi2_profile_find_disk(profile, &disk);
    if (p->workload.disk != PI2_PROFILE_NO_DISK || p->run->plan.memory.everything_resident) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "the disk of %s (mounted at %s) was not measured yet: 'powerinfer2 machine -m "
                    "%s' does it", p->run->source.weights_path, disk.place, p->run->source.weights_path);
}

/* ---- experts ---- */

static void replay_experts(planning *p, pi2_workload *workload) {
    pi2_workload_experts *experts = &workload->experts;
    pi2_forecast_run forecast = p->forecast_run;
    pi2_forecast_hits hits;
    forecast.slots = experts->slots;
    forecast.hot_keys = p->run->plan.hot.keys;
    forecast.hot_count = p->run->plan.hot.count;
    const pi2_status status = pi2_routing_forecast_run(p->forecast, &forecast, &hits);
    if (status != PI2_OK) {
        p->failed = status;
        return;
    }
    experts->cold_hits = experts->loaded ? 1 : hits.cold;
    experts->prompt_hits = experts->loaded ? 1 : hits.prompt;
    experts->decode_hits = experts->loaded ? 1 : hits.answer;
}

/* The cache of Gates that tokens use, beside that of whole experts. */
static void replay_gates(planning *p, pi2_workload_neurons *neurons) {
    pi2_forecast_run forecast = p->forecast_run;
    pi2_forecast_hits hits;
    forecast.slots = neurons->gate_slots;
    const pi2_status status = pi2_routing_forecast_run(p->forecast, &forecast, &hits);
    if (status == PI2_OK) neurons->gate_hits = hits.answer;
    else p->failed = status;
}

static void replay(void *user, pi2_workload *workload) {
    planning *p = user;
    if (workload->experts.count) replay_experts(p, workload);
    if (workload->neurons.gate_bytes) replay_gates(p, &workload->neurons);
    if (workload->neurons.units) {
        workload->neurons.hits = pi2_neuron_rates_hits(&p->neurons.rates, (double)workload->neurons.slots);
    }
}

static pi2_status add_experts(planning *p, const pi2_prediction_request *request) {
    const pi2_planned_run *run = p->run;
    const pi2_model_shape *shape = &run->source.model->shape;
    const pi2_extent_layout *layout = run->source.model->layout;
    pi2_workload *workload = &p->workload;
    pi2_workload_experts *experts = &workload->experts;
    experts->count = pi2_layer_ffns(shape);
    experts->layers = pi2_model_expert_layers(shape);
    experts->used = pi2_token_ffns(shape);
    experts->expert_bytes = pi2_expert_cache_slot_bytes(layout);
    experts->slots = pi2_run_plan_expert_slots(run, request->position);
    experts->read_block = experts->expert_bytes < PI2_EXTENT_MAX_BYTES ? (uint32_t)experts->expert_bytes
                                                                        : PI2_EXTENT_MAX_BYTES;
    experts->loaded = run->plan.memory.everything_resident && !run->source.model->has_file;
    workload->feed_forward = pi2_ffn_length(shape) * pi2_token_ffns(shape);
    const pi2_workload_weights router = {
        .type = "F32", .columns = shape->embedding_length, .is_table = true,
        .weights = (uint64_t)pi2_expert_cache_keys(layout) * shape->embedding_length,
        .bytes = 4 * (uint64_t)pi2_expert_cache_keys(layout) * shape->embedding_length};
    add_part(workload, &router);
    PI2_TRY(pi2_routing_forecast_open(experts->layers, experts->count, experts->used,
                                      request->routing_trace, &p->forecast));
    for (uint32_t i = 0; i < PI2_DISTINCT_POINTS; i++) {
        experts->distinct[i] = pi2_routing_forecast_distinct(p->forecast, 1u << i);
    }
    p->forecast_run = (pi2_forecast_run){ .policy = run->plan.policy, .prompt_tokens = request->prompt_tokens,
                                 .batch_tokens = workload->batch_tokens, .answer_tokens = request->answer_tokens };
    replay_experts(p, workload);
    return p->failed;
}

/* The key-value cache has grown into room that weights had at the start. */
static void end_loan(const pi2_planned_run *run, uint32_t position, pi2_workload *workload) {
    const uint64_t due = pi2_run_plan_loan_due_at(run, position);
    workload->read_bytes += due;
    workload->resident_bytes -= due < workload->resident_bytes ? due : workload->resident_bytes;
}

static pi2_status make_workload(const pi2_planned_run *run, const pi2_machine_profile *profile,
                                const pi2_prediction_request *request, planning *p) {
    const pi2_model_shape *shape = &run->source.model->shape;
    const pi2_memory_plan *plan = &run->plan.memory;
    pi2_workload *workload = &p->workload;
    memset(p, 0, sizeof *p);
    p->run = run;
    add_extents(run, workload);
    workload->budget_bytes = run->report.budget_bytes;
    for (uint32_t i = 0; i < run->plan.pass_end; i++) {
        const uint32_t e = run->plan.sequence[i];
        if (run->plan.resident[e]) workload->resident_bytes += run->source.model->layout->extents[e].bytes;
    }
    if (!pi2_model_has_experts(shape)) {
        workload->resident_bytes = run->report.resident_bytes;
        end_loan(run, request->position, workload);
    }
    workload->load_before = plan->everything_resident && !run->source.model->has_file;
    PI2_TRY(find_disk(p, profile));
    workload->read_method = method_of(run, profile, workload->disk);
    workload->layer_count = shape->layer_count;
    workload->width = shape->embedding_length;
    workload->feed_forward = shape->feed_forward_length;
    workload->batch_tokens = plan->shape.batch_tokens;
    workload->threads = pi2_run_processor_threads(run);
    workload->cores = pi2_allowed_cpus();
    if (run->devices.count) {
        memcpy(workload->device_gains, run->devices.gains, sizeof workload->device_gains);
    }
    workload->embedding_streams = !plan->everything_resident;
    workload->replay = replay;
    workload->replay_user = p;
    if (pi2_model_has_experts(shape)) PI2_TRY(add_experts(p, request));
    add_blocks(run, workload);
    PI2_TRY(pi2_run_predict_neurons(run, workload->read_bytes, request, &p->neurons, &workload->neurons));
    if (workload->neurons.gate_bytes) replay_gates(p, &workload->neurons);
    workload->touched_bytes = workload->resident_bytes + plan->ring_bytes +
                              workload->experts.slots * workload->experts.expert_bytes +
                              workload->neurons.slots * workload->neurons.unit_bytes;
    return p->failed;
}

/** What the figures go by. */
static void tell_grounds(const planning *p, const pi2_machine_profile *profile, const pi2_prediction_request *request,
                         pi2_prediction *prediction) {
    if (p->workload.disk != PI2_PROFILE_NO_DISK) {
        memcpy(prediction->disk, profile->disks[p->workload.disk].place, sizeof prediction->disk);
    }
    (void)snprintf(prediction->sparsity, sizeof prediction->sparsity, "%s", p->neurons.grounds);
    if (!p->forecast) return;
    const uint32_t tokens = pi2_routing_forecast_tokens(p->forecast);
    if (tokens) {
        (void)snprintf(prediction->routing, sizeof prediction->routing, "recorded in %s (%u tokens)",
                       request->routing_trace, tokens);
    } else {
        (void)snprintf(prediction->routing, sizeof prediction->routing,
                       "assumed: every expert is as likely as any other, for each token anew");
    }
}

/* The same of the processor without devices, where it was measured what they are worth. */
static void tell_alone(const planning *p, const pi2_machine_profile *profile, const pi2_prediction_request *request,
                       pi2_prediction *prediction) {
    pi2_workload alone = p->workload;
    pi2_prediction without;
    memset(alone.device_gains, 0, sizeof alone.device_gains);
    pi2_predict(&alone, profile, &pi2_as_it_is, request->prompt_tokens, request->position, &without);
    prediction->decode_alone = without.decode;
    prediction->prefill_alone = without.prefill;
}

/* The batch is chosen by its share of the memory; what that makes of the reads is looked at here. */
static void check_batch(const pi2_planned_run *run, const pi2_workload *workload, const pi2_machine_profile *profile,
                        uint32_t prompt_tokens, pi2_batch_check *check_out) {
    const pi2_forward_shape *shape = &run->plan.memory.shape;
    const uint32_t batch = shape->batch_tokens;
    const double hits = workload->experts.prompt_hits;
    const pi2_pass pass = {batch < prompt_tokens ? batch : prompt_tokens, 0, hits, false};
    const pi2_pass_time time = pi2_predict_pass(workload, profile, &pi2_as_it_is, &pass);
    if (time.read <= 0) return;
    *check_out = (pi2_batch_check){
        .tokens = pass.tokens, .read_ms = 1e3 * time.read, .compute_ms = 1e3 * time.compute,
        .reading_hides = time.exposed <= 0,
        .hides_from = pi2_predict_hiding_batch(workload, profile, hits, shape->context_tokens)};
}

pi2_status pi2_run_workload(const pi2_planned_run *run, const pi2_machine_profile *profile,
                            const pi2_prediction_request *request, pi2_workload *workload_out) {
    planning *p = malloc(sizeof *p);
    if (!p) return pi2_fail(PI2_ERR_MEMORY, "no memory for a workload");
    const pi2_status status = make_workload(run, profile, request, p);
    *workload_out = p->workload;
    workload_out->replay = NULL;
    workload_out->replay_user = NULL;
    pi2_routing_forecast_close(p->forecast);
    free(p);
    return status;
}

pi2_status pi2_run_predict(const pi2_planned_run *run, const pi2_machine_profile *profile,
                           const pi2_prediction_request *request, pi2_prediction *prediction_out,
                           pi2_run_advice *advice_out) {
    planning *p = malloc(sizeof *p);
    if (!p) return pi2_fail(PI2_ERR_MEMORY, "no memory for a prediction");
    const uint32_t prompt = request->prompt_tokens, position = request->position;
    pi2_status status = make_workload(run, profile, request, p);
    if (status == PI2_OK) {
        pi2_predict(&p->workload, profile, &pi2_as_it_is, prompt, position, prediction_out);
        tell_grounds(p, profile, request, prediction_out);
        if (run->devices.count && run->devices.gains[0] > 0) tell_alone(p, profile, request, prediction_out);
    }
    if (status == PI2_OK && advice_out) {
        check_batch(run, &p->workload, profile, prompt, &advice_out->batch);
        advice_out->count = pi2_predict_advice(&p->workload, profile, prompt, position, advice_out->list);
        status = p->failed;
    }
    pi2_routing_forecast_close(p->forecast);
    free(p);
    return status;
}
