/*
 * session_batch.c: tokens of several sessions in common passes. A pass that streams costs its reads, whether it
 * computes one token or many; each token has its own sequence's states, so the logits are those of passes alone, to the
 * bit.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "engine/session_internal.h"

/* A call under way. */
typedef struct batch_call {
    pi2_engine *engine;
    const pi2_session_tokens *parts;
    size_t part_count;
    size_t first_open;       /* parts before it are done */
    uint32_t logits_rows;    /* that earlier passes left */
    uint32_t open;           /* parts whose tokens are still to compute when passes begin */
    bool may_guess;          /* these are single tokens, which one pass takes with what is guessed behind them */
} batch_call;

/* ---- what is refused ---- */

/* Each session is named at most once. In the sessions' batch_left a mark is left for the call. */
static pi2_status check_sessions(const batch_call *call) {
    for (size_t i = 0; i < call->part_count; i++) {
        const pi2_session_tokens *part = &call->parts[i];
        if (!part->session || part->session->engine != call->engine) {
            return pi2_fail(PI2_ERR_INVALID, "part %zu is of no session of this engine", i);
        }
        if (part->token_count == 0) return pi2_fail(PI2_ERR_INVALID, "part %zu has no tokens", i);
        part->session->batch_left = 0;
    }
    for (size_t i = 0; i < call->part_count; i++) {
        pi2_session *session = call->parts[i].session;
        if (session->batch_left) return pi2_fail(PI2_ERR_INVALID, "part %zu is of a session that has another part", i);
        session->batch_left = call->parts[i].token_count;
    }
    return PI2_OK;
}

static pi2_logits_wanted wanted_of(const pi2_session_tokens *part) {
    return part->wants_logits ? PI2_LOGITS_LAST : PI2_LOGITS_NONE;
}

/* pages: what the parts before take of the key-value cache; this one's are added. */
static pi2_status check_part(const pi2_session_tokens *part, uint32_t *pages) {
    const pi2_session *session = part->session;
    const pi2_kv_pages *all = pi2_forward_pages(session->engine->forward);
    PI2_TRY(pi2_session_check_tokens(session, part->tokens, part->token_count, wanted_of(part)));
    return pi2_kv_pages_check(all, session->sequence, pi2_session_writes_from(session),
                              session->position + (uint32_t)part->token_count, pages);
}

/* Whose guesses have branches keeps a chain of them. */
static void end_branches(const batch_call *call) {
    const pi2_session *branching = call->engine->sessions.branching;
    for (size_t i = 0; branching && i < call->part_count; i++) {
        if (call->parts[i].session == branching) pi2_engine_end_branches(call->engine, call->parts[i].tokens);
    }
    pi2_engine_end_branches(call->engine, NULL);
}

/* Of a session alone. */
static bool takes_guess(const batch_call *call) {
    const pi2_session_tokens *part = &call->parts[0];
    return call->part_count == 1 &&
           pi2_session_takes_guess(part->session, part->tokens, part->token_count, wanted_of(part));
}

static pi2_status check_parts(const batch_call *call) {
    uint32_t pages = 0;
    PI2_TRY(check_sessions(call));
    if (takes_guess(call)) return PI2_OK; /* what was guessed is a token of the vocabulary, in the context */
    end_branches(call);
    for (size_t i = 0; i < call->part_count; i++) {
        const pi2_status status = check_part(&call->parts[i], &pages);
        if (status == PI2_OK) continue;
        char text[512];
        (void)snprintf(text, sizeof text, "%s", pi2_error_text());
        return pi2_fail(status, "part %zu: %s", i, text);
    }
    return PI2_OK;
}

/* ---- guesses ---- */

static bool may_guess(const pi2_session_tokens *part) {
    return pi2_session_may_guess(part->session, part->token_count, wanted_of(part));
}

/* Tokens that were guessed have their logits. They are put by when the pass begins, with those of other sessions. */
static void take_guessed(batch_call *call) {
    for (size_t i = 0; i < call->part_count; i++) {
        const pi2_session_tokens *part = &call->parts[i];
        pi2_session *session = part->session;
        session->is_guessing = false;
        session->replays = session->guesses = 0;
        if (may_guess(part) && pi2_session_take_ahead(session, part->tokens[0])) {
            session->batch_left = 0;
            continue;
        }
        call->open++;
        pi2_session_drop_ahead(session, part->tokens);
        session->logits_count = 0;
        session->logits_kept = false;
    }
    const pi2_forward_shape *shape = &call->engine->run.plan.memory.shape;
    call->may_guess = call->engine->run.plan.memory.draft_tokens && call->open <= shape->batch_tokens;
    for (size_t i = 0; i < call->part_count; i++) call->may_guess = call->may_guess && call->parts[i].token_count == 1;
}

/* States before the tokens; where a pass has room, tokens that make them are computed in it. Returns in *left_out how
 * many tokens the pass has room for behind that. */
