/*
 * session_tree.c: guesses that part. A pass over a tree is one over several sequences: the session's own has the first
 * chain of it, each further chain has a branch, which begins with the pages of the sequence that it parts from and a
 * copy of the one that it writes in. What comes before it in the pass is stored into its pages too, so that attention
 * reads every position in its place, as in a pass over the right tokens alone. Where the text goes on along a branch,
 * the session's sequence and the branch change places.
 */
#include <assert.h>
#include <string.h>

#include "engine/session_internal.h"

/* The number of the token, 1 and up, that follows where the text is; 0: none does, or it is no token at all. */
static uint32_t find_next(const pi2_session *session, int32_t token) {
    if (token == PI2_NO_TOKEN) return 0;
    for (uint32_t i = session->ahead_at; i < session->ahead_count; i++) {
        if (session->ahead_parents[i] == session->ahead_at && session->ahead[i] == token) return i + 1;
    }
    return 0;
}

bool pi2_session_is_ahead(const pi2_session *session, int32_t token) { return find_next(session, token) > 0; }

bool pi2_session_has_ahead(const pi2_session *session) {
    for (uint32_t i = session->ahead_at; i < session->ahead_count; i++) {
        if (session->ahead_parents[i] == session->ahead_at) return true;
    }
    return false;
}

/* Which chain a token is in: a token that does not follow the one before it begins another. */
static uint32_t chain_of(const pi2_session *session, uint32_t number) {
    uint32_t chain = 0;
    for (uint32_t i = 0; i < number; i++) chain += session->ahead_parents[i] != i;
    return chain;
}

/* Where the token begins a chain that has a branch, the session goes on in it. */
static void enter(pi2_session *session, uint32_t number) {
    const pi2_session_table *table = &session->engine->sessions;
    if (number - 1 == session->ahead_at || table->branching != session) return;
    pi2_kv_pages_swap(pi2_forward_pages(session->engine->forward), session->sequence,
                      table->count + chain_of(session, number) - 1);
}

void pi2_session_go_ahead(pi2_session *session, int32_t token) {
    const uint32_t number = find_next(session, token);
    enter(session, number);
    session->ahead_at = number;
}

/* ---- a guess becomes a pass ---- */

/* The session's own chain, and branches, of a guess that is cut to `count`; *taken_out: pages that they take. */
static uint32_t fill_spans(const pi2_session *session, uint32_t count, pi2_batch_span *spans, uint32_t *taken_out) {
    const uint32_t first_branch = session->engine->sessions.count;
    uint32_t span_of[PI2_DRAFT_NODES_MOST + 1] = { 0 }, positions[PI2_DRAFT_NODES_MOST + 1], span_count = 1;
    spans[0] = (pi2_batch_span){ .sequence = session->sequence, .position = session->position, .token_count = 1,
                                 .logits = PI2_FORWARD_ALL_LOGITS };
    positions[0] = session->position;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t parent = session->ahead_parents[i];
        positions[i + 1] = positions[parent] + 1;
        if (parent == i) spans[span_count - 1].token_count++;
        else {
            spans[span_count] = (pi2_batch_span){ .sequence = first_branch + span_count - 1,
                                                  .position = positions[i + 1], .token_count = 1,
                                                  .follows = span_of[parent] + 1, .logits = PI2_FORWARD_ALL_LOGITS };
            span_count++;
        }
        span_of[i + 1] = span_count - 1;
    }
    *taken_out = 0;
    for (uint32_t s = 1; s < span_count; s++) {
        *taken_out += pi2_kv_pages_branch_wants(spans[s].position, spans[s].position + spans[s].token_count);
    }
    return span_count;
}

/* What comes last in the order of a pass has nothing behind it that is left. */
static void cut_guess(pi2_session *session) {
    const pi2_kv_pages *pages = pi2_forward_pages(session->engine->forward);
    const uint32_t branches = session->engine->run.plan.memory.shape.branches;
    pi2_batch_span spans[PI2_BRANCHES_MOST + 1];
    for (; session->guesses; session->guesses--) {
        uint32_t taken;
        const uint32_t span_count = fill_spans(session, session->guesses, spans, &taken);
        if (span_count == 1) return;
        const uint32_t own = pi2_kv_pages_wanted(pages, session->sequence, session->position,
                                                 session->position + spans[0].token_count);
        if (span_count - 1 <= branches && own + taken <= pi2_kv_pages_unused(pages)) return;
    }
}

void pi2_session_order_guess(pi2_session *session, const int32_t *tokens, const uint8_t *parents) {
    uint32_t numbers[PI2_DRAFT_NODES_MOST + 1] = { 0 }, at = 0, count = 0; /* of the draft's tokens in the order */
    while (count < session->guesses) {
        uint32_t next = at;
        while (next < session->guesses && (numbers[next + 1] || parents[next] != at)) next++;
        if (next == session->guesses) {
            assert(at > 0 && parents[at - 1] < at);
            at = parents[at - 1];
            continue;
        }
        session->ahead[count] = tokens[next];
        session->ahead_parents[count] = (uint8_t)numbers[at];
        session->ahead_order[count++] = (uint8_t)next;
        numbers[next + 1] = count;
        at = next + 1;
    }
    cut_guess(session);
}

uint32_t pi2_session_tree_spans(const pi2_session *session, pi2_batch_span *spans_out) {
    uint32_t taken;
    if (chain_of(session, session->guesses) == 0) return 1; /* as it is */
    return fill_spans(session, session->guesses, spans_out, &taken);
}

/* ---- branches end ---- */

/* Of what is ahead the chain is left that the token `number` is in, from there on; 0: from where the text is. */
static void keep_chain(pi2_session *session, uint32_t number) {
    const uint32_t first = number ? number - 1 : session->ahead_at;
    uint32_t end = first + 1;
    while (end < session->ahead_count && session->ahead_parents[end] == end) end++;
    for (uint32_t i = session->ahead_at; i < session->ahead_count; i++) {
        const bool is_kept = i >= first && i < end && (number || session->ahead_parents[first] == first);
        if (!is_kept) session->ahead[i] = PI2_NO_TOKEN;
    }
}

void pi2_engine_end_branches(pi2_engine *engine, const int32_t *next) {
    pi2_session_table *table = &engine->sessions;
    pi2_session *session = table->branching;
    if (!session) return;
    const uint32_t number = next ? find_next(session, *next) : 0;
    if (number) enter(session, number);
    keep_chain(session, number);
    table->branching = NULL;
    for (uint32_t b = 0; b < engine->run.plan.memory.shape.branches; b++) {
        pi2_kv_pages_trim(pi2_forward_pages(engine->forward), table->count + b, 0);
    }
}

bool pi2_session_takes_guess(const pi2_session *session, const int32_t *tokens, size_t token_count,
                             pi2_logits_wanted wanted) {
    const pi2_session *branching = session->engine->sessions.branching;
    if (branching && branching != session) pi2_engine_end_branches(session->engine, NULL);
    if (pi2_session_may_guess(session, token_count, wanted) && pi2_session_is_ahead(session, *tokens)) return true;
    if (branching == session) pi2_engine_end_branches(session->engine, tokens);
    return false;
}
