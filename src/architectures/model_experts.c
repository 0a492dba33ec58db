/*
 * model_experts.c: a layer's experts. The pipeline relies on this: clusters ascend, and where Gates lie
 * apart do so once in those and once in the rest; an extent holds pieces of one cluster; Gate's and
 * Up's rows ascend and are whole; Down's pieces are the clusters' columns, rows ascending; all experts
 * of a layer are alike.
 */
#include <stdlib.h>
#include <string.h>

#include "architectures/model.h"
#include "base/fail.h"

static pi2_status wrong_layout(const pi2_model *model, uint32_t group) {
    return pi2_fail(PI2_ERR_FORMAT, "the extents of group %u (layer %u, expert %u) do not lie as an expert's do; "
                    "prepare the model again", group, model->layout->groups[group].layer,
                    model->layout->groups[group].expert);
}

/* UINT32_MAX: the layer has no such matrix. */
static uint32_t number_of(const pi2_model *model, const pi2_operand *matrix) {
    return matrix->tensor ? (uint32_t)(matrix->tensor - model->layout->tensors) : UINT32_MAX;
}

/* How far the walk through an expert has come in each matrix. */
typedef struct expert_walk {
    uint32_t gate_row, up_row;       /* next row */
    uint32_t down_column, down_row;  /* where Down's next piece must begin */
    uint32_t cluster;                /* of the extents seen last */
} expert_walk;

/* The piece continues its matrix; tells the cluster that it belongs to. */
static bool take_piece(const pi2_model *model, const pi2_layer_weights *layer, const pi2_piece *piece,
                       uint32_t cluster_neurons, expert_walk *walk, uint32_t *cluster_out) {
    const uint32_t neurons = model->shape.expert_feed_forward_length, width = model->shape.embedding_length;
    if (piece->tensor == number_of(model, &layer->down)) {
        if (piece->column_begin != walk->down_column || piece->row_begin != walk->down_row) return false;
        *cluster_out = piece->column_begin / cluster_neurons;
        const uint32_t begin = *cluster_out * cluster_neurons;
        const uint32_t left = neurons - begin;
        if (piece->column_begin != begin || piece->row_count > width - walk->down_row) return false;
        if (piece->column_count != (left < cluster_neurons ? left : cluster_neurons)) return false;
        walk->down_row += piece->row_count;
        if (walk->down_row == width) {
            walk->down_row = 0;
            walk->down_column += piece->column_count;
        }
        return true;
    }
    uint32_t *row = piece->tensor == number_of(model, &layer->gate) ? &walk->gate_row
                  : piece->tensor == number_of(model, &layer->up) ? &walk->up_row : NULL;
    if (!row || piece->row_begin != *row || piece->column_begin != 0 || piece->column_count != width) return false;
    *cluster_out = *row / cluster_neurons;
    const uint32_t end = (*cluster_out + 1) * cluster_neurons;
    if (piece->row_count > (end < neurons ? end : neurons) - *row) return false;
    *row += piece->row_count;
    return true;
}

/* Walks extent e of expert 0. False: it does not lie as one does. */
static bool walk_extent(const pi2_model *model, pi2_layer_weights *layer, uint32_t e, expert_walk *walk) {
    const pi2_extent_layout *layout = model->layout;
    const pi2_group *group = &layout->groups[layer->ffn_group];
    const pi2_extent *extent = &layout->extents[group->first_extent + e];
    if (e == group->gate_extents) walk->cluster = 0; /* the clusters' Up and Down begin */
    for (uint32_t p = 0; p < extent->piece_count; p++) {
        uint32_t cluster = 0;
        if (!take_piece(model, layer, &layout->pieces[extent->first_piece + p], group->cluster_neurons, walk,
                        &cluster) ||
            cluster < walk->cluster || cluster > walk->cluster + 1 || (p > 0 && cluster != walk->cluster)) {
            return false;
        }
        walk->cluster = cluster;
    }
    pi2_expert_cluster *own = &layer->clusters[walk->cluster];
    if (e < group->gate_extents) {
        if (own->gate_count++ == 0) own->first_gate = e;
    } else if (own->extent_count++ == 0) {
        own->first_extent = e;
    }
    return true;
}

