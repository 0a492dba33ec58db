/* run_plan.c: from options, machine and model to what a run does; see planned_run.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/memory_ledger.h"
#include "base/memory_limit.h"
#include "base/pages.h"
#include "base/parse_size.h"
#include "base/team.h"
#include "planner/planned_run.h"
#include "planner/run_prediction_neurons.h"

void pi2_planned_run_log(const pi2_planned_run *run, const char *format, ...) {
    const pi2_callbacks *callbacks = &run->options.callbacks;
    if (!callbacks->log) return;
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    callbacks->log(callbacks->user, line);
}

/* ---- what does not ask for the model ---- */

static pi2_status find_policy(pi2_planned_run *run) {
    const char *name = run->options.cache_policy ? run->options.cache_policy : "auto";
    run->plan.policy = pi2_cache_policy_find(name);
    if (run->plan.policy) return PI2_OK;
    char known[256] = "auto";
    for (size_t i = 0; i < pi2_cache_policy_count; i++) {
        const size_t used = strlen(known);
        (void)snprintf(known + used, sizeof known - used, ", %s", pi2_cache_policies[i]->name);
    }
    return pi2_fail(PI2_ERR_INVALID, "unknown cache policy '%s'; there are: %s", name, known);
}

static pi2_status find_look_ahead(pi2_planned_run *run) {
    static const char *const names[] = { [PI2_LOOK_AHEAD_AUTO] = "auto", [PI2_LOOK_AHEAD_OFF] = "off",
                                         [PI2_LOOK_AHEAD_ON] = "on" };
    const char *name = run->options.look_ahead ? run->options.look_ahead : "auto";
    for (int mode = PI2_LOOK_AHEAD_AUTO; mode <= PI2_LOOK_AHEAD_ON; mode++) {
        run->plan.look_ahead = (pi2_look_ahead_mode)mode;
        if (strcmp(name, names[mode]) == 0) return PI2_OK;
    }
    return pi2_fail(PI2_ERR_INVALID, "unknown way to look ahead '%s'; there are: auto, off, on", name);
}

static pi2_status find_neuron_rule(pi2_planned_run *run) {
    const char *name = run->options.neuron_cache ? run->options.neuron_cache : "auto";
    run->plan.neuron_rule = pi2_unit_rule_find(name);
    if (run->plan.neuron_rule || strcmp(name, "off") == 0) return PI2_OK;
    char known[128] = "auto, off";
    for (size_t i = 0; i < pi2_unit_rule_count; i++) {
        const size_t used = strlen(known);
        (void)snprintf(known + used, sizeof known - used, ", %s", pi2_unit_rules[i].name);
    }
    return pi2_fail(PI2_ERR_INVALID, "unknown cache of neurons '%s'; there are: %s", name, known);
}

/* Which words of --sparsity there are, and whether what they say of a predictor goes together. */
static pi2_status find_sparsity(pi2_planned_run *run) {
    const char *sparsity = run->options.sparsity ? run->options.sparsity : "exact";
    const char *predictor = run->options.predictor ? run->options.predictor : "";
    const bool has_none = strcmp(predictor, "none") == 0, is_gate = strcmp(predictor, "gate") == 0;
    char *end = NULL;
    run->plan.left_out = -1;
    run->plan.approximates = strcmp(sparsity, "auto") == 0;
    if (*sparsity >= '0' && *sparsity <= '9') { /* no sign, no "nan", no blanks before it */
        run->plan.left_out = strtod(sparsity, &end);
        run->plan.approximates = *end == '\0' && run->plan.left_out < 1;
    }
    if (!run->plan.approximates && strcmp(sparsity, "exact") != 0 && strcmp(sparsity, "always") != 0 &&
        strcmp(sparsity, "off") != 0) {
        return pi2_fail(PI2_ERR_INVALID, "unknown sparsity '%s'; there are: exact, always, off, auto, and a share that "
                        "is left out, from 0 up to but not 1", sparsity);
    }
    if (run->plan.approximates && has_none) {
        return pi2_fail(PI2_ERR_INVALID, "a sparsity of %s needs a predictor: a file of one, or low-bit", sparsity);
    }
    if (run->plan.approximates && is_gate) {
        return pi2_fail(PI2_ERR_INVALID, "with a sparsity of %s Gate is not computed, so that it cannot foretell: name "
                        "a predictor's file, or low-bit", sparsity);
    }
    if (strcmp(sparsity, "off") == 0 && *predictor && !has_none) {
        return pi2_fail(PI2_ERR_INVALID, "no predictor is used with a sparsity of off");
    }
    if (run->plan.approximates && run->options.counts_neurons) {
        return pi2_fail(PI2_ERR_INVALID, "neurons are counted where none is left out: not with a sparsity of %s",
                        sparsity);
    }
    run->plan.foretells = run->plan.approximates || (*predictor && !has_none);
    run->plan.gate_foretells = is_gate;
    return PI2_OK;
}

