/* session.c: one timeline over an engine. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "architectures/block.h"
#include "base/fail.h"
#include "engine/session_internal.h"

/* Lists the tokens that the model's answers never have, and behind them those that end an answer. */
static pi2_status list_forbidden(pi2_session *session) {
    const pi2_engine *engine = session->engine;
    const pi2_tokenizer *tokenizer = engine->run.source.tokenizer;
    const uint32_t vocabulary_size = engine->run.source.model->shape.vocabulary_size;
    size_t count = 0;
    for (uint32_t i = 0; i < vocabulary_size; i++) {
        count += pi2_tokenizer_is_suppressed(tokenizer, (int32_t)i);
        count += pi2_engine_ends_generation(engine, (int32_t)i);
    }
    if (count == 0) return PI2_OK;
    session->forbidden = malloc(count * sizeof *session->forbidden);
    if (!session->forbidden) return pi2_fail(PI2_ERR_MEMORY, "no memory for a session");
    for (uint32_t i = 0; i < vocabulary_size; i++) {
        if (!pi2_tokenizer_is_suppressed(tokenizer, (int32_t)i)) continue;
        session->forbidden[session->suppressed_count++] = (int32_t)i;
    }
    session->forbidden_count = session->suppressed_count;
    for (uint32_t i = 0; i < vocabulary_size; i++) {
        if (!pi2_engine_ends_generation(engine, (int32_t)i)) continue;
        session->forbidden[session->forbidden_count++] = (int32_t)i;
    }
    return PI2_OK;
}

/* The session remembers its tokens: what is saved names them, and states that cannot be taken back are made of them. */
static pi2_status begin_timeline(pi2_session *session) {
    const pi2_planned_run *run = &session->engine->run;
    session->state_position = session->saved_position = session->marked_position = PI2_NO_POSITION;
    session->is_recurrent = pi2_model_is_recurrent(&run->source.model->shape);
    session->saves = pi2_forward_saved_bytes(run->source.model, &run->plan.memory.shape) > 0;
    session->timeline = malloc(run->plan.memory.shape.context_tokens * sizeof *session->timeline);
    return session->timeline ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a session");
}

/* What a session has of its own, and its sequence. */
static pi2_status fill(pi2_session *session, pi2_engine *engine, const pi2_sampling *sampling) {
    const pi2_memory_plan *plan = &engine->run.plan.memory;
    session->engine = engine;
    session->cache = engine->prompt_cache;
    session->sampled = PI2_NO_TOKEN;
    pi2_detokenizer_reset(&session->detokenizer, false);
    PI2_TRY(pi2_sampler_create(sampling, engine->run.source.model->shape.vocabulary_size, plan->shape.context_tokens,
                               engine->sessions.candidates, &session->sampler));
    if (plan->draft_tokens) {
        const pi2_drafting_options drafts = {
            .kinds = pi2_drafter_kinds(), .run = &engine->run, .session = session,
            .always = engine->run.options.draft_always,
            .replays = pi2_model_is_recurrent(&engine->run.source.model->shape), .reads = !plan->everything_resident,
            .times = &engine->sessions.draft_times,
            .context_tokens = plan->shape.context_tokens,
            .most = plan->draft_tokens, .trees = plan->draft_nodes > 0, .nodes = plan->draft_nodes,
            .leaves = plan->shape.branches + 1 };
        PI2_TRY(pi2_drafting_create(&drafts, &session->drafting));
    }
    PI2_TRY(begin_timeline(session));
    session->forbids_ends = sampling->forbid_end_tokens;
    PI2_TRY(list_forbidden(session));
    if (sampling->grammar) PI2_TRY(pi2_grammar_state_create(sampling->grammar, &session->grammar_state));
    return pi2_engine_admit(engine, session);
}

