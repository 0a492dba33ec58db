/*
 * drafter_mtp.c: the layer that a model has for guessing (multi-token prediction). Of each token it reads the
 * embedding, and what the model gave for the token before it: a pair. Pairs of a text make a timeline of their own,
 * whose keys and values the layer keeps; behind the last one its logits say what follows the token that was just
 * picked. Further guesses go on with what the layer gave itself.
 *
 * What the model gave is kept of the last tokens, and made pairs of when a guess is asked for, or when there are many.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/draft_chain.h"
#include "engine/run_draft.h"
#include "engine/session_internal.h"

enum { ROWS = 64 };
_Static_assert(2 * (PI2_DRAFT_MOST + 1) <= ROWS, "a pass of guesses, and of what it replays, fits");

typedef struct mtp_state {
    pi2_draft_chain chain;
    pi2_session *session;        /* of the layer; its timeline's token i is the later one of pair i */
    pi2_session *text;           /* whose text is guessed */
    uint32_t base;               /* of pair 0, the position of the earlier token in the text */
    uint32_t done;               /* pairs of the text that are in the timeline; guesses may follow them */
    uint32_t first, count;       /* of the rows: the first one's position in the text, and how many there are */
    int32_t tokens[ROWS + 1];    /* those of the rows, and the one behind them */
    uint32_t last_pass_tokens;   /* of the layer's last pass */
    size_t width;
    float *next;                 /* [width]: what the layer gave for the last token */
    float rows[];                /* [ROWS][width]: what the model gave */
} mtp_state;

static size_t width_of(const pi2_planned_run *run) { return run->source.model->shape.embedding_length; }

static size_t mtp_bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)context_tokens;
    if (!run || !run->draft || !run->draft->is_next) return 0;
    return sizeof(mtp_state) + (ROWS + 1) * width_of(run) * sizeof(float);
}

static const float *logits_of(void *user) {
    const mtp_state *state = user;
    return pi2_session_logits(state->session, 0);
}

/* Pairs with these later tokens. */
static pi2_status append_pairs(mtp_state *state, const int32_t *tokens, const float *given, uint32_t count,
                               bool wants_logits) {
    state->last_pass_tokens = count;
    return pi2_session_append_pairs(state->session, tokens, given, count, wants_logits);
}

static pi2_status append_guess(void *user, int32_t token) {
    mtp_state *state = user;
    pi2_forward_given(state->session->engine->forward, state->last_pass_tokens - 1, state->next);
    return append_pairs(state, &token, state->next, 1, true);
}

static pi2_status begin_mtp(struct pi2_session *session, void **state_out) {
    const pi2_planned_run *run = &session->engine->run;
    mtp_state *state = calloc(1, mtp_bytes(run, 0));
    *state_out = NULL;
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    const pi2_status status = pi2_session_create(session->engine->draft, &sampling, &state->session);
    if (status != PI2_OK) {
        free(state);
        return status;
    }
    state->text = session;
    state->width = width_of(run);
    state->next = state->rows + ROWS * state->width;
    state->chain = (pi2_draft_chain){
        .vocabulary = run->report.vocabulary_size, .known = run->report.vocabulary_size,
        .least_sure = run->options.draft_least_chance, .user = state, .logits = logits_of, .append = append_guess };
    pi2_draft_chain_begin(&state->chain);
    *state_out = state;
    return PI2_OK;
}

static void end_mtp(void *user) {
    mtp_state *state = user;
    pi2_session_free(state->session);
    free(state);
}

/* Makes pairs of rows, up to the one before the position `end`, whose token is tokens[end - first]. */
static pi2_status make_pairs(mtp_state *state, uint32_t end, bool wants_logits) {
    const uint32_t begin = state->base + state->done, row = begin - state->first;
    PI2_TRY(pi2_session_truncate(state->session, state->done));
    if (end <= begin) return PI2_OK;
    PI2_TRY(append_pairs(state, state->tokens + row + 1, state->rows + row * state->width, end - begin, wants_logits));
    state->done = end - state->base;
    return PI2_OK;
}

/* Pairs and rows that a pass from this position on makes anew are forgotten; all, where it does not follow them. */
static void go_to(mtp_state *state, uint32_t position, int32_t token) {
    const uint32_t known = state->first + state->count;
    if (position > known || position < state->base) {
        state->base = state->first = position;
        state->done = state->count = 0;
        return;
    }
    if (state->done > position - state->base) state->done = position - state->base;
    /* The pair before this position has the token that was picked then. */
    if (state->done && state->base + state->done == position && position > state->first &&
        state->session->timeline[state->done - 1] != token) state->done--;
    if (position < state->first) state->first = position;
    state->count = position - state->first;
}

/* Of all rows pairs are made, the last one with the token at `position`, which must be right: its row is gone then. */
static pi2_status empty_rows(mtp_state *state, uint32_t position, int32_t token) {
    state->tokens[state->count] = token;
    PI2_TRY(make_pairs(state, position, false));
    state->first = position;
    state->count = 0;
    state->tokens[0] = token;
    return PI2_OK;
}

static pi2_status saw_mtp(void *user, const pi2_draft_pass *pass) {
    mtp_state *state = user;
    const pi2_forward *forward = state->text->engine->forward;
    go_to(state, pass->position, pass->tokens[0]);
    /* A pass with guesses has room behind the token that was picked. */
    if (state->count + pass->count > ROWS) PI2_TRY(empty_rows(state, pass->position, pass->tokens[0]));
    for (uint32_t i = 0; i < pass->count; i++) {
        if (state->count == ROWS) PI2_TRY(empty_rows(state, pass->position + i, pass->tokens[i]));
        state->tokens[state->count] = pass->tokens[i];
        pi2_forward_given(forward, pass->first + i, state->rows + state->count++ * state->width);
    }
    return PI2_OK;
}

static pi2_status propose_mtp(void *user, const pi2_draft_text *text, const pi2_draft_wish *wish,
                              pi2_draft *draft_out) {
    mtp_state *state = user;
    const uint32_t last = text->length - 1; /* the position of the token that was just picked */
    draft_out->count = 0;
    if (last <= state->first || last > state->first + state->count) return PI2_OK;
    state->tokens[last - state->first] = text->tokens[last];
    if (state->base + state->done >= last) state->done = last - state->base - 1;
    PI2_TRY(make_pairs(state, last, true));
    PI2_TRY(pi2_draft_chain_guess(&state->chain, wish, draft_out));
    if (draft_out->count < state->text->engine->run.options.draft_least_tokens) draft_out->count = 0;
    return PI2_OK;
}

const pi2_drafter_kind pi2_drafter_mtp = {
    .name = "mtp", .costs = true, .bytes = mtp_bytes, .begin = begin_mtp, .end = end_mtp, .saw = saw_mtp,
    .propose = propose_mtp, .judge = pi2_draft_chain_judge, .follow = pi2_draft_chain_follow,
};
