/* draft_pairs.c: see draft_pairs.h. */
#include "engine/draft_pairs.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/draft_chain.h"
#include "engine/run_draft.h"
#include "engine/session_internal.h"

enum { ROWS = 64, PASS = PI2_DRAFT_NODES_MOST + 1 }; /* PASS: tokens of a pass with guesses */
_Static_assert(2 * (PI2_DRAFT_MOST + 1) <= PASS && 2 * PASS <= ROWS, "two passes fit, with what they replay");

typedef struct pairs_state {
    pi2_draft_chain chain;
    pi2_session *session;        /* of the layer; its timeline's token i is the later one of pair i */
    pi2_session *text;           /* whose text is guessed */
    uint32_t base;               /* of pair 0, the position of the earlier token in the text */
    uint32_t done;               /* pairs of the text that are in the timeline; guesses may follow them */
    uint32_t first, count;       /* of the rows: the first one's position in the text, and how many there are */
    int32_t tokens[ROWS + 1];    /* those of the rows, and the one behind them */
    uint32_t pass_row, pass_first; /* of the last pass: its first row, and that one's number in the pass */
    uint32_t branch_count;       /* rows behind all others: those of a guess's branches, until the text says which are
                                    right, */
    uint8_t follows[ROWS];       /* and which row each of that pass follows, and one */
    uint32_t guessed;            /* guesses that follow the pairs in the timeline */
    const pi2_model_shape *layer; /* whose passes have rows of ... */
    size_t length, own_length;   /* ... so many floats (pi2_model_given_length()); in them the embedding's row comes */
    size_t row_length;           /* first, of so many; 0: the layer has these itself */
    float *own;                  /* [PI2_DRAFT_MOST][own_length]: what the layer gave for the last pair, and for each
                                    guess that the next one follows */
    float rows[];                /* [ROWS][length]: what the model gave */
} pairs_state;

static size_t state_bytes(size_t length, size_t own_length) {
    return sizeof(pairs_state) + (ROWS * length + PI2_DRAFT_MOST * own_length) * sizeof(float);
}

size_t pi2_draft_pairs_bytes(const struct pi2_planned_run *run) {
    return state_bytes(run->draft->given_length, run->draft->own_length);
}

static const float *logits_of(void *user) {
    const pairs_state *state = user;
    return pi2_session_logits(state->session, 0);
}

/* Pairs with these later tokens: of each a row of the layer's pass, whose part is left out that is the token's. */
static pi2_status append_pairs(pairs_state *state, const int32_t *tokens, float *given, uint32_t count, bool is_own,
                               bool wants_logits) {
    if (state->row_length) {
        PI2_TRY(pi2_forward_look_up(state->text->engine->forward, tokens, count, given,
                                    is_own ? state->own_length : state->length));
    }
    return pi2_session_append_pairs(state->session, &(pi2_token_pairs){
        .tokens = tokens, .given = given, .count = count, .given_is_own = is_own, .wants_logits = wants_logits });
}

/* What the layer gave for the last token of its pass: what may follow `depth` guesses is told of it. */
static void keep_own(const pairs_state *state, uint32_t depth, uint32_t pass_tokens) {
    const pi2_forward *forward = state->session->engine->forward;
    float *own = state->own + depth * state->own_length + state->row_length;
    if (depth == PI2_DRAFT_MOST) return; /* none may */
    if (state->layer->feature_count) pi2_forward_made(forward, pass_tokens - 1, own);
    else pi2_forward_given(forward, pass_tokens - 1, own);
}

static pi2_status append_guess(void *user, uint32_t depth, int32_t token) {
    pairs_state *state = user;
    if (depth < state->guessed) PI2_TRY(pi2_session_truncate(state->session, state->done + depth));
    state->guessed = depth;
    PI2_TRY(append_pairs(state, &token, state->own + depth * state->own_length, 1, true, true));
    state->guessed = depth + 1;
    keep_own(state, depth + 1, 1);
    return PI2_OK;
}

/* What the model gave for a token of its last pass, into a row. */
static void keep_row(const pairs_state *state, uint32_t token, float *row) {
    const pi2_forward *forward = state->text->engine->forward;
    row += state->row_length;
    if (state->layer->feature_count) pi2_forward_features(forward, token, row);
    else pi2_forward_given(forward, token, row);
}

/* The row of the last pass that follows this one and has the token; 0: there is none. */
static uint32_t find_row(const pairs_state *state, uint32_t row, int32_t token) {
    for (uint32_t i = row + 1; i < state->count + state->branch_count; i++) {
        if (state->follows[i] == row + 1 && state->tokens[i] == token) return i;
    }
    return 0;
}

/* Of a guess that parted the rows are left that the text went on with, one behind the other. A row never moves back. */
static void leave_branches(pairs_state *state) {
    uint32_t row = state->pass_row, from = row;
    if (state->branch_count == 0) return;
    while (state->first + row + 1 < state->text->position) {
        from = find_row(state, from, state->text->timeline[state->first + row + 1]);
        if (from == 0) break;
        row++;
        if (from == row) continue;
        memcpy(state->rows + row * state->length, state->rows + from * state->length,
               state->length * sizeof *state->rows);
        state->tokens[row] = state->tokens[from];
    }
    state->count = row + 1;
    state->branch_count = 0;
}