static void release(pi2_session *session) {
    pi2_sampler_free(session->sampler);
    pi2_drafting_free(session->drafting);
    pi2_grammar_state_free(session->grammar_state);
    free(session->forbidden);
    free(session->timeline);
    free(session);
}

/* In a turn. */
static pi2_status make(pi2_engine *engine, const pi2_sampling *sampling, pi2_session **session_out) {
    const size_t text_bytes = 3 * (pi2_tokenizer_longest_piece(engine->run.source.tokenizer) + 4);
    pi2_session *session = calloc(1, sizeof *session + text_bytes);
    if (!session) return pi2_fail(PI2_ERR_MEMORY, "no memory for a session");
    session->text_bytes = text_bytes;
    const pi2_status status = fill(session, engine, sampling);
    if (status != PI2_OK) {
        release(session);
        return status;
    }
    *session_out = session;
    return PI2_OK;
}

pi2_status pi2_session_create(pi2_engine *engine, const pi2_sampling *sampling, pi2_session **session_out) {
    *session_out = NULL;
    pi2_sampling defaults;
    pi2_sampling_init(&defaults);
    pi2_engine_take_turn(engine);
    const pi2_status status = make(engine, sampling ? sampling : &defaults, session_out);
    pi2_engine_end_turn(engine);
    return status;
}

/* Keys and values in common, copies of the recurrent states, what they are of, and the logits that a token can be
 * picked from. In a turn. */
static void copy_timeline(pi2_session *fork, const pi2_session *session) {
    pi2_forward *forward = session->engine->forward;
    fork->cache = session->cache;
    fork->detokenizer = session->detokenizer;
    if (session->drafting) {
        pi2_drafting_follow(fork->drafting, session->drafting);
        pi2_drafting_truncate(fork->drafting, session->position);
    }
    if (session->position == 0) return; /* nothing is its own yet: weights may have that memory */
    pi2_kv_pages_share(pi2_forward_pages(forward), session->sequence, fork->sequence, session->position);
    pi2_forward_copy_own(forward, session->sequence, fork->sequence, session->position);
    fork->position = session->position;
    fork->state_position = session->state_position;
    fork->saved_position = session->saved_position;
    fork->marked_position = session->marked_position;
    fork->saved_at = session->saved_at;
    fork->saved_from = session->saved_from;
    fork->kept_from = session->kept_from;
    fork->pages_kept = session->pages_kept;
    fork->recalled_ns = session->recalled_ns;
    fork->is_loaded = session->is_loaded;
    memcpy(fork->timeline, session->timeline, session->position * sizeof *session->timeline);
    if (session->logits_count == 0) return;
    memcpy(pi2_forward_kept_logits(forward, fork->sequence), pi2_session_logits_at(session, session->logits_count - 1),
           session->engine->run.source.model->shape.vocabulary_size * sizeof(float));
    fork->logits_count = 1;
    fork->logits_kept = true;
}

pi2_status pi2_session_fork(pi2_session *session, const pi2_sampling *sampling, pi2_session **fork_out) {
    *fork_out = NULL;
    pi2_engine *engine = session->engine;
    pi2_session *fork = NULL;
    pi2_engine_take_turn(engine);
    const pi2_status status = make(engine, sampling ? sampling : pi2_sampler_params(session->sampler), &fork);
    if (status == PI2_OK) {
        copy_timeline(fork, session);
        pi2_sampler_follow(fork->sampler, session->sampler, sampling == NULL);
        fork->sampled = session->sampled;
        if (!sampling && session->grammar_state) { /* another sampling's grammar begins anew */
            pi2_grammar_state_follow(fork->grammar_state, session->grammar_state);
        }
    }
    pi2_engine_end_turn(engine);
    *fork_out = fork;
    return status;
}

void pi2_session_free(pi2_session *session) {
    if (!session) return;
    pi2_engine *engine = session->engine;
    pi2_engine_take_turn(engine);
    pi2_drafting_free(session->drafting); /* before the place is another's, whose drafter needs this one's */
    session->drafting = NULL;
    pi2_engine_dismiss(session);
    pi2_engine_end_turn(engine);
    release(session);
}

