/*
 * forward_neurons.c: an FFN of which only the neurons that fire are read and computed (PowerInfer-2, sections 4.3 and
 * 4.4), with the bits of the dense FFN (docs/arithmetic.md, Neurons).
 *
 *   gate       every Gate row, from tiles in memory. Neurons that fire and whose bundle is there get their Up row at
 *              once; the others' units are asked for, so that reads go on while the next Gate rows are computed
 *   neurons    Up rows of the neurons that were asked for, in that order, as they arrive
 *   quantise   hidden values to int8, block by block; what is zero after that is left out of Down
 *   down       columns of the neurons that are left, in the model's order; threads share the rows out
 *
 * A layer's neurons stay in memory until its Down is done (neuron_cache/neuron_store.h).
 */
#include <assert.h>

#include "pipeline/ffn_unit.h"

enum {
    FIRE_CHUNK = PI2_FFN_UP_ROWS, ARRIVAL_CHUNK = 8, ROW_UNIT = 32, ROW_CHUNKS_PER_THREAD = 2,
    WARM_TOKENS = PI2_NEURON_FADE_SHARE /* of a prompt: those that heat would still know of */
};

static const pi2_layer_weights *layer_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer];
}

static uint32_t bank_number(const pi2_forward_walk *walk) { return walk->forward->bank_of_layer[walk->layer]; }

static const pi2_neuron_bank *bank_of(const pi2_forward_walk *walk) {
    return &walk->forward->options.banks->banks[bank_number(walk)];
}

bool pi2_forward_takes_neurons(const pi2_forward_walk *walk) {
    return walk->forward->by_neuron && bank_number(walk) != PI2_NO_BANK;
}

/* A layer begins: one thread, while no other computes neurons. */
static void begin_layer(pi2_forward *forward) {
    pi2_neuron_store_begin_layer(forward->options.neurons);
    atomic_store(&forward->buffers.neurons.shared->careful_tokens, 0);
}

void pi2_forward_begin_neurons(pi2_forward *forward) {
    for (uint32_t i = 0; i < forward->model->shape.layer_count; i++) {
        atomic_store(&forward->buffers.neurons.late_counts[i], 0);
    }
    pi2_neuron_store_begin_pass(forward->options.neurons, 1);
    begin_layer(forward);
}

void pi2_forward_warm_neurons(const pi2_forward_walk *walk, uint32_t token, uint32_t begin, uint32_t end,
                              const float *gate) {
    const pi2_forward *forward = walk->forward;
    const uint32_t number = forward->bank_of_layer[walk->layer];
    if (number == PI2_NO_BANK || token + WARM_TOKENS < forward->token_count) return;
    const pi2_neuron_bank *bank = &forward->options.banks->banks[number];
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, number);
    for (uint32_t i = 0; i < end - begin; i++) {
        if (gate[i] <= 0.0f) continue;
        pi2_neuron_store_warm(forward->options.neurons, number, head->place_of[begin + i] / bank->unit_neurons);
    }
}

/* ---- Up ---- */

/* Up of the neurons that fire for each token, of those listed: at most FIRE_CHUNK. */
static void compute_up_of(pi2_forward_walk *walk, const uint32_t *neurons, uint32_t count) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *buffers = &forward->buffers.neurons;
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, bank_number(walk));
    const size_t scale_bytes = bank_of(walk)->up_scale_bytes;
    const pi2_ffn_unit unit = pi2_ffn_of_layer(walk);
    const uint8_t *values[FIRE_CHUNK], *scales[FIRE_CHUNK];
    uint32_t firing[FIRE_CHUNK];
    for (uint32_t token = 0; token < forward->token_count; token++) {
        float *hidden = buffers->hidden + token * forward->buffers.neuron_stride;
        pi2_ffn_up_rows rows = { values, scales, firing, 0 };
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t neuron = neurons[i];
            if (hidden[neuron] == 0.0f) continue;
            firing[rows.count] = neuron;
            values[rows.count] = buffers->bundles[neuron];
            scales[rows.count++] = head->up_scales + neuron * scale_bytes;
        }
        if (rows.count == 0) continue;
        if (pi2_ffn_up(walk, &unit, forward->up_kernels[walk->layer], &rows, token, hidden)) {
            (void)atomic_fetch_or(&buffers->shared->careful_tokens, 1u << token);
        }
    }
}

