/* forward_expert_unit.c: units of one expert's work: a cluster's neurons, and some of Down's rows. */
#include "pipeline/ffn_unit.h"

static const pi2_expert_cluster *cluster_at(const pi2_forward_walk *walk, uint32_t index) {
    return &walk->forward->model->layers[walk->layer].clusters[index];
}

/* Who opens an extent first takes its checksum, alone: so all of a cluster's are opened here, Down's too. */
static bool open_extents(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, uint32_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t extent = unit->source.first_extent + first + i;
        if (!pi2_forward_extent(walk->forward, &unit->source, extent)) return false;
    }
    return true;
}

static bool open_cluster(const pi2_forward_walk *walk, const pi2_ffn_unit *unit, const pi2_expert_cluster *cluster) {
    return open_extents(walk, unit, cluster->first_gate, cluster->gate_count) &&
           open_extents(walk, unit, cluster->first_extent, cluster->extent_count);
}

/* A cache of Gates alone has no other extents; one of whole experts keeps an expert until all of it has arrived. */
void pi2_forward_expert_gate(pi2_forward_walk *walk, unsigned member, uint32_t job, uint32_t cluster_index) {
    const pi2_expert_cluster *cluster = cluster_at(walk, cluster_index);
    const pi2_ffn_unit unit = pi2_ffn_of_expert(walk, &walk->forward->buffers.experts.jobs[job]);
    const uint32_t step = walk->forward->buffers.neuron_chunk;
    const bool is_open = unit.source.experts == walk->forward->options.experts
                             ? open_cluster(walk, &unit, cluster)
                             : open_extents(walk, &unit, cluster->first_gate, cluster->gate_count);
    if (!is_open) return;
    for (uint32_t begin = cluster->neuron_begin; begin < cluster->neuron_end; begin += step) {
        const uint32_t end = cluster->neuron_end - begin < step ? cluster->neuron_end : begin + step;
        pi2_forward_fire(walk, member, job, begin, end);
    }
}

void pi2_forward_expert_cluster(pi2_forward_walk *walk, unsigned member, const pi2_expert_job *job,
                                uint32_t cluster_index) {
    const pi2_expert_cluster *cluster = cluster_at(walk, cluster_index);
    const pi2_ffn_unit unit = pi2_ffn_of_expert(walk, job);
    const uint32_t step = walk->forward->buffers.neuron_chunk;
    if (!open_cluster(walk, &unit, cluster)) return;
    for (uint32_t begin = cluster->neuron_begin; begin < cluster->neuron_end; begin += step) {
        const uint32_t end = cluster->neuron_end - begin < step ? cluster->neuron_end : begin + step;
        for (uint32_t row = 0; row < job->row_count; row += PI2_FFN_ROWS) {
            const uint32_t left = job->row_count - row;
            pi2_ffn_neurons(walk, member, &unit, begin, end, job->first_row + row,
                            left < PI2_FFN_ROWS ? left : PI2_FFN_ROWS, true);
        }
    }
}

void pi2_forward_expert_down(pi2_forward_walk *walk, const pi2_expert_job *job, uint32_t chunk) {
    const pi2_forward *forward = walk->forward;
    const pi2_ffn_unit unit = pi2_ffn_of_expert(walk, job);
    const uint32_t tiles = unit.down->tile_count, begin = chunk * forward->plan.down_tiles;
    const uint32_t end = tiles - begin < forward->plan.down_tiles ? tiles : begin + forward->plan.down_tiles;
    pi2_ffn_down(walk, &unit, begin, end, 0, unit.down->tensor->columns, job->first_row, job->row_count,
                 forward->buffers.experts.y + job->first_row * forward->buffers.width_stride);
}
