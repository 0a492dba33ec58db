/* run_prediction_neurons.c: what a plan knows of single neurons: how many, their memory, how often they fire. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "clusters/neuron_order.h"
#include "planner/run_prediction_neurons.h"
#include "file_formats/cluster_file.h"

pi2_weight_role pi2_run_role_of(const pi2_planned_run *run, uint32_t tensor) {
    const pi2_extent_layout *layout = run->source.model->layout;
    if (run->plan.memory.neuron_bytes == 0) return PI2_ROLE_PLAIN;
    for (uint32_t b = 0; b < run->plan.banks->count; b++) {
        const pi2_neuron_bank *bank = &run->plan.banks->banks[b];
        if (bank->up_tensor == tensor) return PI2_ROLE_UP;
        if (bank->down_tensor == tensor) return PI2_ROLE_DOWN;
        if (run->source.model->layers[bank->layer].gate.tensor == &layout->tensors[tensor]) return PI2_ROLE_GATE;
    }
    return PI2_ROLE_PLAIN;
}

/** What is known of the firing, summed over all banks. */
typedef struct firing {
    const pi2_neuron_statistics *statistics; /* NULL: nothing is known */
    bool up_is_cut_off;      /* drelu: a neuron is read when Gate fires, and counted when Up does too */
    double assumed_fires, assumed_gives; /* share of neurons, where nothing is counted */
    pi2_neuron_rates *rates; /* of units */
    float *each;             /* the next unit's rate goes here; NULL: nobody asks */
    double fires, gives, neurons; /* of FFNs that a token computes, each counted as often as tokens do */
    uint64_t again, again_possible; /* firings: in the token before too; of those that could have */
    double visits;           /* assumed share of tokens that compute an FFN: 1, or of experts that are alike */
    uint32_t assumed_banks;
    uint64_t token_count;    /* of the text that was counted */
    const char *named;       /* how it is known what share a predictor names; NULL: there is none */
} firing;

static double gate_share(const firing *f, double gives) {
    return fmin(1, f->up_is_cut_off ? gives * f->assumed_fires / f->assumed_gives : gives);
}

/* A unit is used when one of its neurons is. */
static void add_assumed(firing *f, const pi2_neuron_bank *bank) {
    const double fires = f->assumed_fires;
    const double computed = f->visits * bank->neuron_count;
    pi2_neuron_rates_assume(f->rates, fires, f->visits, bank->unit_count, bank->unit_neurons);
    for (uint32_t u = 0; f->each && u < bank->unit_count; u++) {
        *f->each++ = (float)pi2_neuron_assumed_rate((double)u / bank->unit_count, fires, f->visits,
                                                    bank->unit_neurons);
    }
    f->neurons += computed;
    f->fires += fires * computed;
    f->gives += f->assumed_gives * computed;
    f->assumed_banks++;
}

/** A bank's counts. Neurons that 8 bits round to zero are read all the same. */
typedef struct bank_counts {
    const uint32_t *fired, *zeros; /* zeros NULL: what fired is all that was not zero */
    uint32_t count, tokens;
    double visits;                 /* share of the text's tokens that computed this FFN */
} bank_counts;

/** Tokens in which a neuron was not zero. */
static uint32_t not_zero(const bank_counts *counts, uint32_t neuron) {
    return counts->zeros ? counts->tokens - counts->zeros[neuron] : counts->fired[neuron];
}

/*
 * Share of tokens in which a neuron fires that never did in the text: as Good and Turing have it, all of them together
 * fire as often as those together did that fired once.
 */
static double share_of_silent(const bank_counts *counts) {
    uint32_t silent = 0, once = 0;
    for (uint32_t i = 0; i < counts->count; i++) {
        silent += not_zero(counts, i) == 0;
        once += not_zero(counts, i) == 1;
    }
    return silent ? fmin((double)once / silent, 1) / counts->tokens : 0;
}