static void find_budget(pi2_planned_run *run) {
    char *reason = run->texts.budget_reason;
    const size_t capacity = sizeof run->texts.budget_reason;
    if (run->options.memory_bytes) {
        run->report.budget_bytes = run->options.memory_bytes;
        (void)snprintf(reason, capacity, "as asked for");
        return;
    }
    pi2_memory_limit limit;
    pi2_memory_limit_find(&limit);
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    const uint64_t all = limit.bytes + current;
    const uint64_t margin = all / 16 > 32000000 ? all / 16 : all / 8 < 32000000 ? all / 8 : 32000000;
    run->report.budget_bytes = all - margin;
    char size[PI2_SIZE_TEXT_BYTES];
    (void)snprintf(reason, capacity, "%s, less a margin of %s", limit.reason, pi2_format_size(margin, size));
}

_Static_assert((int)PI2_THREADS_MOST == (int)PI2_TEAM_MAX_MEMBERS, "there is one limit of threads");

/* Once: what it depends on may change while the model is opened. */
static void find_threads(pi2_planned_run *run) {
    const unsigned allowed = pi2_allowed_cpus(), asked = run->options.thread_count;
    run->plan.threads_wanted = asked && asked < allowed ? asked : allowed;
    run->plan.thread_count = asked ? run->plan.threads_wanted : pi2_default_threads();
    run->plan.threads_wanted += run->devices.count; /* each device has a thread that waits for it */
    run->plan.thread_count += run->devices.count;
    if (run->plan.thread_count > PI2_THREADS_MOST) run->plan.thread_count = PI2_THREADS_MOST;
}

pi2_status pi2_run_plan_begin(pi2_planned_run *run) {
    PI2_TRY(find_policy(run));
    PI2_TRY(find_look_ahead(run));
    PI2_TRY(find_neuron_rule(run));
    PI2_TRY(find_sparsity(run));
    PI2_TRY(pi2_run_devices_open(run));
    find_budget(run);
    find_threads(run);
    return PI2_OK;
}

void pi2_run_plan_tell_threads(const pi2_planned_run *run) {
    const uint32_t wanted = run->plan.threads_wanted, planned = run->plan.memory.shape.thread_count;
    if (planned == wanted) return;
    pi2_planned_run_log(run, "%u of %u threads compute: %s", planned, wanted,
                        planned < run->plan.thread_count ? "the buffers of more would take too much of the memory"
                        : planned == PI2_THREADS_MOST    ? "more are not used"
                                                         : "the control group may not start more");
}

/* ---- single neurons ---- */

bool pi2_run_plan_is_dense(const pi2_planned_run *run) {
    return run->options.sparsity && strcmp(run->options.sparsity, "off") == 0;
}

bool pi2_run_plan_is_always(const pi2_planned_run *run) {
    return run->options.sparsity && strcmp(run->options.sparsity, "always") == 0;
}

/* Whether an extent of a layer's FFN holds no Gate rows: passes by neuron do without it. */
static bool is_up_or_down(const pi2_model *model, uint32_t layer, const pi2_extent *extent) {
    for (uint32_t p = extent->first_piece; p < extent->first_piece + extent->piece_count; p++) {
        if (&model->layout->tensors[model->layout->pieces[p].tensor] == model->layers[layer].gate.tensor) return false;
    }
    return true;
}

