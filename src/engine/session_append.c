/* session_append.c: tokens go into a timeline, in passes; and guesses of what follows them. */
#include <string.h>

#include "base/clock.h"
#include "base/fail.h"
#include "engine/session_internal.h"
#include "kernels/attention/kv_layout.h"

pi2_status pi2_session_check_tokens(const pi2_session *session, const int32_t *tokens, size_t token_count,
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
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= pi2_model_token_ids(&engine->run.source.model->shape)) {
            return pi2_fail(PI2_ERR_INVALID, "token %zu has id %d, the vocabulary ends at %u", i, (int)tokens[i],
                            pi2_model_token_ids(&engine->run.source.model->shape));
        }
    }
    return PI2_OK;
}

/* ---- what a pass tells ---- */

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

/* A pass that takes the shortcut is no progress, and comes by no place where weights could leave. */
static const pi2_forward_hooks *hooks_of(pi2_session *session, bool is_short, pi2_forward_hooks *hooks) {
    *hooks = (pi2_forward_hooks){ .user = session, .cancelled = cancelled,
                                  .layer_done = is_short ? NULL : layer_done };
    return hooks;
}

/* ---- room in the key-value cache ---- */

pi2_status pi2_session_check_room(const pi2_session *session, size_t count) {
    return pi2_kv_pages_check(pi2_forward_pages(session->engine->forward), session->sequence,
                              pi2_session_writes_from(session), session->position + (uint32_t)count, &(uint32_t){ 0 });
}

/* Weights leave the room that is taken, before the copies of pages are made in it. next: positions that are likely to
 * be taken after these. */
static void make_pages(pi2_engine *engine, const pi2_batch_span *spans, uint32_t span_count, uint32_t next) {
    pi2_engine_end_loan(engine, pi2_kv_pages_touched(pi2_forward_pages(engine->forward)) * PI2_KV_TILE, next);
    for (uint32_t s = 0; s < span_count; s++) pi2_forward_copy_pages(engine->forward, spans[s].sequence);
}

pi2_status pi2_session_hold(const pi2_session *session, uint32_t first, uint32_t end) {
    const pi2_batch_span span = { .sequence = session->sequence };
    pi2_engine_end_branches(session->engine, NULL);
    PI2_TRY(pi2_kv_pages_hold(pi2_forward_pages(session->engine->forward), session->sequence, first, end));
    make_pages(session->engine, &span, 1, 0);
    return PI2_OK;
}

/* Each span's sequence holds what it writes, or, where one cannot, none holds more than before. Branches were cut to
 * what there is. */
static pi2_status hold_spans(pi2_engine *engine, const pi2_batch *batch) {
    pi2_kv_pages *pages = pi2_forward_pages(engine->forward);
    uint32_t taken = 0;
    for (uint32_t s = 0; s < batch->span_count; s++) {
        const pi2_batch_span *span = &batch->spans[s];
        const uint32_t end = span->position + span->token_count;
        if (!span->follows) PI2_TRY(pi2_kv_pages_check(pages, span->sequence, span->position, end, &taken));
    }
    for (uint32_t s = 0; s < batch->span_count; s++) {
        const pi2_batch_span *span = &batch->spans[s];
        const uint32_t end = span->position + span->token_count;
        if (!span->follows) {
            PI2_TRY(pi2_kv_pages_hold(pages, span->sequence, span->position, end));
            continue;
        }
        const uint32_t from = batch->spans[span->follows - 1].sequence;
        PI2_TRY(pi2_kv_pages_branch(pages, from, span->sequence, span->position, end));
    }
    make_pages(engine, batch->spans, batch->span_count, batch->token_count);
    return PI2_OK;
}

/* ---- passes ---- */

