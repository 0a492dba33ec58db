/* memory_plan.c: what the budget is spent on, the least that it must be, and which extents stay. */
#include "planner/memory_plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "kernels/attention/kv_layout.h"
#include "base/pages.h"
#include "base/parse_size.h"
#include "pipeline/pass_choice.h"
#include "planner/neuron_forecast.h"

enum {
    LEAST_CONTEXT = 256, MOST_BATCH = 512, LEAST_BATCH = 16, DEFAULT_MOST_CONTEXT = 8192,
    CACHE_SHARE = 6,     /* the cache takes at most a sixth of the budget when we may choose */
    SCRATCH_SHARE = 24,
    THREADS_SHARE = 16, LEAST_THREADS = 8, /* what more threads than that take is at most this share */
    /* Threads whose stacks are in process_bytes; pages of the two stacks of each thread more. */
    PLAIN_THREADS = 16, STACK_PAGES = 8,
    MARK_SHARE = 32,     /* states that guesses are taken back to, likewise */
    DRAFT_SHARE = 64,    /* logits of guessed tokens take at most this share */
    BRANCH_SHARE = 64,   /* pages of the key-value cache that branches of a guess take, while it is checked, likewise */
    SHARED_DRAFT = 4, SHARING_SEQUENCES = 16, /* in common passes, guesses of each sequence, and sequences that guess */
    PROMPT_SHARE = 24,   /* where tokens compute single neurons, whole experts for prompts take at most this share */
    MOST_STEPS = 64, SLACK_SHARE = 100, SLACK_BYTES = 600000,
    RING_SHARE = 24, LEAST_RING_READS = 6, MOST_RING_BYTES = 64 << 20
};

static uint64_t largest_read(const pi2_extent_layout *layout) {
    uint64_t most = 0;
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        const uint64_t bytes = pi2_extent_read_bytes(&layout->extents[i]);
        if (bytes > most) most = bytes;
    }
    return most;
}

static uint64_t sequence_bytes(const pi2_extent_layout *layout) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        if (pi2_group_kind_is_raw(layout->groups[layout->extents[i].group].kind)) continue;
        bytes += pi2_extent_read_bytes(&layout->extents[i]);
    }
    return bytes;
}

static uint64_t embedding_bytes(const pi2_extent_layout *layout) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < layout->extent_count; i++) {
        if (!pi2_group_kind_is_raw(layout->groups[layout->extents[i].group].kind)) continue;
        bytes += pi2_extent_read_bytes(&layout->extents[i]);
    }
    return bytes;
}

static uint32_t round_context(uint64_t tokens) { return (uint32_t)((tokens + 15) / 16 * 16); }

/* No further than the model has positions for, where it learned them; and a cache that its heads fit. */
static pi2_status check_context(const pi2_memory_plan_request *request) {
    const pi2_model_shape *shape = &request->model->shape;
    for (uint32_t i = 0; request->cache_type == PI2_KV_Q8_0 && i < shape->layer_count; i++) {
        const pi2_layer_shape *layer = &shape->layers[i];
        if (layer->key_length % PI2_KV_BLOCK == 0 && layer->value_length % PI2_KV_BLOCK == 0) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s: a key-value cache in q8_0 holds blocks of %d values, and the model's "
                        "heads have %u and %u: use f16", request->model_path, PI2_KV_BLOCK, layer->key_length,
                        layer->value_length);
    }
    const uint32_t most = request->model->shape.learned_positions;
    if (most == 0 || request->context_tokens <= most) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "%s: a context of %u tokens is asked for, and the model has positions for %u: "
                    "ask for at most that", request->model_path, request->context_tokens, most);
}

/* The context that the budget affords: a sixth of it, between 256 tokens and what was trained. */
static void choose_context(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    const uint32_t trained = request->model->shape.context_length;
    if (request->context_tokens) {
        plan->shape.context_tokens = request->context_tokens;
        return;
    }
    const uint32_t most = trained < DEFAULT_MOST_CONTEXT ? trained : DEFAULT_MOST_CONTEXT;
    uint32_t tokens = round_context(most);
    while (tokens > LEAST_CONTEXT) {
        plan->shape.context_tokens = tokens;
        if (pi2_forward_cache_bytes(request->model, &plan->shape) <= request->budget_bytes / CACHE_SHARE) break;
        tokens -= tokens / 8 >= 64 ? tokens / 8 / 64 * 64 : 64;
    }
    plan->shape.context_tokens = round_context(tokens > LEAST_CONTEXT ? tokens
                                               : most < LEAST_CONTEXT ? most : LEAST_CONTEXT);
    const uint32_t learned = request->model->shape.learned_positions;
    if (learned && plan->shape.context_tokens > learned) plan->shape.context_tokens = learned;
}