pi2_status pi2_session_set_sampling(pi2_session *session, const pi2_sampling *sampling) {
    pi2_sampler *sampler = NULL;
    pi2_grammar_state *grammar_state = NULL;
    PI2_TRY(pi2_sampler_create(sampling, session->engine->run.source.model->shape.vocabulary_size,
                               session->engine->run.plan.memory.shape.context_tokens,
                               session->engine->sessions.candidates, &sampler));
    if (sampling->grammar && pi2_grammar_state_create(sampling->grammar, &grammar_state) != PI2_OK) {
        pi2_sampler_free(sampler);
        return PI2_ERR_MEMORY;
    }
    pi2_sampler_free(session->sampler);
    pi2_grammar_state_free(session->grammar_state);
    session->sampler = sampler;
    session->grammar_state = grammar_state;
    session->forbids_ends = sampling->forbid_end_tokens;
    return PI2_OK;
}

void pi2_session_set_part(pi2_session *session, const pi2_session_part *part) { session->part = *part; }

void pi2_session_count_drafts(const pi2_session *session, pi2_draft_counters *counters_out) {
    *counters_out = session->draft_counters;
}

size_t pi2_session_count_drafters(const pi2_session *session, pi2_drafter_counters *counters_out, size_t most) {
    return session->drafting ? pi2_drafting_count(session->drafting, counters_out, most) : 0;
}

float *pi2_session_logits_at(const pi2_session *session, size_t index) {
    const pi2_forward *forward = session->engine->forward;
    if (index >= session->logits_count) return NULL;
    if (session->logits_kept) return pi2_forward_kept_logits(forward, session->sequence);
    return (float *)(uintptr_t)pi2_forward_logits_at(forward, session->logits_first + (uint32_t)index);
}

const float *pi2_session_logits(const pi2_session *session, size_t index) {
    pi2_engine_take_turn(session->engine);
    const float *logits = pi2_session_logits_at(session, index);
    pi2_engine_end_turn(session->engine);
    return logits;
}

/** What a token adds to the answer's text, as the grammar sees it. */
static const char *piece_of(const pi2_session *session, int32_t token, size_t *length_out) {
    return pi2_tokenizer_piece(session->engine->run.source.tokenizer, token,
                               pi2_sampler_params(session->sampler)->grammar_has_special, length_out);
}

/** A token that ends the answer may come where the text is whole, any other where the text may go on with its own. */
static bool is_allowed(void *user, int32_t token) {
    const pi2_session *session = user;
    size_t length;
    if (pi2_engine_ends_generation(session->engine, token)) return pi2_grammar_state_may_end(session->grammar_state);
    const char *piece = piece_of(session, token, &length);
    return length && pi2_grammar_state_may_begin(session->grammar_state, (unsigned char)*piece) &&
           pi2_grammar_state_allows(session->grammar_state, piece, length);
}

static pi2_status sample_allowed(pi2_session *session, float *logits, int32_t *token_out) {
    const pi2_token_filter filter = {is_allowed, session};
    size_t length;
    PI2_TRY(pi2_sampler_sample_allowed(session->sampler, logits, &filter, token_out));
    if (pi2_engine_ends_generation(session->engine, *token_out)) return PI2_OK;
    const char *piece = piece_of(session, *token_out, &length);
    (void)pi2_grammar_state_accept(session->grammar_state, piece, length); /* it was allowed */
    return PI2_OK;
}