/* Devices that were lost, and those that do not pay, each once. */
static void tell_devices(pi2_engine *engine) {
    pi2_run_devices *devices = &engine->run.devices;
    pi2_run_devices_tell(&engine->run);
    for (int of_many = 0; devices->count && of_many < 2; of_many++) {
        const pi2_device_worth worth = pi2_forward_device_worth(engine->forward, of_many);
        if (!worth.is_off || devices->is_worth_told[of_many]) continue;
        devices->is_worth_told[of_many] = true;
        pi2_planned_run_log(&engine->run, "%s %.3g ms a token with %s and %.3g without: left out until the next trial",
                            of_many ? "prompts take" : "decoding takes", (double)worth.with_ns / 1e6,
                            devices->count > 1 ? "devices" : "the device", (double)worth.without_ns / 1e6);
    }
}

/* The pass's token that a span's first one follows, and one; 0: it is no branch. */
static uint32_t token_before(const pi2_batch *batch, uint32_t s) {
    const pi2_batch_span *span = &batch->spans[s];
    if (!span->follows) return 0;
    const uint32_t from = span->follows - 1;
    uint32_t first = 0;
    for (uint32_t i = 0; i < from; i++) first += batch->spans[i].token_count;
    return first + span->position - batch->spans[from].position;
}

/* Drafters see what each session's tokens gave. One that is interrupted there has not got them. */
static pi2_status show_pass(const pi2_engine *engine, const pi2_batch *batch, uint32_t first_logits) {
    const float *logits = pi2_forward_logits_at(engine->forward, first_logits);
    const size_t stride = (size_t)(pi2_forward_logits_at(engine->forward, first_logits + 1) - logits);
    uint32_t first = 0;
    for (uint32_t s = 0; s < batch->span_count; first += batch->spans[s++].token_count) {
        const pi2_batch_span *span = &batch->spans[s];
        /* A branch is a part of its session's guess. */
        const pi2_session *session = span->follows ? engine->sessions.branching
                                                   : engine->sessions.sessions[span->sequence];
        const uint32_t rows = span->logits == PI2_FORWARD_ALL_LOGITS ? span->token_count - span->replayed
                                                                     : span->logits == PI2_FORWARD_LAST_LOGITS;
        const pi2_draft_pass pass = { .tokens = batch->tokens + first, .position = span->position,
                                      .count = span->token_count, .first = first,
                                      .follows = token_before(batch, s), .logits = logits,
                                      .logits_stride = stride, .logits_from = span->token_count - rows };
        logits += rows * stride;
        if (session->drafting) PI2_TRY(pi2_drafting_saw(session->drafting, &pass));
    }
    return PI2_OK;
}

/* One pass, as a span of the timeline. */
pi2_status pi2_session_run_pass(pi2_session *teller, const pi2_session_pass *pass) {
    pi2_engine *engine = teller->engine;
    const pi2_batch *batch = &pass->batch;
    const uint32_t position = batch->spans[0].position;
    pi2_forward_hooks hooks;
    pi2_engine_keep_logits(engine);
    pi2_engine_relieve(engine, UINT32_MAX);
    PI2_TRY(hold_spans(engine, batch));
    if (engine->run.plan.approximates) {
        pi2_forward_set_prediction(engine->forward, pass->predicts && position >= PI2_EXACT_POSITIONS);
    }
    pi2_forward_set_first_logits(engine->forward, pass->first_logits);
    pi2_timeline *trace = pi2_run_trace_events(engine->traces.run);
    const uint64_t begin = trace ? pi2_clock_ns() : 0;
    pi2_status status = pi2_forward_run(engine->forward, batch, hooks_of(teller, batch->is_short, &hooks));
    if (status == PI2_OK && !batch->is_short) status = show_pass(engine, batch, pass->first_logits);
    if (status == PI2_OK && !batch->is_short && engine->watcher.saw) {
        status = engine->watcher.saw(engine->watcher.user, batch);
    }
    tell_devices(engine);
    if (trace) pi2_timeline_pass(trace, position, batch->token_count, begin, pi2_clock_ns());
    for (uint32_t s = 0; s < batch->span_count; s++) {
        const pi2_batch_span *span = &batch->spans[s];
        if (span->follows || batch->is_short) continue;
        pi2_session *session = engine->sessions.sessions[span->sequence];
        const uint32_t end = span->position + span->token_count;
        const uint32_t least = pi2_forward_least_return(engine->forward, end); /* what failed was written, too */
        session->state_position = status == PI2_OK ? end : PI2_NO_POSITION;
        if (status != PI2_OK) pi2_kv_pages_trim(pi2_forward_pages(engine->forward), span->sequence, session->position);
        if (span->marked) session->marked_position = status == PI2_OK ? span->position + span->marked : PI2_NO_POSITION;
        if (session->kept_from < least) session->kept_from = least;
    }
    return status;
}