static uint64_t stack_bytes(const pi2_memory_plan_request *request, uint32_t threads) {
    return threads > PLAIN_THREADS ? (uint64_t)(threads - PLAIN_THREADS) * STACK_PAGES * request->page_bytes : 0;
}

/* Each thread has buffers of its own: those of hundreds would not fit in a budget that is enough for eight. */
static void choose_threads(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    uint32_t *threads = &plan->shape.thread_count;
    plan->shape.batch_tokens = request->batch_tokens ? request->batch_tokens : LEAST_BATCH;
    while (request->threads_are_chosen && *threads > LEAST_THREADS) {
        pi2_forward_shape alone = plan->shape;
        alone.thread_count = 1;
        const uint64_t taken = stack_bytes(request, *threads) +
                               pi2_forward_scratch_bytes(request->model, &plan->shape) -
                               pi2_forward_scratch_bytes(request->model, &alone);
        if (taken <= request->budget_bytes / THREADS_SHARE) break;
        *threads -= *threads / 4 < *threads - LEAST_THREADS ? *threads / 4 : *threads - LEAST_THREADS;
    }
    plan->process_bytes += stack_bytes(request, *threads);
}

/* The batch whose scratch stays a small share of the budget. */
static void choose_batch(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    uint32_t tokens = request->batch_tokens ? request->batch_tokens : MOST_BATCH;
    const uint32_t logits = plan->shape.logits_tokens;
    const uint32_t least = logits > LEAST_BATCH ? logits : LEAST_BATCH;
    if (tokens < logits) tokens = logits;
    if (tokens > plan->shape.context_tokens) tokens = plan->shape.context_tokens;
    plan->shape.batch_tokens = tokens;
    while (!request->batch_tokens && tokens > least &&
           pi2_forward_scratch_bytes(request->model, &plan->shape) > request->budget_bytes / SCRATCH_SHARE) {
        tokens = tokens > 64 ? tokens - tokens / 4 / 16 * 16 : tokens / 2;
        if (tokens < least) tokens = least;
        plan->shape.batch_tokens = tokens;
    }
    plan->scratch_bytes = pi2_forward_scratch_bytes(request->model, &plan->shape);
}

/* Guessed tokens want logits each, and recurrent states are kept once more as they were before them. */
static void choose_draft(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    const uint64_t logits_bytes = (uint64_t)request->model->shape.vocabulary_size * sizeof(float);
    const uint64_t afforded = request->budget_bytes / DRAFT_SHARE / logits_bytes;
    plan->draft_tokens = request->draft_tokens < afforded ? request->draft_tokens : (uint32_t)afforded;
    const uint64_t marks = request->sequences * (uint64_t)pi2_forward_recurrent_bytes(request->model, &plan->shape);
    if (marks > request->budget_bytes / MARK_SHARE) plan->draft_tokens = 0;
    plan->shape.marks = plan->draft_tokens && marks;
    if (plan->draft_tokens >= plan->shape.context_tokens) plan->draft_tokens = plan->shape.context_tokens - 1;
    if (plan->shape.logits_tokens < plan->draft_tokens + 1) plan->shape.logits_tokens = plan->draft_tokens + 1;
    /* One call may end with logits of every sequence, and of what each has guessed. */
    const uint32_t sequences = plan->shape.sequences;
    const uint32_t each = plan->draft_tokens < SHARED_DRAFT ? plan->draft_tokens : SHARED_DRAFT;
    const uint64_t shared = (uint64_t)each * (sequences < SHARING_SEQUENCES ? sequences : SHARING_SEQUENCES);
    const uint32_t rows = sequences + (uint32_t)(sequences < 2 ? 0 : shared < afforded ? shared : afforded);
    if (plan->shape.logits_tokens < rows) plan->shape.logits_tokens = rows;
}

/*
 * Guesses that part: where all that a sequence keeps is in pages, which branches take of the cache's unused ones. These
 * may hold weights, so there are no more branches than would take a small share of the budget.
 */