pi2_status pi2_draft_pairs_begin(struct pi2_session *session, void **state_out) {
    const pi2_planned_run *run = &session->engine->run;
    const pi2_model *layer = session->engine->draft->run.source.model;
    const size_t length = pi2_model_given_length(&layer->shape, false);
    const size_t own_length = pi2_model_given_length(&layer->shape, true);
    pairs_state *state = calloc(1, state_bytes(length, own_length));
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
    state->layer = &layer->shape;
    state->length = length;
    state->own_length = own_length;
    state->row_length = layer->shape.borrows_rows ? layer->shape.embedding_length : 0;
    state->own = state->rows + ROWS * length;
    state->chain = (pi2_draft_chain){
        .vocabulary = layer->shape.vocabulary_size, .known = run->report.vocabulary_size, .ids = layer->token_ids,
        .least_sure = run->options.draft_least_chance, .user = state, .logits = logits_of, .append = append_guess };
    pi2_draft_chain_begin(&state->chain);
    *state_out = state;
    return PI2_OK;
}

void pi2_draft_pairs_end(void *user) {
    pairs_state *state = user;
    pi2_session_free(state->session);
    free(state);
}

/* Makes pairs of rows, up to the one before the position `end`, whose token is tokens[end - first]. */
static pi2_status make_pairs(pairs_state *state, uint32_t end, bool wants_logits) {
    const uint32_t begin = state->base + state->done, row = begin - state->first;
    PI2_TRY(pi2_session_truncate(state->session, state->done));
    state->guessed = 0;
    if (end <= begin) return PI2_OK;
    PI2_TRY(append_pairs(state, state->tokens + row + 1, state->rows + row * state->length, end - begin, false,
                         wants_logits));
    state->done = end - state->base;
    if (wants_logits) keep_own(state, 0, end - begin);
    return PI2_OK;
}

/* Pairs and rows that a pass from this position on makes anew are forgotten; all, where it does not follow them. */
static void go_to(pairs_state *state, uint32_t position, int32_t token) {
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
static pi2_status empty_rows(pairs_state *state, uint32_t position, int32_t token) {
    state->tokens[state->count] = token;
    PI2_TRY(make_pairs(state, position, false));
    state->first = position;
    state->count = 0;
    state->tokens[0] = token;
    return PI2_OK;
}

/* Behind all rows; there is room for a pass with guesses. */
static void see_branch(pairs_state *state, const pi2_draft_pass *pass) {
    for (uint32_t i = 0; i < pass->count; i++) {
        const uint32_t row = state->count + state->branch_count++;
        state->tokens[row] = pass->tokens[i];
        state->follows[row] = (uint8_t)(i ? row : state->pass_row + pass->follows - state->pass_first);
        keep_row(state, pass->first + i, state->rows + row * state->length);
    }
}

pi2_status pi2_draft_pairs_saw(void *user, const pi2_draft_pass *pass) {
    pairs_state *state = user;
    if (pass->follows) {
        see_branch(state, pass);
        return PI2_OK;
    }
    leave_branches(state);
    go_to(state, pass->position, pass->tokens[0]);
    /* A pass with guesses has room behind the token that was picked, whatever branches come behind these. */
    if (state->count + (pass->count > PASS ? pass->count : PASS) > ROWS) {
        PI2_TRY(empty_rows(state, pass->position, pass->tokens[0]));
    }
    state->pass_row = state->count;
    state->pass_first = pass->first;
    for (uint32_t i = 0; i < pass->count; i++) {
        if (state->count == ROWS) PI2_TRY(empty_rows(state, pass->position + i, pass->tokens[i]));
        state->tokens[state->count] = pass->tokens[i];
        state->follows[state->count] = (uint8_t)state->count;
        keep_row(state, pass->first + i, state->rows + state->count++ * state->length);
    }
    return PI2_OK;
}

pi2_status pi2_draft_pairs_propose(void *user, const pi2_draft_text *text, const pi2_draft_wish *wish,
                                   pi2_draft *draft_out) {
    pairs_state *state = user;
    const uint32_t last = text->length - 1; /* the position of the token that was just picked */
    draft_out->count = 0;
    leave_branches(state);
    if (last <= state->first || last > state->first + state->count) return PI2_OK;
    state->tokens[last - state->first] = text->tokens[last];
    if (state->base + state->done >= last) state->done = last - state->base - 1;
    PI2_TRY(make_pairs(state, last, true));
    PI2_TRY(pi2_draft_chain_guess(&state->chain, text->draws, wish, draft_out));
    pi2_draft_chain_keep(draft_out, wish, state->text->engine->run.options.draft_least_tokens);
    return PI2_OK;
}
