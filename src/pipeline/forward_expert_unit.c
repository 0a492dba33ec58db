/* forward_expert_unit.c: the arithmetic of one expert: its clusters' Gate and Up, and its Down. */
#include "pipeline/forward_internal.h"

enum { TOKEN_BLOCK = 64 };

static const pi2_layer_experts *experts_of(const pi2_forward_walk *walk) {
    return &walk->forward->model->layers[walk->layer].experts;
}

/* Memory of extent `index` of a job's expert, which has arrived; NULL when the pass fails. */
static const uint8_t *extent_memory(pi2_forward_walk *walk, const pi2_expert_job *job, uint32_t index) {
    pi2_forward *forward = walk->forward;
    const uint32_t key = walk->layer * forward->model->shape.expert_count + job->expert;
    const uint8_t *memory = NULL;
    if (pi2_forward_failed(forward)) return NULL;
    const pi2_status status = pi2_expert_cache_open(forward->options.experts, key, index, &memory);
    if (status == PI2_OK) return memory;
    pi2_forward_fail(forward, status);
    return NULL;
}

/* Rows of Gate or Up: tiles [tile_begin, + tile_count) of the expert, all of one cluster. */
static void cluster_rows(pi2_forward_walk *walk, const pi2_expert_job *job, const pi2_expert_cluster *cluster,
                         const pi2_expert_matrix *matrix, uint32_t tile_begin, uint32_t tile_count,
                         const pi2_activation_set *set, uint32_t row, uint32_t rows, float *out, size_t stride) {
    const pi2_extent_layout *layout = walk->forward->model->layout;
    const pi2_group *group = pi2_expert_group(walk->forward->model, walk->layer, job->expert);
    const pi2_layout_tensor *tensor = matrix->tensor;
    const uint64_t row_base = tensor->matrix_rows * job->expert;
    const size_t tile_bytes = pi2_tile_bytes(tensor->format, tensor->columns);
    const uint32_t tile_end = tile_begin + tile_count;
    for (uint32_t i = 0; i < cluster->extent_count; i++) {
        const uint32_t index = cluster->first_extent + i;
        const pi2_extent *extent = &layout->extents[group->first_extent + index];
        const uint8_t *memory = extent_memory(walk, job, index);
        for (uint32_t p = 0; memory && p < extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
            if (piece->tensor != matrix->number) continue;
            const uint32_t first = (uint32_t)((piece->row_begin - row_base) / PI2_TILE_ROWS);
            const uint32_t end = first + pi2_piece_tiles(piece);
            const uint32_t from = first > tile_begin ? first : tile_begin;
            const uint32_t to = end < tile_end ? end : tile_end;
            if (from >= to) continue;
            matrix->kernel->run(out + (size_t)(from - tile_begin) * PI2_TILE_ROWS, stride,
                                memory + piece->offset + (from - first) * tile_bytes, to - from, tensor->columns, 0,
                                &set->of[tensor->format->activation], row, rows, true);
        }
    }
}