static void choose_tree(const pi2_memory_plan_request *request, uint32_t most, pi2_memory_plan *plan) {
    const uint64_t logits_bytes = (uint64_t)request->model->shape.vocabulary_size * sizeof(float);
    const uint64_t afforded = request->budget_bytes / DRAFT_SHARE / logits_bytes;
    uint32_t nodes = most < afforded ? most : (uint32_t)afforded;
    if (nodes >= plan->shape.context_tokens) nodes = plan->shape.context_tokens - 1;
    if (plan->draft_tokens == 0 || nodes < 2 || pi2_forward_saved_bytes(request->model, &plan->shape)) return;
    pi2_forward_shape longer = plan->shape;
    longer.context_tokens += PI2_KV_TILE;
    const uint64_t page_bytes = pi2_forward_sequence_bytes(request->model, &longer) -
                                pi2_forward_sequence_bytes(request->model, &plan->shape);
    const uint64_t branches = request->budget_bytes / BRANCH_SHARE / page_bytes;
    plan->shape.branches = branches < nodes - 1 ? (uint32_t)branches : nodes - 1;
    if (plan->shape.branches == 0) return;
    plan->draft_nodes = nodes;
    if (plan->shape.logits_tokens < nodes + 1) plan->shape.logits_tokens = nodes + 1;
    plan->process_bytes += plan->shape.branches * pi2_kv_pages_sequence_bytes(plan->shape.context_tokens);
}

static uint64_t fixed_bytes(const pi2_memory_plan *plan) {
    return plan->process_bytes + plan->cache_bytes + plan->scratch_bytes + plan->dense_scratch_bytes +
           plan->session_bytes + plan->margin_bytes + plan->text_bytes;
}

/* What is in the ring at once, however it wraps, where a layer's FFN is computed in one piece. */
static uint64_t uncut_layer_bytes(const pi2_model *model) {
    const pi2_extent_layout *layout = model->layout;
    uint64_t most = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        if (!pi2_layer_is_one_run(&model->shape, i)) continue;
        const pi2_group *group = &layout->groups[model->layers[i].ffn_group];
        uint64_t bytes = largest_read(layout);
        for (uint32_t e = 0; e < group->extent_count; e++) {
            bytes += pi2_extent_read_bytes(&layout->extents[group->first_extent + e]);
        }
        if (bytes > most) most = bytes;
    }
    return (most + PI2_EXTENT_ALIGNMENT - 1) / PI2_EXTENT_ALIGNMENT * PI2_EXTENT_ALIGNMENT;
}

/* Whole huge pages: a disk can be twice as slow where a read goes into small ones (virtio's max_segments). */
uint64_t pi2_memory_plan_ring_bytes(const pi2_model *model, uint64_t budget_bytes) {
    const uint64_t least = largest_read(model->layout) * LEAST_RING_READS, huge = PI2_HUGE_PAGE_BYTES;
    const uint64_t at_once = uncut_layer_bytes(model);
    uint64_t ring = budget_bytes / RING_SHARE;
    if (ring < least) ring = least;
    if (ring >= huge) ring = (ring + huge / 2) / huge * huge;
    if (ring < least) ring += huge;
    if (ring > MOST_RING_BYTES) ring = MOST_RING_BYTES;
    if (ring < at_once) ring = at_once;
    return ring / PI2_EXTENT_ALIGNMENT * PI2_EXTENT_ALIGNMENT;
}

/* Buffers that only a streaming model needs. */
static void add_streaming(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    plan->shape.embedding_streams = true;
    plan->staging_bytes = pi2_forward_staging_bytes(request->model, &plan->shape);
    plan->ring_bytes = pi2_memory_plan_ring_bytes(request->model, request->budget_bytes);
}

/* Weights use the room of the key-value cache until it grows into it. */
static uint64_t loan_of(const pi2_memory_plan_request *request, const pi2_memory_plan *plan, uint64_t streamed) {
    if (!request->may_lend || !request->model->has_file) return 0;
    return plan->cache_bytes < streamed ? plan->cache_bytes : streamed;
}

/*
 * What is lent to the experts' cache is whole slots: a part of one holds nothing, and where it must return a slot would
 * leave that a token needs. Then other weights leave in its place, through a stream buffer that nobody planned.
 */
