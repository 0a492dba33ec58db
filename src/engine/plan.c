/* plan.c: a planned run that is not opened, and what is told of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/engine_internal.h"
#include "engine/run_draft.h"
#include "planner/run_prediction.h"
#include "powerinfer2/plan.h"
#include "powerinfer2/sizes.h"

enum { DEFAULT_PROMPT = 512 };

struct pi2_plan {
    pi2_planned_run run;
    pi2_prediction prediction;
    pi2_run_advice advice;
    pi2_plan_line lines[PI2_PLAN_LINES_MOST];
    size_t line_count;
    char expert_note[192];
};

const char *pi2_bottleneck_name(pi2_bottleneck bottleneck) {
    static const char *const names[] = {"disk", "memory bandwidth", "compute"};
    return (unsigned)bottleneck <= PI2_LIMIT_COMPUTE ? names[bottleneck] : "unknown";
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
    const pi2_planned_run *run = &plan->run;
    const uint64_t slot = pi2_expert_cache_slot_bytes(run->source.model->layout);
    const uint32_t all = pi2_expert_cache_keys(run->source.model->layout);
    const uint64_t slots = slot ? run->plan.memory.expert_bytes / slot : 0;
    char why[96];
    if (run->plan.memory.expert_bytes >= pi2_expert_cache_all_bytes(run->source.model->layout)) {
        add_line(plan, "expert weights", bytes, bytes, "the budget holds all experts");
        return;
    }
    if (run->plan.memory.gate_bytes) {
        const uint64_t gates = pi2_expert_cache_all_gate_bytes(run->source.model->layout);
        const bool whole = run->plan.memory.gate_bytes >= gates;
        (void)snprintf(why, sizeof why, "%llu of %u experts, for prompts; tokens use Gates and single neurons",
                       (unsigned long long)slots, all);
        add_line(plan, "expert weights", bytes, run->plan.memory.expert_bytes, why);
        add_line(plan, "experts' Gates", gates, run->plan.memory.gate_bytes,
                 whole ? "tokens use those of the experts that are chosen: all stay"
                       : "tokens use those of the experts that are chosen: others are read when chosen");
        return;
    }
    (void)snprintf(why, sizeof why, "%llu of %u experts, %u hot, policy %s; others are read when chosen%s",
                   (unsigned long long)slots, all, run->plan.hot.count, run->plan.policy->name,
                   run->plan.memory.whole_is_faster ? ", whole" : "");
    add_line(plan, "expert weights", bytes, run->plan.memory.expert_bytes, why);
}

static void add_weights(pi2_plan *plan) {
    static const char *const names[] = {"attention weights", "feed-forward weights", "expert weights", "output head",
                                        "embedding", "weights of layers' ends", "table of rows"};
    const pi2_planned_run *run = &plan->run;
    const pi2_extent_layout *layout = run->source.model->layout;
    const bool all = run->plan.memory.everything_resident;
    for (int kind = PI2_GROUP_ATTENTION; kind < PI2_GROUP_KINDS; kind++) {
        uint64_t bytes = 0, resident = 0;
        for (uint32_t e = 0; e < layout->extent_count; e++) {
            if ((int)layout->groups[layout->extents[e].group].kind != kind) continue;
            bytes += layout->extents[e].bytes;
            resident += run->plan.resident[e] ? layout->extents[e].bytes : 0;
        }
        if (kind == PI2_GROUP_EXPERT) {
            if (bytes) add_expert_line(plan, bytes);
            continue;
        }
        add_line(plan, names[kind], bytes, resident,
                 all ? "the budget holds all weights"
                 : run->plan.memory.neuron_bytes && kind == PI2_GROUP_FFN
                     ? run->plan.approximates ? "prompts stream them, tokens use single neurons"
                                              : "Gate stays; Up and Down of prompts stream, tokens use single neurons"
                 : pi2_group_kind_is_raw((pi2_group_kind)kind)
                     ? "a token needs one row, which is read when it is needed"
                 : resident == bytes           ? "each token uses all: stays"
                                               : "each token uses all: an even share stays, the rest streams");
    }
}

/* Which ones are in memory changes; with a profile it is known how often that is enough. */
static void add_neurons(pi2_plan *plan) {
    const pi2_run_plan *made = &plan->run.plan;
    const uint64_t all = pi2_neuron_store_all_bytes(made->banks), in_memory = made->memory.neuron_bytes;
    char why[96] = "those that fire most stay, others are read when they fire", lack[PI2_SIZE_TEXT_BYTES];
    if (in_memory == 0) {
        (void)snprintf(why, sizeof why, "the budget lacks %s for them: every token computes all neurons",
                       pi2_format_size(plan->run.plan.memory.neuron_lack_bytes, lack));
    } else if (in_memory == all) {
        (void)snprintf(why, sizeof why, "the budget holds all neurons");
    } else if (plan->prediction.neuron_units) {
        (void)snprintf(why, sizeof why, "those that fire most stay: %.1f %% of a token's; the others are read",
                       100 * plan->prediction.neuron_hit_rate);
    }
    add_line(plan, "single neurons", all, in_memory, why);
}

