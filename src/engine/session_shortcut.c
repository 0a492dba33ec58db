/*
 * session_shortcut.c: what a session's text would go on with, by a pass that takes the shortcut. It stores keys and
 * values where the next pass of the model will store its own, in the layers that it computes: the first ones' are the
 * same. What is before the text's end it reads as the model left it.
 */
#include <string.h>

#include "engine/session_internal.h"

/* Each span's last token is one that nothing follows. */
static void find_rows(const pi2_session *session, const pi2_batch_span *spans, uint32_t span_count,
                      uint8_t *rows_out) {
    uint32_t end = 0;
    for (uint32_t s = 0; s < span_count; s++) {
        end += spans[s].token_count;
        if (end > 1) rows_out[session->ahead_order[end - 2]] = (uint8_t)(s + 1);
    }
}

static pi2_status run(pi2_session *session, int32_t token, uint8_t *rows_out) {
    int32_t tokens[PI2_SHORTCUT_TOKENS];
    pi2_batch_span spans[PI2_BRANCHES_MOST + 1];
    spans[0] = pi2_session_guess_span(session, token, tokens);
    const uint32_t token_count = spans[0].token_count, span_count = pi2_session_tree_spans(session, spans);
    for (uint32_t s = 0; s < span_count; s++) spans[s].logits = PI2_FORWARD_LAST_LOGITS;
    session->engine->sessions.branching = span_count > 1 ? session : NULL;
    const pi2_session_pass pass = {
        .batch = { .tokens = tokens, .spans = spans, .token_count = token_count, .span_count = span_count,
                   .is_short = true } };
    PI2_TRY(pi2_session_run_pass(session, &pass));
    find_rows(session, spans, span_count, rows_out);
    return PI2_OK;
}

pi2_status pi2_session_run_short(pi2_session *session, int32_t token, const pi2_session_branches *branches,
                                 uint8_t *rows_out) {
    memset(rows_out, 0, branches->count);
    session->guesses = branches->count;
    pi2_session_order_guess(session, branches->tokens, branches->parents);
    const pi2_status status = run(session, token, rows_out);
    pi2_engine_end_branches(session->engine, NULL);
    pi2_kv_pages_trim(pi2_forward_pages(session->engine->forward), session->sequence, session->position);
    session->guesses = session->ahead_count = 0;
    return status;
}