/* ---- Gate ---- */

/* The neurons of [begin, end) that fire for some token. */
static uint32_t list_firing(const pi2_forward *forward, uint32_t begin, uint32_t end, uint32_t *neurons) {
    uint32_t count = 0;
    for (uint32_t neuron = begin; neuron < end; neuron++) {
        const float *hidden = forward->buffers.neurons.hidden + neuron;
        bool fires = false;
        for (uint32_t token = 0; token < forward->token_count && !fires; token++) {
            fires = hidden[token * forward->buffers.neuron_stride] != 0.0f;
        }
        if (fires) neurons[count++] = neuron;
    }
    return count;
}

/* Asks for the units of neurons that are not there, and leaves those neurons to the next stage. */
static void leave_for_later(pi2_forward_walk *walk, const uint32_t *neurons, const uint32_t *units, uint32_t count) {
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *buffers = &forward->buffers.neurons;
    if (count == 0) return;
    const uint32_t first = atomic_fetch_add(&buffers->late_counts[walk->layer], count);
    for (uint32_t i = 0; i < count; i++) buffers->late[first + i] = neurons[i];
    pi2_neuron_store_want(forward->options.neurons, bank_number(walk), units, count);
}

static void gate_chunk(void *argument, unsigned member, uint32_t chunk) {
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_neuron_bank *bank = bank_of(walk);
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, bank_number(walk));
    const uint32_t begin = chunk * forward->buffers.neuron_chunk, wanted = begin + forward->buffers.neuron_chunk;
    const uint32_t end = wanted < bank->neuron_count ? wanted : bank->neuron_count;
    uint32_t firing[FIRE_CHUNK], late[FIRE_CHUNK], units[FIRE_CHUNK], here = 0, late_count = 0;
    assert(forward->buffers.neuron_chunk <= FIRE_CHUNK);
    const pi2_ffn_unit ffn = pi2_ffn_of_layer(walk);
    pi2_ffn_gate(walk, member, &ffn, begin, end, 0, forward->token_count, forward->buffers.neurons.hidden,
                 forward->buffers.neuron_stride);
    if (pi2_forward_failed(forward)) return;
    const uint32_t count = list_firing(forward, begin, end, firing);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t neuron = firing[i], place = head->place_of[neuron], unit = place / bank->unit_neurons;
        const uint8_t *memory = pi2_neuron_store_hit(forward->options.neurons, bank_number(walk), unit);
        if (memory) {
            forward->buffers.neurons.bundles[neuron] = memory + place % bank->unit_neurons * (size_t)bank->bundle_bytes;
            firing[here++] = neuron;
        } else {
            late[late_count] = neuron;
            units[late_count++] = unit;
        }
    }
    leave_for_later(walk, late, units, late_count);
    pi2_neuron_store_note(forward->options.neurons, bank_number(walk), count, here);
    compute_up_of(walk, firing, here);
}

/* ---- neurons that had to be read ---- */

static void arrival_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *buffers = &forward->buffers.neurons;
    const pi2_neuron_bank *bank = bank_of(walk);
    const pi2_neuron_head *head = pi2_neuron_store_head(forward->options.neurons, bank_number(walk));
    const uint32_t all = atomic_load(&buffers->late_counts[walk->layer]);
    const uint32_t begin = chunk * ARRIVAL_CHUNK, count = all - begin < ARRIVAL_CHUNK ? all - begin : ARRIVAL_CHUNK;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t neuron = buffers->late[begin + i], place = head->place_of[neuron];
        const uint8_t *memory;
        const pi2_status status = pi2_neuron_store_take(forward->options.neurons, bank_number(walk),
                                                        place / bank->unit_neurons, &memory);
        if (status != PI2_OK) {
            pi2_forward_fail(forward, status);
            return;
        }
        buffers->bundles[neuron] = memory + place % bank->unit_neurons * (size_t)bank->bundle_bytes;
    }
    compute_up_of(walk, buffers->late + begin, count);
}