static void lend_slots(const pi2_memory_plan_request *request, pi2_memory_plan *plan, uint64_t all) {
    const uint64_t slot = pi2_expert_cache_slot_bytes(request->model->layout), own = plan->expert_bytes;
    const uint64_t lent = own + loan_of(request, plan, all - own), whole = lent < all ? lent / slot * slot : lent;
    plan->loan_bytes = whole > own ? whole - own : 0;
    plan->expert_bytes = own + plan->loan_bytes;
}

/*
 * A mixture of experts that does not fit: what every token uses stays, the experts get the rest, and
 * at least as many slots as a token uses in one layer. True when that fits; else expert_bytes is
 * that least, and the other weights stream as a dense model's do. *least is lowered to what it needs.
 */
static bool plan_expert_cache(const pi2_memory_plan_request *request, pi2_memory_plan *plan, uint64_t *least) {
    const pi2_model *model = request->model;
    if (!pi2_model_has_experts(&model->shape)) return false;
    const uint64_t all = pi2_expert_cache_all_bytes(model->layout);
    const uint64_t dense = sequence_bytes(model->layout) - all;
    plan->expert_bytes = pi2_expert_cache_slot_bytes(model->layout) * pi2_token_ffns(&model->shape);
    plan->shape.embedding_streams = true;
    plan->staging_bytes = pi2_forward_staging_bytes(model, &plan->shape);
    const uint64_t fixed = fixed_bytes(plan) + plan->staging_bytes + dense;
    if (fixed + plan->expert_bytes < *least) *least = fixed + plan->expert_bytes;
    if (fixed + plan->expert_bytes > request->budget_bytes) return false;
    plan->expert_bytes = request->budget_bytes - fixed < all ? request->budget_bytes - fixed : all;
    plan->resident_room = dense;
    lend_slots(request, plan, all);
    return true;
}

/* What decoding by neuron must find in memory: everything but the tiles that it does without, and embedding rows. */
static uint64_t bytes_beside_neurons(const pi2_memory_plan_request *request) {
    const pi2_extent_layout *layout = request->model->layout;
    uint64_t bytes = 0;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        if (pi2_group_kind_is_raw(layout->groups[layout->extents[e].group].kind) || request->by_neuron[e]) continue;
        bytes += pi2_extent_read_bytes(&layout->extents[e]);
    }
    return bytes;
}

/* All neurons, and the lists of their store; 0 where passes are dense. */
static uint64_t neuron_memory(const pi2_memory_plan_request *request) {
    if (!request->banks) return 0;
    const uint64_t all = pi2_neuron_store_all_bytes(request->banks);
    return all + pi2_neuron_store_list_bytes(request->banks, all);
}

/* Passes of all neurons, which stream, and passes by neuron take turns: scratch of the former is apart, in pages. */
static void part_scratch(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    plan->shape.dense_apart = true;
    const uint64_t page = PI2_EXTENT_ALIGNMENT, dense = pi2_forward_dense_scratch_bytes(request->model, &plan->shape);
    plan->scratch_bytes = pi2_forward_scratch_bytes(request->model, &plan->shape);
    plan->dense_scratch_bytes = (dense + page - 1) / page * page;
}

/*
 * The store of neurons gets `room`, which is enough. Where that does not hold them all it has the memory of passes of
 * all neurons too while none runs, and what the key-value cache lends. Returns what it leaves of the room.
 */
static uint64_t give_neurons(const pi2_memory_plan_request *request, pi2_memory_plan *plan, uint64_t room, bool lends) {
    const uint64_t most = pi2_neuron_store_all_bytes(request->banks), page = PI2_EXTENT_ALIGNMENT;
    const uint64_t least = pi2_neuron_store_least_bytes(request->banks);
    uint64_t shared = room < most ? plan->dense_scratch_bytes + plan->ring_bytes : 0, own = room < most ? room : most;
    if (shared > most - least) shared = (most - least) / page * page;
    if (own > most - shared) own = most - shared;
    plan->shared_bytes = shared;
    plan->neuron_bytes = own / page * page + shared;
    if (lends && plan->neuron_bytes < most) {
        plan->loan_bytes = loan_of(request, plan, most - plan->neuron_bytes) / page * page;
        plan->neuron_bytes += plan->loan_bytes;
    }
    return room - own;
}

