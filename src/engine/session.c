/* session.c: one timeline over an engine. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "engine/drafter.h"
#include "engine/engine_internal.h"
#include "engine/sampler.h"

struct pi2_session {
    pi2_engine *engine;
    pi2_sampler *sampler;
    int32_t *forbidden;      /* [forbidden_count]: tokens that are never picked */
    size_t forbidden_count;
    pi2_detokenizer detokenizer;
    uint32_t position;
    uint32_t logits_first, logits_count; /* of the pass's logits, those that the last append left */
    pi2_drafter *drafter;    /* NULL: nothing is guessed */
    int32_t *timeline;       /* [context]: the tokens so far, from which states are made again; NULL: none is
                                recurrent */
    uint32_t state_position; /* whose the recurrent states are; NO_POSITION: nobody's */
    uint32_t saved_position; /* the same of the saved ones */
    int32_t ahead[PI2_DRAFT_MOST]; /* guessed tokens that the last pass computed after `position` */
    uint32_t ahead_first, ahead_count, ahead_right; /* the next one; all of the pass; right so far */
    pi2_draft_counters draft_counters;
    uint64_t next_progress_ns;
    uint64_t progress_done, progress_total; /* tokens x layers of the present append */
    pi2_session_part part;   /* what the appends are a part of; total 0: each is the whole */
    uint32_t batch_tokens;
    bool predicts;           /* of the present append: a predictor serves it, from PI2_EXACT_POSITIONS on */
    uint32_t first_logits;   /* where the next pass's logits go, of the present append's */
    size_t text_bytes;
    char text[];             /* what one token completes */
};

#define NO_POSITION UINT32_MAX

/* Lists the tokens that end an answer. */
static pi2_status forbid_end_tokens(pi2_session *session) {
    const pi2_engine *engine = session->engine;
    const uint32_t vocabulary_size = engine->run.source.model->shape.vocabulary_size;
    size_t count = 0;
    for (uint32_t i = 0; i < vocabulary_size; i++) count += pi2_engine_ends_generation(engine, (int32_t)i);
    if (count == 0) return PI2_OK;
    session->forbidden = malloc(count * sizeof *session->forbidden);
    if (!session->forbidden) return pi2_fail(PI2_ERR_MEMORY, "no memory for a session");
    for (uint32_t i = 0; i < vocabulary_size && session->forbidden_count < count; i++) {
        if (pi2_engine_ends_generation(engine, (int32_t)i)) {
            session->forbidden[session->forbidden_count++] = (int32_t)i;
        }
    }
    return PI2_OK;
}

/* Where a state cannot be taken back the session remembers what led to it. */
static pi2_status begin_timeline(pi2_session *session) {
    const pi2_planned_run *run = &session->engine->run;
    session->state_position = session->saved_position = NO_POSITION;
    if (!pi2_model_is_recurrent(&run->source.model->shape)) return PI2_OK;
    session->timeline = malloc(run->plan.memory.shape.context_tokens * sizeof *session->timeline);
    return session->timeline ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a session");
}

pi2_status pi2_session_create(pi2_engine *engine, const pi2_sampling *sampling, pi2_session **session_out) {
    *session_out = NULL;
    pi2_sampling defaults;
    pi2_sampling_init(&defaults);
    if (!sampling) sampling = &defaults;
    int none = 0;
    if (!atomic_compare_exchange_strong(&engine->session_count, &none, 1)) {
        return pi2_fail(PI2_ERR_INVALID, "this engine has a session already: free it first");
    }
    const size_t text_bytes = 3 * (pi2_tokenizer_longest_piece(engine->run.source.tokenizer) + 4);
    pi2_session *session = calloc(1, sizeof *session + text_bytes);
    pi2_status status = session ? PI2_OK : pi2_fail(PI2_ERR_MEMORY, "no memory for a session");
    if (status == PI2_OK) {
        session->engine = engine;
        session->text_bytes = text_bytes;
        pi2_detokenizer_reset(&session->detokenizer, false);
        status = pi2_sampler_create(sampling, engine->run.source.model->shape.vocabulary_size,
                                    engine->run.plan.memory.shape.context_tokens, &session->sampler);
        if (status == PI2_OK && engine->run.plan.memory.draft_tokens) {
            status = pi2_drafter_create(engine->run.plan.memory.shape.context_tokens,
                                        engine->run.plan.memory.draft_tokens, &session->drafter);
        }
        if (status == PI2_OK) status = begin_timeline(session);
        if (status == PI2_OK && sampling->forbid_end_tokens) status = forbid_end_tokens(session);
    }
    if (status != PI2_OK) {
        if (session) {
            pi2_sampler_free(session->sampler);
            pi2_drafter_free(session->drafter);
            free(session->timeline);
        }
        free(session);
        atomic_store(&engine->session_count, 0);
        return status;
    }
    *session_out = session;
    return PI2_OK;
}