/* ---- Down's operands ---- */

/* The bundle of a neuron that does not fire: only where a chain may not leave it out. */
static const uint8_t *any_bundle(pi2_forward_walk *walk, uint32_t neuron) {
    pi2_forward *forward = walk->forward;
    const pi2_neuron_bank *bank = bank_of(walk);
    const uint32_t place = pi2_neuron_store_head(forward->options.neurons, bank_number(walk))->place_of[neuron];
    const uint8_t *memory;
    const pi2_status status = pi2_neuron_store_take(forward->options.neurons, bank_number(walk),
                                                    place / bank->unit_neurons, &memory);
    if (status == PI2_OK) return memory + place % bank->unit_neurons * (size_t)bank->bundle_bytes;
    pi2_forward_fail(forward, status);
    return NULL;
}

/* Where a token's lists of one segment lie. */
typedef struct column_lists {
    const uint8_t **values;
    int8_t *activations;
    uint8_t *places;
    pi2_neuron_block *blocks;
    uint32_t *block_count;
} column_lists;

static column_lists lists_of(const pi2_forward *forward, uint32_t token, uint32_t segment) {
    const pi2_neuron_buffers *buffers = &forward->buffers.neurons;
    const size_t at = token * forward->buffers.neuron_stride + (size_t)segment * PI2_NEURON_SEGMENT;
    return (column_lists){ buffers->values + at, buffers->activations + at, buffers->places + at, buffers->blocks + at,
                           buffers->block_counts + token * buffers->segments + segment };
}

/* Floats: every neuron is a block of its own. */
static void list_floats(pi2_forward_walk *walk, uint32_t token, uint32_t segment, uint32_t begin, uint32_t end) {
    const pi2_neuron_buffers *buffers = &walk->forward->buffers.neurons;
    const float *hidden = buffers->hidden + token * walk->forward->buffers.neuron_stride;
    const bool all = atomic_load(&buffers->shared->careful_tokens) >> token & 1u;
    const uint32_t down = bank_of(walk)->down_offset;
    const column_lists lists = lists_of(walk->forward, token, segment);
    uint32_t count = 0;
    for (uint32_t neuron = begin; neuron < end; neuron++) {
        if (hidden[neuron] == 0.0f && !all) continue;
        const uint8_t *bundle = hidden[neuron] == 0.0f ? any_bundle(walk, neuron) : buffers->bundles[neuron];
        if (!bundle) return;
        lists.values[count] = bundle + down;
        lists.blocks[count] = (pi2_neuron_block){ .scale = hidden[neuron], .first = count, .count = 1 };
        count++;
    }
    *lists.block_count = count;
}

/* Quantises the blocks in which a neuron fires, and lists what is not zero after that. */
static void list_quantised(pi2_forward_walk *walk, uint32_t token, uint32_t segment, uint32_t begin, uint32_t end) {
    pi2_forward *forward = walk->forward;
    const pi2_neuron_buffers *buffers = &forward->buffers.neurons;
    const pi2_weight_format *format = layer_of(walk)->down.tensor->format;
    const pi2_neuron_bank *bank = bank_of(walk);
    const uint8_t *scales = pi2_neuron_store_head(forward->options.neurons, bank_number(walk))->down_scales;
    const float *hidden = buffers->hidden + token * forward->buffers.neuron_stride;
    pi2_activations *x = &forward->buffers.neurons.hidden_set.of[format->activation];
    const bool all = atomic_load(&buffers->shared->careful_tokens) >> token & 1u;
    const column_lists lists = lists_of(forward, token, segment);
    const uint32_t width = format->block_columns;
    uint32_t columns = 0, blocks = 0;
    for (uint32_t block = begin; block < end; block += width) {
        uint32_t first = block;
        while (first < block + width && hidden[first] == 0.0f) first++;
        if (first == block + width && !all) continue;
        pi2_activations_quantize(x, token, block, width, hidden + block);
        const int8_t *values = x->values + token * x->value_stride;
        const uint32_t before = columns;
        for (uint32_t neuron = first; neuron < block + width; neuron++) {
            if (values[neuron] == 0) continue;
            lists.values[columns] = buffers->bundles[neuron] + bank->down_offset;
            lists.activations[columns] = values[neuron];
            lists.places[columns++] = (uint8_t)(neuron - block);
        }
        lists.blocks[blocks++] = (pi2_neuron_block){
            .scales = scales + (size_t)(block / width) * bank->down_scale_bytes,
            .scale = x->scales[token * x->block_stride + block / width], .first = before, .count = columns - before };
    }
    *lists.block_count = blocks;
}