/* For tiles of hot neurons, of `room`, of which the store of neurons needs its least. */
static uint64_t hot_bytes(const pi2_memory_plan_request *request, uint64_t room, uint64_t beside) {
    const uint64_t tiles = sequence_bytes(request->model->layout) - beside;
    const uint64_t wanted = (uint64_t)(request->hot_share * (double)tiles);
    const uint64_t most = room - pi2_neuron_store_least_bytes(request->banks);
    return wanted < most ? wanted : most;
}

/*
 * Single neurons: what every token uses stays, Gate included; neurons get the rest, up to all of them, and what is left
 * then holds tiles for prompts. False where that does not fit: then passes are dense, whatever the file has. *least is
 * not lowered: a dense model needs less.
 */
static bool plan_neurons(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    if (!request->banks) return false;
    const uint64_t most = pi2_neuron_store_all_bytes(request->banks);
    const uint64_t beside = bytes_beside_neurons(request);
    pi2_memory_plan own = *plan;
    add_streaming(request, &own);
    part_scratch(request, &own);
    own.process_bytes += neuron_memory(request) - most;
    const uint64_t fixed = fixed_bytes(&own) + own.ring_bytes + own.staging_bytes + beside;
    const uint64_t least = fixed + pi2_neuron_store_least_bytes(request->banks);
    plan->neuron_lack_bytes = least > request->budget_bytes ? least - request->budget_bytes : 0;
    if (plan->neuron_lack_bytes) return false;
    const uint64_t room = request->budget_bytes - fixed, hot = hot_bytes(request, room, beside);
    own.resident_room = beside + hot + give_neurons(request, &own, room - hot, true);
    own.neuron_lack_bytes = 0;
    *plan = own;
    return true;
}

uint32_t pi2_memory_plan_banks_at_once(const pi2_model_shape *shape, uint32_t tokens) {
    const uint64_t visits = (uint64_t)pi2_token_ffns(shape) * tokens;
    return visits < pi2_layer_ffns(shape) ? (uint32_t)visits : pi2_layer_ffns(shape);
}

/* Memory for the neurons of a layer's experts that passes of so many tokens may use. */
static uint64_t least_neurons_of(const pi2_memory_plan_request *request, uint32_t tokens) {
    pi2_neuron_banks banks = *request->banks;
    banks.at_once = pi2_memory_plan_banks_at_once(&request->model->shape, tokens);
    return pi2_neuron_store_least_bytes(&banks);
}

/* Whole experts for prompts: a batch uses nearly all of a layer, and no more than that of them at once. */
static uint64_t prompt_slots(const pi2_memory_plan_request *request) {
    const pi2_model_shape *shape = &request->model->shape;
    uint64_t slots = request->budget_bytes / PROMPT_SHARE / pi2_expert_cache_slot_bytes(request->model->layout);
    if (slots > pi2_layer_ffns(shape)) slots = pi2_layer_ffns(shape);
    return slots < pi2_token_ffns(shape) ? pi2_token_ffns(shape) : slots;
}

/*
 * Whether a token's neurons that are missing are read clearly faster than whole experts that were, had they all of the
 * room. Large experts of which few neurons fire pay, small ones of which many do are read faster whole.
 */
static bool neurons_pay(const pi2_memory_plan_request *request, const pi2_memory_plan *own) {
    const pi2_extent_layout *layout = request->model->layout;
    const pi2_model_shape *shape = &request->model->shape;
    const uint64_t heads = pi2_neuron_store_head_bytes(request->banks);
    const double experts = (double)pi2_expert_cache_all_bytes(layout);
    const double slot = (double)pi2_expert_cache_slot_bytes(layout);
    const double gates = (double)pi2_expert_cache_all_gate_bytes(layout);
    const double units = (double)(pi2_neuron_store_all_bytes(request->banks) - heads);
    const double room = (double)(own->expert_bytes + own->gate_bytes + own->neuron_bytes);
    const double missed = room < experts ? 1 - room / experts : 0, missed_gates = 1 - (double)own->gate_bytes / gates;
    double fires;
    (void)pi2_neuron_assumed_share(shape, &fires);
    const double hits = pi2_neuron_assumed_hits((double)(own->neuron_bytes - heads) / units, fires);
    const double gate = (double)pi2_expert_cache_gate_slot_bytes(layout);
    const pi2_neuron_bank *bank = &request->banks->banks[0];
    const double reads = bank->unit_count * (1 - pow(1 - fires, bank->unit_neurons)) * (1 - hits);
    return pi2_small_reads_pay(reads, missed_gates * gate, missed * slot);
}

