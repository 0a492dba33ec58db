/* forward_memory.c: how much a pass needs, and where in its memory everything lies. */
#include <string.h>

#include "architectures/block.h"
#include "pipeline/ffn_unit.h"

enum { ALIGNMENT = 64, QUERY_BLOCK = 24, MOST_NEURONS = 192, LEAST_AHEAD = 2 * PI2_TAKEN_BACK };

typedef struct carver {
    uint8_t *memory; /* NULL: count only */
    size_t used;
} carver;

static void *carve(carver *from, size_t bytes) {
    void *at = from->memory ? from->memory + from->used : NULL;
    from->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

static float *carve_floats(carver *from, size_t count) { return carve(from, count * sizeof(float)); }

static size_t stride_of(size_t count) { return (count + 15) / 16 * 16; }

unsigned pi2_operand_kind(const pi2_operand *operand) {
    return operand->tensor ? 1u << operand->tensor->format->activation : 0;
}

static void carve_set(carver *from, pi2_activation_set *set, unsigned kinds, size_t tokens, size_t columns,
                      float *floats, size_t float_stride) {
    set->kinds = kinds;
    for (int kind = 0; kind < PI2_ACTIVATION_KINDS; kind++) {
        if (!(kinds & (1u << kind))) continue;
        void *memory = carve(from, pi2_activations_bytes((pi2_activation_kind)kind, tokens, columns));
        if (!from->memory) continue;
        pi2_activations_layout(&set->of[kind], (pi2_activation_kind)kind, tokens, columns, memory);
        set->of[kind].floats = floats;
        set->of[kind].float_stride = float_stride;
    }
}

/* The kinds of activations that the matrices of all layers want. */
static void find_kinds(const pi2_model *model, unsigned *normed, unsigned *attended, unsigned *hidden) {
    *normed = pi2_operand_kind(&model->head) | pi2_operand_kind(&model->token_input) |
              pi2_operand_kind(&model->stream_input) | pi2_operand_kind(&model->stream_output);
    *attended = *hidden = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        for (uint32_t role = 0; role < PI2_MATRIX_LAYER_ROLES; role++) {
            const bool is_result = role == PI2_MATRIX_ATTENTION_OUTPUT || role == PI2_MATRIX_TOKEN_OUTPUT ||
                                   role == PI2_MATRIX_LAUREL_OUTPUT || role == PI2_MATRIX_NEXT_INPUT ||
                                   (model->shape.feature_count && role <= PI2_MATRIX_V);
            unsigned *kinds = is_result ? attended
                              : role == PI2_MATRIX_DOWN || role == PI2_MATRIX_SHARED_DOWN ? hidden : normed;
            *kinds |= pi2_operand_kind(&model->layers[i].matrices[role]);
        }
    }
}

/* The activations that experts read, of the normed ones. */
static unsigned gathered_kinds(const pi2_model *model) {
    unsigned kinds = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        if (!pi2_layer_has_experts(&model->layers[i])) continue;
        kinds |= pi2_operand_kind(&model->layers[i].gate) | pi2_operand_kind(&model->layers[i].up);
    }
    return kinds;
}

/* What the blocks of all layers need most of. */
static pi2_block_needs most_needs(const pi2_model *model, const pi2_forward_shape *shape) {
    pi2_block_needs most = { 0 };
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        for (uint32_t b = 0; b < model->shape.layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(&model->shape, i, b, shape);
            if (needs.result > most.result) most.result = needs.result;
            if (needs.scratch > most.scratch) most.scratch = needs.scratch;
        }
    }
    return most;
}

/* Neurons of the largest FFN that every token uses; 0: there is none. */
static uint32_t dense_neurons(const pi2_model *model) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        const pi2_dense_ffn ffn = pi2_layer_dense_ffn(&model->layers[i]);
        if (ffn.down && ffn.down->tensor->columns > most) most = ffn.down->tensor->columns;
    }
    return most;
}