/* Walks expert 0 and notes its clusters. */
static pi2_status walk_first(pi2_model *model, pi2_layer_weights *layer) {
    const pi2_group *group = &model->layout->groups[layer->ffn_group];
    const uint32_t neurons = model->shape.expert_feed_forward_length;
    const uint32_t step = group->cluster_neurons, block = layer->down.tensor->format->block_columns;
    if (step == 0 || step > neurons || (step < neurons && (step % 32 != 0 || step % block != 0))) {
        return wrong_layout(model, layer->ffn_group);
    }
    const uint32_t cluster_count = (neurons + step - 1) / step;
    layer->clusters = calloc(cluster_count, sizeof *layer->clusters);
    if (!layer->clusters) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of clusters");
    layer->cluster_count = cluster_count;
    expert_walk walk = { 0 };
    for (uint32_t e = 0; e < group->extent_count; e++) {
        if (!walk_extent(model, layer, e, &walk)) return wrong_layout(model, layer->ffn_group);
    }
    for (uint32_t c = 0; c < cluster_count; c++) {
        pi2_expert_cluster *cluster = &layer->clusters[c];
        cluster->neuron_begin = c * step;
        cluster->neuron_end = neurons - c * step < step ? neurons : (c + 1) * step;
        if (cluster->extent_count == 0 || (group->gate_extents && cluster->gate_count == 0)) {
            return wrong_layout(model, layer->ffn_group);
        }
    }
    const uint32_t up_rows = layer->up.tensor ? neurons : 0;
    if (walk.gate_row != neurons || walk.up_row != up_rows || walk.down_column != neurons || walk.down_row != 0) {
        return wrong_layout(model, layer->ffn_group);
    }
    return PI2_OK;
}

static bool same_piece(const pi2_model *model, const pi2_piece *first, const pi2_piece *piece, uint32_t expert) {
    const pi2_layout_tensor *tensor = &model->layout->tensors[first->tensor];
    return piece->tensor == first->tensor && piece->column_begin == first->column_begin &&
           piece->column_count == first->column_count && piece->offset == first->offset &&
           piece->row_count == first->row_count &&
           piece->row_begin == first->row_begin + tensor->matrix_rows * expert;
}

static pi2_status check_alike(const pi2_model *model, const pi2_layer_weights *layer, uint32_t expert) {
    const pi2_extent_layout *layout = model->layout;
    const pi2_group *first = &layout->groups[layer->ffn_group];
    const pi2_group *group = &layout->groups[layer->ffn_group + expert];
    if (group->extent_count != first->extent_count || group->cluster_neurons != first->cluster_neurons) {
        return wrong_layout(model, layer->ffn_group + expert);
    }
    for (uint32_t e = 0; e < group->extent_count; e++) {
        const pi2_extent *a = &layout->extents[first->first_extent + e];
        const pi2_extent *b = &layout->extents[group->first_extent + e];
        bool same = a->piece_count == b->piece_count && a->bytes == b->bytes;
        for (uint32_t p = 0; same && p < a->piece_count; p++) {
            same = same_piece(model, &layout->pieces[a->first_piece + p], &layout->pieces[b->first_piece + p], expert);
        }
        if (!same) return wrong_layout(model, layer->ffn_group + expert);
    }
    return PI2_OK;
}

pi2_status pi2_model_experts_build(pi2_model *model, uint32_t first_group, const pi2_group_request *request) {
    pi2_layer_weights *layer = &model->layers[request->layer];
    const uint32_t neurons = model->shape.expert_feed_forward_length, width = model->shape.embedding_length;
    layer->ffn_group = first_group;
    const pi2_group *group = &model->layout->groups[first_group];
    for (uint32_t i = 0; i < request->tensor_count; i++) {
        PI2_TRY(pi2_model_operand_build(model, group, request, i, &layer->matrices[request->roles[i]]));
    }
    if (layer->gate.tensor->matrix_rows != neurons || (layer->up.tensor && layer->up.tensor->matrix_rows != neurons) ||
        layer->down.tensor->matrix_rows != width) {
        return pi2_fail(PI2_ERR_FORMAT, "tensor '%s' and its fellows are not stacked as experts of %u neurons",
                        layer->gate.tensor->name, neurons);
    }
    PI2_TRY(walk_first(model, layer));
    for (uint32_t e = 1; e < model->shape.expert_count; e++) PI2_TRY(check_alike(model, layer, e));
    return PI2_OK;
}