static pi2_status begin_parts(const batch_call *call, uint32_t *left_out) {
    const pi2_forward_shape *shape = &call->engine->run.plan.memory.shape;
    const bool by_neuron = shape->neuron_tokens >= call->open; /* guesses do not make it a pass of all neurons */
    const bool is_less = by_neuron && shape->neuron_tokens < shape->batch_tokens;
    *left_out = (is_less ? shape->neuron_tokens : shape->batch_tokens) - (call->may_guess ? call->open : 0);
    for (size_t i = 0; i < call->part_count; i++) {
        const pi2_session_tokens *part = &call->parts[i];
        if (part->session->batch_left == 0) continue;
        if (!call->may_guess || !may_guess(part)) {
            PI2_TRY(pi2_session_make_states(part->session));
            continue;
        }
        PI2_TRY(pi2_session_begin_guess(part->session, part->tokens[0], *left_out));
        *left_out -= part->session->replays;
    }
    return PI2_OK;
}

/* Each session may guess its share of what room is left, of the logits too. */
static pi2_status guess_parts(const batch_call *call, uint32_t left) {
    uint32_t rows = call->engine->run.plan.memory.shape.logits_tokens, guessers = 0;
    for (size_t i = 0; i < call->part_count; i++) {
        rows -= call->parts[i].session->batch_left && call->parts[i].wants_logits;
        guessers += call->parts[i].session->is_guessing;
    }
    pi2_draft_times_begin(&call->engine->sessions.draft_times, call->open);
    for (size_t i = 0; i < call->part_count; i++) {
        pi2_session *session = call->parts[i].session;
        if (!session->is_guessing) continue;
        const uint32_t room = ((left < rows ? left : rows) + guessers - 1) / guessers;
        PI2_TRY(pi2_session_guess(session, room, true));
        rows -= session->guesses;
        left -= session->guesses;
        guessers--;
    }
    return PI2_OK;
}

/* What comes of a pass of guesses is noted. */
static void learn(const batch_call *call, uint64_t nanoseconds) {
    uint32_t more = 0;
    for (size_t i = 0; i < call->part_count; i++) {
        const pi2_session *session = call->parts[i].session;
        more += session->is_guessing ? session->replays + session->guesses : 0;
    }
    pi2_draft_times_learn(&call->engine->sessions.draft_times, more, nanoseconds);
    for (size_t i = 0; i < call->part_count; i++) {
        const pi2_session *session = call->parts[i].session;
        if (session->is_guessing) pi2_drafting_note_part(session->drafting, session->guesses);
    }
}

/* ---- passes ---- */

/* Fills the table's spans and tokens with what the next pass computes. */
static pi2_session_pass next_pass(const batch_call *call) {
    const pi2_session_table *table = &call->engine->sessions;
    const uint32_t most = call->engine->run.plan.memory.shape.batch_tokens;
    pi2_batch batch = { .tokens = table->tokens, .spans = table->spans };
    for (size_t i = call->first_open; i < call->part_count && batch.token_count < most; i++) {
        const pi2_session_tokens *part = &call->parts[i];
        const pi2_session *session = part->session;
        if (session->batch_left == 0) continue;
        if (session->is_guessing) {
            pi2_batch_span *span = &table->spans[batch.span_count++];
            *span = pi2_session_guess_span(session, part->tokens[0], table->tokens + batch.token_count);
            batch.token_count += span->token_count;
            continue;
        }
        const uint32_t room = most - batch.token_count;
        const uint32_t wanted = session->batch_left < room ? (uint32_t)session->batch_left : room;
        const uint32_t count = pi2_session_until_page(session, wanted);
        const bool is_last = count == session->batch_left;
        table->spans[batch.span_count++] = (pi2_batch_span){
            .sequence = session->sequence, .position = session->position, .token_count = count,
            .logits = is_last && part->wants_logits ? PI2_FORWARD_LAST_LOGITS : PI2_FORWARD_NO_LOGITS };
        memcpy(table->tokens + batch.token_count, part->tokens + part->token_count - session->batch_left,
               count * sizeof *part->tokens);
        batch.token_count += count;
        if (!is_last) break; /* only the last span may be a part of one */
    }
    assert(batch.token_count <= most);
    return (pi2_session_pass){ .batch = batch, .first_logits = call->logits_rows };
}

/* A part of the pass, of which these are the tokens. False: more of it is left. */
static bool note_part(batch_call *call, const pi2_session_tokens *part, const pi2_batch_span *span,
                      const int32_t *tokens) {
    pi2_session *session = part->session;
    if (session->is_guessing) {
        const uint32_t rows = 1 + session->guesses;
        session->batch_left = 0;
        pi2_session_end_guess(session, part->tokens[0], call->logits_rows, PI2_OK);
        call->logits_rows += rows;
        return true;
    }
    pi2_session_note_tokens(session, tokens, span->token_count);
    session->batch_left -= span->token_count;
    if (session->batch_left) return false;
    if (span->logits == PI2_FORWARD_LAST_LOGITS) session->logits_first = call->logits_rows++;
    if (part->token_count > 1) pi2_session_save_states(session);
    return true;
}

