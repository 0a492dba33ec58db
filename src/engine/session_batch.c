/*
 * session_batch.c: tokens of several sessions in common passes. A pass that streams costs its reads, whether it
 * computes one token or many; each token has its own sequence's states, so the logits are those of passes alone, to the
 * bit.
 */
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
    return pi2_kv_pages_check(all, session->sequence, session->position,
                              session->position + (uint32_t)part->token_count, pages);
}

static pi2_status check_parts(const batch_call *call) {
    uint32_t pages = 0;
    PI2_TRY(check_sessions(call));
    for (size_t i = 0; i < call->part_count; i++) {
        const pi2_status status = check_part(&call->parts[i], &pages);
        if (status == PI2_OK) continue;
        char text[512];
        (void)snprintf(text, sizeof text, "%s", pi2_error_text());
        return pi2_fail(status, "part %zu: %s", i, text);
    }
    return PI2_OK;
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
    return (pi2_session_pass){ .batch = batch, .first_logits = call->logits_rows };
}

/* Spans are those of the parts from the first open one on. */
static void note_pass(batch_call *call, const pi2_batch *batch) {
    const int32_t *tokens = batch->tokens;
    for (uint32_t s = 0; s < batch->span_count; tokens += batch->spans[s++].token_count) {
        pi2_session *session = call->parts[call->first_open].session;
        const pi2_batch_span *span = &batch->spans[s];
        pi2_session_note_tokens(session, tokens, span->token_count);
        session->batch_left -= span->token_count;
        if (session->batch_left) return; /* the last span */
        if (span->logits == PI2_FORWARD_LAST_LOGITS) session->logits_first = call->logits_rows++;
        if (call->parts[call->first_open++].token_count > 1) pi2_session_save_states(session);
    }
}

static pi2_status run_passes(batch_call *call) {
    pi2_session *teller = call->parts[0].session;
    const uint32_t layers = call->engine->run.source.model->shape.layer_count;
    while (call->first_open < call->part_count) {
        const pi2_session_pass pass = next_pass(call);
        teller->batch_tokens = pass.batch.token_count;
        PI2_TRY(pi2_session_run_pass(teller, &pass));
        note_pass(call, &pass.batch);
        teller->progress_done += (uint64_t)pass.batch.token_count * layers;
    }
    return PI2_OK;
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

static pi2_status append_together(batch_call *call) {
    pi2_session *teller = call->parts[0].session;
    const uint32_t position = teller->position;
    uint64_t tokens = 0;
    for (size_t i = 0; i < call->part_count; i++) {
        pi2_session *session = call->parts[i].session;
        pi2_session_drop_ahead(session, call->parts[i].tokens);
        session->logits_count = 0;
        session->logits_kept = session->predicts = false;
        session->first_logits = 0;
        session->progress_done = session->progress_total = 0; /* of an append before: states are made again untold */
        tokens += call->parts[i].token_count;
    }
    for (size_t i = 0; i < call->part_count; i++) PI2_TRY(pi2_session_make_states(call->parts[i].session));
    teller->progress_total = tokens * call->engine->run.source.model->shape.layer_count;
    const uint64_t begin_ns = pi2_clock_ns();
    const pi2_status status = run_passes(call);
    for (size_t i = 0; status != PI2_OK && i < call->part_count; i++) tokens -= call->parts[i].session->batch_left;
    pi2_session_note_append(teller, tokens > call->part_count || position == 0, position, (uint32_t)tokens, begin_ns);
    if (status != PI2_OK) return status;
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