/* With a predictor Gate is in the bundles, and its tiles are for prompts too. */
static void mark_layer(pi2_planned_run *run, uint32_t layer) {
    const pi2_model *model = run->source.model;
    const pi2_group *group = &model->layout->groups[model->layers[layer].ffn_group];
    for (uint32_t e = group->first_extent; e < group->first_extent + group->extent_count; e++) {
        run->plan.by_neuron[e] = run->plan.approximates || is_up_or_down(model, layer, &model->layout->extents[e]);
    }
}

/* Experts' Gates can be read alone, where all of them are wanted, and some layer has all its banks: the others compute
 * whole experts. */
static bool experts_can_go_by_neuron(const pi2_model *model, bool wants_gates) {
    for (uint32_t g = 0; wants_gates && g < model->layout->group_count; g++) {
        const pi2_group *group = &model->layout->groups[g];
        if (group->kind == PI2_GROUP_EXPERT && group->gate_extents == 0) return false;
    }
    uint32_t in_a_row = 0;
    for (uint32_t b = 0; b < model->banks->count; b++) { /* banks are in the order of layers, then experts */
        const bool same = b > 0 && model->banks->banks[b].layer == model->banks->banks[b - 1].layer;
        in_a_row = same ? in_a_row + 1 : 1;
        if (in_a_row == pi2_layer_ffns(&model->shape)) return true;
    }
    return false;
}

/* Whether some layer's neurons can be read one by one, by its types. */
static bool has_single_neurons(const pi2_model *model) {
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        const pi2_layer_weights *layer = &model->layers[i];
        if (layer->gate.tensor && pi2_has_columns(layer->gate.tensor->format) &&
            (!layer->up.tensor || pi2_has_columns(layer->up.tensor->format)) &&
            layer->down.tensor && pi2_has_columns(layer->down.tensor->format)) {
            return true;
        }
    }
    return false;
}

static pi2_status refuse_experts(const pi2_planned_run *run) {
    if (!pi2_model_has_experts(&run->source.model->shape)) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: a mixture of experts, whose neurons are not read ahead: use --sparsity "
                    "exact without --predictor, or auto", run->source.weights_path);
}

static pi2_status refuse_unlike(const pi2_planned_run *run) {
    if (pi2_model_ffns_are_alike(&run->source.model->shape)) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: its layers' FFNs differ, and predictors are for models whose are alike: "
                    "use --sparsity exact without --predictor", run->source.weights_path);
}

/* What a run needs of its model whose predictor only names what is read ahead. */
static pi2_status check_foretelling(const pi2_planned_run *run) {
    PI2_TRY(refuse_experts(run));
    if (run->plan.gate_foretells && run->source.model->shape.activation == PI2_FFN_gelu_topk) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: gelu_topk keeps neurons by all Gates of a layer, which no Gate "
                        "foretells: leave --predictor gate out", run->source.weights_path);
    }
    if (pi2_model_shape_fires(&run->source.model->shape)) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s: its activation, %s, has no zeros that a predictor could foretell: use it "
                    "with a share of neurons to leave out, such as --sparsity 0.3", run->source.weights_path,
                    pi2_ffn_activation_name(run->source.model->shape.activation));
}

/* What a run with a predictor needs of its model, and of its cluster file once that is open. */
static pi2_status check_approximation(const pi2_planned_run *run) {
    const pi2_model *model = run->source.model;
    const char *path = run->source.weights_path;
    PI2_TRY(refuse_unlike(run));
    if (model->shape.activation == PI2_FFN_gelu_topk) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: gelu_topk keeps neurons by all Gates of a layer, which no predictor "
                        "knows: use --sparsity exact", path);
    }
    if (run->plan.left_out < 0 && !pi2_model_shape_fires(&model->shape)) {
        return pi2_fail(PI2_ERR_INVALID, "%s: its activation, %s, has no zeros that could be foretold: name a share of "
                        "neurons to leave out, such as --sparsity 0.3", path,
                        pi2_ffn_activation_name(model->shape.activation));
    }
    if (!has_single_neurons(model)) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: its FFNs have weights of types that are read by whole blocks, not by "
                        "neuron: use --sparsity exact", path);
    }
    if (!model->has_file) return PI2_OK;
    if (!model->banks || model->banks->count == 0 || model->banks->banks[0].gate_tensor == PI2_NO_GATE) {
        return pi2_fail(PI2_ERR_INVALID, "%s: a run with a predictor needs the bundle layout: run 'powerinfer2 prepare "
                        "--layout bundle' with the GGUF model", path);
    }
    return PI2_OK;
}