/* Spans are those of the open parts. */
static void note_pass(batch_call *call, const pi2_batch *batch) {
    const int32_t *tokens = batch->tokens;
    for (uint32_t s = 0; s < batch->span_count; call->first_open++) {
        const pi2_session_tokens *part = &call->parts[call->first_open];
        if (part->session->batch_left == 0) continue;
        const pi2_batch_span *span = &batch->spans[s++];
        if (!note_part(call, part, span, tokens)) return; /* the last span */
        tokens += span->token_count;
    }
}

static pi2_status run_passes(batch_call *call) {
    pi2_session *teller = call->parts[0].session;
    const uint32_t layers = call->engine->run.source.model->shape.layer_count;
    for (;;) {
        while (call->first_open < call->part_count && !call->parts[call->first_open].session->batch_left) {
            call->first_open++;
        }
        if (call->first_open == call->part_count) return PI2_OK;
        const pi2_session_pass pass = next_pass(call);
        teller->batch_tokens = pass.batch.token_count;
        const uint64_t begin_ns = pi2_clock_ns();
        PI2_TRY(pi2_session_run_pass(teller, &pass));
        if (call->may_guess) learn(call, pi2_clock_ns() - begin_ns);
        note_pass(call, &pass.batch);
        teller->progress_done += (uint64_t)pass.batch.token_count * layers;
    }
}

/* Whatever came of a part before another one failed, all logits are gone then. */
static void forget_logits(const batch_call *call) {
    for (size_t i = 0; i < call->part_count; i++) {
        pi2_session_drop_ahead(call->parts[i].session, NULL);
        call->parts[i].session->logits_count = 0;
    }
}

/* What a predictor serves, and what not, are passes apart. */
static pi2_status append_apart(const batch_call *call) {
    pi2_status status = PI2_OK;
    for (size_t i = 0; i < call->part_count && status == PI2_OK; i++) {
        const pi2_session_tokens *part = &call->parts[i];
        status = pi2_session_append_checked(part->session, part->tokens, part->token_count, wanted_of(part));
    }
    if (status != PI2_OK) forget_logits(call);
    return status;
}

static pi2_status compute_together(batch_call *call) {
    uint32_t left = 0;
    PI2_TRY(begin_parts(call, &left));
    if (call->may_guess) PI2_TRY(guess_parts(call, left));
    return run_passes(call);
}

/* Of a call that failed, what its guesses had begun. */
static void end_guesses(const batch_call *call, pi2_status status) {
    for (size_t i = 0; i < call->part_count; i++) {
        pi2_session *session = call->parts[i].session;
        if (session->is_guessing) pi2_session_end_guess(session, call->parts[i].tokens[0], 0, status);
    }
}

static pi2_status append_together(batch_call *call) {
    pi2_session *teller = call->parts[0].session;
    const uint32_t position = teller->position;
    uint64_t tokens = 0;
    for (size_t i = 0; i < call->part_count; i++) {
        pi2_session *session = call->parts[i].session;
        session->predicts = false;
        session->first_logits = 0;
        session->progress_done = session->progress_total = 0; /* of an append before: states are made again untold */
        tokens += call->parts[i].token_count;
    }
    take_guessed(call);
    teller->progress_total = tokens * call->engine->run.source.model->shape.layer_count;
    const uint64_t begin_ns = pi2_clock_ns();
    const pi2_status status = compute_together(call);
    for (size_t i = 0; status != PI2_OK && i < call->part_count; i++) tokens -= call->parts[i].session->batch_left;
    pi2_session_note_append(teller, tokens > call->part_count || position == 0, position, (uint32_t)tokens, begin_ns);
    if (status != PI2_OK) {
        end_guesses(call, status);
        forget_logits(call);
        return status;
    }
    for (size_t i = 0; i < call->part_count; i++) call->parts[i].session->logits_count = call->parts[i].wants_logits;
    return PI2_OK;
}

pi2_status pi2_sessions_append(const pi2_session_tokens *parts, size_t part_count) {
    if (part_count == 0) return PI2_OK;
    if (!parts[0].session) return pi2_fail(PI2_ERR_INVALID, "part 0 is of no session");
    batch_call call = { .engine = parts[0].session->engine, .parts = parts, .part_count = part_count };
    pi2_engine_take_turn(call.engine);
    pi2_status status = check_parts(&call);
    if (status == PI2_OK) {
        const bool is_apart = part_count == 1 || call.engine->run.plan.approximates;
        status = is_apart ? append_apart(&call) : append_together(&call);
    }
    pi2_engine_end_turn(call.engine);
    return status;
}