static void add_counted(firing *f, const pi2_neuron_bank *bank, const bank_counts *counts, const uint32_t *order) {
    const double silent = share_of_silent(counts), tokens = counts->tokens;
    for (uint32_t unit = 0; unit < bank->unit_count; unit++) {
        const uint32_t begin = unit * bank->unit_neurons, left = bank->neuron_count - begin;
        const uint32_t end = begin + (left < bank->unit_neurons ? left : bank->unit_neurons);
        double unused = 1;
        for (uint32_t place = begin; place < end; place++) {
            const uint32_t times = not_zero(counts, order[place]);
            const double fires = gate_share(f, times ? times / tokens : silent);
            f->gives += counts->visits * (times ? counts->fired[order[place]] / tokens : silent);
            f->fires += counts->visits * fires;
            unused *= 1 - fires;
        }
        pi2_neuron_rates_add(f->rates, counts->visits * (1 - unused), 1);
        if (f->each) *f->each++ = (float)(counts->visits * (1 - unused));
    }
    f->neurons += counts->visits * bank->neuron_count;
}

/* Of all tokens of the text, those that an FFN or expert computed. */
static double share_of_visits(const firing *f, const pi2_statistics_entry *entry) {
    if (entry->expert == UINT32_MAX) return 1;
    if (f->statistics->token_count == 0) return f->visits;
    return fmin(1, (double)entry->token_count / (double)f->statistics->token_count);
}

static pi2_status add_bank(firing *f, const pi2_neuron_bank *bank) {
    const pi2_statistics_entry *entry =
        f->statistics ? pi2_neuron_statistics_find(f->statistics, bank->layer, bank->expert) : NULL;
    const uint32_t *fired = entry ? pi2_neuron_statistics_column(f->statistics, PI2_STATISTICS_FIRED, entry) : NULL;
    if (!fired || entry->token_count == 0 || entry->token_count > UINT32_MAX) {
        add_assumed(f, bank);
        return PI2_OK;
    }
    const bank_counts counts = { fired, pi2_neuron_statistics_column(f->statistics, PI2_STATISTICS_ZEROS, entry),
                                 bank->neuron_count, (uint32_t)entry->token_count,
                                 share_of_visits(f, entry) };
    const uint64_t *sums = f->statistics->sums + (size_t)(entry - f->statistics->entries) * PI2_STATISTICS_SUMS;
    f->again += sums[PI2_SUM_AGAIN];
    f->again_possible += sums[PI2_SUM_AGAIN_POSSIBLE];
    uint32_t *order = malloc(bank->neuron_count * sizeof *order);
    if (!order) return pi2_fail(PI2_ERR_MEMORY, "no memory for the order of %" PRIu32 " neurons", bank->neuron_count);
    const pi2_status status = pi2_neuron_order_estimate(f->statistics, bank, order);
    if (status == PI2_OK) add_counted(f, bank, &counts, order);
    free(order);
    return status;
}

/* The statistics must be this model's, which its file names. */
static pi2_status check_statistics(const pi2_planned_run *run, const pi2_neuron_statistics *statistics,
                                   const char *path) {
    pi2_gguf *gguf = NULL;
    pi2_extent_layout *layout = NULL;
    pi2_source_identity source = {0};
    PI2_TRY(pi2_gguf_open(run->source.weights_path, &gguf));
    pi2_status status = pi2_cluster_file_layout(gguf, &layout, &source);
    if (status == PI2_OK) status = pi2_neuron_order_check(statistics, path, source.header_hash, run->plan.banks);
    pi2_extent_layout_free(layout);
    pi2_gguf_close(gguf);
    return status;
}

static pi2_status add_banks(const pi2_planned_run *run, firing *f) {
    for (uint32_t b = 0; b < run->plan.banks->count; b++) PI2_TRY(add_bank(f, &run->plan.banks->banks[b]));
    return PI2_OK;
}

