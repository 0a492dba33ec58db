/* engine_plan.c: from a model and its memory plan to what decides about its speed, and to a plan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/team.h"
#include "planner/prediction.h"
#include "engine/engine_internal.h"
#include "engine/engine_plan_neurons.h"
#include "planner/routing_forecast.h"
#include "powerinfer2/plan.h"
#include "powerinfer2/sizes.h"

enum { DEFAULT_PROMPT = 512 };

struct pi2_plan {
    pi2_engine *engine;
    pi2_prediction prediction;
    pi2_advice advice[PI2_ADVICE_MOST];
    size_t advice_count;
    pi2_plan_line lines[PI2_PLAN_LINES_MOST];
    size_t line_count;
    char expert_note[192];
    pi2_batch_check batch;
};

const char *pi2_bottleneck_name(pi2_bottleneck bottleneck) {
    static const char *const names[] = {"disk", "memory bandwidth", "compute"};
    return (unsigned)bottleneck <= PI2_LIMIT_COMPUTE ? names[bottleneck] : "unknown";
}

/* ---- the workload ---- */

/** A model's workload, and what the prediction of its experts goes by. */
typedef struct planning {
    const pi2_engine *engine;
    pi2_workload workload;
    pi2_routing_forecast *forecast; /* NULL: a dense model */
    pi2_forecast_run run;
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

static void add_extent(const pi2_engine *engine, const pi2_extent *extent, pi2_workload *workload) {
    const pi2_extent_layout *layout = engine->source.model->layout;
    const pi2_group_kind kind = layout->groups[extent->group].kind;
    for (uint32_t p = 0; p < extent->piece_count; p++) {
        const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
        const pi2_workload_weights part = {
            .type = layout->tensors[piece->tensor].format->name, .columns = piece->column_count,
            .role = kind == PI2_GROUP_EXPERT ? PI2_ROLE_EXPERT
                    : kind == PI2_GROUP_FFN ? pi2_engine_role_of(engine, piece->tensor) : PI2_ROLE_PLAIN,
            .is_head = kind == PI2_GROUP_HEAD,
            .bytes = pi2_piece_bytes(layout, piece), .weights = (uint64_t)piece->row_count * piece->column_count};
        add_part(workload, &part);
    }
}

/* Weights by type, and what streams. */
static void add_extents(const pi2_engine *engine, pi2_workload *workload) {
    const pi2_extent_layout *layout = engine->source.model->layout;
    uint64_t streamed = 0;
    for (uint32_t i = 0; i < engine->plan.pass_end; i++) {
        const uint32_t e = engine->plan.sequence[i];
        add_extent(engine, &layout->extents[e], workload);
        if (engine->plan.resident[e]) continue;
        workload->read_bytes += pi2_extent_read_bytes(&layout->extents[e]);
        streamed++;
    }
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (layout->groups[layout->extents[e].group].kind != PI2_GROUP_EXPERT) continue;
        add_extent(engine, &layout->extents[e], workload);
    }
    /* A run in the buffer is what is computed with; the rest of it is in flight. */
    const uint64_t ring = engine->plan.memory.ring_bytes, in_flight = ring - pi2_forward_run_bytes((size_t)ring);
    if (streamed) workload->read_depth = (uint32_t)(in_flight * streamed / workload->read_bytes);
    workload->read_block = streamed ? (uint32_t)(workload->read_bytes / streamed) : PI2_EXTENT_TARGET_BYTES;
}

static const char *method_of(const pi2_engine *engine, const pi2_machine_profile *profile, uint32_t disk) {
    const char *method = engine->reader ? pi2_reader_method(engine->reader) : engine->options.read_method;
    if (strcmp(method, "pread") == 0) return "pread";
    const bool has_ring = pi2_profile_value(profile, PI2_MEASURED_DISK, "io_uring", 1, 32, disk, NULL) > 0;
    return has_ring ? "io_uring" : "pread";
}

