/* shortcut_texts.c: see shortcut_texts.h. */
#include "engine/shortcut_texts.h"

#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "engine/session_internal.h"
#include "engine/text_chunks.h"
#include "powerinfer2/session.h"

enum { QUESTION_TOKENS = 16, ROOM = 64, HELD_EVERY = 4, HELD_FIRST = 2 };

/* How a user's turn begins, or a text. Two of them end differently. */
static const char *const beginnings[] = {
    "What is", "How do I", "Write a short story about", "Explain", "Why does", "Give me a list of", "Can you tell me",
    "Write a function that", "Describe the", "What are the main differences between", "Summarize", "I want to",
    "How many", "Who was", "Please help me with", "Translate", "What happens when", "Compare", "Tell me about",
    "Is it true that", "Write an email to", "Which", "When did", "Create a plan for" };
enum { BEGINNINGS = sizeof beginnings / sizeof beginnings[0] };

/* A text that is being written, by a session of its own. */
typedef struct text_slot {
    pi2_session *session;
    pi2_held_text *held;         /* NULL: it is learnt from */
    int32_t tokens[PI2_SHORTCUT_CONTEXT];
    uint32_t count;              /* that are appended next; 0: nothing is written here any more */
    uint32_t written;            /* of the user's turn */
    uint32_t answer;             /* where the answer begins; 0: it has not */
    bool is_greedy;
} text_slot;

typedef struct text_run {
    const pi2_shortcut_texts *texts;
    pi2_engine *engine;
    text_slot *slots;            /* [slot_count] */
    pi2_session_tokens *parts;   /* likewise */
    uint32_t slot_count, next;   /* next: text's number */
    float *inputs;               /* [2][width] */
    uint64_t taken;              /* by the fit, before the model writes */
    int32_t *closing;            /* what ends a user's turn and begins the answer; NULL: there are no turns */
    uint32_t closing_count, ending_count; /* ending_count: of them, what ends the turn */
} text_run;

uint64_t pi2_shortcut_texts_bytes(uint32_t width, uint32_t sequences) {
    return sequences * (uint64_t)(sizeof(text_slot) + sizeof(pi2_session_tokens)) +
           2 * (uint64_t)width * sizeof(float) + PI2_SHORTCUT_CONTEXT * sizeof(int32_t);
}

/* ---- what passes show ---- */

static const text_slot *slot_of(const text_run *run, uint32_t sequence) {
    for (uint32_t i = 0; i < run->slot_count; i++) {
        if (run->slots[i].session && run->slots[i].session->sequence == sequence) return &run->slots[i];
    }
    return NULL;
}

static pi2_status saw(void *user, const pi2_batch *batch) {
    const text_run *run = user;
    uint32_t token = 0;
    for (uint32_t s = 0; s < batch->span_count; s++) {
        const pi2_batch_span *span = &batch->spans[s];
        const text_slot *slot = slot_of(run, span->sequence);
        for (uint32_t i = 0; i < span->token_count; i++, token++) {
            if (!slot || slot->held || span->position + i == 0) continue;
            pi2_forward_features(run->engine->forward, token, run->inputs);
            pi2_shortcut_fit_add(run->texts->fit, run->inputs);
        }
    }
    return PI2_OK;
}

/* ---- how texts begin ---- */

static pi2_status turn_tokens(const text_run *run, const char *text, bool is_whole, int32_t **tokens_out,
                              size_t *count_out) {
    const pi2_message message = { "user", text };
    return pi2_engine_chat_tokens(run->engine, &message, 1, is_whole, tokens_out, count_out);
}

/* What both end with. */
static size_t common_end(const int32_t *a, size_t a_count, const int32_t *b, size_t b_count) {
    size_t count = 0;
    while (count < a_count && count < b_count && a[a_count - 1 - count] == b[b_count - 1 - count]) count++;
    return count;
}