/* In a turn. */
static pi2_status sample(pi2_session *session, int32_t *token_out) {
    if (session->logits_count == 0) return pi2_fail(PI2_ERR_INVALID, "there are no logits to sample from");
    float *logits = pi2_session_logits_at(session, session->logits_count - 1);
    const size_t forbidden = session->forbids_ends ? session->forbidden_count : session->suppressed_count;
    for (size_t i = 0; i < forbidden; i++) {
        logits[session->forbidden[i]] = -INFINITY;
    }
    PI2_TRY(session->grammar_state ? sample_allowed(session, logits, token_out)
                                   : pi2_sampler_sample(session->sampler, logits, token_out));
    pi2_sampler_accept(session->sampler, *token_out);
    session->sampled = *token_out;
    return PI2_OK;
}

pi2_status pi2_session_sample(pi2_session *session, int32_t *token_out) {
    pi2_engine_take_turn(session->engine);
    const pi2_status status = sample(session, token_out);
    pi2_engine_end_turn(session->engine);
    return status;
}

void pi2_session_begin_answer(pi2_session *session, const int32_t *prompt, size_t token_count) {
    pi2_sampler_reset(session->sampler);
    session->sampled = PI2_NO_TOKEN;
    for (size_t i = 0; i < token_count; i++) pi2_sampler_accept(session->sampler, prompt[i]);
    if (session->grammar_state) pi2_grammar_state_reset(session->grammar_state);
    pi2_detokenizer_reset(&session->detokenizer, false);
}

uint32_t pi2_session_seed(const pi2_session *session) { return pi2_sampler_seed(session->sampler); }

uint32_t pi2_session_position(const pi2_session *session) { return session->position; }

uint32_t pi2_session_kept(const pi2_session *session, uint32_t position) {
    if (position > session->position) position = session->position;
    return pi2_session_has_states(session, position) ? position : pi2_session_kept_states(session, position);
}

void pi2_session_cut(pi2_session *session, uint32_t position) {
    pi2_session_drop_ahead(session, NULL);
    if (session->drafting) pi2_drafting_truncate(session->drafting, position);
    session->saved_position = pi2_session_saved_for(session, position);
    if (session->marked_position > position) session->marked_position = PI2_NO_POSITION;
    if (session->state_position > position) session->state_position = PI2_NO_POSITION;
    const uint32_t pages = position / pi2_session_page_tokens(session);
    if (session->pages_kept > pages) session->pages_kept = pages;
    if (position == 0) session->is_loaded = false;
    if (position == 0) session->kept_from = 0;
    pi2_kv_pages_trim(pi2_forward_pages(session->engine->forward), session->sequence, position);
    session->position = position;
    session->logits_count = 0;
}

pi2_status pi2_session_truncate(pi2_session *session, uint32_t position) {
    if (position > session->position) {
        return pi2_fail(PI2_ERR_INVALID, "the timeline has %u tokens, it cannot be cut to %u", session->position,
                        position);
    }
    pi2_engine_take_turn(session->engine);
    pi2_session_cut(session, position);
    pi2_engine_end_turn(session->engine);
    return PI2_OK;
}

pi2_status pi2_session_token_text(pi2_session *session, int32_t token, bool special, char *text_out,
                                  size_t capacity, size_t *length_out) {
    const pi2_tokenizer *tokenizer = session->engine->run.source.tokenizer;
    const pi2_detokenizer before = session->detokenizer;
    *length_out = 0;
    if (token < 0 || (uint32_t)token >= pi2_tokenizer_vocabulary_size(tokenizer)) return PI2_OK;
    const size_t length = pi2_detokenizer_push_special(&session->detokenizer, tokenizer, token, special, session->text,
                                                       session->text_bytes);
    if (length > capacity) {
        session->detokenizer = before;
        return pi2_fail(PI2_ERR_INVALID, "token %d has %zu bytes of text, there is room for %zu", (int)token, length,
                        capacity);
    }
    memcpy(text_out, session->text, length);
    *length_out = length;
    return PI2_OK;
}

size_t pi2_session_text_finish(pi2_session *session, char *text_out, size_t capacity) {
    return pi2_detokenizer_finish(&session->detokenizer, text_out, capacity);
}