void pi2_session_free(pi2_session *session) {
    if (!session) return;
    pi2_sampler_free(session->sampler);
    pi2_drafter_free(session->drafter);
    free(session->forbidden);
    free(session->timeline);
    atomic_store(&session->engine->session_count, 0);
    free(session);
}

void pi2_session_set_part(pi2_session *session, const pi2_session_part *part) { session->part = *part; }

static pi2_status check_tokens(const pi2_session *session, const int32_t *tokens, size_t token_count,
                               pi2_logits_wanted wanted) {
    const pi2_engine *engine = session->engine;
    const uint32_t capacity = engine->run.plan.memory.shape.context_tokens;
    if (token_count > capacity - session->position) {
        return pi2_fail(PI2_ERR_CONTEXT, "the context of %u tokens is full: %u are used and %zu more are needed; "
                        "give a longer context (-c) or a shorter prompt", capacity, session->position, token_count);
    }
    if (wanted == PI2_LOGITS_ALL && token_count > engine->run.plan.memory.shape.logits_tokens) {
        return pi2_fail(PI2_ERR_INVALID, "logits of %zu tokens are wanted, the engine keeps %u", token_count,
                        engine->run.plan.memory.shape.logits_tokens);
    }
    for (size_t i = 0; i < token_count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= engine->run.source.model->shape.vocabulary_size) {
            return pi2_fail(PI2_ERR_INVALID, "token %zu has id %d, the vocabulary ends at %u", i, (int)tokens[i],
                            engine->run.source.model->shape.vocabulary_size);
        }
    }
    return PI2_OK;
}

static bool cancelled(void *user) {
    const pi2_callbacks *callbacks = &((pi2_session *)user)->engine->run.options.callbacks;
    return callbacks->cancelled && callbacks->cancelled(callbacks->user);
}

static void layer_done(void *user, uint32_t layer, uint32_t layers) {
    pi2_session *session = user;
    const pi2_callbacks *callbacks = &session->engine->run.options.callbacks;
    pi2_engine_relieve(session->engine, layer);
    if (!callbacks->progress || session->progress_total <= layers) return; /* one token is no progress */
    const uint64_t now = pi2_clock_ns();
    const uint64_t done = session->progress_done + (uint64_t)session->batch_tokens * layer;
    if (now < session->next_progress_ns && done < session->progress_total) return;
    session->next_progress_ns = now + 100000000;
    const pi2_session_part *part = &session->part;
    if (part->total) {
        const double share = (double)done / (double)session->progress_total;
        callbacks->progress(callbacks->user, part->what,
                            part->begin + (uint64_t)((double)(part->end - part->begin) * share), part->total);
        return;
    }
    callbacks->progress(callbacks->user, "prompt", done, session->progress_total);
}