static void tell(const firing *f, const pi2_planned_run *run, const char *path, char *text, size_t capacity) {
    const bool all = f->assumed_banks == run->plan.banks->count;
    if (!all) {
        (void)snprintf(text, capacity, "counted in %s (%llu tokens)%s", path, (unsigned long long)f->token_count,
                       f->assumed_banks ? ", assumed where it has no layer" : "");
        return;
    }
    if (f->named) {
        (void)snprintf(text, capacity, "%.0f %% of the neurons, %s; the hotter the fewer, as published",
                       100 * f->assumed_fires, f->named);
        return;
    }
    (void)snprintf(text, capacity, "assumed: %.0f %% of the neurons, the hotter the fewer, as published",
                   100 * f->assumed_gives);
}

/* Neurons that copies of 2 bits name for each that fires: measured on a model of which a fifth fires. */
static const double named_for_each = 1.6;

/* What a predictor names: the share that is not left out; what it was measured to when it was trained; or assumed. */
static void assume_named(const pi2_planned_run *run, firing *f) {
    const pi2_predictor *predictor = &run->plan.predictor;
    double named = 0;
    uint32_t measured = 0;
    if (run->plan.left_out >= 0) {
        f->assumed_fires = f->assumed_gives = 1 - run->plan.left_out;
        f->named = "the share that is not left out";
        return;
    }
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        const pi2_predictor_layer *layer = &predictor->layers[i];
        if (layer->precision <= 0) continue;
        named += (double)layer->density * (double)layer->recall / (double)layer->precision;
        measured++;
    }
    f->named = measured ? "as its predictor was measured" : "assumed of what fires and of what is named besides";
    f->assumed_fires = fmin(1, measured ? named / measured : named_for_each * f->assumed_fires);
    f->assumed_gives = fmin(f->assumed_gives, f->assumed_fires);
}

/* ---- what is known ---- */

struct pi2_neuron_firing {
    char *path;               /* NULL: nobody counted */
    pi2_status status;        /* why the statistics cannot be used, with its text */
    char text[512];
    pi2_neuron_rates rates;
    firing sums;              /* its pointers are NULL */
};

/* path NULL: what is assumed. each: [units], or NULL. */
static pi2_status learn(const pi2_planned_run *run, const char *path, float *each, pi2_neuron_firing *known) {
    const pi2_model_shape *shape = &run->source.model->shape;
    pi2_neuron_statistics statistics = {0};
    firing f = { .rates = &known->rates, .each = each, .up_is_cut_off = shape->activation == PI2_FFN_drelu,
                 .visits = (double)pi2_token_ffns(shape) / pi2_layer_ffns(shape) };
    f.assumed_gives = pi2_neuron_assumed_share(shape, &f.assumed_fires);
    if (run->plan.approximates) assume_named(run, &f);
    pi2_status status = PI2_OK;
    if (path && !run->plan.approximates) { /* what fires, not what is named */
        status = pi2_neuron_statistics_read(path, &statistics);
        if (status == PI2_OK) status = check_statistics(run, &statistics, path);
        f.statistics = &statistics;
        f.token_count = statistics.token_count;
    }
    if (status == PI2_OK) status = add_banks(run, &f);
    f.rates->repeats = f.again_possible ? (double)f.again / (double)f.again_possible : 0;
    pi2_neuron_statistics_free(&statistics);
    f.statistics = NULL;
    f.rates = NULL;
    f.each = NULL;
    known->sums = f;
    return status;
}