/* A pass of this session alone. */
static pi2_status run_spans(pi2_session *session, const int32_t *tokens, uint32_t token_count,
                            const pi2_batch_span *spans, uint32_t span_count) {
    return pi2_session_run_pass(session, &(pi2_session_pass){
        .batch = { .tokens = tokens, .spans = spans, .token_count = token_count, .span_count = span_count },
        .first_logits = session->first_logits, .predicts = session->predicts });
}

static pi2_status run_pass_at(pi2_session *session, uint32_t position, const int32_t *tokens, uint32_t count,
                              pi2_forward_logits logits) {
    const pi2_batch_span span = { .sequence = session->sequence, .position = position, .token_count = count,
                                  .logits = logits };
    return run_spans(session, tokens, count, &span, 1);
}

/* Passes over the tokens that lead from the states' position to the session's, with all neurons, as prompts go. */
static pi2_status replay(pi2_session *session) {
    const uint32_t batch = session->engine->run.plan.memory.shape.batch_tokens;
    while (session->state_position < session->position) {
        const uint32_t at = session->state_position, left = session->position - at;
        PI2_TRY(run_pass_at(session, at, session->timeline + at, left < batch ? left : batch, PI2_FORWARD_NO_LOGITS));
    }
    return PI2_OK;
}

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

bool pi2_session_has_states(const pi2_session *session, uint32_t position) {
    return (!session->is_recurrent || session->state_position == position) && position >= session->kept_from;
}

void pi2_session_keep_from(pi2_session *session, uint32_t position) {
    const uint32_t seen = pi2_forward_first_seen(session->engine->forward, position);
    session->kept_from = seen > 0 && seen != UINT32_MAX ? position : 0;
}

uint32_t pi2_session_saved_for(const pi2_session *session, uint32_t position) {
    const uint32_t saved = session->saved_position;
    if (saved == PI2_NO_POSITION || saved <= position) return saved;
    return !session->is_recurrent && position >= session->saved_from ? position : PI2_NO_POSITION;
}

/* Whether it is of a position that was not behind this one, and windows still have what they saw there. */
static bool is_kept(const pi2_session *session, uint32_t kept, uint32_t position) {
    return kept <= position && kept >= session->kept_from; /* PI2_NO_POSITION is behind all others */
}

uint32_t pi2_session_kept_states(const pi2_session *session, uint32_t position) {
    const uint32_t saved = pi2_session_saved_for(session, position);
    uint32_t last = saved == PI2_NO_POSITION ? 0 : saved;
    if (is_kept(session, session->state_position, position)) last = larger(last, session->state_position);
    if (is_kept(session, session->marked_position, position)) last = larger(last, session->marked_position);
    return last;
}

uint32_t pi2_session_writes_from(const pi2_session *session) {
    const uint32_t position = session->position;
    return pi2_session_has_states(session, position) ? position : pi2_session_kept_states(session, position);
}

/* The last states become the nearest ones that are kept of a position before this one, or none. */
static void go_back(pi2_session *session) {
    pi2_forward *forward = session->engine->forward;
    const uint32_t position = session->position, nearest = pi2_session_kept_states(session, position);
    if (nearest == 0) {
        session->kept_from = 0;
    } else if (nearest == session->state_position && is_kept(session, nearest, position)) {
        return;
    } else if (nearest == session->marked_position && is_kept(session, nearest, position)) {
        pi2_forward_return_to_mark(forward, session->sequence);
    } else {
        pi2_forward_restore_states(forward, session->sequence, session->saved_at);
        pi2_session_keep_from(session, session->saved_from);
    }
    session->state_position = nearest;
}