static void carve_experts(carver *from, const pi2_model *model, const pi2_forward_shape *shape, unsigned hidden,
                          pi2_forward_buffers *buffers) {
    const pi2_model_shape *m = &model->shape;
    pi2_expert_buffers *experts = &buffers->experts;
    const size_t batch = shape->batch_tokens, visits = batch * pi2_token_ffns(m), count = pi2_layer_ffns(m);
    const size_t jobs = visits < count ? visits : count;
    const unsigned gathered = gathered_kinds(model);
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const uint32_t clusters = model->layers[i].cluster_count;
        if (clusters > experts->cluster_most) experts->cluster_most = clusters;
    }
    experts->expert_stride = stride_of(count);
    experts->neuron_stride = stride_of(pi2_ffn_length(m));
    if (m->experts_have_norms) experts->router_input = carve_floats(from, batch * buffers->width_stride);
    experts->probabilities = carve_floats(from, batch * experts->expert_stride);
    if (m->router_has_bias || m->expert_groups > 1) experts->worth = carve_floats(from, batch * experts->expert_stride);
    experts->chosen = carve(from, visits * sizeof(uint32_t));
    experts->weights = carve_floats(from, visits);
    experts->row_of = carve(from, visits * sizeof(uint32_t));
    experts->row_token = carve(from, visits * sizeof(uint32_t));
    experts->expert_rows = carve(from, (count + 1) * sizeof(uint32_t));
    experts->keys = carve(from, jobs * sizeof(uint32_t));
    experts->jobs = carve(from, jobs * sizeof(pi2_expert_job));
    experts->uses = carve(from, jobs * sizeof(pi2_batch_use));
    experts->taken = carve(from, jobs * experts->cluster_most);
    experts->y = carve_floats(from, visits * buffers->width_stride);
    experts->ahead_rows = batch < PI2_AHEAD_TOKENS && !shape->dense_apart ? batch : PI2_AHEAD_TOKENS;
    const size_t asked = experts->ahead_rows;
    if (!m->router_sees_layer_input) experts->ahead_normed = carve_floats(from, asked * buffers->width_stride);
    experts->ahead_logits = carve_floats(from, asked * experts->expert_stride);
    experts->ahead_keys = carve(from, PI2_AHEAD_LAYERS * count * sizeof(uint32_t));
    experts->ahead_votes = carve(from, count * sizeof(uint32_t));
    if (hidden & (1u << PI2_ACTIVATION_F32)) experts->hidden = carve_floats(from, visits * experts->neuron_stride);
    carve_set(from, &experts->hidden_set, hidden, visits, pi2_ffn_length(m), experts->hidden,
              experts->neuron_stride);
    if (batch == 1) return; /* one token's experts read its activations where they are */
    if (gathered & (1u << PI2_ACTIVATION_F32)) experts->gathered = carve_floats(from, visits * buffers->width_stride);
    carve_set(from, &experts->gathered_set, gathered, visits, m->embedding_length, experts->gathered,
              buffers->width_stride);
}

/* Passes by neuron have few tokens; a layer without banks takes the dense way in them too. */
static void carve_prediction(carver *from, const pi2_model_shape *m, const pi2_forward_shape *shape, size_t rows,
                             unsigned normed, pi2_neuron_buffers *neurons) {
    neurons->code_stride = stride_of(shape->code_rows);
    neurons->inputs = carve(from, rows * sizeof *neurons->inputs);
    neurons->code_vectors = carve(from, rows * sizeof *neurons->code_vectors);
    neurons->input_values = carve(from, rows * stride_of(m->embedding_length) * sizeof *neurons->input_values);
    neurons->code_values = carve(from, rows * neurons->code_stride * sizeof *neurons->code_values);
    neurons->code = carve_floats(from, rows * neurons->code_stride);
    if (!shape->foretells) return;
    neurons->ahead_normed = carve_floats(from, rows * stride_of(m->embedding_length));
    carve_set(from, &neurons->ahead_set, normed, rows, m->embedding_length, neurons->ahead_normed,
              stride_of(m->embedding_length));
    neurons->ahead_scores = carve_floats(from, rows * neurons->stride);
    neurons->ahead_marks = carve(from, rows * neurons->stride);
    neurons->ahead_units = carve(from, rows * neurons->stride * sizeof *neurons->ahead_units);
}