pi2_status pi2_neuron_firing_learn(pi2_planned_run *run) {
    const char *path = run->options.statistics;
    pi2_neuron_firing_free(run->plan.firing);
    run->plan.firing = NULL;
    if (!path || run->plan.memory.neuron_bytes == 0) return PI2_OK; /* the prediction says that they are of no use */
    pi2_neuron_firing *known = calloc(1, sizeof *known);
    char *copy = malloc(strlen(path) + 1);
    run->plan.firing = known;
    if (!known || !copy) {
        free(copy);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for what is known of neurons");
    }
    memcpy(copy, path, strlen(path) + 1);
    known->path = copy;
    known->status = learn(run, path, NULL, known);
    if (known->status != PI2_OK) (void)snprintf(known->text, sizeof known->text, "%s", pi2_error_text());
    return PI2_OK;
}

void pi2_neuron_firing_free(pi2_neuron_firing *known) {
    if (known) free(known->path);
    free(known);
}

static double matrix_bytes(const pi2_operand *matrix) {
    const pi2_layout_tensor *tensor = matrix->tensor;
    return (double)pi2_row_bytes(tensor->format, tensor->columns) * (double)tensor->rows;
}

/* What of experts is Gate, and the cache that holds it. */
static void add_gates(const pi2_planned_run *run, pi2_workload_neurons *neurons) {
    const pi2_model *model = run->source.model;
    const pi2_memory_plan *memory = &run->plan.memory;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        neurons->gate_part += matrix_bytes(&model->layers[i].gate);
        neurons->up_part += matrix_bytes(&model->layers[i].up);
        neurons->down_part += matrix_bytes(&model->layers[i].down);
    }
    const double sum = neurons->gate_part + neurons->up_part + neurons->down_part;
    neurons->gate_part /= sum;
    neurons->up_part /= sum;
    neurons->down_part /= sum;
    if (memory->gate_bytes == 0) return;
    const uint64_t slots = memory->gate_bytes / pi2_expert_cache_gate_slot_bytes(model->layout);
    const bool all = memory->gate_bytes >= pi2_expert_cache_all_gate_bytes(model->layout);
    neurons->gate_bytes = pi2_expert_cache_gate_slot_bytes(model->layout);
    neurons->gate_slots = all ? pi2_expert_cache_keys(model->layout) : (uint32_t)slots;
    const uint64_t one_a_layer = pi2_expert_cache_slot_bytes(model->layout) * model->shape.layer_count;
    neurons->token_expert_bytes = one_a_layer * pi2_token_ffns(&model->shape);
    neurons->most_expert_bytes = one_a_layer * pi2_layer_ffns(&model->shape);
}

/* The rows that tell what is named: of the sizes that layers have, the first one tells. */
static void add_predictor(const pi2_planned_run *run, pi2_workload_neurons *neurons) {
    const pi2_predictor *predictor = &run->plan.predictor;
    const pi2_model_shape *shape = &run->source.model->shape;
    neurons->predictor_bytes = pi2_predictor_bytes(predictor) / pi2_layer_ffns(shape) * pi2_token_ffns(shape);
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        const uint32_t size = predictor->layers[i].size;
        if (size == 0) continue;
        const bool is_low_bit = predictor->kind->number == PI2_PREDICTOR_LOW_BIT;
        neurons->predictor_type = !is_low_bit ? "int8" : size == 2 ? "2-bit" : "3-bit";
        neurons->predictor_columns = is_low_bit ? predictor->width : size;
        return;
    }
}

/* Of a pass by neuron: of layers that have banks, and of the others. */
static uint32_t stages_of(const pi2_planned_run *run, const pi2_neuron_banks *banks) {
    const pi2_model_shape *shape = &run->source.model->shape;
    bool has_banks[PI2_MOST_LAYERS] = { false };
    uint32_t stages = pi2_stages_beside_layers(shape);
    for (uint32_t b = 0; b < banks->count; b++) has_banks[banks->banks[b].layer] = true;
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        for (uint32_t b = 0; b < shape->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(shape, i, b, &run->plan.memory.shape);
            stages += has_banks[i] && needs.neuron_stages ? needs.neuron_stages : needs.stages;
        }
    }
    return stages;
}

