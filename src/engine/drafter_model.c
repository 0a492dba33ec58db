/* drafter_model.c: a smaller model with the same vocabulary reads the text and says what it would pick next. */
#include <stdlib.h>

#include "base/fail.h"
#include "engine/draft_chain.h"
#include "engine/run_draft.h"
#include "engine/session_internal.h"

typedef struct model_state {
    pi2_draft_chain chain;
    pi2_session *session;           /* of the draft model */
    const pi2_planned_run *run;     /* for which it guesses */
    uint32_t length;                /* of the text that the last proposal followed */
    uint32_t guessed_count;
    int32_t guessed[PI2_DRAFT_MOST]; /* and what its timeline has behind that */
} model_state;

static size_t model_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)context_tokens;
    return run && run->draft && run->draft->kind == PI2_DRAFT_MODEL ? sizeof(model_state) : 0;
}

static const float *logits_of(void *user) { return pi2_session_logits(((model_state *)user)->session, 0); }

static pi2_status append_guess(void *user, uint32_t depth, int32_t token) {
    model_state *state = user;
    if (depth < state->guessed_count) PI2_TRY(pi2_session_truncate(state->session, state->length + depth));
    state->guessed[depth] = token;
    state->guessed_count = depth;
    PI2_TRY(pi2_session_append(state->session, &token, 1, PI2_LOGITS_LAST));
    state->guessed_count = depth + 1;
    return PI2_OK;
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
    state->chain = (pi2_draft_chain){
        .vocabulary = session->engine->draft->run.report.vocabulary_size,
        .known = session->engine->run.report.vocabulary_size,
        .least_sure = session->engine->run.options.draft_least_chance,
        .user = state, .logits = logits_of, .append = append_guess };
    pi2_draft_chain_begin(&state->chain);
    *state_out = state;
    return PI2_OK;
}

static void end_model(void *user) {
    model_state *state = user;
    pi2_session_free(state->session);
    free(state);
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
    draft_out->count = 0;
    PI2_TRY(catch_up(state, text));
    state->length = text->length;
    PI2_TRY(pi2_draft_chain_guess(&state->chain, text->draws, wish, draft_out));
    pi2_draft_chain_keep(draft_out, wish, state->run->options.draft_least_tokens);
    return PI2_OK;
}

const pi2_drafter_kind pi2_drafter_model = {
    .name = "model", .costs = true, .bytes = model_bytes, .begin = begin_model, .end = end_model,
    .propose = propose_model, .judge = pi2_draft_chain_judge, .follow = pi2_draft_chain_follow,
};