static void carve_neurons(carver *from, const pi2_model *model, const pi2_forward_shape *shape, unsigned normed,
                          unsigned hidden, pi2_forward_buffers *buffers) {
    pi2_neuron_buffers *neurons = &buffers->neurons;
    const pi2_model_shape *m = &model->shape;
    const size_t tokens = shape->neuron_tokens < shape->batch_tokens ? shape->neuron_tokens : shape->batch_tokens;
    const size_t rows = tokens * pi2_token_ffns(m), ffns = pi2_layer_ffns(m), jobs = rows < ffns ? rows : ffns;
    const uint32_t columns = pi2_ffn_length(m);
    const size_t stride = stride_of(columns);
    neurons->stride = stride;
    neurons->row_count = (uint32_t)rows;
    neurons->segments = (uint32_t)((stride + PI2_NEURON_SEGMENT - 1) / PI2_NEURON_SEGMENT);
    neurons->careful = carve(from, rows * sizeof *neurons->careful);
    neurons->hidden = carve_floats(from, rows * stride);
    neurons->bundles = carve(from, jobs * stride * sizeof *neurons->bundles);
    neurons->listed = carve(from, jobs * stride * sizeof *neurons->listed);
    neurons->fired_count = jobs * stride / PI2_TILE_ROWS;
    neurons->fired = carve(from, neurons->fired_count * sizeof *neurons->fired);
    neurons->late_counts = carve(from, m->layer_count * sizeof *neurons->late_counts);
    neurons->values = carve(from, rows * stride * sizeof *neurons->values);
    neurons->activations = carve(from, rows * stride * sizeof *neurons->activations);
    neurons->places = carve(from, rows * stride * sizeof *neurons->places);
    neurons->blocks = carve(from, rows * stride * sizeof *neurons->blocks);
    neurons->block_counts = carve(from, rows * neurons->segments * sizeof *neurons->block_counts);
    carve_set(from, &neurons->hidden_set, hidden, rows, columns, neurons->hidden, stride);
    if (shape->predicts || shape->foretells) carve_prediction(from, m, shape, rows, normed, neurons);
}

/* What a predictor reads and writes of a batch whose neurons are all computed. */
static void carve_mask(carver *from, const pi2_model *model, const pi2_forward_shape *shape,
                       pi2_forward_buffers *buffers) {
    pi2_forward_shape own = *shape;
    own.foretells = false;
    buffers->mask.stride = stride_of(pi2_ffn_length(&model->shape));
    const size_t rows = (size_t)shape->batch_tokens * pi2_token_ffns(&model->shape);
    buffers->mask.hidden = carve_floats(from, rows * buffers->mask.stride);
    carve_prediction(from, &model->shape, &own, rows, 0, &buffers->mask);
}

/* Positions that the queries of one call see together. */
static uint32_t most_keys(const pi2_model_shape *model, const pi2_forward_shape *shape) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        const uint32_t window = model->layers[i].window, context = shape->context_tokens;
        const bool sees_all = window == 0 || window >= context;
        const uint32_t seen = sees_all ? context : pi2_kv_tiles_of(window + QUERY_BLOCK) * PI2_KV_TILE;
        if (seen > most) most = seen < context ? seen : context;
    }
    return most;
}

static void carve_members(carver *from, const pi2_model_shape *model, const pi2_forward_shape *shape,
                          pi2_forward_buffers *buffers) {
    const size_t group = model->head_count / model->head_count_kv;
    const size_t row = stride_of(most_keys(model, shape));
    const size_t wanted = row * (shape->batch_tokens > 1 ? QUERY_BLOCK : group);
    const size_t most = row > 32768 ? row : 32768;
    buffers->score_floats = wanted < most ? wanted : most;
    const size_t tokens = shape->batch_tokens < PI2_FFN_ROWS ? shape->batch_tokens : PI2_FFN_ROWS;
    buffers->gate_floats = tokens * buffers->neuron_chunk;
    buffers->member_floats = buffers->score_floats > 2 * buffers->gate_floats ? buffers->score_floats
                                                                              : 2 * buffers->gate_floats;
    buffers->member_floats = stride_of(buffers->member_floats);
    buffers->member = carve_floats(from, buffers->member_floats * shape->thread_count);
}