/* What windows see was put back to what is kept, and the tokens from there on were not all computed. */
static void lose_windows(pi2_session *session) {
    const bool has_windows = pi2_forward_first_seen(session->engine->forward, session->position) != UINT32_MAX;
    if (has_windows) session->kept_from = PI2_NO_POSITION;
}

/* They are made from those that are kept, or from nothing, with the tokens that led from there to here. */
pi2_status pi2_session_make_states(pi2_session *session) {
    if (session->position == 0 || pi2_session_has_states(session, session->position)) return PI2_OK;
    go_back(session);
    const bool predicts = session->predicts;
    session->predicts = false;
    const pi2_status status = replay(session);
    if (status != PI2_OK) lose_windows(session);
    session->predicts = predicts;
    return status;
}

/* What the next thing asked is likely to go back to: the end of a prompt. Of a text that is scored (all logits) nobody
 * goes back to the end, but to that of the prompt before it. */
void pi2_session_save_states(pi2_session *session) {
    if (!session->saves) return;
    pi2_forward_save_states(session->engine->forward, session->sequence, session->position);
    session->saved_position = session->saved_at = session->position;
    session->saved_from = session->position > PI2_TAKEN_BACK ? session->position - PI2_TAKEN_BACK : 0;
    if (session->saved_from < session->kept_from) session->saved_from = session->kept_from;
}

void pi2_session_note_tokens(pi2_session *session, const int32_t *tokens, uint32_t count) {
    memcpy(session->timeline + session->position, tokens, count * sizeof *tokens);
    if (session->drafting) pi2_drafting_push(session->drafting, tokens, count);
    session->position += count;
    pi2_session_keep_pages(session);
}

/* Tokens of the next pass, of `left`: where a predictor serves, as few as go by neuron, unless long passes can leave
 * neurons out as well, and none before its time. */
static uint32_t next_batch(const pi2_session *session, size_t left) {
    const pi2_forward_shape *shape = &session->engine->run.plan.memory.shape;
    uint32_t most = shape->batch_tokens;
    if (session->predicts && session->position < PI2_EXACT_POSITIONS) {
        most = most < PI2_EXACT_POSITIONS - session->position ? most : PI2_EXACT_POSITIONS - session->position;
    } else if (session->predicts && !shape->masks && shape->neuron_tokens < most) {
        most = shape->neuron_tokens;
    }
    return pi2_session_until_page(session, left < most ? (uint32_t)left : most);
}

static pi2_status append_batches(pi2_session *session, const int32_t *tokens, size_t token_count,
                                 pi2_logits_wanted wanted) {
    const pi2_engine *engine = session->engine;
    for (size_t done = 0; done < token_count;) {
        const size_t left = token_count - done;
        const uint32_t count = next_batch(session, left);
        const bool last = count == left;
        const pi2_forward_logits logits = wanted == PI2_LOGITS_ALL ? PI2_FORWARD_ALL_LOGITS
                                        : wanted == PI2_LOGITS_LAST && last ? PI2_FORWARD_LAST_LOGITS
                                                                            : PI2_FORWARD_NO_LOGITS;
        session->batch_tokens = count;
        session->first_logits = wanted == PI2_LOGITS_ALL ? (uint32_t)done : 0;
        PI2_TRY(pi2_session_make_states(session));
        PI2_TRY(run_pass_at(session, session->position, tokens + done, count, logits));
        pi2_session_note_tokens(session, tokens + done, count);
        done += count;
        session->progress_done += (uint64_t)count * engine->run.source.model->shape.layer_count;
    }
    if (token_count > 1 && wanted != PI2_LOGITS_ALL) pi2_session_save_states(session);
    return PI2_OK;
}

/* A line of the table, also of what failed or was interrupted: its reads are counted too. */
void pi2_session_note_append(const pi2_session *session, bool is_prefill, uint32_t position, uint32_t tokens,
                             uint64_t begin_ns) {
    const pi2_engine *engine = session->engine;
    if (!engine->traces.run) return;
    pi2_run_trace_line line = { .is_prefill = is_prefill, .position = position, .tokens = tokens, .begin_ns = begin_ns,
                                .end_ns = pi2_clock_ns() };
    pi2_engine_count(engine, &line.counters);
    pi2_run_trace_add(engine->traces.run, &line);
}