/*
 * Single neurons of experts: beside what every token uses a few whole experts for prompts, Gates, all of them if they
 * fit and at least those of one token, and neurons. A predictor that names these needs no Gates. False, and *least not
 * lowered, as of plan_neurons().
 */
static bool plan_neurons_of_experts(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    const pi2_extent_layout *layout = request->model->layout;
    const pi2_model_shape *shape = &request->model->shape;
    const uint64_t most = pi2_neuron_store_all_bytes(request->banks), slot = pi2_expert_cache_slot_bytes(layout);
    const uint64_t gate = pi2_expert_cache_gate_slot_bytes(layout);
    const uint64_t gates = request->predicts ? 0 : pi2_expert_cache_all_gate_bytes(layout);
    const uint64_t experts = pi2_expert_cache_all_bytes(layout), dense = sequence_bytes(layout) - experts;
    pi2_memory_plan own = *plan;
    own.shape.embedding_streams = true;
    own.staging_bytes = pi2_forward_staging_bytes(request->model, &own.shape);
    part_scratch(request, &own);
    own.process_bytes += neuron_memory(request) - most;
    own.expert_bytes = slot * prompt_slots(request);
    const uint64_t fixed = fixed_bytes(&own) + own.staging_bytes + dense + own.expert_bytes;
    const uint64_t of_a_token = gate * pi2_token_ffns(shape) * shape->layer_count;
    const uint64_t least_gates = of_a_token < gates ? of_a_token : gates;
    /* Large experts: fewer tokens at once go by neuron where room for their neurons would take that of Gates. */
    uint32_t *tokens = &own.shape.neuron_tokens;
    while (*tokens > 1 && fixed + gates + 2 * least_neurons_of(request, *tokens) > request->budget_bytes) *tokens /= 2;
    const uint64_t least_neurons = least_neurons_of(request, own.shape.neuron_tokens);
    const uint64_t least = fixed + least_gates + least_neurons;
    plan->neuron_lack_bytes = least > request->budget_bytes ? least - request->budget_bytes : 0;
    if (plan->neuron_lack_bytes) return false;
    uint64_t room = request->budget_bytes - fixed;
    own.gate_bytes = room - least_neurons >= gates ? gates : (room - least_neurons) / gate * gate;
    room = give_neurons(request, &own, room - own.gate_bytes, false);
    const uint64_t more = room / slot * slot;
    own.expert_bytes = own.expert_bytes + more < experts ? own.expert_bytes + more : experts;
    plan->whole_is_faster = !request->neurons_always && !request->predicts && !neurons_pay(request, &own);
    if (plan->whole_is_faster) return false;
    own.neuron_lack_bytes = 0;
    own.resident_room = dense;
    *plan = own;
    return true;
}

static void keep_everything(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    plan->everything_resident = true;
    plan->expert_bytes = pi2_expert_cache_all_bytes(request->model->layout);
    plan->resident_room = plan->weight_room - plan->expert_bytes;
}