/* Neurons [begin, end) of a cluster for some of the job's rows; the result into hidden_set. */
static void neurons_of_rows(pi2_forward_walk *walk, unsigned member, const pi2_expert_job *job,
                            const pi2_expert_cluster *cluster, uint32_t begin, uint32_t end, uint32_t first,
                            uint32_t rows) {
    pi2_forward *forward = walk->forward;
    pi2_forward_buffers *buffers = &forward->buffers;
    pi2_expert_buffers *experts = &buffers->experts;
    const pi2_layer_experts *layer = experts_of(walk);
    const bool alone = forward->token_count == 1;
    const pi2_activation_set *set = alone ? &buffers->normed_set : &experts->gathered_set;
    const uint32_t source = alone ? 0 : first;
    const uint32_t tile = begin / PI2_TILE_ROWS, tiles = (end - begin + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS;
    const size_t stride = buffers->neuron_chunk;
    float *gate = buffers->member + member * buffers->member_floats;
    float *up = gate + buffers->gate_floats;
    cluster_rows(walk, job, cluster, &layer->gate, tile, tiles, set, source, rows, gate, stride);
    cluster_rows(walk, job, cluster, &layer->up, tile, tiles, set, source, rows, up, stride);
    if (pi2_forward_failed(forward)) return;
    for (uint32_t r = 0; r < rows; r++) {
        float *hidden = gate + r * stride;
        pi2_forward_activate(forward, hidden, up + r * stride, end - begin, NULL, NULL);
        pi2_activation_set_fill(&experts->hidden_set, first + r, begin, end - begin, hidden);
        if (forward->counter) {
            pi2_forward_tell_neurons(walk, member, job->expert, alone ? 0 : experts->row_token[first + r], begin, end,
                                     hidden, &experts->hidden_set, first + r, layer->down.tensor->format);
        }
        if (!experts->hidden) continue;
        float *copy = experts->hidden + (first + r) * experts->neuron_stride + begin;
        for (uint32_t i = 0; i < end - begin; i++) copy[i] = hidden[i];
    }
}

void pi2_forward_expert_cluster(pi2_forward_walk *walk, unsigned member, const pi2_expert_job *job,
                                uint32_t cluster_index) {
    const pi2_expert_cluster *cluster = &experts_of(walk)->clusters[cluster_index];
    const uint32_t step = walk->forward->buffers.neuron_chunk;
    for (uint32_t begin = cluster->neuron_begin; begin < cluster->neuron_end; begin += step) {
        const uint32_t end = cluster->neuron_end - begin < step ? cluster->neuron_end : begin + step;
        for (uint32_t row = 0; row < job->row_count; row += TOKEN_BLOCK) {
            const uint32_t left = job->row_count - row;
            neurons_of_rows(walk, member, job, cluster, begin, end, job->first_row + row,
                            left < TOKEN_BLOCK ? left : TOKEN_BLOCK);
        }
    }
}

void pi2_forward_expert_down(pi2_forward_walk *walk, const pi2_expert_job *job, uint32_t chunk) {
    const pi2_forward *forward = walk->forward;
    const pi2_extent_layout *layout = forward->model->layout;
    const pi2_expert_matrix *down = &experts_of(walk)->down;
    const pi2_group *group = pi2_expert_group(forward->model, walk->layer, job->expert);
    const pi2_weight_format *format = down->tensor->format;
    const uint64_t row_base = down->tensor->matrix_rows * job->expert;
    const uint32_t tiles = (uint32_t)((down->tensor->matrix_rows + PI2_TILE_ROWS - 1) / PI2_TILE_ROWS);
    const uint32_t begin = chunk * forward->plan.down_tiles;
    const uint32_t end = tiles - begin < forward->plan.down_tiles ? tiles : begin + forward->plan.down_tiles;
    float *out = forward->buffers.experts.y + job->first_row * forward->buffers.width_stride +
                 (size_t)begin * PI2_TILE_ROWS;
    for (uint32_t e = 0; e < group->extent_count; e++) {
        const pi2_extent *extent = &layout->extents[group->first_extent + e];
        const uint8_t *memory = extent_memory(walk, job, e);
        for (uint32_t p = 0; memory && p < extent->piece_count; p++) {
            const pi2_piece *piece = &layout->pieces[extent->first_piece + p];
            if (piece->tensor != down->number) continue;
            const uint32_t first = (uint32_t)((piece->row_begin - row_base) / PI2_TILE_ROWS);
            const uint32_t piece_end = first + pi2_piece_tiles(piece);
            const uint32_t from = first > begin ? first : begin, to = piece_end < end ? piece_end : end;
            if (from >= to) continue;
            down->kernel->run(out + (size_t)(from - begin) * PI2_TILE_ROWS, forward->buffers.width_stride,
                              memory + piece->offset + (from - first) * pi2_tile_bytes(format, piece->column_count),
                              to - from, piece->column_count, piece->column_begin,
                              &forward->buffers.experts.hidden_set.of[format->activation], job->first_row,
                              job->row_count, piece->column_begin == 0);
        }
    }
}
