/* session_table.c: which session owns which of the engine's sequences, and whose turn it is to compute. */
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/session_internal.h"

pi2_status pi2_engine_start_sessions(pi2_engine *engine) {
    pi2_session_table *table = &engine->sessions;
    const pi2_forward_shape *shape = &engine->run.plan.memory.shape;
    table->sessions = calloc(shape->sequences, sizeof(pi2_session *));
    table->spans = calloc(shape->sequences, sizeof *table->spans);
    table->tokens = calloc(shape->batch_tokens, sizeof *table->tokens);
    table->candidates = malloc(pi2_sampler_candidate_bytes(engine->run.source.model->shape.vocabulary_size));
    table->has_turn = pthread_mutex_init(&table->turn, NULL) == 0;
    if (!table->sessions || !table->spans || !table->tokens || !table->candidates || !table->has_turn) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a list of %u sessions", shape->sequences);
    }
    table->count = shape->sequences;
    return PI2_OK;
}

void pi2_engine_end_sessions(pi2_engine *engine) {
    pi2_session_table *table = &engine->sessions;
    if (table->has_turn) (void)pthread_mutex_destroy(&table->turn);
    free(table->sessions);
    free(table->spans);
    free(table->tokens);
    free(table->candidates);
}

void pi2_engine_take_turn(pi2_engine *engine) { (void)pthread_mutex_lock(&engine->sessions.turn); }
void pi2_engine_end_turn(pi2_engine *engine) { (void)pthread_mutex_unlock(&engine->sessions.turn); }

pi2_status pi2_engine_admit(pi2_engine *engine, pi2_session *session) {
    pi2_session_table *table = &engine->sessions;
    for (uint32_t i = 0; i < table->count; i++) {
        if (table->sessions[i]) continue;
        table->sessions[i] = session;
        table->used++;
        session->sequence = i;
        return PI2_OK;
    }
    return pi2_fail(PI2_ERR_INVALID, "this engine has room for %u session%s, which %s in use: free one first, or open "
                    "the engine for more sequences", table->count, table->count == 1 ? "" : "s",
                    table->count == 1 ? "is" : "are all");
}

void pi2_engine_dismiss(pi2_session *session) {
    pi2_session_table *table = &session->engine->sessions;
    if (table->branching == session) pi2_engine_end_branches(session->engine, NULL);
    pi2_kv_pages_trim(pi2_forward_pages(session->engine->forward), session->sequence, 0);
    table->sessions[session->sequence] = NULL;
    table->used--;
}

/* Guesses that are left have logits in the pass's rows, too: they are dropped, and computed again. */
static void keep(pi2_session *session) {
    const pi2_engine *engine = session->engine;
    memcpy(pi2_forward_kept_logits(engine->forward, session->sequence),
           pi2_session_logits_at(session, session->logits_count - 1),
           engine->run.source.model->shape.vocabulary_size * sizeof(float));
    session->logits_count = 1;
    session->logits_kept = true;
    pi2_session_drop_ahead(session, NULL);
}

void pi2_engine_keep_logits(pi2_engine *engine) {
    const pi2_session_table *table = &engine->sessions;
    if (table->used < 2) return;
    for (uint32_t i = 0; i < table->count; i++) {
        pi2_session *session = table->sessions[i];
        if (session && session->logits_count && !session->logits_kept) keep(session);
    }
}