/* Spends the budget, with guesses that part of so many tokens. */
static bool spend_with(const pi2_memory_plan_request *request, uint32_t nodes, pi2_memory_plan *plan, uint64_t *least) {
    memset(plan, 0, sizeof *plan);
    plan->shape = (pi2_forward_shape){ .logits_tokens = request->logits_tokens, .sequences = request->sequences,
                                       .branch_tokens = request->branch_tokens,
                                       .thread_count = request->thread_count, .cache_type = request->cache_type,
                                       .feature_count = request->feature_count };
    for (uint32_t i = 0; i < request->feature_count; i++) plan->shape.feature_layers[i] = request->feature_layers[i];
    plan->process_bytes = request->process_bytes;
    plan->margin_bytes = request->budget_bytes / 100 > 1000000 ? request->budget_bytes / 100 : 1000000;
    plan->shape.embedding_streams = request->model->has_file;
    choose_context(request, plan);
    plan->session_bytes = request->session_bytes + request->session_bytes_per_token * plan->shape.context_tokens +
                          request->sequences * (request->each_session_bytes +
                                                request->each_session_bytes_per_token * plan->shape.context_tokens);
    plan->text_bytes = request->text_bytes + request->text_bytes_per_token * plan->shape.context_tokens;
    choose_draft(request, plan);
    choose_tree(request, nodes, plan);
    plan->cache_bytes = pi2_forward_cache_bytes(request->model, &plan->shape);
    choose_threads(request, plan);
    plan->shape.neuron_tokens = request->banks ? PI2_NEURON_TOKENS : 0;
    plan->shape.predicts = request->banks && request->predicts;
    plan->shape.masks = plan->shape.predicts && request->masks;
    plan->shape.foretells = request->banks && request->foretells;
    plan->shape.code_rows = request->code_rows;
    choose_batch(request, plan);
    plan->cache_bytes = pi2_forward_cache_bytes(request->model, &plan->shape); /* a window has room for a batch, too */
    plan->weight_room = sequence_bytes(request->model->layout) + embedding_bytes(request->model->layout);
    plan->staging_bytes = pi2_forward_staging_bytes(request->model, &plan->shape);
    uint64_t fixed = fixed_bytes(plan) + plan->staging_bytes;
    *least = fixed + plan->weight_room;
    const uint64_t neurons = neuron_memory(request);
    if (*least + neurons <= request->budget_bytes) {
        keep_everything(request, plan);
        if (neurons) plan->neuron_bytes = pi2_neuron_store_all_bytes(request->banks);
        plan->process_bytes += neurons - plan->neuron_bytes;
        return true;
    }
    /* Experts that all fit are as fast for prompts and never read again: then tokens compute them whole. */
    const bool has_experts = pi2_model_has_experts(&request->model->shape), fits = *least <= request->budget_bytes;
    const bool may_part = has_experts && request->banks && (!fits || request->predicts);
    if (may_part && plan_neurons_of_experts(request, plan)) return true;
    if (!has_experts && plan_neurons(request, plan)) return true;
    plan->shape.neuron_tokens = 0;
    plan->shape.predicts = plan->shape.masks = plan->shape.foretells = false;
    if (fits) {
        keep_everything(request, plan);
        return true;
    }
    if (plan_expert_cache(request, plan, least)) return true;
    add_streaming(request, plan);
    fixed = fixed_bytes(plan) + plan->expert_bytes + plan->ring_bytes + plan->staging_bytes;
    if (fixed < *least) *least = fixed;
    if (fixed > request->budget_bytes) return false;
    plan->resident_room = request->budget_bytes - fixed;
    const uint64_t all = sequence_bytes(request->model->layout) -
                         (plan->expert_bytes ? pi2_expert_cache_all_bytes(request->model->layout) : 0);
    plan->loan_bytes = loan_of(request, plan, all > plan->resident_room ? all - plan->resident_room : 0);
    plan->resident_room += plan->loan_bytes;
    return true;
}

/*
 * Spends the budget. False: it is too small, and with the sizes that it chose *least would be enough. Where guesses may
 * part as we choose, they do if weights stream and each token reads the same: there more tokens in a pass cost little.
 */
static bool spend(const pi2_memory_plan_request *request, pi2_memory_plan *plan, uint64_t *least) {
    if (!request->draft_nodes_chosen) return spend_with(request, request->draft_nodes, plan, least);
    if (!spend_with(request, 0, plan, least)) return false;
    if (plan->everything_resident || plan->expert_bytes || plan->neuron_bytes) return true;
    pi2_memory_plan with;
    uint64_t least_with;
    uint32_t nodes = request->draft_nodes; /* a batch that was asked for does not grow by them */
    if (request->batch_tokens && nodes >= request->batch_tokens) nodes = request->batch_tokens - 1;
    if (spend_with(request, nodes, &with, &least_with)) *plan = with;
    return true;
}

/* What the process holds differs from run to run: 0.5 MB was seen. */
static uint64_t slack_bytes(uint64_t budget_bytes) { return budget_bytes / SLACK_SHARE + SLACK_BYTES; }

/*
 * Buffers, and a context that we choose, grow with the budget, by less than it does: from what the last one
 * would have needed to the next, until one is enough. Upwards from what is too small that is the least.
 */