static void add_stages(const pi2_engine *engine, pi2_workload *workload) {
    const uint64_t layers = workload->layer_count;
    const uint64_t run_bytes = pi2_forward_run_bytes((size_t)engine->plan.memory.ring_bytes);
    const bool experts = workload->experts.count > 0;
    const uint64_t runs = layers + (run_bytes ? workload->read_bytes / run_bytes : 0);
    workload->stages_per_pass = (uint32_t)(PI2_STAGES_BESIDE_LAYERS + PI2_STAGES_OF_ATTENTION * layers +
                                           (experts ? PI2_STAGES_OF_EXPERTS * layers : PI2_STAGES_OF_A_RUN * runs));
}

/* A disk that was not measured matters only where one is read. */
static pi2_status find_disk(planning *p, const pi2_machine_profile *profile) {
    pi2_machine_disk disk;
    PI2_TRY(pi2_profile_place(p->engine->source.weights_path, &disk));
    p->workload.disk = pi2_profile_find_disk(profile, &disk);
    if (p->workload.disk != PI2_PROFILE_NO_DISK || p->engine->plan.memory.everything_resident) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "the disk of %s (mounted at %s) was not measured yet: 'powerinfer2 machine -m "
                    "%s' does it", p->engine->source.weights_path, disk.place, p->engine->source.weights_path);
}

/* ---- experts ---- */

static void replay_experts(planning *p, pi2_workload *workload) {
    pi2_workload_experts *experts = &workload->experts;
    pi2_forecast_run run = p->run;
    pi2_forecast_hits hits;
    run.slots = experts->slots;
    run.hot_keys = p->engine->plan.hot.keys;
    run.hot_count = p->engine->plan.hot.count;
    const pi2_status status = pi2_routing_forecast_run(p->forecast, &run, &hits);
    if (status != PI2_OK) {
        p->failed = status;
        return;
    }
    experts->cold_hits = experts->loaded ? 1 : hits.cold;
    experts->prompt_hits = experts->loaded ? 1 : hits.prompt;
    experts->decode_hits = experts->loaded ? 1 : hits.answer;
}

static void replay(void *user, pi2_workload *workload) {
    planning *p = user;
    if (workload->experts.count) replay_experts(p, workload);
    if (workload->neurons.units) {
        workload->neurons.hits = pi2_neuron_rates_hits(&p->neurons.rates, (double)workload->neurons.slots);
    }
}

static pi2_status add_experts(planning *p, const pi2_prediction_request *request) {
    const pi2_engine *engine = p->engine;
    const pi2_model_shape *shape = &engine->source.model->shape;
    const pi2_extent_layout *layout = engine->source.model->layout;
    pi2_workload *workload = &p->workload;
    pi2_workload_experts *experts = &workload->experts;
    experts->count = shape->expert_count;
    experts->used = shape->expert_used_count;
    experts->expert_bytes = pi2_expert_cache_slot_bytes(layout);
    experts->slots = pi2_engine_expert_slots(engine, request->position);
    experts->read_block = experts->expert_bytes < PI2_EXTENT_MAX_BYTES ? (uint32_t)experts->expert_bytes
                                                                        : PI2_EXTENT_MAX_BYTES;
    experts->loaded = engine->plan.memory.everything_resident && !engine->source.model->has_file;
    workload->feed_forward = shape->expert_feed_forward_length * shape->expert_used_count;
    const pi2_workload_weights router = {
        .type = "F32", .columns = shape->embedding_length, .is_table = true,
        .weights = (uint64_t)shape->layer_count * shape->expert_count * shape->embedding_length,
        .bytes = 4 * (uint64_t)shape->layer_count * shape->expert_count * shape->embedding_length};
    add_part(workload, &router);
    PI2_TRY(pi2_routing_forecast_open(shape->layer_count, shape->expert_count, shape->expert_used_count,
                                      request->routing_trace, &p->forecast));
    for (uint32_t i = 0; i < PI2_DISTINCT_POINTS; i++) {
        experts->distinct[i] = pi2_routing_forecast_distinct(p->forecast, 1u << i);
    }
    p->run = (pi2_forecast_run){ .policy = engine->plan.policy, .prompt_tokens = request->prompt_tokens,
                                 .batch_tokens = workload->batch_tokens, .answer_tokens = request->answer_tokens };
    replay_experts(p, workload);
    return p->failed;
}