static void list_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    const uint32_t neurons = bank_of(walk)->neuron_count, begin = chunk * PI2_NEURON_SEGMENT;
    const uint32_t end = neurons - begin < PI2_NEURON_SEGMENT ? neurons : begin + PI2_NEURON_SEGMENT;
    const bool floats = layer_of(walk)->down.tensor->format->activation == PI2_ACTIVATION_F32;
    for (uint32_t token = 0; token < walk->forward->token_count; token++) {
        if (floats) list_floats(walk, token, chunk, begin, end);
        else list_quantised(walk, token, chunk, begin, end);
    }
}

/* ---- Down ---- */

static uint32_t segments_of(const pi2_forward_walk *walk) {
    return (bank_of(walk)->neuron_count + PI2_NEURON_SEGMENT - 1) / PI2_NEURON_SEGMENT;
}

/* Rows of a chunk of Down: short ones at no point, since all neurons are passed for each. */
static uint32_t rows_of_chunk(const pi2_forward_walk *walk) {
    const uint32_t chunks = walk->member_count > 1 ? walk->member_count * ROW_CHUNKS_PER_THREAD : 1;
    const uint32_t rows = (bank_of(walk)->width + chunks - 1) / chunks;
    return (rows + ROW_UNIT - 1) / ROW_UNIT * ROW_UNIT;
}

static void columns_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_neuron_kernel *kernel = forward->down_kernels[walk->layer];
    const uint32_t width = bank_of(walk)->width, rows = rows_of_chunk(walk), begin = chunk * rows;
    const uint32_t count = width - begin < rows ? width - begin : rows;
    for (uint32_t token = 0; token < forward->token_count; token++) {
        for (uint32_t segment = 0; segment < segments_of(walk); segment++) {
            const column_lists lists = lists_of(forward, token, segment);
            const pi2_neuron_columns columns = { .rows = width, .block_count = *lists.block_count,
                                                 .blocks = lists.blocks, .values = lists.values,
                                                 .activations = lists.activations, .places = lists.places };
            kernel->columns(forward->buffers.out + token * forward->buffers.width_stride, begin, count, &columns,
                            segment == 0);
        }
    }
}

static void after_columns_token(pi2_forward_walk *walk, uint32_t token) {
    if (token == 0) begin_layer(walk->forward); /* no thread is in the store: every column is added */
    pi2_forward_end_ffn(walk, token);
}

void pi2_forward_neurons(pi2_forward_walk *walk) {
    const pi2_forward *forward = walk->forward;
    const uint32_t chunk = forward->buffers.neuron_chunk, rows = rows_of_chunk(walk);
    walk->stage_name = "gate";
    pi2_forward_stage(walk, (bank_of(walk)->neuron_count + chunk - 1) / chunk, gate_chunk, NULL);
    const uint32_t late = atomic_load(&forward->buffers.neurons.late_counts[walk->layer]);
    walk->stage_name = "neurons";
    pi2_forward_stage(walk, (late + ARRIVAL_CHUNK - 1) / ARRIVAL_CHUNK, arrival_chunk, NULL);
    walk->stage_name = "quantise";
    pi2_forward_stage(walk, segments_of(walk), list_chunk, NULL);
    walk->stage_name = "columns";
    pi2_forward_stage(walk, (bank_of(walk)->width + rows - 1) / rows, columns_chunk, after_columns_token);
}
