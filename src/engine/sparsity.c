/*
 * sparsity.c: counts what the neurons of a run give. Each thread adds to sums of its own; what belongs to one neuron
 * is touched by one thread at a time (neuron_counter.h), so nothing is locked.
 */
#include "powerinfer2/sparsity.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/engine_internal.h"
#include "pipeline/neuron_counter.h"
#include "powerinfer2/session.h"

enum { BLOCK = 32, TILE = 16 };

static const double HOT_ACTIVATIONS = 0.8;

/** Sums of one layer by one thread. */
typedef struct layer_sums {
    uint64_t neurons, zeros, rounded_zeros, tiles, zero_tiles, blocks, zero_blocks;
    uint64_t again_possible, again; /* active neurons where the token before was computed too; of those, active then */
} layer_sums;

struct pi2_sparsity_counter {
    pi2_engine *engine;
    pi2_neuron_counter counter;   /* what the pipeline calls */
    const pi2_model_shape *shape;
    uint32_t experts, neurons, stride; /* of a layer, 1 when dense; of an expert; of those in blocks, rounded up */
    unsigned member_count;
    uint32_t *fired;            /* [layers][experts][stride]: tokens in which the neuron was active */
    uint32_t *fired_last;       /* the same: 1 + the position, over all texts, at which it was active last */
    uint32_t *seen_last;        /* [layers][experts][stride / 32]: 1 + the position at which the block was computed */
    layer_sums *sums;           /* [members][layers] */
    uint32_t text_begin;        /* positions of the present text count from here */
    _Atomic uint32_t end;       /* past every position that was counted */
};
typedef pi2_sparsity_counter sparsity_run;

/** One block of 32 neurons, or what is left. */
static void count_block(sparsity_run *run, layer_sums *sums, size_t first, const pi2_neuron_values *values,
                        uint32_t at, uint32_t count) {
    uint32_t *fired = run->fired + first, *fired_last = run->fired_last + first;
    uint32_t *seen = &run->seen_last[first / BLOCK];
    const uint32_t now = run->text_begin + values->position + 1;
    const bool follows = *seen + 1 == now && values->position > 0;
    uint32_t active = 0;
    for (uint32_t tile = 0; tile < count; tile += TILE) {
        uint32_t active_here = 0;
        for (uint32_t i = tile; i < tile + TILE && i < count; i++) {
            const float activation = values->activations[at + i];
            const bool is_zero = activation == 0.0f;
            const bool is_rounded = values->rounded ? values->rounded[at + i] == 0 : is_zero;
            sums->zeros += is_zero;
            sums->rounded_zeros += is_rounded;
            if (is_rounded) continue;
            active_here++;
            fired[i]++;
            sums->again_possible += follows;
            sums->again += follows && fired_last[i] + 1 == now;
            fired_last[i] = now;
        }
        sums->tiles++;
        sums->zero_tiles += active_here == 0;
        active += active_here;
    }
    sums->neurons += count;
    sums->blocks++;
    sums->zero_blocks += active == 0;
    *seen = now;
}

static void note_end(sparsity_run *run, uint32_t past) {
    uint32_t end = atomic_load_explicit(&run->end, memory_order_relaxed);
    while (end < past && !atomic_compare_exchange_weak(&run->end, &end, past)) {}
}

static void count(void *user, unsigned member, const pi2_neuron_values *values) {
    sparsity_run *run = user;
    const uint32_t expert = values->expert == UINT32_MAX ? 0 : values->expert;
    const size_t entry = (size_t)values->layer * run->experts + expert;
    const uint32_t past = run->text_begin + values->position + 1;
    if (values->begin == 0) note_end(run, past);
    layer_sums *sums = &run->sums[(size_t)member * run->shape->layer_count + values->layer];
    for (uint32_t i = 0; i < values->count; i += BLOCK) {
        const uint32_t left = values->count - i;
        count_block(run, sums, entry * run->stride + values->begin + i, values, i, left < BLOCK ? left : BLOCK);
    }
}

/* ---- what was counted ------------------------------------------------------------------- */

static int compare_descending(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static double share(uint64_t part, uint64_t whole) { return whole ? (double)part / (double)whole : 0.0; }

/** Shares by rank: the layer's counts are sorted, which nobody needs by neuron any more. */
static void fill_ranks(const sparsity_run *run, uint32_t layer, pi2_layer_sparsity *out) {
    static const double shares[PI2_SPARSITY_RANKS] = PI2_SPARSITY_RANK_SHARES;
    const size_t padded = (size_t)run->experts * run->stride, real = (size_t)run->experts * run->neurons;
    uint32_t *fired = run->fired + layer * padded;
    uint64_t total = 0, given = 0;
    qsort(fired, padded, sizeof *fired, compare_descending); /* neurons that only pad count 0 and come last */
    for (size_t i = 0; i < real; i++) total += fired[i];
    size_t rank = 0;
    for (size_t i = 0; i < real && total > 0; i++) {
        const bool was_hot = (double)given >= HOT_ACTIVATIONS * (double)total;
        given += fired[i];
        if (!was_hot) out->hot = (double)(i + 1) / (double)real;
        for (; rank < PI2_SPARSITY_RANKS && (double)(i + 1) >= shares[rank] * (double)real; rank++) {
            out->by_rank[rank] = share(given, total);
        }
    }
}

/** Returns how many neurons' values were counted. */
static uint64_t fill_layer(const sparsity_run *run, uint32_t layer, pi2_layer_sparsity *out) {
    layer_sums all = { 0 };
    for (unsigned member = 0; member < run->member_count; member++) {
        const layer_sums *sums = &run->sums[(size_t)member * run->shape->layer_count + layer];
        all.neurons += sums->neurons;
        all.zeros += sums->zeros;
        all.rounded_zeros += sums->rounded_zeros;
        all.tiles += sums->tiles;
        all.zero_tiles += sums->zero_tiles;
        all.blocks += sums->blocks;
        all.zero_blocks += sums->zero_blocks;
        all.again_possible += sums->again_possible;
        all.again += sums->again;
    }
    out->zeros = share(all.zeros, all.neurons);
    out->rounded_zeros = share(all.rounded_zeros, all.neurons);
    out->zero_tiles = share(all.zero_tiles, all.tiles);
    out->zero_blocks = share(all.zero_blocks, all.blocks);
    out->repeat = share(all.again, all.again_possible);
    fill_ranks(run, layer, out);
    return all.neurons;
}

static void add_to_mean(pi2_layer_sparsity *mean, const pi2_layer_sparsity *layer, uint32_t layers) {
    mean->zeros += layer->zeros / layers;
    mean->rounded_zeros += layer->rounded_zeros / layers;
    mean->zero_tiles += layer->zero_tiles / layers;
    mean->zero_blocks += layer->zero_blocks / layers;
    mean->hot += layer->hot / layers;
    mean->repeat += layer->repeat / layers;
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) mean->by_rank[i] += layer->by_rank[i] / layers;
}