/*
 * A whole cluster where it is small enough: its Gate rows and its Up rows then are one call each,
 * and they follow one another in memory.
 */
static uint32_t neuron_chunk_of(const pi2_model *model, unsigned hidden) {
    if (hidden & (1u << PI2_ACTIVATION_Q8_256)) return 256;
    uint32_t most = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        const pi2_layer_weights *layer = &model->layers[i];
        const pi2_dense_ffn ffn = pi2_layer_dense_ffn(layer);
        const uint32_t own = layer->down.tensor ? model->layout->groups[layer->ffn_group].cluster_neurons : 0;
        const uint32_t dense = ffn.down ? model->layout->groups[ffn.group].cluster_neurons : 0;
        if (own > most) most = own;
        if (dense > most) most = dense;
    }
    return most % 32 == 0 && most <= MOST_NEURONS && most > 0 ? most : 64;
}

/* Where they are rows of one matrix, they are one row of one product. */
static void carve_qkv(carver *from, const pi2_model_shape *m, size_t batch, pi2_forward_buffers *buffers) {
    size_t q = 0, k = 0, v = 0;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const pi2_layer_shape *layer = &m->layers[i];
        const size_t own_q = (size_t)m->head_count * layer->key_length * (m->gated_queries ? 2 : 1);
        const size_t own_k = (size_t)layer->head_count_kv * layer->key_length;
        const size_t own_v = (size_t)layer->head_count_kv * layer->value_length;
        if (own_q > q) q = own_q;
        if (own_k > k) k = own_k;
        if (own_v > v) v = own_v;
    }
    buffers->q_stride = stride_of(m->fused_qkv ? q + k + v : q);
    buffers->k_stride = m->fused_qkv ? buffers->q_stride : stride_of(k);
    buffers->v_stride = m->fused_qkv ? buffers->q_stride : stride_of(v);
    buffers->q = carve_floats(from, batch * buffers->q_stride);
    if (!m->fused_qkv) {
        buffers->k = carve_floats(from, batch * buffers->k_stride);
        buffers->v = carve_floats(from, batch * buffers->v_stride);
    } else if (buffers->q) {
        buffers->k = buffers->q + q;
        buffers->v = buffers->k + k;
    }
}

/* Of all layers' matrices of one role. */
static unsigned role_kinds(const pi2_model *model, pi2_matrix_role role) {
    unsigned kinds = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        kinds |= pi2_operand_kind(&model->layers[i].matrices[role]);
    }
    return kinds;
}

static void carve_latent(carver *from, const pi2_model *model, size_t batch, pi2_forward_buffers *buffers) {
    const pi2_model_shape *m = &model->shape;
    const size_t rows = batch * m->head_count, plain = m->head_key_length - m->rope.dimensions;
    buffers->latent_stride = stride_of(m->latent_query_length);
    buffers->head_query_stride = stride_of(plain);
    buffers->head_result_stride = stride_of(m->latent_length);
    buffers->latent = carve_floats(from, batch * buffers->latent_stride);
    buffers->head_queries = carve_floats(from, rows * buffers->head_query_stride);
    buffers->head_results = carve_floats(from, rows * buffers->head_result_stride);
    if (m->latent_query_length) {
        carve_set(from, &buffers->latent_set, role_kinds(model, PI2_MATRIX_Q), batch, m->latent_query_length,
                  buffers->latent, buffers->latent_stride);
    }
    carve_set(from, &buffers->query_set, role_kinds(model, PI2_MATRIX_HEAD_KEYS), rows, plain, buffers->head_queries,
              buffers->head_query_stride);
    carve_set(from, &buffers->result_set, role_kinds(model, PI2_MATRIX_HEAD_VALUES), rows, m->latent_length,
              buffers->head_results, buffers->head_result_stride);
}

