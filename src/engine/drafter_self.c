/*
 * drafter_self.c: the model itself, from what is in memory: its first layers, a map that stands for those in the middle
 * (pipeline/shortcut.h), its last layers and its head. Its tokens are computed in the session's own sequence, so it has
 * no keys and values of its own, and no text to catch up with.
 *
 * A pass takes as long for a few tokens as for one: so a guess is made level by level, each pass over the likeliest
 * places of the level before it, with what they follow.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/draft_chain.h"
#include "engine/run_draft.h"
#include "engine/session_internal.h"

enum { LEVEL_PLACES = 4 };
/* What is wanted of a place that takes a pass of its own is more than of a level's places together. */
static const double level_share = 0.4;

typedef struct self_state {
    pi2_draft_chain chain;
    pi2_session *session;        /* whose text is guessed */
    uint32_t least_tokens;
    pi2_draft_named own;         /* where nobody wants to know of a tree */
} self_state;

/** A guess that is being made. */
typedef struct self_walk {
    self_state *state;
    const pi2_draft_text *text;
    const pi2_draft_wish *wish;
    pi2_draft_named *named;
    pi2_draft *draft;
    uint32_t most;               /* places: as many as a pass has room for */
    uint32_t depth;              /* of the last level, behind the text */
    uint32_t level;              /* its first place */
    bool is_chain[PI2_DRAFT_PLACES]; /* of each place: all tokens up to it are the likeliest ones */
    double reach[PI2_DRAFT_PLACES];
} self_walk;

static size_t bytes(const struct pi2_planned_run *run, uint32_t context_tokens) {
    (void)context_tokens;
    return run && run->draft && run->draft->kind == PI2_DRAFT_SHORTCUT ? sizeof(self_state) : 0;
}

static pi2_status begin(struct pi2_session *session, void **state_out) {
    const pi2_planned_run *run = &session->engine->run;
    self_state *state = calloc(1, sizeof *state);
    *state_out = NULL;
    if (!state) return pi2_fail(PI2_ERR_MEMORY, "no memory for guessing ahead");
    state->session = session;
    state->least_tokens = run->options.draft_least_tokens;
    state->chain = (pi2_draft_chain){ .vocabulary = run->report.vocabulary_size, .known = run->report.vocabulary_size,
                                      .least_sure = run->options.draft_least_chance };
    pi2_draft_chain_begin(&state->chain);
    *state_out = state;
    return PI2_OK;
}

/* Names what may follow a place, by a row of the engine's logits. */
static void name(self_walk *walk, uint32_t number, uint32_t row) {
    pi2_draft_place *place = &walk->named->places[number];
    const float *logits = pi2_forward_logits_at(walk->state->session->engine->forward, row);
    pi2_draft_chain_name(&walk->state->chain, logits, walk->text->draws, walk->depth, place);
    if (!walk->is_chain[number] || place->count == 0) return;
    walk->state->chain.sure[walk->depth] = place->sure[0];
    walk->draft->tokens[walk->depth] = place->tokens[0];
    walk->draft->chances[walk->depth] = (float)pi2_draft_chain_chance(&walk->state->chain, place->sure[0]);
    walk->draft->count = walk->depth + 1;
}

/* Puts a place among those of the next level, where it belongs by its reach. */
static void add_place(self_walk *walk, uint32_t parent, uint32_t number, double reach) {
    pi2_draft_named *named = walk->named;
    const uint32_t first = walk->level;
    uint32_t at = named->count;
    const bool is_full = at == walk->most || at == first + LEVEL_PLACES;
    if (is_full && (at == first || walk->reach[at - 1] >= reach)) return;
    if (is_full) at--;
    else named->count++;
    for (; at > first && walk->reach[at - 1] < reach; at--) {
        named->places[at] = named->places[at - 1];
        walk->reach[at] = walk->reach[at - 1];
        walk->is_chain[at] = walk->is_chain[at - 1];
    }
    const pi2_draft_place *from = &named->places[parent];
    const int32_t token = from->tokens[number];
    named->places[at] = (pi2_draft_place){ .parent = (uint8_t)(parent + 1), .token = token };
    walk->reach[at] = reach;
    walk->is_chain[at] = walk->is_chain[parent] && number == 0;
}