static void fill_workload(const pi2_planned_run *run, const firing *f, uint32_t position,
                          pi2_workload_neurons *neurons) {
    const pi2_neuron_banks *banks = run->plan.banks;
    const uint64_t heads = pi2_neuron_store_head_bytes(banks), all = pi2_neuron_store_all_bytes(banks) - heads;
    double read_bytes = 0;
    for (uint32_t b = 0; b < banks->count; b++) {
        neurons->units += banks->banks[b].unit_count;
        read_bytes += (double)banks->banks[b].unit_count * pi2_neuron_bank_read_bytes(&banks->banks[b]);
    }
    const pi2_model_shape *shape = &run->source.model->shape;
    const uint32_t each = pi2_layer_ffns(shape);
    neurons->layers = banks->count / each;
    neurons->unit_bytes = (uint32_t)(all / neurons->units);
    neurons->read_bytes = (uint32_t)(read_bytes / (double)neurons->units);
    const uint64_t lent = pi2_run_plan_loan_due_at(run, position);
    neurons->slots = (run->plan.memory.neuron_bytes - lent - heads) / neurons->unit_bytes;
    if (neurons->slots > neurons->units) neurons->slots = neurons->units;
    neurons->pass_tokens = run->plan.approximates ? 1 : run->plan.memory.shape.neuron_tokens;
    neurons->is_named = run->plan.approximates;
    if (run->plan.approximates) add_predictor(run, neurons);
    neurons->is_always = run->options.sparsity && strcmp(run->options.sparsity, "always") == 0;
    neurons->stages_per_pass = stages_of(run, banks);
    if (pi2_model_has_experts(shape)) add_gates(run, neurons);
    neurons->fires = f->fires / f->neurons;
    neurons->gives = f->gives / f->neurons;
    neurons->used_units = pi2_neuron_rates_used(f->rates);
}

pi2_status pi2_run_predict_neurons(const pi2_planned_run *run, uint64_t streamed_bytes,
                                   const pi2_prediction_request *request, pi2_neuron_plan *plan,
                                   pi2_workload_neurons *neurons) {
    memset(plan, 0, sizeof *plan);
    memset(neurons, 0, sizeof *neurons);
    const char *path = request->statistics;
    if (run->plan.memory.neuron_bytes == 0) {
        if (!path) return PI2_OK;
        return pi2_fail(PI2_ERR_INVALID, "statistics tell of single neurons, and %s is planned without them "
                        "(docs/sparsity.md says what they need)", run->source.model_path);
    }
    pi2_neuron_firing own = {0};
    const pi2_neuron_firing *known = run->plan.firing;
    if (!known || !path || strcmp(path, known->path) != 0) {
        PI2_TRY(learn(run, path, NULL, &own));
        known = &own;
    } else if (known->status != PI2_OK) {
        return pi2_fail(known->status, "%s", known->text);
    }
    plan->rates = known->rates;
    firing f = known->sums;
    f.rates = &plan->rates;
    fill_workload(run, &f, request->position, neurons);
    tell(&f, run, path, plan->grounds, sizeof plan->grounds);
    neurons->hits = pi2_neuron_rates_hits(&plan->rates, (double)neurons->slots);
    /* A prompt of few tokens goes by neuron itself, and has filled the store. */
    const bool is_filled = request->prompt_tokens > 0 &&
                           pi2_predict_goes_by_neuron(neurons, streamed_bytes, request->prompt_tokens);
    if (request->fills_neurons && !is_filled) {
        neurons->fill_tokens = request->answer_tokens ? request->answer_tokens : 1;
    }
    return PI2_OK;
}

pi2_status pi2_run_unit_rates(const pi2_planned_run *run, const char *statistics, float *rates_out, char *grounds,
                              size_t capacity) {
    pi2_neuron_firing known = {0};
    PI2_TRY(learn(run, statistics, rates_out, &known));
    tell(&known.sums, run, statistics, grounds, capacity);
    return PI2_OK;
}