/* One pass, as a span of the timeline. */
static pi2_status run_pass_at(pi2_session *session, uint32_t position, const int32_t *tokens, uint32_t count,
                              pi2_forward_logits logits, const pi2_forward_hooks *hooks) {
    pi2_engine *engine = session->engine;
    pi2_engine_relieve(engine, UINT32_MAX);
    pi2_engine_end_loan(engine, position, count);
    if (engine->run.plan.approximates) {
        pi2_forward_set_prediction(engine->forward, session->predicts && position >= PI2_EXACT_POSITIONS);
        pi2_forward_set_first_logits(engine->forward, session->first_logits);
    }
    pi2_timeline *trace = pi2_run_trace_events(engine->traces.run);
    const uint64_t begin = trace ? pi2_clock_ns() : 0;
    const pi2_status status = pi2_forward_run(engine->forward, tokens, count, position, logits, hooks);
    if (trace) pi2_timeline_pass(trace, position, count, begin, pi2_clock_ns());
    session->state_position = status == PI2_OK ? position + count : NO_POSITION;
    return status;
}

/* Recurrent states become those of the position: from the saved ones, or from nothing, with the tokens that led from
 * there to here. */
static pi2_status make_states(pi2_session *session, const pi2_forward_hooks *hooks) {
    const uint32_t batch = session->engine->run.plan.memory.shape.batch_tokens;
    if (!session->timeline || session->state_position == session->position || session->position == 0) return PI2_OK;
    session->state_position = 0;
    if (session->saved_position <= session->position) {
        pi2_forward_restore_states(session->engine->forward);
        session->state_position = session->saved_position;
    }
    while (session->state_position < session->position) {
        const uint32_t at = session->state_position, left = session->position - at;
        PI2_TRY(run_pass_at(session, at, session->timeline + at, left < batch ? left : batch, PI2_FORWARD_NO_LOGITS,
                            hooks));
    }
    return PI2_OK;
}

/* What the next thing asked is likely to go back to: the end of a prompt. */
static void save_states(pi2_session *session) {
    if (!session->timeline) return;
    pi2_forward_save_states(session->engine->forward);
    session->saved_position = session->position;
}

static pi2_status run_pass(pi2_session *session, const int32_t *tokens, uint32_t count, pi2_forward_logits logits,
                           const pi2_forward_hooks *hooks) {
    PI2_TRY(make_states(session, hooks));
    PI2_TRY(run_pass_at(session, session->position, tokens, count, logits, hooks));
    if (session->timeline) memcpy(session->timeline + session->position, tokens, count * sizeof *tokens);
    return PI2_OK;
}

/* Tokens of the next pass, of `left`: where a predictor serves, as few as go by neuron, and none before its time. */
static uint32_t next_batch(const pi2_session *session, size_t left) {
    const pi2_forward_shape *shape = &session->engine->run.plan.memory.shape;
    uint32_t most = shape->batch_tokens;
    if (session->predicts && session->position < PI2_EXACT_POSITIONS) {
        most = most < PI2_EXACT_POSITIONS - session->position ? most : PI2_EXACT_POSITIONS - session->position;
    } else if (session->predicts && shape->neuron_tokens < most) {
        most = shape->neuron_tokens;
    }
    return left < most ? (uint32_t)left : most;
}

static pi2_status append_batches(pi2_session *session, const int32_t *tokens, size_t token_count,
                                 pi2_logits_wanted wanted) {
    const pi2_engine *engine = session->engine;
    const pi2_forward_hooks hooks = { .user = session, .cancelled = cancelled, .layer_done = layer_done };
    for (size_t done = 0; done < token_count;) {
        const size_t left = token_count - done;
        const uint32_t count = next_batch(session, left);
        const bool last = count == left;
        const pi2_forward_logits logits = wanted == PI2_LOGITS_ALL ? PI2_FORWARD_ALL_LOGITS
                                        : wanted == PI2_LOGITS_LAST && last ? PI2_FORWARD_LAST_LOGITS
                                                                            : PI2_FORWARD_NO_LOGITS;
        session->batch_tokens = count;
        session->first_logits = wanted == PI2_LOGITS_ALL ? (uint32_t)done : 0;
        PI2_TRY(run_pass(session, tokens + done, count, logits, &hooks));
        if (session->drafter) pi2_drafter_push(session->drafter, tokens + done, count);
        session->position += count;
        done += count;
        session->progress_done += (uint64_t)count * engine->run.source.model->shape.layer_count;
    }
    if (token_count > 1) save_states(session);
    return PI2_OK;
}