pi2_status pi2_run_plan_find_neurons(pi2_planned_run *run) {
    const pi2_model *model = run->source.model;
    free(run->plan.by_neuron);
    run->plan.by_neuron = NULL;
    run->plan.banks = NULL;
    if (pi2_run_plan_is_dense(run)) return PI2_OK;
    if (run->plan.approximates) PI2_TRY(check_approximation(run));
    else if (run->plan.foretells) PI2_TRY(check_foretelling(run));
    if (!model->banks || model->banks->count == 0) return PI2_OK;
    if (!run->plan.approximates && !pi2_model_shape_fires(&model->shape)) return PI2_OK;
    const bool has_experts = pi2_model_has_experts(&model->shape);
    if (has_experts && !experts_can_go_by_neuron(model, !run->plan.approximates)) return PI2_OK;
    run->plan.by_neuron = calloc(model->layout->extent_count ? model->layout->extent_count : 1, 1);
    if (!run->plan.by_neuron) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of extents");
    for (uint32_t b = 0; b < model->banks->count && !has_experts; b++) {
        mark_layer(run, model->banks->banks[b].layer);
    }
    run->plan.banks = model->banks;
    return PI2_OK;
}

/* ---- memory ---- */

/* Without what making the cluster file left: of what the process has, not of what other engines were promised. */
static uint64_t held_bytes_now(uint64_t prepared_bytes) {
    uint64_t peak = 0, current = 0;
    (void)pi2_process_memory(&peak, &current);
    if (current == 0) current = 6000000; /* the system does not tell: what it was elsewhere */
    else current -= prepared_bytes < current ? prepared_bytes : current;
    return pi2_memory_spoken_for(current);
}

uint64_t pi2_run_plan_claim_bytes(const pi2_run_plan *plan) {
    const pi2_memory_plan *memory = &plan->memory;
    const uint64_t weights = memory->resident_room + memory->expert_bytes + memory->gate_bytes + memory->neuron_bytes -
                             memory->loan_bytes - memory->shared_bytes;
    const uint64_t all = memory->process_bytes + memory->cache_bytes + memory->scratch_bytes +
                         memory->dense_scratch_bytes + memory->session_bytes + memory->text_bytes +
                         memory->ring_bytes + memory->staging_bytes + weights;
    return all > plan->held_bytes ? all - plan->held_bytes : 0;
}

static pi2_kv_type kv_type_of(pi2_cache_type type) {
    return type == PI2_CACHE_Q8_0 ? PI2_KV_Q8_0 : type == PI2_CACHE_F32 ? PI2_KV_F32 : PI2_KV_F16;
}

static uint32_t most_code_rows(const pi2_predictor *predictor) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        const uint32_t rows = predictor->kind->code_rows(&predictor->layers[i]);
        if (rows > most) most = rows;
    }
    return most;
}