/* The key-value cache has grown into room that weights had at the start. */
static void end_loan(const pi2_engine *engine, uint32_t position, pi2_workload *workload) {
    const uint64_t due = pi2_engine_loan_due(engine, position);
    workload->read_bytes += due;
    workload->resident_bytes -= due < workload->resident_bytes ? due : workload->resident_bytes;
}

static pi2_status make_workload(const pi2_engine *engine, const pi2_machine_profile *profile,
                                const pi2_prediction_request *request, planning *p) {
    const pi2_model_shape *shape = &engine->source.model->shape;
    const pi2_memory_plan *plan = &engine->plan.memory;
    pi2_workload *workload = &p->workload;
    memset(p, 0, sizeof *p);
    p->engine = engine;
    add_extents(engine, workload);
    workload->budget_bytes = engine->report.budget_bytes;
    for (uint32_t i = 0; i < engine->plan.pass_end; i++) {
        const uint32_t e = engine->plan.sequence[i];
        if (engine->plan.resident[e]) workload->resident_bytes += engine->source.model->layout->extents[e].bytes;
    }
    if (shape->expert_count == 0) workload->resident_bytes = engine->report.resident_bytes;
    if (shape->expert_count == 0) end_loan(engine, request->position, workload);
    workload->load_before = plan->everything_resident && !engine->source.model->has_file;
    PI2_TRY(find_disk(p, profile));
    workload->read_method = method_of(engine, profile, workload->disk);
    workload->layer_count = shape->layer_count;
    workload->width = shape->embedding_length;
    workload->feed_forward = shape->feed_forward_length;
    workload->query_floats = shape->head_count * shape->key_length;
    workload->key_value_floats = shape->head_count_kv * (shape->key_length + shape->value_length);
    workload->cache_bytes_per_position = plan->cache_bytes / plan->shape.context_tokens;
    workload->batch_tokens = plan->shape.batch_tokens;
    workload->threads = plan->shape.thread_count;
    workload->cores = pi2_allowed_cpus();
    workload->embedding_streams = !plan->everything_resident;
    workload->replay = replay;
    workload->replay_user = p;
    if (shape->expert_count) PI2_TRY(add_experts(p, request));
    add_stages(engine, workload);
    return pi2_engine_plan_neurons(engine, request, &p->neurons, &workload->neurons);
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

pi2_status pi2_engine_predict(const pi2_engine *engine, const pi2_machine_profile *profile,
                              const pi2_prediction_request *request, pi2_prediction *prediction_out) {
    planning *p = malloc(sizeof *p);
    if (!p) return pi2_fail(PI2_ERR_MEMORY, "no memory for a prediction");
    const pi2_status status = make_workload(engine, profile, request, p);
    if (status == PI2_OK) {
        pi2_predict(&p->workload, profile, &pi2_as_it_is, request->prompt_tokens, request->position, prediction_out);
        tell_grounds(p, profile, request, prediction_out);
    }
    pi2_routing_forecast_close(p->forecast);
    free(p);
    return status;
}

/* ---- the plan ---- */

static void add_line(pi2_plan *plan, const char *what, uint64_t bytes, uint64_t resident, const char *why) {
    if (bytes == 0 || plan->line_count == PI2_PLAN_LINES_MOST) return;
    pi2_plan_line *line = &plan->lines[plan->line_count++];
    *line = (pi2_plan_line){.bytes = bytes, .resident_bytes = resident};
    (void)snprintf(line->what, sizeof line->what, "%s", what);
    (void)snprintf(line->why, sizeof line->why, "%s", why);
}

/* An expert is in memory or not; which ones are changes. */
static void add_expert_line(pi2_plan *plan, uint64_t bytes) {
    const pi2_engine *engine = plan->engine;
    const uint64_t slot = pi2_expert_cache_slot_bytes(engine->source.model->layout);
    const uint32_t all = pi2_expert_cache_keys(engine->source.model->layout);
    const uint64_t slots = slot ? engine->plan.memory.expert_bytes / slot : 0;
    char why[96];
    if (engine->plan.memory.expert_bytes >= pi2_expert_cache_all_bytes(engine->source.model->layout)) {
        add_line(plan, "expert weights", bytes, bytes, "the budget holds all experts");
        return;
    }
    (void)snprintf(why, sizeof why, "%llu of %u experts, %u hot, policy %s; others are read when chosen",
                   (unsigned long long)slots, all, engine->plan.hot.count, engine->plan.policy->name);
    add_line(plan, "expert weights", bytes, engine->plan.memory.expert_bytes, why);
}

static void add_weights(pi2_plan *plan) {
    static const char *const names[] = {"attention weights", "feed-forward weights", "expert weights", "output head",
                                        "embedding"};
    const pi2_engine *engine = plan->engine;
    const pi2_extent_layout *layout = engine->source.model->layout;
    const bool all = engine->plan.memory.everything_resident;
    for (int kind = PI2_GROUP_ATTENTION; kind <= PI2_GROUP_EMBEDDING; kind++) {
        uint64_t bytes = 0, resident = 0;
        for (uint32_t e = 0; e < layout->extent_count; e++) {
            if ((int)layout->groups[layout->extents[e].group].kind != kind) continue;
            bytes += layout->extents[e].bytes;
            resident += engine->plan.resident[e] ? layout->extents[e].bytes : 0;
        }
        if (kind == PI2_GROUP_EXPERT) {
            if (bytes) add_expert_line(plan, bytes);
            continue;
        }
        add_line(plan, names[kind], bytes, resident,
                 all ? "the budget holds all weights"
                 : engine->plan.memory.neuron_bytes && kind == PI2_GROUP_FFN
                     ? "Gate stays; Up and Down of prompts stream, tokens use single neurons"
                 : kind == PI2_GROUP_EMBEDDING ? "a token needs one row, which is read when it is needed"
                 : resident == bytes           ? "each token uses all: stays"
                                               : "each token uses all: an even share stays, the rest streams");
    }
}

/* Which ones are in memory changes; with a profile it is known how often that is enough. */
static void add_neurons(pi2_plan *plan) {
    const pi2_engine_plan *made = &plan->engine->plan;
    const uint64_t all = pi2_neuron_store_all_bytes(made->banks), in_memory = made->memory.neuron_bytes;
    char why[96] = "those that fire most stay, others are read when they fire", lack[PI2_SIZE_TEXT_BYTES];
    if (in_memory == 0) {
        (void)snprintf(why, sizeof why, "the budget lacks %s for them: every token computes all neurons",
                       pi2_format_size(plan->engine->plan.memory.neuron_lack_bytes, lack));
    } else if (in_memory == all) {
        (void)snprintf(why, sizeof why, "the budget holds all neurons");
    } else if (plan->prediction.neuron_units) {
        (void)snprintf(why, sizeof why, "those that fire most stay: %.1f %% of a token's; the others are read",
                       100 * plan->prediction.neuron_hit_rate);
    }
    add_line(plan, "single neurons", all, in_memory, why);
}

static void add_lines(pi2_plan *plan) {
    const pi2_memory_plan *memory = &plan->engine->plan.memory;
    add_weights(plan);
    if (memory->neuron_bytes || memory->neuron_lack_bytes) add_neurons(plan);
    add_line(plan, "key-value cache", memory->cache_bytes, memory->cache_bytes - memory->loan_bytes,
             memory->loan_bytes ? "grows with the context; until then weights use its room"
                                : "grows with the context, stays");
    add_line(plan, "scratch", memory->scratch_bytes, memory->scratch_bytes, "activations of one batch");
    add_line(plan, "stream buffer", memory->ring_bytes + memory->staging_bytes,
             memory->ring_bytes + memory->staging_bytes, "reads ahead of computing");
    add_line(plan, "sampler", memory->sampler_bytes, memory->sampler_bytes, "candidates of a token");
    add_line(plan, "program, tokenizer, tables", memory->process_bytes, memory->process_bytes,
             "norms, vocabulary, code, stacks");
    if (!memory->everything_resident) {
        add_line(plan, "margin", memory->margin_bytes, 0, "left free, so that the budget holds");
    }
}

/** What is asked for, within the context. */
static pi2_prediction_request complete(const pi2_engine *engine, const pi2_prediction_request *request) {
    pi2_prediction_request whole = request ? *request : (pi2_prediction_request){0};
    const uint32_t context = engine->plan.memory.shape.context_tokens;
    if (whole.prompt_tokens == 0) whole.prompt_tokens = DEFAULT_PROMPT;
    if (whole.prompt_tokens > context) whole.prompt_tokens = context;
    if (whole.position == 0) whole.position = whole.prompt_tokens;
    return whole;
}

/* The batch is chosen by its share of the memory; what that makes of the reads is looked at here. */
static void check_batch(pi2_plan *plan, const pi2_workload *workload, const pi2_machine_profile *profile,
                        uint32_t prompt_tokens) {
    const pi2_forward_shape *shape = &plan->engine->plan.memory.shape;
    const uint32_t batch = shape->batch_tokens, context = shape->context_tokens;
    const double hits = workload->experts.prompt_hits;
    const pi2_pass pass = {batch < prompt_tokens ? batch : prompt_tokens, 0, hits, false};
    const pi2_pass_time time = pi2_predict_pass(workload, profile, &pi2_as_it_is, &pass);
    if (time.read <= 0) return;
    plan->batch = (pi2_batch_check){.tokens = pass.tokens, .read_ms = 1e3 * time.read,
                                    .compute_ms = 1e3 * time.compute, .reading_hides = time.exposed <= 0,
                                    .hides_from = pi2_predict_hiding_batch(workload, profile, hits, context)};
}

static pi2_status predict_plan(pi2_plan *plan, const pi2_machine_profile *profile,
                               const pi2_prediction_request *request) {
    planning *p = malloc(sizeof *p);
    if (!p) return pi2_fail(PI2_ERR_MEMORY, "no memory for a prediction");
    const uint32_t prompt = request->prompt_tokens, position = request->position;
    pi2_status status = make_workload(plan->engine, profile, request, p);
    if (status == PI2_OK) {
        pi2_predict(&p->workload, profile, &pi2_as_it_is, prompt, position, &plan->prediction);
        tell_grounds(p, profile, request, &plan->prediction);
        check_batch(plan, &p->workload, profile, prompt);
        plan->advice_count = pi2_predict_advice(&p->workload, profile, prompt, position, plan->advice);
        status = p->failed;
    }
    pi2_routing_forecast_close(p->forecast);
    free(p);
    return status;
}

pi2_status pi2_plan_make(const pi2_engine_options *options, const pi2_machine_profile *profile,
                         const pi2_prediction_request *request, pi2_plan **plan_out) {
    *plan_out = NULL;
    pi2_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return pi2_fail(PI2_ERR_MEMORY, "no memory for the plan");
    pi2_status status = pi2_engine_open_for(options, true, &plan->engine);
    pi2_prediction_request whole = {0};
    if (status == PI2_OK) whole = complete(plan->engine, request);
    if (status == PI2_OK && profile) status = predict_plan(plan, profile, &whole);
    if (status != PI2_OK) {
        pi2_plan_free(plan);
        return status;
    }
    add_lines(plan);
    pi2_engine_explain_experts(plan->engine, pi2_engine_expert_slots(plan->engine, whole.position), plan->expert_note,
                               sizeof plan->expert_note);
    *plan_out = plan;
    return PI2_OK;
}

void pi2_plan_free(pi2_plan *plan) {
    if (!plan) return;
    pi2_engine_close(plan->engine);
    free(plan);
}

const pi2_engine_report *pi2_plan_report(const pi2_plan *plan) { return &plan->engine->report; }
const pi2_prediction *pi2_plan_prediction(const pi2_plan *plan) { return &plan->prediction; }
const pi2_batch_check *pi2_plan_batch_check(const pi2_plan *plan) { return &plan->batch; }
const char *pi2_plan_expert_note(const pi2_plan *plan) { return *plan->expert_note ? plan->expert_note : NULL; }
const pi2_advice *pi2_plan_advice(const pi2_plan *plan, size_t *count_out) {
    *count_out = plan->advice_count;
    return plan->advice;
}
const pi2_plan_line *pi2_plan_lines(const pi2_plan *plan, size_t *count_out) {
    *count_out = plan->line_count;
    return plan->lines;
}