static uint64_t least_budget(const pi2_memory_plan_request *request, uint64_t least, pi2_memory_plan *plan) {
    pi2_memory_plan_request larger = *request;
    for (int i = 0; i < MOST_STEPS && larger.budget_bytes < least; i++) {
        larger.budget_bytes = least;
        larger.process_bytes = request->process_bytes + slack_bytes(least);
        if (spend(&larger, plan, &least)) break;
    }
    const uint64_t enough = larger.budget_bytes;
    const uint64_t unit = enough < 900000000 ? 100000 : 10000000;
    return (enough + unit - 1) / unit * unit;
}

/* The most sequences, of fewer than are asked for, that the budget has room for; 0: not one. */
static uint32_t sequences_that_fit(const pi2_memory_plan_request *request) {
    pi2_memory_plan_request fewer = *request;
    pi2_memory_plan plan;
    uint64_t least;
    uint32_t fit = 0, too_many = request->sequences;
    fewer.process_bytes += slack_bytes(request->budget_bytes);
    while (fit + 1 < too_many) {
        fewer.sequences = fit + (too_many - fit) / 2;
        if (spend(&fewer, &plan, &least)) fit = fewer.sequences;
        else too_many = fewer.sequences;
    }
    return fit;
}

static pi2_status refuse_sequences(const pi2_memory_plan_request *request, const char *needed, const char *budget) {
    const uint32_t fit = sequences_that_fit(request);
    char fewer[64] = "";
    if (fit) (void)snprintf(fewer, sizeof fewer, ", fewer sequences (%u fit)", fit);
    return pi2_fail(PI2_ERR_MEMORY, "%s needs at least %s for %u sequences; %s %s: give more%s, or a smaller -c",
                    request->model_path, needed, request->sequences,
                    request->budget_is_chosen ? "the machine leaves" : "--memory gives", budget, fewer);
}

pi2_status pi2_memory_plan_make(const pi2_memory_plan_request *request, pi2_memory_plan *plan) {
    uint64_t least = 0;
    PI2_TRY(check_context(request));
    if (spend(request, plan, &least)) return PI2_OK;
    pi2_memory_plan enough;
    char needed[PI2_SIZE_TEXT_BYTES], context[PI2_SIZE_TEXT_BYTES], budget[PI2_SIZE_TEXT_BYTES];
    const uint64_t bytes = least_budget(request, least, &enough);
    (void)pi2_format_size(bytes, needed);
    (void)pi2_format_size(request->budget_bytes, budget);
    if (request->sequences > 1) return refuse_sequences(request, needed, budget);
    return pi2_fail(PI2_ERR_MEMORY, "%s needs at least %s, %s of it for a context of %u tokens; %s %s: give more, or a "
                    "smaller -c%s", request->model_path, needed, pi2_format_size(enough.cache_bytes, context),
                    enough.shape.context_tokens, request->budget_is_chosen ? "the machine leaves" : "--memory gives",
                    budget, request->batch_tokens ? " or -b" : "");
}

enum { READ_RUN_BYTES = 1000 * 1024 };

uint64_t pi2_memory_plan_residents(const pi2_extent_layout *layout, const uint32_t *sequence,
                                   uint32_t sequence_count, uint64_t room, uint8_t *resident) {
    memset(resident, 0, layout->extent_count);
    uint64_t all = 0;
    for (uint32_t i = 0; i < sequence_count; i++) all += pi2_extent_read_bytes(&layout->extents[sequence[i]]);
    if (all == 0) return 0;
    /* Runs of extents; the share of resident bytes is kept from run to run (error diffusion). */
    uint64_t marked = 0, passed = 0;
    for (uint32_t i = 0; i < sequence_count;) {
        uint64_t run = 0;
        uint32_t end = i;
        while (end < sequence_count && run < READ_RUN_BYTES) {
            run += pi2_extent_read_bytes(&layout->extents[sequence[end++]]);
        }
        passed += run;
        const uint64_t due = (uint64_t)((double)room * ((double)passed / (double)all));
        const bool stay = marked + run <= due && marked + run <= room;
        for (; i < end; i++) {
            if (!stay) continue;
            resident[sequence[i]] = 1;
            marked += pi2_extent_read_bytes(&layout->extents[sequence[i]]);
        }
    }
    /* What is left over holds single extents more. */
    for (uint32_t i = 0; i < sequence_count; i++) {
        const uint64_t bytes = pi2_extent_read_bytes(&layout->extents[sequence[i]]);
        if (resident[sequence[i]] || marked + bytes > room) continue;
        resident[sequence[i]] = 1;
        marked += bytes;
    }
    return marked;
}