/* ---- guessed tokens ---- */

/* What the last pass computed beyond `position` counts no more: the next pass writes over it. next: the
   token that comes instead; NULL: the text was cut, which tells nothing of the guesses that were left. */
void pi2_session_drop_ahead(pi2_session *session, const int32_t *next) {
    if (session->ahead_count) {
        const bool is_wrong = next && pi2_session_has_ahead(session) && !pi2_session_is_ahead(session, *next);
        pi2_drafting_note_guess(session->drafting, session->ahead_right + is_wrong, session->ahead_right,
                                session->ahead_path);
    }
    session->ahead_at = session->ahead_count = session->ahead_right = 0;
    if (session->engine->sessions.branching == session) pi2_engine_end_branches(session->engine, NULL);
}

static void forget_logits(pi2_session *session) {
    session->logits_count = 0;
    session->logits_kept = false;
}

/* The token was guessed: its logits are there already. */
bool pi2_session_take_ahead(pi2_session *session, int32_t token) {
    if (!pi2_session_is_ahead(session, token)) return false;
    pi2_session_go_ahead(session, token);
    session->ahead_path[session->ahead_right++] = session->ahead_order[session->ahead_at - 1];
    session->draft_counters.right++;
    pi2_session_note_tokens(session, &token, 1);
    session->logits_first = session->ahead_row + session->ahead_at;
    session->logits_count = 1;
    return true;
}

/*
 * Recurrent states of wrong guesses cannot be taken back: they become those that were marked before the guesses, and
 * the next pass computes the right ones once more, before its own token. Says how many; where they are too many, the
 * states are made in passes of their own.
 */
static pi2_status begin_states(pi2_session *session, uint32_t room) {
    session->replays = 0;
    if (pi2_session_has_states(session, session->position)) return PI2_OK;
    const uint32_t nearest = pi2_session_kept_states(session, session->position);
    const uint32_t planned = session->engine->run.plan.memory.draft_tokens, most = planned < room ? planned : room;
    if (nearest == 0 || session->position - nearest > most) return pi2_session_make_states(session);
    go_back(session);
    session->replays = session->position - session->state_position;
    return PI2_OK;
}

/* Where the key-value cache is planned for branches, a page that a guess would take is one that another session was
 * promised: guesses fill the page that the token is in. */
static uint32_t room_in_page(const pi2_session *session) {
    return session->engine->run.plan.memory.shape.branch_tokens ? PI2_KV_TILE - 1 - session->position % PI2_KV_TILE
                                                                : UINT32_MAX;
}

/* Behind the tokens that are computed once more and the pass's own one. */
static uint32_t room_for_guesses(const pi2_session *session) {
    const pi2_forward_shape *shape = &session->engine->run.plan.memory.shape;
    const uint32_t left = shape->context_tokens - session->position - 1;
    const uint32_t room = next_batch(session, left + (size_t)1) - 1, in_page = room_in_page(session);
    const uint32_t batch = shape->batch_tokens - 1 - session->replays;
    const uint32_t most = room < batch ? room : batch;
    return most < in_page ? most : in_page;
}

bool pi2_session_may_guess(const pi2_session *session, size_t token_count, pi2_logits_wanted wanted) {
    return session->drafting && token_count == 1 && wanted == PI2_LOGITS_LAST && session->position > 0;
}

pi2_status pi2_session_begin_guess(pi2_session *session, int32_t token, uint32_t room) {
    session->is_guessing = true;
    session->guesses = 0;
    PI2_TRY(begin_states(session, room));
    pi2_drafting_push(session->drafting, &token, 1);
    session->draws_next = token == session->sampled;
    return PI2_OK;
}