pi2_status pi2_run_plan_spend(pi2_planned_run *run, const pi2_run_costs *costs) {
    const pi2_engine_options *options = &run->options;
    run->plan.held_bytes = held_bytes_now(run->plan.prepared_bytes);
    const pi2_memory_plan_request request = {
        .model = run->source.model, .model_path = run->source.model_path, .budget_bytes = run->report.budget_bytes,
        .budget_is_chosen = options->memory_bytes == 0,
        .process_bytes = run->plan.held_bytes + costs->list_bytes,
        .sequences = options->sequences, .context_tokens = options->context_tokens,
        .branch_tokens = options->branch_tokens,
        .batch_tokens = options->batch_tokens,
        .logits_tokens = options->logits_tokens ? options->logits_tokens : 1,
        .draft_tokens = costs->draft_tokens, .draft_nodes = costs->draft_nodes,
        .draft_nodes_chosen = options->draft_nodes == PI2_DRAFT_NODES_CHOSEN,
        .feature_count = costs->feature_count, .feature_layers = costs->feature_layers,
        .may_lend = !options->keep_memory,
        .thread_count = run->plan.thread_count, .threads_are_chosen = options->thread_count == 0,
        .page_bytes = pi2_page_bytes(),
        .cache_type = kv_type_of(options->cache_type),
        .text_bytes = costs->text_bytes, .text_bytes_per_token = costs->text_bytes_per_token,
        .banks = run->plan.banks, .by_neuron = run->plan.by_neuron,
        .hot_share = run->devices.count && run->options.device_share > 0 ? run->options.device_share : 0,
        .neurons_always = pi2_run_plan_is_always(run),
        .predicts = run->plan.approximates, .masks = options->predicts_prompts,
        .foretells = run->plan.foretells && !pi2_model_has_experts(&run->source.model->shape),
        .code_rows = most_code_rows(&run->plan.predictor),
        .session_bytes = costs->session_bytes, .session_bytes_per_token = costs->session_bytes_per_token,
        .each_session_bytes = costs->each_session_bytes,
        .each_session_bytes_per_token = costs->each_session_bytes_per_token,
    };
    PI2_TRY(pi2_memory_plan_make(&request, &run->plan.memory));
    if (run->plan.banks) { /* what the store of neurons must be able to hold */
        run->source.model->banks->at_once =
            pi2_memory_plan_banks_at_once(&run->source.model->shape, run->plan.memory.shape.neuron_tokens);
    }
    return PI2_OK;
}

/* ---- extents ---- */

/* The pass's order of extents: attention and FFN of each layer, then the head; embedding rows last. */
static pi2_status make_sequence(const pi2_extent_layout *layout, pi2_run_plan *plan) {
    /* Behind the sequence there is room for a part of it (mark_by_neuron). */
    plan->sequence = calloc(2 * (size_t)layout->extent_count + 1, sizeof(uint32_t));
    plan->resident = calloc(layout->extent_count ? layout->extent_count : 1, 1);
    if (!plan->sequence || !plan->resident) return pi2_fail(PI2_ERR_MEMORY, "no memory for the sequence");
    static const int part_of[PI2_GROUP_KINDS] = { /* by kind; experts are in none */
        [PI2_GROUP_ATTENTION] = 0, [PI2_GROUP_FFN] = 0, [PI2_GROUP_ROWS] = 0, [PI2_GROUP_HEAD] = 1,
        [PI2_GROUP_EMBEDDING] = 2, [PI2_GROUP_TABLE] = 2, [PI2_GROUP_EXPERT] = 3 };
    uint32_t ends[3];
    plan->sequence_count = 0;
    for (int part = 0; part < 3; part++) {
        for (uint32_t e = 0; e < layout->extent_count; e++) {
            const pi2_group_kind kind = layout->groups[layout->extents[e].group].kind;
            if (part_of[kind] == part) plan->sequence[plan->sequence_count++] = e;
        }
        ends[part] = plan->sequence_count;
    }
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (layout->groups[layout->extents[e].group].kind != PI2_GROUP_EXPERT) continue;
        plan->sequence[plan->sequence_count + plan->expert_extent_count++] = e;
    }
    plan->head_begin = ends[0];
    plan->pass_end = ends[1];
    return PI2_OK;
}

/* Of tiles in the order of a pass those of each group's leading neurons, as many as `room` holds: what devices compute
 * whole. Returns the bytes marked. */
