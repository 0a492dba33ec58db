/* forward_states.c: the states of recurrent blocks between passes. */
#include <string.h>

#include "architectures/block.h"
#include "pipeline/forward_internal.h"

typedef enum states_act { STATES_CLEAR, STATES_SAVE, STATES_RESTORE } states_act;

static void act_on_states(pi2_forward *forward, states_act act) {
    const pi2_model_shape *model = &forward->model->shape;
    uint8_t *cache = forward->options.cache, *saved = cache + forward->saved_at;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        for (uint32_t b = 0; b < model->layers[i].block_count; b++) {
            const pi2_block_needs needs = pi2_block_needs_of(model, i, b, &forward->options.shape);
            const size_t bytes = pi2_block_state_bytes(&needs);
            uint8_t *state = cache + forward->state_at[i];
            if (!needs.is_recurrent) continue;
            if (act == STATES_CLEAR) memset(state, 0, bytes);
            else if (act == STATES_SAVE) memcpy(saved, state, bytes);
            else memcpy(state, saved, bytes);
            saved += bytes;
        }
    }
}

void pi2_forward_clear_states(pi2_forward *forward) { act_on_states(forward, STATES_CLEAR); }
void pi2_forward_save_states(pi2_forward *forward) { act_on_states(forward, STATES_SAVE); }
void pi2_forward_restore_states(pi2_forward *forward) { act_on_states(forward, STATES_RESTORE); }