pi2_status pi2_session_guess(pi2_session *session, uint32_t room, bool is_beside) {
    const uint32_t own = room_for_guesses(session);
    int32_t tokens[PI2_DRAFT_NODES_MOST];
    uint8_t parents[PI2_DRAFT_NODES_MOST];
    if (room > own) room = own;
    if (session->draws_next) {
        pi2_draws draws;
        pi2_sampler_foretell(session->sampler, &draws);
        pi2_drafting_foretell(session->drafting, &draws);
    }
    PI2_TRY(is_beside ? pi2_drafting_guess_beside(session->drafting, room, tokens, parents, &session->guesses)
                      : pi2_drafting_guess(session->drafting, room, tokens, parents, &session->guesses));
    pi2_session_order_guess(session, tokens, parents);
    return PI2_OK;
}

pi2_batch_span pi2_session_guess_span(const pi2_session *session, int32_t token, int32_t *tokens_out) {
    const uint32_t replays = session->replays, guesses = session->guesses, first = session->position - replays;
    memcpy(tokens_out, session->timeline + first, replays * sizeof *tokens_out);
    tokens_out[replays] = token;
    memcpy(tokens_out + replays + 1, session->ahead, guesses * sizeof *tokens_out);
    return (pi2_batch_span){
        .sequence = session->sequence, .position = first, .token_count = replays + 1 + guesses, .replayed = replays,
        .logits = guesses ? PI2_FORWARD_ALL_LOGITS : PI2_FORWARD_LAST_LOGITS,
        .marked = session->is_recurrent && guesses ? replays + 1 : 0 };
}

void pi2_session_end_guess(pi2_session *session, int32_t token, uint32_t row, pi2_status status) {
    session->is_guessing = false;
    if (status != PI2_OK) {
        if (session->replays) lose_windows(session);
        pi2_engine_end_branches(session->engine, NULL);
        pi2_drafting_truncate(session->drafting, session->position);
        return;
    }
    session->timeline[session->position++] = token; /* drafting has it already */
    pi2_session_keep_pages(session);
    session->logits_first = session->ahead_row = row;
    session->logits_count = 1;
    session->ahead_count = session->guesses;
    session->draft_counters.passes++;
    session->draft_counters.guessed += session->guesses;
}

/* Of all threads together. */
static uint64_t stalled_ns(const pi2_engine *engine) {
    pi2_store_counters counters;
    pi2_store_count(engine->store, &counters);
    return counters.stall_ns;
}

/* How much of a pass without guesses went into waiting for reads tells what guesses would cost, where each token reads
 * the same: not of experts or single neurons. */
static void tell_waits(const pi2_session *session, uint64_t stalled_before, uint64_t pass_ns) {
    const pi2_engine *engine = session->engine;
    const pi2_run_plan *plan = &engine->run.plan;
    if (plan->memory.everything_resident || engine->expert_cache || engine->neuron_store) return;
    if (session->guesses || session->replays || pass_ns == 0) return;
    const double stalled = (double)(stalled_ns(engine) - stalled_before);
    pi2_draft_times_tell(&session->engine->sessions.draft_times, stalled / plan->thread_count / (double)pass_ns);
}

/* The pass of a guess. */
static pi2_status run_guess(pi2_session *session, int32_t token) {
    int32_t tokens[2 * (PI2_DRAFT_MOST + 1)];
    pi2_batch_span spans[PI2_BRANCHES_MOST + 1];
    PI2_TRY(pi2_session_guess(session, UINT32_MAX, false));
    spans[0] = pi2_session_guess_span(session, token, tokens);
    const uint32_t token_count = spans[0].token_count, span_count = pi2_session_tree_spans(session, spans);
    const uint64_t stalled = stalled_ns(session->engine), begin_ns = pi2_clock_ns();
    session->engine->sessions.branching = span_count > 1 ? session : NULL;
    PI2_TRY(run_spans(session, tokens, token_count, spans, span_count));
    const uint64_t pass_ns = pi2_clock_ns() - begin_ns;
    pi2_drafting_note_pass(session->drafting, session->guesses, session->replays, pass_ns);
    tell_waits(session, stalled, pass_ns);
    return PI2_OK;
}