/* A line of the table, also of what failed or was interrupted: its reads are counted too. */
static void note_append(const pi2_session *session, bool is_prefill, uint32_t position, uint64_t begin_ns) {
    const pi2_engine *engine = session->engine;
    pi2_run_trace_line line = { .is_prefill = is_prefill, .position = position,
                                .tokens = session->position - position, .begin_ns = begin_ns,
                                .end_ns = pi2_clock_ns() };
    pi2_engine_count(engine, &line.counters);
    pi2_run_trace_add(engine->traces.run, &line);
}

/* ---- guessed tokens ---- */

/* What the last pass computed beyond `position` counts no more: the next pass writes over it. next: the
   token that comes instead; NULL: the text was cut, which tells nothing of the guesses that were left. */
static void drop_ahead(pi2_session *session, const int32_t *next) {
    if (session->ahead_count) {
        const bool is_wrong = next && session->ahead_first < session->ahead_count &&
                              session->ahead[session->ahead_first] != *next;
        pi2_drafter_note_guess(session->drafter, session->ahead_right + is_wrong, session->ahead_right);
    }
    session->ahead_first = session->ahead_count = session->ahead_right = 0;
}

/* The token was guessed: its logits are there already. */
static bool take_ahead(pi2_session *session, int32_t token) {
    if (session->ahead_first == session->ahead_count || session->ahead[session->ahead_first] != token) return false;
    session->ahead_first++;
    session->ahead_right++;
    session->draft_counters.right++;
    pi2_drafter_push(session->drafter, &token, 1);
    session->position++;
    session->logits_first = session->ahead_first;
    session->logits_count = 1;
    return true;
}

/* One token, and guesses of what follows it in the same pass. */
static pi2_status append_guessing(pi2_session *session, int32_t token) {
    const pi2_engine *engine = session->engine;
    const pi2_forward_hooks hooks = { .user = session, .cancelled = cancelled, .layer_done = layer_done };
    const uint32_t left = engine->run.plan.memory.shape.context_tokens - session->position - 1;
    int32_t tokens[1 + PI2_DRAFT_MOST] = { token };
    if (take_ahead(session, token)) return PI2_OK;
    drop_ahead(session, &token);
    session->logits_count = 0;
    pi2_drafter_push(session->drafter, &token, 1);
    const uint32_t guessed = pi2_drafter_guess(session->drafter, next_batch(session, left + (size_t)1) - 1, tokens + 1);
    const uint64_t begin_ns = pi2_clock_ns();
    const pi2_status status = run_pass(session, tokens, 1 + guessed,
                                       guessed ? PI2_FORWARD_ALL_LOGITS : PI2_FORWARD_LAST_LOGITS, &hooks);
    if (status != PI2_OK) {
        pi2_drafter_truncate(session->drafter, session->position);
        return status;
    }
    pi2_drafter_note_pass(session->drafter, 1 + guessed, pi2_clock_ns() - begin_ns);
    session->position++;
    session->logits_first = 0;
    session->logits_count = 1;
    memcpy(session->ahead, tokens + 1, guessed * sizeof *tokens);
    session->ahead_count = guessed;
    session->draft_counters.passes++;
    session->draft_counters.guessed += guessed;
    return PI2_OK;
}

static pi2_status append_tokens(pi2_session *session, const int32_t *tokens, size_t token_count,
                                pi2_logits_wanted wanted) {
    session->predicts = session->engine->run.plan.approximates &&
                        (token_count == 1 || session->engine->run.options.predicts_prompts);
    session->first_logits = 0;
    const bool may_guess = session->drafter && token_count == 1 && wanted == PI2_LOGITS_LAST && session->position > 0;
    if (may_guess) return append_guessing(session, tokens[0]);
    drop_ahead(session, tokens);
    session->logits_count = 0;
    PI2_TRY(append_batches(session, tokens, token_count, wanted));
    session->logits_first = 0;
    session->logits_count = wanted == PI2_LOGITS_ALL ? (uint32_t)token_count : wanted == PI2_LOGITS_LAST ? 1 : 0;
    return PI2_OK;
}

