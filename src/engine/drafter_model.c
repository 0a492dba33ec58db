/* drafter_model.c: a smaller model with the same vocabulary reads the text and says what it would pick next. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/session_internal.h"
#include "kernels/vector/vector.h"

enum { BINS = 10 };

static const double hit_memory = 1.0 / 32;
#define NEGLIGIBLE (-40.0f) /* so far below the best one a token's chance is nothing */

typedef struct model_state {
    pi2_session *session;           /* of the draft model */
    const pi2_planned_run *run;     /* for which it guesses */
    uint32_t length;                /* of the text that the last proposal followed */
    uint32_t guessed_count;
    int32_t guessed[PI2_DRAFT_MOST]; /* and what it proposed: all but the last one are in its timeline */
    float sure[PI2_DRAFT_MOST];     /* what the draft model gave these */
    double right[BINS];             /* how often tokens that it is so sure of were right */
} model_state;

static size_t model_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)context_tokens;
    return run && run->draft ? sizeof(model_state) : 0;
}

static pi2_status begin_model(struct pi2_session *session, void **state_out) {
    model_state *state = calloc(1, sizeof *state);
    *state_out = NULL;
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    const pi2_status status = pi2_session_create(session->engine->draft, &sampling, &state->session);
    if (status != PI2_OK) {
        free(state);
        return status;
    }
    state->run = &session->engine->run;
    /* It is as often right as it is sure, until more is known. */
    for (int i = 0; i < BINS; i++) state->right[i] = (i + 0.5) / BINS;
    *state_out = state;
    return PI2_OK;
}

static void end_model(void *user) {
    model_state *state = user;
    pi2_session_free(state->session);
    free(state);
}

static int bin_of(float sure) {
    const int bin = (int)(sure * BINS);
    return bin < 0 ? 0 : bin < BINS ? bin : BINS - 1;
}

/* The likeliest token, and how sure the model is of it. False: its logits are no numbers. */
static bool pick(const float *logits, uint32_t count, int32_t *token_out, float *sure_out) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float below = logits[i] - logits[best];
        if (!(below < NEGLIGIBLE)) sum += (double)pi2_expf(below);
    }
    *token_out = (int32_t)best;
    *sure_out = (float)(1 / sum);
    return isfinite(sum);
}

/* Brings the draft model's timeline to the text, and leaves logits behind its last token. */
static pi2_status catch_up(model_state *state, const pi2_draft_text *text) {
    uint32_t common = text->unchanged;
    const uint32_t position = pi2_session_position(state->session);
    for (uint32_t i = 0; common == state->length + i && common < position && common < text->length; i++) {
        if (i == state->guessed_count || state->guessed[i] != text->tokens[common]) break;
        common++; /* a guess that came true is in its timeline */
    }
    state->guessed_count = 0;
    if (common > position) common = position;
    if (common >= text->length) common = text->length - 1;
    PI2_TRY(pi2_session_truncate(state->session, common));
    return pi2_session_append(state->session, text->tokens + common, text->length - common, PI2_LOGITS_LAST);
}

static pi2_status propose_model(void *user, const pi2_draft_text *text, const pi2_draft_wish *wish,
                                pi2_draft *draft_out) {
    model_state *state = user;
    const uint32_t ours = state->run->report.vocabulary_size;
    const uint32_t theirs = state->session->engine->run.report.vocabulary_size;
    const double least_sure = state->run->options.draft_least_chance;
    double reach = 1;
    draft_out->count = 0;
    PI2_TRY(catch_up(state, text));
    state->length = text->length;
    for (uint32_t i = 0; i < wish->most; i++) {
        int32_t token = 0;
        float sure = 0;
        if (!pick(pi2_session_logits(state->session, 0), theirs, &token, &sure) || (uint32_t)token >= ours) break;
        const double chance = state->right[bin_of(sure)];
        reach *= chance;
        if (reach < wish->least_reach || (double)sure < least_sure) break;
        state->guessed[i] = draft_out->tokens[i] = token;
        state->guessed_count = i + 1;
        state->sure[i] = sure;
        draft_out->chances[i] = (float)chance;
        draft_out->count = i + 1;
        if (i + 1 < wish->most) PI2_TRY(pi2_session_append(state->session, &token, 1, PI2_LOGITS_LAST));
    }
    if (draft_out->count < state->run->options.draft_least_tokens) draft_out->count = 0;
    return PI2_OK;
}

static void judge_model(void *user, uint32_t checked, uint32_t right) {
    model_state *state = user;
    for (uint32_t i = 0; i < checked && i <= right && i < PI2_DRAFT_MOST; i++) {
        double *record = &state->right[bin_of(state->sure[i])];
        *record += hit_memory * ((i < right) - *record);
    }
}

static void follow_model(void *user, const void *from) {
    model_state *state = user;
    const model_state *other = from;
    memcpy(state->right, other->right, sizeof state->right);
}

const pi2_drafter_kind pi2_drafter_model = {
    .name = "model", .costs = true, .bytes = model_bytes, .begin = begin_model, .end = end_model,
    .propose = propose_model, .judge = judge_model, .follow = follow_model,
};