/* One token, and guesses of what follows it in the same pass. */
static pi2_status append_guessing(pi2_session *session, int32_t token) {
    if (pi2_session_take_ahead(session, token)) return PI2_OK;
    pi2_session_drop_ahead(session, &token);
    forget_logits(session);
    pi2_status status = pi2_session_begin_guess(session, token, UINT32_MAX);
    if (status == PI2_OK) status = run_guess(session, token);
    pi2_session_end_guess(session, token, 0, status);
    return status;
}

bool pi2_session_expects(pi2_session *session, int32_t token) {
    pi2_engine_take_turn(session->engine);
    const bool expects = pi2_session_is_ahead(session, token);
    pi2_engine_end_turn(session->engine);
    return expects;
}

static pi2_status append_tokens(pi2_session *session, const int32_t *tokens, size_t token_count,
                                pi2_logits_wanted wanted) {
    session->predicts = session->engine->run.plan.approximates &&
                        (token_count == 1 || session->engine->run.options.predicts_prompts);
    session->first_logits = 0;
    if (pi2_session_may_guess(session, token_count, wanted)) return append_guessing(session, tokens[0]);
    pi2_session_drop_ahead(session, tokens);
    forget_logits(session);
    PI2_TRY(append_batches(session, tokens, token_count, wanted));
    session->logits_first = 0;
    session->logits_count = wanted == PI2_LOGITS_ALL ? (uint32_t)token_count : wanted == PI2_LOGITS_LAST ? 1 : 0;
    return PI2_OK;
}

pi2_status pi2_session_append_checked(pi2_session *session, const int32_t *tokens, size_t token_count,
                                      pi2_logits_wanted wanted) {
    session->progress_done = 0;
    session->progress_total = (uint64_t)token_count * session->engine->run.source.model->shape.layer_count;
    const uint32_t position = session->position;
    const uint64_t begin_ns = session->engine->traces.run ? pi2_clock_ns() : 0;
    const pi2_status status = append_tokens(session, tokens, token_count, wanted);
    pi2_session_note_append(session, token_count > 1 || position == 0, position, session->position - position,
                            begin_ns);
    return status;
}

pi2_status pi2_session_append(pi2_session *session, const int32_t *tokens, size_t token_count,
                              pi2_logits_wanted wanted) {
    if (token_count == 0) return PI2_OK;
    pi2_engine_take_turn(session->engine);
    pi2_status status = pi2_session_check_tokens(session, tokens, token_count, wanted);
    if (status == PI2_OK && !pi2_session_takes_guess(session, tokens, token_count, wanted)) {
        status = pi2_session_check_room(session, token_count);
    }
    if (status == PI2_OK) status = pi2_session_append_checked(session, tokens, token_count, wanted);
    pi2_engine_end_turn(session->engine);
    return status;
}

static pi2_status append_pairs(pi2_session *session, const pi2_token_pairs *pairs) {
    const pi2_logits_wanted wanted = pairs->wants_logits ? PI2_LOGITS_LAST : PI2_LOGITS_NONE;
    PI2_TRY(pi2_session_check_tokens(session, pairs->tokens, pairs->count, wanted));
    forget_logits(session);
    const pi2_batch_span span = {
        .sequence = session->sequence, .position = session->position, .token_count = pairs->count,
        .logits = pairs->wants_logits ? PI2_FORWARD_LAST_LOGITS : PI2_FORWARD_NO_LOGITS };
    PI2_TRY(pi2_session_run_pass(session, &(pi2_session_pass){
        .batch = { .tokens = pairs->tokens, .given = pairs->given, .given_is_own = pairs->given_is_own,
                   .spans = &span, .token_count = pairs->count, .span_count = 1 },
        .first_logits = session->first_logits, .predicts = session->predicts }));
    pi2_session_note_tokens(session, pairs->tokens, pairs->count);
    session->logits_first = 0;
    session->logits_count = pairs->wants_logits;
    return PI2_OK;
}

pi2_status pi2_session_append_pairs(pi2_session *session, const pi2_token_pairs *pairs) {
    pi2_engine_take_turn(session->engine);
    const pi2_status status = append_pairs(session, pairs);
    pi2_engine_end_turn(session->engine);
    return status;
}