static void add_lines(pi2_plan *plan) {
    const pi2_memory_plan *memory = &plan->run.plan.memory;
    add_weights(plan);
    if (memory->neuron_bytes || memory->neuron_lack_bytes) add_neurons(plan);
    add_line(plan, "key-value cache", memory->cache_bytes, memory->cache_bytes - memory->loan_bytes,
             memory->loan_bytes ? "grows with the context; until then weights use its room"
                                : "grows with the context, stays");
    const uint64_t scratch = memory->scratch_bytes + memory->dense_scratch_bytes;
    const uint64_t stream = memory->ring_bytes + memory->staging_bytes;
    const bool shared = memory->shared_bytes > 0;
    add_line(plan, "scratch", scratch, shared ? memory->scratch_bytes : scratch,
             shared ? "activations of a token; those of a prompt's batch where neurons are otherwise"
                    : "activations of one batch");
    add_line(plan, "stream buffer", stream,
             shared ? stream + memory->dense_scratch_bytes - memory->shared_bytes : stream,
             shared && memory->ring_bytes ? "reads ahead of computing, where neurons are between prompts"
                                          : "reads ahead of computing");
    const pi2_run_draft *draft = plan->run.draft;
    const uint64_t drafting = draft ? draft->bytes_per_token * memory->shape.context_tokens : 0;
    add_line(plan, "sessions", memory->session_bytes - drafting, memory->session_bytes - drafting,
             "candidates of a token, penalties, guesses");
    const uint64_t predictor = pi2_predictor_bytes(&plan->run.plan.predictor);
    add_line(plan, "predictor", predictor, predictor, "tells which neurons a token will want");
    if (draft) add_line(plan, "draft model", draft->bytes + drafting, draft->bytes + drafting, "guesses ahead");
    const uint64_t process = memory->process_bytes - predictor - (draft ? draft->bytes : 0);
    add_line(plan, "program, tokenizer, tables", process, process,
             "norms, vocabulary, code, stacks");
    if (!memory->everything_resident) {
        add_line(plan, "margin", memory->margin_bytes, 0, "left free, so that the budget holds");
    }
}

/** What is asked for, within the context. */
static pi2_prediction_request complete(const pi2_planned_run *run, const pi2_prediction_request *request) {
    pi2_prediction_request whole = request ? *request : (pi2_prediction_request){0};
    const uint32_t context = run->plan.memory.shape.context_tokens;
    if (whole.prompt_tokens == 0) whole.prompt_tokens = DEFAULT_PROMPT;
    if (whole.prompt_tokens > context) whole.prompt_tokens = context;
    if (whole.position == 0) whole.position = whole.prompt_tokens;
    return whole;
}

pi2_status pi2_plan_make(const pi2_engine_options *options, const pi2_machine_profile *profile,
                         const pi2_prediction_request *request, pi2_plan **plan_out) {
    *plan_out = NULL;
    pi2_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return pi2_fail(PI2_ERR_MEMORY, "no memory for the plan");
    pi2_status status = pi2_planned_run_make(options, &plan->run);
    pi2_prediction_request whole = {0};
    if (status == PI2_OK) whole = complete(&plan->run, request);
    if (status == PI2_OK && profile) {
        status = pi2_run_predict(&plan->run, profile, &whole, &plan->prediction, &plan->advice);
    }
    if (status != PI2_OK) {
        pi2_plan_free(plan);
        return status;
    }
    add_lines(plan);
    pi2_run_plan_explain_experts(&plan->run, pi2_run_plan_expert_slots(&plan->run, whole.position), plan->expert_note,
                                 sizeof plan->expert_note);
    *plan_out = plan;
    return PI2_OK;
}

void pi2_plan_free(pi2_plan *plan) {
    if (!plan) return;
    pi2_planned_run_close(&plan->run);
    free(plan);
}

const pi2_engine_report *pi2_plan_report(const pi2_plan *plan) { return &plan->run.report; }
const char *pi2_plan_arithmetic(const pi2_plan *plan) { return plan->run.texts.arithmetic; }
const pi2_prediction *pi2_plan_prediction(const pi2_plan *plan) { return &plan->prediction; }
const pi2_batch_check *pi2_plan_batch_check(const pi2_plan *plan) { return &plan->advice.batch; }
const char *pi2_plan_expert_note(const pi2_plan *plan) { return *plan->expert_note ? plan->expert_note : NULL; }
const pi2_advice *pi2_plan_advice(const pi2_plan *plan, size_t *count_out) {
    *count_out = plan->advice.count;
    return plan->advice.list;
}
const pi2_device_speed *pi2_plan_device_speeds(const pi2_plan *plan, size_t *count_out) {
    *count_out = plan->run.devices.speed_count;
    return plan->run.devices.speeds;
}
const pi2_plan_line *pi2_plan_lines(const pi2_plan *plan, size_t *count_out) {
    *count_out = plan->line_count;
    return plan->lines;
}

pi2_status pi2_engine_predict(const pi2_engine *engine, const pi2_machine_profile *profile,
                              const pi2_prediction_request *request, pi2_prediction *prediction_out) {
    return pi2_run_predict(&engine->run, profile, request, prediction_out, NULL);
}