pi2_forward_shape pi2_forward_shape_by_neuron(const pi2_forward_shape *shape) {
    pi2_forward_shape few = *shape;
    if (few.batch_tokens > few.neuron_tokens) few.batch_tokens = few.neuron_tokens;
    few.masks = false;
    return few;
}

pi2_forward_shape pi2_forward_shape_of_all(const pi2_forward_shape *shape) {
    pi2_forward_shape all = *shape;
    all.neuron_tokens = all.logits_tokens = all.sequences = 0;
    return all;
}

size_t pi2_forward_carve(const pi2_model *model, const pi2_forward_shape *shape, void *memory,
                         pi2_forward_buffers *buffers) {
    memset(buffers, 0, sizeof *buffers);
    const pi2_model_shape *m = &model->shape;
    const size_t batch = shape->batch_tokens;
    carver from = { memory, 0 };
    const pi2_block_needs most = most_needs(model, shape);
    const uint32_t neurons = dense_neurons(model);
    unsigned normed, attended, hidden;
    find_kinds(model, &normed, &attended, &hidden);

    buffers->width_stride = stride_of(m->embedding_length);
    buffers->attended_stride = stride_of(most.result);
    buffers->scratch_stride = stride_of(most.scratch);
    buffers->neuron_stride = stride_of(neurons);
    buffers->vocabulary_stride = stride_of(m->vocabulary_size);
    buffers->neuron_chunk = neuron_chunk_of(model, hidden);

    buffers->x = carve_floats(&from, batch * buffers->width_stride);
    buffers->out = carve_floats(&from, batch * buffers->width_stride);
    buffers->normed = carve_floats(&from, batch * buffers->width_stride);
    carve_qkv(&from, m, batch, buffers);
    buffers->attended = carve_floats(&from, batch * buffers->attended_stride);
    if (neurons && (m->norms_hidden || (hidden & (1u << PI2_ACTIVATION_F32)))) {
        buffers->hidden = carve_floats(&from, batch * buffers->neuron_stride);
    }
    if (m->activation == PI2_FFN_gelu_topk) buffers->gates = carve_floats(&from, batch * buffers->neuron_stride);
    buffers->token_stride = stride_of((size_t)m->token_length * m->layer_count);
    buffers->token_vectors = carve_floats(&from, batch * buffers->token_stride);
    buffers->streams_stride = stride_of((size_t)m->embedding_length * m->stream_count);
    buffers->streams = carve_floats(&from, batch * buffers->streams_stride);
    buffers->features_stride = stride_of((size_t)m->embedding_length * shape->feature_count);
    buffers->features = carve_floats(&from, batch * buffers->features_stride);
    if (m->laurel_rank) buffers->laurel = carve_floats(&from, batch * buffers->width_stride);
    for (uint32_t i = 0; i < PI2_ROPES; i++) {
        buffers->cos_sin[i] = carve_floats(&from, batch * pi2_model_rope(m, i)->dimensions);
    }
    buffers->scratch = carve_floats(&from, batch * buffers->scratch_stride);
    buffers->logits = carve_floats(&from, shape->logits_tokens * buffers->vocabulary_stride);
    if (shape->sequences > 1) buffers->kept_logits = carve_floats(&from, shape->sequences * buffers->vocabulary_stride);
    buffers->places = carve(&from, batch * sizeof *buffers->places);
    carve_set(&from, &buffers->normed_set, normed, batch, m->embedding_length, buffers->normed,
              buffers->width_stride);
    carve_set(&from, &buffers->attended_set, attended, batch, most.result, buffers->attended,
              buffers->attended_stride);
    carve_set(&from, &buffers->hidden_set, neurons ? hidden : 0, batch, neurons, buffers->hidden,
              buffers->neuron_stride);
    if (m->latent_length) carve_latent(&from, model, batch, buffers);
    carve_members(&from, m, shape, buffers);
    if (gathered_kinds(model)) carve_experts(&from, model, shape, hidden, buffers);
    if (shape->neuron_tokens) carve_neurons(&from, model, shape, normed, hidden, buffers);
    if (shape->masks) carve_mask(&from, model, shape, buffers);
    return from.used;
}