/* The likeliest tokens behind the last level's places become the next one's; returns how often one of them is right. */
static double add_level(self_walk *walk) {
    const uint32_t before = walk->level, end = walk->named->count;
    double sum = 0;
    walk->level = end;
    for (uint32_t p = before; p < end; p++) {
        for (uint32_t i = 0; i < walk->named->places[p].count; i++) {
            const double chance = pi2_draft_chain_chance(&walk->state->chain, walk->named->places[p].sure[i]);
            const double reach = walk->reach[p] * chance;
            const bool goes_on = walk->is_chain[p] && i == 0, may_part = walk->wish->named != NULL;
            if (goes_on || (may_part && reach >= PI2_DRAFT_LEAST_BRANCH)) add_place(walk, p, i, reach);
        }
    }
    for (uint32_t p = walk->level; p < walk->named->count; p++) sum += walk->reach[p];
    return sum;
}

/* The level's places, and what they follow, as a tree. numbers: of each place its token's, and one; 0: it is not there.
 */
static void collect(const self_walk *walk, pi2_session_branches *branches, uint8_t numbers[PI2_DRAFT_PLACES]) {
    const pi2_draft_place *places = walk->named->places;
    memset(numbers, 0, PI2_DRAFT_PLACES);
    for (uint32_t p = walk->level; p < walk->named->count; p++) {
        for (uint32_t at = p; at > 0 && !numbers[at]; at = places[at].parent - 1u) numbers[at] = 1;
    }
    branches->count = 0;
    for (uint32_t p = 1; p < walk->named->count; p++) {
        if (!numbers[p]) continue;
        branches->tokens[branches->count] = places[p].token;
        branches->parents[branches->count] = places[p].parent == 1 ? 0 : numbers[places[p].parent - 1];
        numbers[p] = (uint8_t)++branches->count;
    }
}

/* Says what may follow the level's places. */
static pi2_status compute(self_walk *walk) {
    pi2_session_branches branches;
    uint8_t numbers[PI2_DRAFT_PLACES], rows[PI2_DRAFT_PLACES];
    const int32_t token = walk->text->tokens[walk->text->length - 1];
    collect(walk, &branches, numbers);
    PI2_TRY(pi2_session_run_short(walk->state->session, token, &branches, rows));
    for (uint32_t p = walk->level; p < walk->named->count; p++) {
        if (p == 0) name(walk, 0, 0);
        else if (rows[numbers[p] - 1]) name(walk, p, rows[numbers[p] - 1] - 1u);
    }
    return PI2_OK;
}

/* Whether weights are where a pass finds them, and the text is where the session's next token goes. */
static bool can_guess(const self_state *state, const pi2_draft_text *text) {
    const pi2_session *session = state->session;
    return session->position + 1 == text->length && session->replays == 0 &&
           pi2_forward_has_shortcut(session->engine->forward);
}

/* Level by level, as long as one is worth its pass. */
static pi2_status descend(self_walk *walk) {
    walk->named->places[0] = (pi2_draft_place){ .parent = 0 };
    walk->named->count = 1;
    for (;; walk->depth++) {
        PI2_TRY(compute(walk));
        walk->named->passes = walk->depth + 1;
        if (walk->depth + 1 >= walk->wish->most) return PI2_OK;
        const double sum = add_level(walk);
        if (sum >= level_share * walk->wish->least_reach && walk->level < walk->named->count) continue;
        walk->named->count = walk->level; /* what is not worth a pass is not there */
        return PI2_OK;
    }
}

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

static pi2_status propose(void *user, const pi2_draft_text *text, const pi2_draft_wish *wish, pi2_draft *draft_out) {
    self_state *state = user;
    self_walk walk = { .state = state, .text = text, .wish = wish, .draft = draft_out,
                       .named = wish->named ? wish->named : &state->own, .reach = { 1 }, .is_chain = { true } };
    /* A pass has the token itself and the places behind it. */
    walk.most = smaller(state->session->engine->run.plan.memory.shape.batch_tokens,
                        wish->named ? smaller(wish->named->most, PI2_DRAFT_PLACES) : PI2_DRAFT_PLACES);
    draft_out->count = 0;
    walk.named->count = 0;
    if (!can_guess(state, text)) return PI2_OK;
    const pi2_status status = descend(&walk);
    if (status == PI2_OK) {
        pi2_draft_chain_keep(draft_out, wish, state->least_tokens);
        return PI2_OK;
    }
    draft_out->count = walk.named->count = 0;
    /* Weights that have just left memory come again. */
    return status == PI2_ERR_INVALID && !pi2_forward_has_shortcut(state->session->engine->forward) ? PI2_OK : status;
}

const pi2_drafter_kind pi2_drafter_self = {
    .name = "self", .costs = true, .bytes = bytes, .begin = begin, .end = free, .propose = propose,
    .judge = pi2_draft_chain_judge, .follow = pi2_draft_chain_follow,
};