/* What the template writes behind a user's text. A template that cannot be run, or says too much, is none. */
static void find_closing(text_run *run) {
    int32_t *one = NULL, *other = NULL, *whole = NULL;
    size_t counts[3] = { 0 };
    if (!pi2_engine_has_chat_template(run->engine) ||
        turn_tokens(run, beginnings[0], false, &one, &counts[0]) != PI2_OK ||
        turn_tokens(run, beginnings[1], false, &other, &counts[1]) != PI2_OK ||
        turn_tokens(run, beginnings[0], true, &whole, &counts[2]) != PI2_OK) {
        free(one);
        free(other);
        return;
    }
    const size_t ending = common_end(one, counts[0], other, counts[1]), begin = counts[0] - ending;
    const bool fits = counts[2] + QUESTION_TOKENS + ROOM <= PI2_SHORTCUT_CONTEXT && counts[2] > begin;
    if (fits && memcmp(one, whole, begin * sizeof *one) == 0) {
        run->ending_count = (uint32_t)ending;
        run->closing_count = (uint32_t)(counts[2] - begin);
        memmove(whole, whole + begin, run->closing_count * sizeof *whole);
        run->closing = whole;
        whole = NULL;
    }
    free(one);
    free(other);
    free(whole);
}

static pi2_status set_sampling(const text_slot *slot, float temperature, uint32_t seed, bool forbids_end) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = temperature;
    sampling.seed = seed;
    sampling.forbid_end_tokens = forbids_end;
    PI2_TRY(pi2_session_set_sampling(slot->session, &sampling));
    pi2_session_begin_answer(slot->session, NULL, 0);
    return PI2_OK;
}

static pi2_status begin_tokens(const text_run *run, text_slot *slot, const char *text) {
    int32_t *tokens = NULL;
    size_t count = 0;
    if (run->closing) PI2_TRY(turn_tokens(run, text, false, &tokens, &count));
    else PI2_TRY(pi2_engine_tokenize(run->engine, text, strlen(text), true, false, &tokens, &count));
    if (run->closing) count -= run->ending_count < count ? run->ending_count : 0;
    if (count > PI2_SHORTCUT_CONTEXT - ROOM) count = PI2_SHORTCUT_CONTEXT - ROOM;
    memcpy(slot->tokens, tokens, count * sizeof *tokens);
    slot->count = (uint32_t)count;
    free(tokens);
    return PI2_OK;
}

/* ---- the model writes ---- */

static bool is_held(uint32_t number) {
    return number % HELD_EVERY == HELD_FIRST && number / HELD_EVERY < PI2_HELD_TEXTS;
}

static bool is_enough(const text_run *run) {
    return pi2_shortcut_fit_count(run->texts->fit) - run->taken >= run->texts->tokens;
}

/* The next text, of those held back where enough is learnt from. */
static pi2_status begin_text(text_run *run, text_slot *slot) {
    while (is_enough(run) && !is_held(run->next) && run->next < HELD_EVERY * PI2_HELD_TEXTS) run->next++;
    slot->count = slot->written = slot->answer = 0;
    if (is_enough(run) && !is_held(run->next)) return PI2_OK;
    const uint32_t number = run->next++;
    slot->held = is_held(number) ? &run->texts->held[number / HELD_EVERY] : NULL;
    slot->is_greedy = number % 2 == 0;
    PI2_TRY(pi2_session_truncate(slot->session, 0));
    PI2_TRY(begin_tokens(run, slot, beginnings[number % BEGINNINGS]));
    return set_sampling(slot, 1.0f, number + 1, !run->closing);
}

static bool ends_turn(const text_run *run, int32_t token) {
    size_t length = 0;
    const char *piece = pi2_tokenizer_piece(run->engine->run.source.tokenizer, token, false, &length);
    return pi2_engine_ends_generation(run->engine, token) || memchr(piece, '\n', length) != NULL;
}

/* The turn goes on with a token, or ends, and the answer begins. */
static pi2_status go_on_turn(const text_run *run, text_slot *slot, int32_t token) {
    const bool is_last = ++slot->written >= QUESTION_TOKENS, ends = run->closing && ends_turn(run, token);
    slot->count = 0;
    if (!ends) slot->tokens[slot->count++] = token;
    if (!ends && !is_last) return PI2_OK;
    if (run->closing) {
        memcpy(slot->tokens + slot->count, run->closing, run->closing_count * sizeof *run->closing);
        slot->count += run->closing_count;
    }
    slot->answer = pi2_session_position(slot->session) + slot->count;
    return set_sampling(slot, slot->is_greedy ? 0.0f : 0.8f, 1, false);
}