size_t pi2_forward_scratch_bytes(const pi2_model *model, const pi2_forward_shape *shape) {
    pi2_forward_buffers buffers;
    const pi2_forward_shape few = pi2_forward_shape_by_neuron(shape);
    return pi2_forward_carve(model, shape->dense_apart ? &few : shape, NULL, &buffers);
}

size_t pi2_forward_dense_scratch_bytes(const pi2_model *model, const pi2_forward_shape *shape) {
    pi2_forward_buffers buffers;
    const pi2_forward_shape all = pi2_forward_shape_of_all(shape);
    return shape->dense_apart ? pi2_forward_carve(model, &all, NULL, &buffers) : 0;
}

uint32_t pi2_forward_cache_positions(const pi2_forward_shape *shape) {
    const uint64_t context = (shape->context_tokens + (uint64_t)PI2_KV_TILE - 1) / PI2_KV_TILE * PI2_KV_TILE;
    /* A branch may begin in the midst of a page, and end so. */
    const uint64_t branch = (shape->branch_tokens / PI2_KV_TILE + (uint64_t)2) * PI2_KV_TILE;
    /* Where several write to a page that they share each is taken to need another, though the last one keeps it. */
    const uint64_t whole = context > 2 * PI2_KV_TILE ? context : 2 * PI2_KV_TILE;
    const uint64_t each = shape->branch_tokens && branch < whole ? branch : whole;
    return (uint32_t)(context + (shape->sequences > 1 ? shape->sequences - 1 : 0) * each);
}

static uint32_t sequences_of(const pi2_forward_shape *shape) { return shape->sequences > 1 ? shape->sequences : 1; }

/*
 * A window needs no more than what the first token of a pass sees and the others write; then positions that were
 * guessed can be taken back, too. Where pages take less than the rings and what is saved of them, there are no rings.
 */
uint32_t pi2_forward_ring_tiles(const pi2_layer_shape *layer, const pi2_forward_shape *shape) {
    if (layer->window == 0 || layer->window >= shape->context_tokens) return 0;
    const uint32_t ahead = shape->batch_tokens > LEAST_AHEAD ? shape->batch_tokens : LEAST_AHEAD;
    const uint32_t ring = pi2_kv_tiles_of(layer->window + ahead - 1);
    const uint32_t saved = pi2_kv_tiles_of(layer->window - 1 + PI2_TAKEN_BACK);
    const uint64_t all = pi2_forward_cache_positions(shape) / PI2_KV_TILE;
    return (uint64_t)sequences_of(shape) * (ring + saved) < all ? ring : 0;
}

pi2_kv_layout pi2_forward_kv_layout(const pi2_layer_shape *layer, const pi2_forward_shape *shape) {
    const uint32_t tiles = pi2_forward_ring_tiles(layer, shape);
    return (pi2_kv_layout){ .type = shape->cache_type, .key_dimensions = layer->key_length,
                            .value_dimensions = layer->value_length, .values_are_keys = layer->values_are_keys,
                            .capacity = tiles ? sequences_of(shape) * tiles * PI2_KV_TILE
                                              : pi2_forward_cache_positions(shape) };
}

size_t pi2_forward_saved_bytes(const pi2_model *model, const pi2_forward_shape *shape) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        for (uint32_t b = 0; b < model->shape.layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(&model->shape, i, b, shape);
            bytes += pi2_block_saved_bytes(&needs);
        }
    }
    return bytes;
}

size_t pi2_forward_recurrent_bytes(const pi2_model *model, const pi2_forward_shape *shape) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        for (uint32_t b = 0; b < model->shape.layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(&model->shape, i, b, shape);
            if (needs.is_recurrent) bytes += pi2_block_state_bytes(&needs);
        }
    }
    return bytes;
}