static uint64_t mark_leading(const pi2_extent_layout *layout, const uint32_t *tiles, uint32_t count, uint64_t room,
                             uint8_t *resident) {
    uint64_t all = 0, marked = 0;
    memset(resident, 0, layout->extent_count);
    for (uint32_t i = 0; i < count; i++) all += pi2_extent_read_bytes(&layout->extents[tiles[i]]);
    for (uint32_t first = 0, end; first < count; first = end) {
        uint64_t group_bytes = 0, passed = 0;
        const uint32_t group = layout->extents[tiles[first]].group;
        for (end = first; end < count && layout->extents[tiles[end]].group == group; end++) {
            group_bytes += pi2_extent_read_bytes(&layout->extents[tiles[end]]);
        }
        const double share = (double)room / (double)all * (double)group_bytes;
        for (uint32_t i = first; i < end; i++) {
            const uint64_t bytes = pi2_extent_read_bytes(&layout->extents[tiles[i]]);
            passed += bytes;
            if ((double)passed > share || marked + bytes > room) break;
            resident[tiles[i]] = 1;
            marked += bytes;
        }
    }
    return marked;
}

/* Marks what stays where decoding goes by neuron: all but by_neuron's extents, and of those what `room` still holds.
 * Returns the bytes marked. */
static uint64_t mark_by_neuron(const pi2_extent_layout *layout, pi2_run_plan *plan, uint64_t room, bool leading) {
    uint32_t *tiles = plan->sequence + plan->sequence_count; /* there is room for as many */
    uint32_t tile_count = 0;
    uint64_t kept = 0;
    for (uint32_t i = 0; i < plan->pass_end; i++) {
        const uint32_t e = plan->sequence[i];
        if (plan->by_neuron[e]) tiles[tile_count++] = e;
        else kept += pi2_extent_read_bytes(&layout->extents[e]);
    }
    const uint64_t left = room > kept ? room - kept : 0;
    const uint64_t marked = leading ? mark_leading(layout, tiles, tile_count, left, plan->resident)
                                    : pi2_memory_plan_residents(layout, tiles, tile_count, left, plan->resident);
    for (uint32_t i = 0; i < plan->pass_end; i++) {
        const uint32_t e = plan->sequence[i];
        if (!plan->by_neuron[e]) plan->resident[e] = 1;
    }
    return kept + marked;
}

bool pi2_run_plan_is_kept(const pi2_extent_layout *layout, uint32_t extent, uint32_t first, uint32_t end) {
    const pi2_group *group = &layout->groups[layout->extents[extent].group];
    if (pi2_group_kind_is_raw(group->kind) || group->kind == PI2_GROUP_EMBEDDING) return false;
    if (group->kind == PI2_GROUP_HEAD) return true;
    return group->layer != UINT32_MAX && (group->layer < first || group->layer >= end);
}

/* Marks the layers that guesses are computed with, and of the others what `room` still holds. Returns the bytes. */
static uint64_t mark_kept(const pi2_extent_layout *layout, pi2_run_plan *plan, uint64_t room) {
    uint32_t *others = plan->sequence + plan->sequence_count, other_count = 0; /* there is room for as many */
    uint64_t kept = 0;
    for (uint32_t i = 0; i < plan->pass_end; i++) {
        const uint32_t e = plan->sequence[i];
        if (!plan->kept[e]) others[other_count++] = e;
        else kept += pi2_extent_read_bytes(&layout->extents[e]);
    }
    const uint64_t left = room > kept ? room - kept : 0;
    const uint64_t marked = pi2_memory_plan_residents(layout, others, other_count, left, plan->resident);
    for (uint32_t e = 0; e < layout->extent_count; e++) plan->resident[e] |= plan->kept[e];
    return kept + marked;
}

static pi2_status find_kept(const pi2_extent_layout *layout, pi2_run_plan *plan) {
    free(plan->kept);
    plan->kept = NULL;
    if (plan->left_out_end == 0) return PI2_OK;
    plan->kept = calloc(layout->extent_count, 1);
    if (!plan->kept) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of extents");
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        plan->kept[e] = pi2_run_plan_is_kept(layout, e, plan->left_out_first, plan->left_out_end);
    }
    return PI2_OK;
}