pi2_status pi2_session_append(pi2_session *session, const int32_t *tokens, size_t token_count,
                              pi2_logits_wanted wanted) {
    const pi2_engine *engine = session->engine;
    if (token_count == 0) return PI2_OK;
    PI2_TRY(check_tokens(session, tokens, token_count, wanted));
    session->progress_done = 0;
    session->progress_total = (uint64_t)token_count * engine->run.source.model->shape.layer_count;
    const uint32_t position = session->position;
    const uint64_t begin_ns = engine->traces.run ? pi2_clock_ns() : 0;
    const pi2_status status = append_tokens(session, tokens, token_count, wanted);
    if (engine->traces.run) note_append(session, token_count > 1 || position == 0, position, begin_ns);
    return status;
}

void pi2_session_count_drafts(const pi2_session *session, pi2_draft_counters *counters_out) {
    *counters_out = session->draft_counters;
}

const float *pi2_session_logits(const pi2_session *session, size_t index) {
    if (index >= session->logits_count) return NULL;
    return pi2_forward_logits_at(session->engine->forward, session->logits_first + (uint32_t)index);
}

pi2_status pi2_session_sample(pi2_session *session, int32_t *token_out) {
    if (session->logits_count == 0) return pi2_fail(PI2_ERR_INVALID, "there are no logits to sample from");
    const uint32_t last = session->logits_first + session->logits_count - 1;
    float *logits = (float *)pi2_forward_logits_at(session->engine->forward, last);
    for (size_t i = 0; i < session->forbidden_count; i++) logits[session->forbidden[i]] = -INFINITY;
    PI2_TRY(pi2_sampler_sample(session->sampler, logits, token_out));
    pi2_sampler_accept(session->sampler, *token_out);
    return PI2_OK;
}

void pi2_session_begin_answer(pi2_session *session, const int32_t *prompt, size_t token_count) {
    pi2_sampler_reset(session->sampler);
    for (size_t i = 0; i < token_count; i++) pi2_sampler_accept(session->sampler, prompt[i]);
    pi2_detokenizer_reset(&session->detokenizer, false);
}

uint32_t pi2_session_seed(const pi2_session *session) { return pi2_sampler_seed(session->sampler); }

uint32_t pi2_session_position(const pi2_session *session) { return session->position; }

pi2_status pi2_session_truncate(pi2_session *session, uint32_t position) {
    if (position > session->position) {
        return pi2_fail(PI2_ERR_INVALID, "the timeline has %u tokens, it cannot be cut to %u", session->position,
                        position);
    }
    drop_ahead(session, NULL);
    if (session->drafter) pi2_drafter_truncate(session->drafter, position);
    if (session->saved_position != NO_POSITION && session->saved_position > position) {
        session->saved_position = NO_POSITION;
    }
    if (session->state_position > position) session->state_position = NO_POSITION;
    session->position = position;
    session->logits_count = 0;
    return PI2_OK;
}

pi2_status pi2_session_token_text(pi2_session *session, int32_t token, bool special, char *text_out,
                                  size_t capacity, size_t *length_out) {
    const pi2_tokenizer *tokenizer = session->engine->run.source.tokenizer;
    const pi2_detokenizer before = session->detokenizer;
    *length_out = 0;
    if (token < 0 || (uint32_t)token >= pi2_tokenizer_vocabulary_size(tokenizer)) return PI2_OK;
    size_t piece_length = 0, length;
    (void)pi2_tokenizer_piece(tokenizer, token, false, &piece_length);
    if (piece_length == 0 && special) { /* a character that was begun ends before it */
        const char *piece = pi2_tokenizer_piece(tokenizer, token, true, &piece_length);
        length = pi2_detokenizer_finish(&session->detokenizer, session->text, session->text_bytes);
        memcpy(session->text + length, piece, piece_length);
        length += piece_length;
    } else {
        length = pi2_detokenizer_push(&session->detokenizer, tokenizer, token, session->text, session->text_bytes);
    }
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
