/* look_ahead.c: trials that tell whether looking ahead pays. */
#include <math.h>

#include "base/median.h"
#include "pipeline/look_ahead.h"

/* What is being done is left only for something that takes less than so many hundredths of its time. */
enum { BETTER_BELOW_PERCENT = 98 };

static bool in_trial(const pi2_look_ahead *state) {
    return state->token >= PI2_LOOK_AHEAD_WARM_UP &&
           state->token < PI2_LOOK_AHEAD_WARM_UP + 2 * PI2_LOOK_AHEAD_TRIAL;
}

/* with, without, without, with, with, ... */
static bool tried_now(const pi2_look_ahead *state) {
    const uint32_t turn = (state->token - PI2_LOOK_AHEAD_WARM_UP) % 4;
    return turn == 0 || turn == 3;
}

bool pi2_look_ahead_wanted(const pi2_look_ahead *state, uint32_t token_count) {
    if (state->mode != PI2_LOOK_AHEAD_AUTO) return state->mode == PI2_LOOK_AHEAD_ON;
    if (state->is_idle) return false;
    return token_count == 1 && in_trial(state) ? tried_now(state) : !state->is_off;
}

void pi2_look_ahead_note_missing(pi2_look_ahead *state, bool any) { state->is_idle = !any; }

void pi2_look_ahead_note(pi2_look_ahead *state, uint32_t token_count, uint64_t pass_ns) {
    if (state->mode != PI2_LOOK_AHEAD_AUTO || token_count != 1 || state->is_idle) return;
    if (in_trial(state)) {
        const bool with = tried_now(state);
        state->times[with][state->counts[with]++] = pass_ns;
    }
    state->token++;
    if (state->token == PI2_LOOK_AHEAD_WARM_UP + 2 * PI2_LOOK_AHEAD_TRIAL) {
        const uint64_t without = pi2_median(state->times[0], PI2_LOOK_AHEAD_TRIAL);
        const uint64_t with = pi2_median(state->times[1], PI2_LOOK_AHEAD_TRIAL);
        const uint64_t now = state->is_off ? without : with, other = state->is_off ? with : without;
        if (other < now / 100 * BETTER_BELOW_PERCENT) state->is_off = !state->is_off;
    } else if (state->token == PI2_LOOK_AHEAD_WARM_UP + 2 * PI2_LOOK_AHEAD_TRIAL + PI2_LOOK_AHEAD_HOLD) {
        state->token = PI2_LOOK_AHEAD_WARM_UP;
        state->counts[0] = state->counts[1] = 0;
    }
}

static void vote(const pi2_look_ahead_votes *v, float *logits) {
    for (uint32_t n = 0; n < v->used_count; n++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < v->score_count; e++) {
            if (logits[e] > logits[best]) best = e;
        }
        logits[best] = -INFINITY;
        v->votes[best] += v->used_count - n;
    }
}

uint32_t pi2_look_ahead_name(const pi2_look_ahead_votes *v, uint32_t *experts) {
    uint32_t count = 0;
    for (uint32_t e = 0; e < v->score_count; e++) v->votes[e] = 0;
    for (uint32_t t = 0; t < v->token_count; t++) vote(v, v->logits + t * v->stride);
    for (uint32_t e = 0; e < v->score_count; e++) {
        if (v->votes[e] == 0) continue;
        uint32_t at = count++;
        for (; at > 0 && v->votes[experts[at - 1]] < v->votes[e]; at--) experts[at] = experts[at - 1];
        experts[at] = e;
    }
    return count;
}