/* Marks what stays; returns the bytes. */
static uint64_t mark(const pi2_planned_run *run, pi2_run_plan *plan) {
    const pi2_extent_layout *layout = run->source.model->layout;
    const pi2_memory_plan *memory = &plan->memory;
    const uint64_t room = memory->resident_room;
    const bool is_whole = memory->everything_resident;
    if (memory->neuron_bytes && !is_whole) return mark_by_neuron(layout, plan, room, run->devices.count > 0);
    if (plan->kept && !is_whole) return mark_kept(layout, plan, room);
    return pi2_memory_plan_residents(layout, plan->sequence, is_whole ? plan->sequence_count : plan->pass_end, room,
                                     plan->resident);
}

pi2_status pi2_run_plan_place(pi2_planned_run *run) {
    const pi2_extent_layout *layout = run->source.model->layout;
    const pi2_memory_plan *memory = &run->plan.memory;
    PI2_TRY(make_sequence(layout, &run->plan));
    PI2_TRY(find_kept(layout, &run->plan));
    run->plan.resident_room_bytes = mark(run, &run->plan);
    run->report.resident_bytes = 0;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (run->plan.resident[e]) run->report.resident_bytes += layout->extents[e].bytes;
    }
    if (memory->everything_resident) run->report.resident_bytes = layout->weight_bytes;
    return PI2_OK;
}

void pi2_run_plan_free(pi2_run_plan *plan) {
    pi2_neuron_firing_free(plan->firing);
    pi2_predictor_free(&plan->predictor);
    pi2_hot_plan_free(&plan->hot);
    free(plan->sequence);
    free(plan->resident);
    free(plan->by_neuron);
    free(plan->kept);
}

/* ---- what the key-value cache lends ---- */

static uint64_t lesser(uint64_t a, uint64_t b) { return a < b ? a : b; }

uint64_t pi2_run_plan_loan_due(const pi2_planned_run *run, uint32_t positions) {
    const pi2_memory_plan *plan = &run->plan.memory;
    if (plan->loan_bytes == 0) return 0;
    const uint64_t touched =
        pi2_forward_cache_touched_bytes(run->source.model, &plan->shape, positions, pi2_page_bytes());
    const uint64_t own = plan->cache_bytes - plan->loan_bytes, returned = run->plan.loan_returned_bytes;
    const uint64_t over = touched > own ? lesser(touched - own, plan->loan_bytes) : 0;
    return over > returned ? over - returned : 0;
}

uint64_t pi2_run_plan_loan_due_at(const pi2_planned_run *run, uint32_t position) {
    const uint64_t all = (uint64_t)position * run->plan.memory.shape.sequences;
    return pi2_run_plan_loan_due(run, (uint32_t)lesser(all, UINT32_MAX));
}

/* ---- experts ---- */

uint32_t pi2_run_plan_expert_slots(const pi2_planned_run *run, uint32_t position) {
    const pi2_extent_layout *layout = run->source.model->layout;
    if (!pi2_model_has_experts(&run->source.model->shape)) return 0;
    const uint64_t bytes = run->plan.memory.expert_bytes - pi2_run_plan_loan_due_at(run, position);
    if (bytes >= pi2_expert_cache_all_bytes(layout)) return pi2_expert_cache_keys(layout);
    return (uint32_t)(bytes / pi2_expert_cache_slot_bytes(layout));
}

/* A cache that is smaller than what one token uses finds little there again. */
void pi2_run_plan_explain_experts(const pi2_planned_run *run, uint32_t slots, char *text, size_t capacity) {
    const pi2_model_shape *shape = &run->source.model->shape;
    const uint32_t wanted = pi2_model_expert_layers(shape) * pi2_token_ffns(shape);
    char needed[PI2_SIZE_TEXT_BYTES];
    *text = '\0';
    /* Of single neurons a token's Gates are there, or not wanted. */
    if (slots >= wanted || run->plan.memory.gate_bytes || run->plan.memory.shape.predicts) return;
    const uint64_t slot = pi2_expert_cache_slot_bytes(run->source.model->layout);
    (void)snprintf(text, capacity, "one token uses %u experts (%s), more than the %u that memory holds: most are read "
                   "again for every token; more memory helps", wanted, pi2_format_size(slot * wanted, needed), slots);
}
