/* forward_shortcut.c: passes that leave out the layers in the middle (shortcut.h). */
#include <assert.h>

#include "base/fail.h"
#include "pipeline/forward_internal.h"

enum { ROW_CHUNK = 64 };

static const pi2_shortcut *shortcut_of(const pi2_forward_walk *walk) { return walk->forward->options.shortcut; }

/* A pass that takes the shortcut asks for nothing: it finds all that it computes with, or is none. */
static bool is_left_out(const pi2_shortcut *shortcut, const pi2_group *group) {
    if (pi2_group_kind_is_raw(group->kind) || group->kind == PI2_GROUP_EMBEDDING) return true;
    return group->layer != UINT32_MAX && group->layer >= shortcut->first && group->layer < shortcut->end;
}

bool pi2_forward_has_shortcut(const pi2_forward *forward) {
    const pi2_forward_options *options = &forward->options;
    const pi2_extent_layout *layout = forward->model->layout;
    if (!options->shortcut) return false;
    for (uint32_t g = 0; g < layout->group_count; g++) {
        const pi2_group *group = &layout->groups[g];
        if (is_left_out(options->shortcut, group)) continue;
        for (uint32_t e = group->first_extent; e < group->first_extent + group->extent_count; e++) {
            if (!pi2_weight_store_peek(options->weights, e)) return false;
        }
    }
    return true;
}

pi2_status pi2_forward_begin_short(pi2_forward *forward) {
    assert(forward->token_count <= forward->options.shape.batch_tokens);
    forward->by_neuron = forward->masks = forward->keeps = false;
    forward->buffers = forward->all;
    if (forward->token_count <= PI2_SHORTCUT_TOKENS && pi2_forward_has_shortcut(forward)) return PI2_OK;
    return pi2_fail(PI2_ERR_INVALID, "weights of layers outside the shortcut are not in memory now");
}

/* A token's x as the rows read it. Its normed row is made anew behind the shortcut. */
static void quantize_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_shortcut *shortcut = shortcut_of(walk);
    const pi2_forward_buffers *buffers = &walk->forward->buffers;
    const float *x = buffers->x + token * buffers->width_stride;
    float *scaled = buffers->normed + token * buffers->width_stride;
    for (uint32_t i = 0; i < shortcut->width; i++) scaled[i] = x[i] * shortcut->input_scales[i];
    shortcut->input_units[token] =
        pi2_predictor_quantize(scaled, shortcut->width, shortcut->inputs + (size_t)token * shortcut->width).scale;
}

static void rows_chunk(void *argument, unsigned member, uint32_t chunk) {
    (void)member;
    const pi2_forward_walk *walk = argument;
    const pi2_forward *forward = walk->forward;
    const pi2_shortcut *shortcut = shortcut_of(walk);
    const uint32_t begin = chunk * ROW_CHUNK, left = shortcut->width - begin;
    const uint32_t count = left < ROW_CHUNK ? left : ROW_CHUNK;
    for (uint32_t token = 0; token < forward->token_count; token++) {
        float *out = forward->buffers.out + token * forward->buffers.width_stride + begin;
        forward->cpu.small_rows->int8(out, shortcut->rows + (size_t)begin * shortcut->width, NULL, count,
                                      shortcut->inputs + (size_t)token * shortcut->width, shortcut->width);
        const float unit = shortcut->input_units[token];
        for (uint32_t i = 0; i < count; i++) {
            out[i] = out[i] * unit * shortcut->row_scales[begin + i] + shortcut->biases[begin + i];
        }
    }
}

static void end_token(pi2_forward_walk *walk, uint32_t token) {
    const pi2_forward *forward = walk->forward;
    const size_t at = token * forward->buffers.width_stride;
    forward->cpu.vector->add(forward->buffers.x + at, forward->buffers.out + at, shortcut_of(walk)->width);
    pi2_forward_enter_layer(walk, token);
}

void pi2_forward_take_shortcut(pi2_forward_walk *walk) {
    const pi2_shortcut *shortcut = shortcut_of(walk);
    walk->stage_name = "shortcut";
    pi2_forward_token_stage(walk, quantize_token);
    walk->layer = shortcut->end; /* whose first norm comes next */
    walk->block = 0;
    walk->stage_name = "shortcut";
    pi2_forward_stage(walk, (shortcut->width + ROW_CHUNK - 1) / ROW_CHUNK, rows_chunk, end_token);
}