static pi2_status go_on(text_run *run, text_slot *slot) {
    const uint32_t position = pi2_session_position(slot->session);
    int32_t token;
    PI2_TRY(pi2_session_sample(slot->session, &token));
    if (!slot->answer) return go_on_turn(run, slot, token);
    if (position < PI2_SHORTCUT_CONTEXT && !pi2_engine_ends_generation(run->engine, token)) {
        slot->tokens[0] = token;
        slot->count = 1;
        return PI2_OK;
    }
    if (slot->held) {
        memcpy(slot->held->tokens, slot->session->timeline, position * sizeof *slot->held->tokens);
        slot->held->count = position;
        slot->held->answer = slot->answer;
    }
    return begin_text(run, slot);
}

static void tell(const text_run *run) {
    const uint64_t total = run->texts->tokens, done = pi2_shortcut_fit_count(run->texts->fit) - run->taken;
    const pi2_session_part part = { "texts", done < total ? done : total, done < total ? done : total,
                                    total ? total : 1 };
    const pi2_callbacks *callbacks = &run->engine->run.options.callbacks;
    if (callbacks->progress) callbacks->progress(callbacks->user, part.what, part.begin, part.total);
    for (uint32_t i = 0; i < run->slot_count; i++) pi2_session_set_part(run->slots[i].session, &part);
}

static pi2_status write_texts(text_run *run) {
    const pi2_callbacks *callbacks = &run->engine->run.options.callbacks;
    run->taken = pi2_shortcut_fit_count(run->texts->fit);
    for (uint32_t i = 0; i < run->slot_count; i++) PI2_TRY(begin_text(run, &run->slots[i]));
    for (;;) {
        size_t count = 0;
        for (uint32_t i = 0; i < run->slot_count; i++) {
            const text_slot *slot = &run->slots[i];
            if (slot->count == 0) continue;
            run->parts[count++] = (pi2_session_tokens){ slot->session, slot->tokens, slot->count, true };
        }
        if (count == 0) return PI2_OK;
        if (callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
            return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
        }
        tell(run);
        PI2_TRY(pi2_sessions_append(run->parts, count));
        for (uint32_t i = 0; i < run->slot_count; i++) {
            if (run->slots[i].count) PI2_TRY(go_on(run, &run->slots[i]));
        }
    }
}

/* ---- files, and all ---- */

static pi2_status take_chunk(void *user, const int32_t *tokens, size_t count) {
    const text_run *run = user;
    PI2_TRY(pi2_session_truncate(run->slots[0].session, 0));
    return pi2_session_append(run->slots[0].session, tokens, count, PI2_LOGITS_NONE);
}

static pi2_status read_files(text_run *run) {
    const pi2_text_chunks chunks = { .engine = run->engine, .paths = run->texts->paths,
                                     .most_tokens = run->texts->tokens, .chunk_tokens = PI2_SHORTCUT_CONTEXT,
                                     .take = take_chunk, .user = run };
    uint64_t tokens;
    return run->texts->paths && run->texts->paths[0] ? pi2_text_chunks_run(&chunks, &tokens) : PI2_OK;
}

static pi2_status run_all(text_run *run) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    for (uint32_t i = 0; i < run->slot_count; i++) {
        PI2_TRY(pi2_session_create(run->engine, &sampling, &run->slots[i].session));
    }
    PI2_TRY(read_files(run));
    find_closing(run);
    return write_texts(run);
}

pi2_status pi2_shortcut_texts_run(const pi2_shortcut_texts *texts) {
    pi2_engine *engine = texts->engine;
    text_run run = { .texts = texts, .engine = engine, .slot_count = engine->run.plan.memory.shape.sequences };
    if (run.slot_count == 0) run.slot_count = 1;
    run.slots = calloc(run.slot_count, sizeof *run.slots);
    run.parts = calloc(run.slot_count, sizeof *run.parts);
    run.inputs = calloc(2 * (size_t)engine->run.source.model->shape.embedding_length, sizeof *run.inputs);
    engine->watcher = (pi2_pass_watcher){ &run, saw };
    const pi2_status status = run.slots && run.parts && run.inputs ? run_all(&run)
                                                                   : pi2_fail(PI2_ERR_MEMORY, "no memory for texts");
    engine->watcher = (pi2_pass_watcher){ NULL, NULL };
    for (uint32_t i = 0; run.slots && i < run.slot_count; i++) pi2_session_free(run.slots[i].session);
    free(run.slots);
    free(run.parts);
    free(run.inputs);
    free(run.closing);
    return status;
}