size_t pi2_forward_cache_bytes(const pi2_model *model, const pi2_forward_shape *shape) {
    const size_t own = pi2_forward_saved_bytes(model, shape) +
                       (pi2_forward_state_copies(shape) - 1) * pi2_forward_recurrent_bytes(model, shape);
    size_t bytes = sequences_of(shape) * own;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        for (uint32_t b = 0; b < model->shape.layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(&model->shape, i, b, shape);
            if (!needs.is_recurrent) bytes += pi2_block_state_bytes(&needs);
        }
    }
    return bytes;
}

size_t pi2_forward_sequence_bytes(const pi2_model *model, const pi2_forward_shape *shape) {
    pi2_forward_shape one = *shape;
    one.sequences = 1;
    return pi2_forward_cache_bytes(model, &one);
}

/* Pages of [begin, begin + bytes) from *next_page on, which moves behind them. */
static size_t count_pages(size_t begin, size_t bytes, size_t page_bytes, size_t *next_page) {
    if (bytes == 0) return 0;
    const size_t first = begin / page_bytes > *next_page ? begin / page_bytes : *next_page;
    const size_t end = (begin + bytes - 1) / page_bytes + 1;
    if (end <= first) return 0;
    *next_page = end;
    return end - first;
}

/* Pages of a block's keys and values, which begin at *at; *at moves behind them. */
static size_t count_keys(const pi2_block_needs *needs, uint32_t positions, size_t page_bytes, size_t *at,
                          size_t *next_page) {
    const size_t begin = *at, tiles = (positions + (size_t)PI2_KV_TILE - 1) / PI2_KV_TILE;
    size_t pages = 0;
    for (uint32_t r = 0; r < needs->repeats; r++) {
        for (uint32_t a = 0; a < 2; a++) {
            const pi2_state_area *area = &needs->areas[a];
            const bool is_ring = needs->tiles > 0 && tiles > 0; /* of which all counts at once */
            const size_t wanted = is_ring ? area->bytes : tiles * area->tile_bytes;
            pages += count_pages(*at, wanted < area->bytes ? wanted : area->bytes, page_bytes, next_page);
            *at += area->bytes;
        }
    }
    *at = begin + pi2_block_state_bytes(needs);
    return pages;
}

size_t pi2_forward_cache_touched_bytes(const pi2_model *model, const pi2_forward_shape *shape, uint32_t positions,
                                       size_t page_bytes) {
    size_t pages = 0, next_page = 0, at = 0;
    const uint32_t all = pi2_forward_cache_positions(shape);
    if (positions > all) positions = all;
    for (uint32_t i = 0; i < model->shape.layer_count; i++) {
        for (uint32_t b = 0; b < model->shape.layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(&model->shape, i, b, shape);
            if (!needs.is_recurrent) pages += count_keys(&needs, positions, page_bytes, &at, &next_page);
        }
    }
    const size_t own = positions ? pi2_forward_cache_bytes(model, shape) - at : 0;
    pages += count_pages(at, own, page_bytes, &next_page);
    return pages * page_bytes;
}

/* Of a run of rows, wherever it begins in a block of the disk. */
static size_t room_for_run(const pi2_operand *rows, bool is_raw) {
    const pi2_layout_tensor *tensor = rows->tensor;
    const size_t run = is_raw ? pi2_row_bytes(tensor->format, tensor->columns) * PI2_TILE_ROWS
                              : pi2_tile_bytes(tensor->format, tensor->columns);
    return (run + 2 * (size_t)PI2_READ_ALIGNMENT - 1) / PI2_READ_ALIGNMENT * PI2_READ_ALIGNMENT;
}

size_t pi2_forward_staging_bytes(const pi2_model *model, const pi2_forward_shape *shape) {
    if (!shape->embedding_streams) return 0;
    const bool is_raw = model->embedding.tensor != NULL;
    size_t room = room_for_run(is_raw ? &model->embedding : &model->head, is_raw);
    const size_t other = model->token_table.tensor ? room_for_run(&model->token_table, true) : 0;
    if (other > room) room = other;
    const size_t rows = shape->batch_tokens < PI2_STAGING_RUNS ? shape->batch_tokens : PI2_STAGING_RUNS;
    return room * rows;
}