static pi2_status sum_up(const sparsity_run *run, pi2_sparsity **sparsity_out) {
    const uint32_t layers = run->shape->layer_count;
    pi2_sparsity *sparsity = calloc(1, sizeof *sparsity);
    pi2_layer_sparsity *list = calloc(layers, sizeof *list);
    if (!sparsity || !list) {
        free(sparsity);
        free(list);
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the sparsity of %u layers", layers);
    }
    *sparsity = (pi2_sparsity){ .layer_count = layers, .layers = list };
    for (uint32_t layer = 0; layer < layers; layer++) {
        const uint64_t values = fill_layer(run, layer, &list[layer]);
        const uint32_t used = run->shape->expert_count ? run->shape->expert_used_count : 1;
        sparsity->token_count = (uint32_t)(values / ((uint64_t)used * run->neurons));
        add_to_mean(&sparsity->mean, &list[layer], layers);
    }
    *sparsity_out = sparsity;
    return PI2_OK;
}

/* ---- the run ---------------------------------------------------------------------------- */

static pi2_status allocate(sparsity_run *run) {
    const size_t padded = (size_t)run->shape->layer_count * run->experts * run->stride;
    run->fired = calloc(padded, sizeof *run->fired);
    run->fired_last = calloc(padded, sizeof *run->fired_last);
    run->seen_last = calloc(padded / BLOCK, sizeof *run->seen_last);
    run->sums = calloc((size_t)run->member_count * run->shape->layer_count, sizeof *run->sums);
    if (run->fired && run->fired_last && run->seen_last && run->sums) return PI2_OK;
    return pi2_fail(PI2_ERR_MEMORY, "no memory for the counts of %zu neurons", padded);
}

static void free_run(sparsity_run *run) {
    free(run->fired);
    free(run->fired_last);
    free(run->seen_last);
    free(run->sums);
    free(run);
}

pi2_status pi2_sparsity_begin(pi2_engine *engine, pi2_sparsity_counter **counter_out) {
    const pi2_model_shape *shape = &engine->model->shape;
    const bool mixture = shape->expert_count > 0;
    *counter_out = NULL;
    sparsity_run *run = malloc(sizeof *run);
    if (!run) return pi2_fail(PI2_ERR_MEMORY, "no memory for counts");
    *run = (sparsity_run){ .engine = engine, .counter = { .user = run, .count = count }, .shape = shape,
                           .experts = mixture ? shape->expert_count : 1,
                           .neurons = mixture ? shape->expert_feed_forward_length : shape->feed_forward_length,
                           .member_count = engine->plan.shape.thread_count };
    run->stride = (run->neurons + BLOCK - 1) / BLOCK * BLOCK;
    const pi2_status status = allocate(run);
    if (status != PI2_OK) {
        free_run(run);
        return status;
    }
    pi2_forward_set_counter(engine->forward, &run->counter);
    *counter_out = run;
    return PI2_OK;
}

void pi2_sparsity_new_text(pi2_sparsity_counter *counter) { counter->text_begin = atomic_load(&counter->end) + 1; }

pi2_status pi2_sparsity_end(pi2_sparsity_counter *counter, pi2_sparsity **sparsity_out) {
    pi2_status status = PI2_OK;
    if (sparsity_out) *sparsity_out = NULL;
    if (!counter) return PI2_OK;
    pi2_forward_set_counter(counter->engine->forward, NULL);
    if (sparsity_out) status = sum_up(counter, sparsity_out);
    free_run(counter);
    return status;
}

static pi2_status run_tokens(pi2_engine *engine, const int32_t *tokens, size_t token_count) {
    pi2_session *session = NULL;
    PI2_TRY(pi2_session_create(engine, NULL, &session));
    const pi2_status status = pi2_session_append(session, tokens, token_count, PI2_LOGITS_NONE);
    pi2_session_free(session);
    return status;
}

pi2_status pi2_sparsity_measure(pi2_engine *engine, const int32_t *tokens, size_t token_count,
                                pi2_sparsity **sparsity_out) {
    pi2_sparsity_counter *counter = NULL;
    *sparsity_out = NULL;
    PI2_TRY(pi2_sparsity_begin(engine, &counter));
    const pi2_status status = run_tokens(engine, tokens, token_count);
    if (status == PI2_OK) return pi2_sparsity_end(counter, sparsity_out);
    (void)pi2_sparsity_end(counter, NULL);
    return status;
}

void pi2_sparsity_free(pi2_sparsity *sparsity) {
    if (!sparsity) return;
    free(sparsity->layers);
    free(sparsity);
}
