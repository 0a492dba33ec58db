/*
 * Goal:   with any map the text is that of no guesses, whatever happens meanwhile; where the layers left out add
 *         nothing, and the map neither, every guess is right. What guesses are computed with stays in memory.
 * Method: a tiny model that streams, and one whose middle layers have zeros where they would add; maps of zeros and of
 *         random numbers. Answers are held against an engine without guesses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/run_draft.h"
#include "engine/session_internal.h"
#include "pipeline/forward_internal.h"
#include "powerinfer2/generate.h"
#include "powerinfer2/prompt_cache.h"
#include "support/emulator.h"
#include "support/read_methods.h"
#include "support/sanitizer.h"
#include "support/shortcut_maker.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum {
    IS_SLOW = PI2_UNDER_TSAN || PI2_UNDER_ASAN, CONTEXT = 96, ANSWER = IS_SLOW ? 8 : 24,
    LONG_ANSWER = IS_SLOW ? 16 : 40, MOST_TOKENS = 400, TURNS = 3, STEP = 500000, STEPS = 100, SHARED = 4,
    LONG_PROMPT = 300, LONG_CONTEXT = 800
};

/* What weights get. */
typedef enum budget { WHOLE, SOME, LEAST } budget;

/* Fields that are not named are 0. */
#define PLACE(of, by, held, members, tokens, tree, ...) \
    { .model = of, .map = by, .memory = held, .threads = members, .most = tokens, .nodes = tree, __VA_ARGS__ }

typedef struct place {
    const char *model, *map; /* map NULL: nothing is guessed */
    budget memory;
    uint32_t threads, most, nodes, context, batch, sequences;
    const char *read_method;
    pi2_cache_type cache;
} place;

static char *model_path, *idle_path, *zero_path, *random_path, *other_path, *saved_path, *cache_path;
static uint64_t least_bytes; /* beside what the process holds, with which the map is used */
static char logged[4096];
static pi2_engine *watched;
static uint32_t stopped_short; /* passes that were cancelled */
static int calls_left = -1;  /* until the work is cancelled; -1: it is not */

static void keep_line(void *user, const char *line) {
    (void)user;
    const size_t used = strlen(logged);
    (void)snprintf(logged + used, sizeof logged - used, "%s\n", line);
}

static bool cancelled(void *user) {
    (void)user;
    if (calls_left > 0 && --calls_left == 0 && watched) stopped_short += watched->forward->is_short;
    return calls_left == 0;
}

static pi2_engine_options options_of(const place *p) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = p->model;
    options.context_tokens = p->context ? p->context : CONTEXT;
    options.batch_tokens = p->batch;
    options.thread_count = p->threads ? p->threads : 2;
    options.sequences = p->sequences ? p->sequences : 1;
    options.memory_bytes = p->memory == WHOLE ? PI2_TEST_PLENTY_BYTES : 0;
    options.draft_tokens = p->map ? p->most : 0;
    options.draft_nodes = p->nodes;
    options.draft_model_path = p->map;
    options.draft_always = true;
    options.identifies_weights = true;
    options.cache_type = p->cache;
    if (p->read_method) options.read_method = p->read_method;
    options.callbacks.log = keep_line;
    options.callbacks.cancelled = cancelled;
    logged[0] = '\0';
    return options;
}

/* Whether a map is used with so much memory. */
static bool is_enough(uint64_t more_bytes, void *user) {
    const pi2_engine_options options = options_of(user);
    pi2_engine *engine = NULL;
    if (pi2_small_budget_open(&options, more_bytes, &engine) != PI2_OK) return false;
    const bool is_used = pi2_engine_get_report(engine)->draft_model != NULL;
    pi2_engine_close(engine);
    return is_used;
}

/* What the process holds grows a little from one engine to the next. */
static pi2_engine *open_engine(const place *p) {
    const pi2_engine_options options = options_of(p);
    uint64_t more_bytes = least_bytes + (p->memory == SOME ? 6u : 0u) * STEP;
    pi2_engine *engine = NULL;
    for (int tries = 0; tries < 12; tries++, more_bytes += STEP) {
        const pi2_status status = p->memory == WHOLE ? pi2_engine_open(&options, &engine)
                                                     : pi2_small_budget_open(&options, more_bytes, &engine);
        if (status != PI2_OK) fail_msg("%s", pi2_error_text());
        const pi2_engine_report *report = pi2_engine_get_report(engine);
        if (p->memory != WHOLE) assert_true(report->resident_bytes < report->weight_bytes);
        if (!p->map || report->draft_model) return engine;
        pi2_engine_close(engine);
    }
    fail_msg("the map is not used: %s", logged);
    return NULL;
}

static pi2_session *create(pi2_engine *engine, float temperature, uint32_t seed) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = temperature;
    sampling.top_k = 0;
    sampling.top_p = 1; /* what that leaves out a guess does not know */
    sampling.min_p = 0;
    sampling.seed = seed;
    pi2_session *session = NULL;
    if (pi2_session_create(engine, &sampling, &session) != PI2_OK) fail_msg("%s", pi2_error_text());
    return session;
}

static pi2_drafter_counters count_own(const pi2_session *session) {
    pi2_drafter_counters counters[PI2_DRAFTERS_MOST];
    const size_t count = pi2_session_count_drafters(session, counters, PI2_DRAFTERS_MOST);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(counters[i].name, "self") == 0) return counters[i];
    }
    fail_msg("nobody guesses by the map");
    return counters[0];
}

typedef struct answers {
    int32_t tokens[MOST_TOKENS];
    size_t count;
} answers;

static bool take_token(void *user, int32_t token) {
    answers *seen = user;
    assert_true(seen->count < MOST_TOKENS);
    seen->tokens[seen->count++] = token;
    return true;
}

static uint32_t unused(const pi2_engine *engine) { return pi2_kv_pages_unused(pi2_forward_pages(engine->forward)); }

static const int32_t prompt[] = { 20, 21, 22, 23, 24, 25, 26, 20, 21, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49 };

static void answer(pi2_session *session, size_t count, int64_t limit, answers *seen) {
    const pi2_answer_options options = { .limit = limit, .user = seen, .token = take_token };
    pi2_answer_result result;
    if (pi2_generate(session, prompt, count, &options, &result) != PI2_OK) fail_msg("%s", pi2_error_text());
}

/* ---- the same text ---- */

/* A prompt, another that goes on from a part of it, and one that has only the beginning; then to the context's end. */
static void answer_turns(const char *name, pi2_engine *engine, float temperature, answers *seen) {
    static const size_t counts[TURNS] = { 12, 19, 9 }, kept[TURNS] = { 0, 12, 4 };
    const uint32_t all = unused(engine);
    pi2_session *session = create(engine, temperature, 3);
    for (int i = 0; i < TURNS; i++) {
        assert_int_equal(pi2_session_truncate(session, (uint32_t)kept[i]), PI2_OK);
        answer(session, counts[i], ANSWER, seen);
    }
    while (pi2_session_position(session) < engine->run.plan.memory.shape.context_tokens) {
        int32_t token = 0;
        assert_int_equal(pi2_session_sample(session, &token), PI2_OK);
        take_token(seen, token);
        if (pi2_session_append(session, &token, 1, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    if (session->drafting && count_own(session).guessed == 0) fail_msg("%s: nothing was guessed", name);
    pi2_session_free(session);
    assert_int_equal(unused(engine), all);
}

static void compare(const char *name, const answers *wanted, const answers *seen) {
    if (wanted->count == seen->count &&
        memcmp(wanted->tokens, seen->tokens, seen->count * sizeof seen->tokens[0]) == 0) return;
    fail_msg("%s: the text is another one", name);
}

static void test_the_text_is_the_same(void **state) {
    (void)state;
    const struct {
        const char *name;
        float temperature;
        place p;
    } variations[] = {
        { "zeros, in memory", 0, PLACE(model_path, zero_path, WHOLE, 2, 6, 0) },
        { "zeros, in trees", 0.8f, PLACE(model_path, zero_path, WHOLE, 2, 6, 15) },
        { "zeros, one thread", 0, PLACE(model_path, zero_path, SOME, 1, 8, 31) },
        { "random, chains", 0.8f, PLACE(model_path, random_path, SOME, 2, 15, 0) },
        { "random, least memory", 0.8f, PLACE(model_path, random_path, LEAST, 2, 8, 31) },
        { "random, pread", 0, PLACE(model_path, random_path, LEAST, 1, 8, 15, .read_method = "pread") },
        { "exact, least memory", 0.8f, PLACE(idle_path, zero_path, LEAST, 2, 8, 31) },
        { "exact, few tokens a pass", 0, PLACE(idle_path, zero_path, SOME, 2, 7, 7, .batch = 8) },
        { "exact, rounded cache", 0.8f, PLACE(idle_path, zero_path, SOME, 2, 8, 31, .cache = PI2_CACHE_Q8_0) },
        { "up to the head", 0.8f, PLACE(model_path, other_path, WHOLE, 2, 8, 31) },
    };
    for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) {
        place plain = { .model = variations[i].p.model, .cache = variations[i].p.cache };
        answers wanted = { .count = 0 }, seen = { .count = 0 };
        pi2_engine *engine = open_engine(&plain);
        answer_turns(variations[i].name, engine, variations[i].temperature, &wanted);
        pi2_engine_close(engine);
        engine = open_engine(&variations[i].p);
        answer_turns(variations[i].name, engine, variations[i].temperature, &seen);
        pi2_engine_close(engine);
        compare(variations[i].name, &wanted, &seen);
    }
}

/* ---- right guesses ---- */

/* Nothing is lost between what is guessed and what is picked, but for the guess that the answer's end cuts. */
static void guess_rightly(const char *map, float temperature, uint32_t most, uint32_t nodes) {
    const place p = { .model = idle_path, .map = map, .memory = WHOLE, .most = most, .nodes = nodes };
    pi2_engine *engine = open_engine(&p);
    pi2_session *session = create(engine, temperature, 7);
    assert_int_equal(pi2_session_append(session, prompt, 4, PI2_LOGITS_LAST), PI2_OK);
    for (int i = 0; i < LONG_ANSWER; i++) {
        int32_t token = 0;
        assert_int_equal(pi2_session_sample(session, &token), PI2_OK);
        if (pi2_session_append(session, &token, 1, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    const pi2_drafter_counters own = count_own(session);
    pi2_draft_counters all;
    pi2_session_count_drafts(session, &all);
    const uint64_t pending = session->ahead_count;
    assert_true(own.passes > 0);
    if (nodes == 0) assert_int_equal(own.right, own.guessed - pending);
    if (most > 3) assert_true(all.passes * 3 <= LONG_ANSWER);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static void test_guesses_are_right(void **state) {
    (void)state;
    guess_rightly(zero_path, 0, 1, 0);
    guess_rightly(zero_path, 0, 3, 0);
    guess_rightly(zero_path, 0, 8, 0);
    guess_rightly(zero_path, 0, 15, 0);
    guess_rightly(zero_path, 0.8f, 8, 0);
    guess_rightly(zero_path, 0, 8, 15);
    guess_rightly(zero_path, 0, 8, 31);
    guess_rightly(zero_path, 0.8f, 8, 31);
}

/* ---- whatever happens meanwhile ---- */

typedef struct picks {
    pi2_session *session;
    answers seen;
} picks;

static int32_t pick(picks *by) {
    int32_t token = 0;
    if (pi2_session_sample(by->session, &token) != PI2_OK) fail_msg("%s", pi2_error_text());
    take_token(&by->seen, token);
    return token;
}

static void step(picks *by, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const int32_t token = pick(by);
        if (pi2_session_append(by->session, &token, 1, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
}

static picks start(pi2_engine *engine, float temperature, uint32_t seed, size_t from, size_t count) {
    picks by = { .session = create(engine, temperature, seed) };
    if (pi2_session_append(by.session, prompt + from, count, PI2_LOGITS_LAST) != PI2_OK) {
        fail_msg("%s", pi2_error_text());
    }
    return by;
}

/* Answers in common passes, each with a guess of its own; then alone, and one by one in turn. */
static void answer_together(pi2_engine *engine, picks by[SHARED]) {
    pi2_session_tokens parts[SHARED];
    int32_t tokens[SHARED];
    for (uint32_t s = 0; s < SHARED; s++) by[s] = start(engine, s % 2 ? 0.8f : 0, s, s, 5 + 3 * s);
    for (uint32_t i = 0; i < ANSWER; i++) {
        for (uint32_t s = 0; s < SHARED; s++) {
            tokens[s] = pick(&by[s]);
            parts[s] = (pi2_session_tokens){ by[s].session, &tokens[s], 1, true };
        }
        if (pi2_sessions_append(parts, SHARED) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    step(&by[2], ANSWER);
    for (uint32_t i = 0; i < 6; i++) step(&by[i % 2], 3);
    for (uint32_t s = 0; s < SHARED; s++) {
        if (by[s].session->drafting && count_own(by[s].session).guessed == 0) fail_msg("session %u guesses nothing", s);
        pi2_session_free(by[s].session);
    }
}

static void test_sessions_together(void **state) {
    (void)state;
    const place plain = { .model = model_path, .sequences = SHARED };
    const place places[] = { PLACE(model_path, random_path, SOME, 2, 8, 31, .sequences = SHARED),
                             PLACE(model_path, zero_path, WHOLE, 2, 3, 0, .sequences = SHARED) };
    picks wanted[SHARED], seen[SHARED];
    pi2_engine *engine = open_engine(&plain);
    answer_together(engine, wanted);
    pi2_engine_close(engine);
    for (size_t i = 0; i < 2; i++) {
        engine = open_engine(&places[i]);
        const uint32_t all = unused(engine);
        answer_together(engine, seen);
        assert_int_equal(unused(engine), all);
        pi2_engine_close(engine);
        for (uint32_t s = 0; s < SHARED; s++) compare("together", &wanted[s].seen, &seen[s].seen);
    }
}

/* A fork goes on beside its session; a saved text goes on in another session; a text that was cut begins anew. */
static void part_ways(pi2_engine *engine, picks by[3]) {
    const uint32_t all = unused(engine);
    by[0] = start(engine, 0.8f, 9, 0, 12);
    step(&by[0], 7);
    by[1] = (picks){ .session = NULL };
    assert_int_equal(pi2_session_fork(by[0].session, NULL, &by[1].session), PI2_OK);
    for (int i = 0; i < 4; i++) {
        step(&by[0], 2);
        step(&by[1], 3);
    }
    by[2] = (picks){ .session = create(engine, 0, 1) };
    if (pi2_session_save(by[0].session, saved_path, NULL, 0) != PI2_OK) fail_msg("%s", pi2_error_text());
    if (pi2_session_load(by[2].session, saved_path, NULL, NULL) != PI2_OK) fail_msg("%s", pi2_error_text());
    step(&by[0], 2);
    assert_int_equal(pi2_session_truncate(by[2].session, 15), PI2_OK);
    assert_int_equal(pi2_session_append(by[2].session, prompt, 1, PI2_LOGITS_LAST), PI2_OK);
    for (int i = 0; i < 3; i++) {
        step(&by[2], 4);
        step(&by[0], 3);
    }
    for (int s = 0; s < 3; s++) pi2_session_free(by[s].session);
    assert_int_equal(unused(engine), all);
}

static void test_forks_and_files(void **state) {
    (void)state;
    const place plain = { .model = model_path, .sequences = 3 };
    const place places[] = { PLACE(model_path, random_path, SOME, 1, 8, 31, .sequences = 3),
                             PLACE(model_path, zero_path, WHOLE, 2, 8, 15, .sequences = 3) };
    picks wanted[3], seen[3];
    pi2_engine *engine = open_engine(&plain);
    part_ways(engine, wanted);
    pi2_engine_close(engine);
    for (size_t i = 0; i < 2; i++) {
        engine = open_engine(&places[i]);
        part_ways(engine, seen);
        pi2_engine_close(engine);
        for (int s = 0; s < 3; s++) compare("apart", &wanted[s].seen, &seen[s].seen);
    }
}

/* What a folder of prompts keeps of a text with guesses is what one without has. */
static void ask_twice(pi2_engine *engine, answers *seen) {
    pi2_prompt_cache *cache = NULL;
    int32_t tokens[LONG_PROMPT];
    for (int i = 0; i < LONG_PROMPT; i++) tokens[i] = 20 + i * 7 % 200;
    if (pi2_prompt_cache_open(engine, cache_path, 100000000, &cache) != PI2_OK) fail_msg("%s", pi2_error_text());
    for (int turn = 0; turn < 2; turn++) {
        picks by = { .session = create(engine, 0.8f, 4) };
        pi2_session_use_prompt_cache(by.session, cache);
        size_t recalled = 0;
        const size_t had = pi2_session_recall(by.session, tokens, LONG_PROMPT, &recalled);
        if (turn) assert_true(recalled > 0);
        if (pi2_session_append(by.session, tokens + had, LONG_PROMPT - had, PI2_LOGITS_LAST) != PI2_OK) {
            fail_msg("%s", pi2_error_text());
        }
        step(&by, ANSWER);
        for (size_t i = 0; i < by.seen.count; i++) take_token(seen, by.seen.tokens[i]);
        pi2_session_free(by.session);
    }
    pi2_prompt_cache_close(cache);
}

static void test_prompt_cache(void **state) {
    (void)state;
    const place plain = { .model = model_path, .context = LONG_PROMPT + 64 };
    const place p = PLACE(model_path, random_path, SOME, 2, 8, 31, .context = LONG_PROMPT + 64);
    answers wanted = { .count = 0 }, seen = { .count = 0 };
    pi2_engine *engine = open_engine(&p); /* which fills the folder */
    ask_twice(engine, &seen);
    pi2_engine_close(engine);
    engine = open_engine(&plain);
    ask_twice(engine, &wanted);
    pi2_engine_close(engine);
    compare("prompts", &wanted, &seen);
}

/* Every pass, the short ones too, is cancelled at some layer: what it took is given back, and the text goes on. */
static void test_cancelled(void **state) {
    (void)state;
    const place plain = { .model = model_path };
    const place p = PLACE(model_path, random_path, WHOLE, 2, 8, 31, .context = CONTEXT);
    pi2_engine *engine = open_engine(&plain);
    picks wanted = start(engine, 0.8f, 2, 0, 9), seen;
    step(&wanted, LONG_ANSWER);
    pi2_session_free(wanted.session);
    pi2_engine_close(engine);
    engine = open_engine(&p);
    watched = engine;
    stopped_short = 0;
    uint32_t stopped = 0;
    const uint32_t all = unused(engine);
    seen = start(engine, 0.8f, 2, 0, 9);
    for (int i = 0; i < LONG_ANSWER; i++) {
        const uint32_t position = pi2_session_position(seen.session);
        const int32_t token = pick(&seen);
        calls_left = 1 + i * 5 % 11;
        pi2_status status = pi2_session_append(seen.session, &token, 1, PI2_LOGITS_LAST);
        calls_left = -1;
        if (status != PI2_OK) {
            assert_int_equal(status, PI2_ERR_INTERRUPTED);
            assert_int_equal(pi2_session_position(seen.session), position);
            assert_int_equal(unused(engine), all - (position + 15) / 16);
            stopped++;
            status = pi2_session_append(seen.session, &token, 1, PI2_LOGITS_LAST);
        }
        if (status != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    watched = NULL;
    compare("cancelled", &wanted.seen, &seen.seen);
    /* Under a sanitizer answers are short. */
    if (PI2_UNDER_ASAN || PI2_UNDER_TSAN) print_message("%u stopped, %u of them short\n", stopped, stopped_short);
    else assert_true(stopped > 3 && stopped_short > 1 && count_own(seen.session).guessed > 0);
    pi2_session_free(seen.session);
    pi2_engine_close(engine);
}

/* A file that is cut meanwhile, and mended: the pass that reads it fails, and the text goes on. */
static void test_read_error(void **state) {
    (void)state;
    const place plain = { .model = model_path };
    const place p = PLACE(model_path, random_path, LEAST, 2, 8, 31, .context = CONTEXT);
    size_t bytes = 0;
    pi2_engine *engine = open_engine(&plain);
    picks wanted = start(engine, 0, 2, 0, 9), seen;
    step(&wanted, 12);
    pi2_session_free(wanted.session);
    pi2_engine_close(engine);
    engine = open_engine(&p);
    uint8_t *whole = test_file_read(engine->run.source.weights_path, &bytes);
    seen = start(engine, 0, 2, 0, 9);
    step(&seen, 5);
    const int32_t token = pick(&seen);
    pi2_status status = PI2_OK;
    assert_int_equal(truncate(engine->run.source.weights_path, (off_t)(bytes / 64)), 0);
    for (int i = 0; i < 4 && status == PI2_OK; i++) { /* it may have been guessed */
        status = pi2_session_append(seen.session, &token, 1, PI2_LOGITS_LAST);
        if (status == PI2_OK) assert_int_equal(pi2_session_truncate(seen.session, 14), PI2_OK);
    }
    assert_int_equal(status, PI2_ERR_IO);
    test_file_write(engine->run.source.weights_path, whole, bytes);
    free(whole);
    if (pi2_session_append(seen.session, &token, 1, PI2_LOGITS_LAST) != PI2_OK) fail_msg("%s", pi2_error_text());
    step(&seen, 6);
    compare("mended", &wanted.seen, &seen.seen);
    pi2_session_free(seen.session);
    pi2_engine_close(engine);
}

/* ---- what stays ---- */

static uint64_t away_now(const pi2_engine *engine) { return pi2_store_away_bytes(engine->store); }

/* The layers outside and the head, and nothing that makes them more than there is room for. */
static void check_residents(const pi2_engine *engine) {
    const pi2_extent_layout *layout = engine->run.source.model->layout;
    const pi2_run_draft *draft = engine->run.draft;
    uint64_t kept = 0, all = 0;
    for (uint32_t e = 0; e < layout->extent_count; e++) {
        const uint64_t bytes = pi2_extent_read_bytes(&layout->extents[e]);
        const pi2_group *group = &layout->groups[layout->extents[e].group];
        const bool is_outside = group->layer < draft->first_layer ||
                                (group->layer >= draft->end_layer && group->layer != UINT32_MAX);
        const bool is_wanted = group->kind == PI2_GROUP_HEAD || (is_outside && !pi2_group_kind_is_raw(group->kind));
        if (is_wanted) assert_true(engine->run.plan.resident[e]);
        if (is_wanted) kept += bytes;
        if (engine->run.plan.resident[e]) all += bytes;
    }
    assert_int_equal(kept, draft->kept_bytes);
    assert_true(all <= engine->run.plan.memory.resident_room);
}

/* However long the text becomes, weights that the cache has lent its room are others. */
static void test_loan(void **state) {
    (void)state;
    const place p = PLACE(model_path, random_path, LEAST, 2, 8, 31, .context = LONG_CONTEXT);
    if (PI2_UNDER_ASAN || PI2_UNDER_TSAN) skip(); /* their memory fits no budget that is so small */
    pi2_engine *engine = open_engine(&p);
    assert_true(engine->run.plan.memory.loan_bytes > 0);
    check_residents(engine);
    picks by = start(engine, 0.8f, 1, 0, 9);
    while (pi2_session_position(by.session) + 40 < LONG_CONTEXT) {
        int32_t tokens[32];
        for (uint32_t i = 0; i < 32; i++) {
            tokens[i] = 20 + (int32_t)((pi2_session_position(by.session) * 7 + 3 * i) % 200);
        }
        assert_int_equal(pi2_session_append(by.session, tokens, 32, PI2_LOGITS_LAST), PI2_OK);
        step(&by, 1);
        if (!pi2_forward_has_shortcut(engine->forward)) {
            fail_msg("not in memory at %u tokens", pi2_session_position(by.session));
        }
    }
    assert_true(away_now(engine) > 0);
    pi2_session_free(by.session);
    pi2_engine_close(engine);
}

/* How much of the planned weights is wanted; and what it was planned to be. */
typedef struct demand {
    uint64_t missing, planned;
    uint32_t asked, every; /* 0: always so much */
} demand;

static uint64_t wanted_now(void *user, uint64_t planned_bytes) {
    demand *own = user;
    own->planned = planned_bytes;
    own->asked++;
    const uint64_t missing = own->every && own->asked / own->every % 2 == 0 ? 0 : own->missing;
    return missing < planned_bytes ? planned_bytes - missing : 0;
}

/* Others leave first; when these too are gone nothing is guessed, and when they are back, it is. */
static void test_pressure(void **state) {
    (void)state;
    const place plain = { .model = model_path };
    const place p = PLACE(model_path, zero_path, SOME, 2, 8, 31, .context = CONTEXT);
    pi2_engine *engine = open_engine(&plain);
    picks wanted = start(engine, 0.8f, 2, 0, 9), seen;
    step(&wanted, 80);
    pi2_session_free(wanted.session);
    pi2_engine_close(engine);
    engine = open_engine(&p);
    check_residents(engine);
    const uint64_t others = engine->run.plan.resident_room_bytes - engine->run.draft->kept_bytes;
    demand own = { .missing = others / 2 };
    assert_true(others > 1000000);
    pi2_engine_simulate_pressure(engine, wanted_now, &own);
    seen = start(engine, 0.8f, 2, 0, 9);
    for (int i = 0; i < 20; i++) {
        step(&seen, 1);
        assert_true(pi2_forward_has_shortcut(engine->forward));
    }
    assert_true(away_now(engine) >= others / 2);
    const uint64_t guessed = count_own(seen.session).guessed;
    assert_true(guessed > 0);
    own.missing = others + engine->run.draft->kept_bytes / 2;
    step(&seen, 15);
    assert_false(pi2_forward_has_shortcut(engine->forward));
    own.every = 9; /* they come and go within a pass, too */
    step(&seen, 15);
    own.missing = 0;
    step(&seen, 5);
    const uint64_t before = count_own(seen.session).guessed;
    step(&seen, 25);
    assert_true(pi2_forward_has_shortcut(engine->forward));
    assert_true(count_own(seen.session).guessed > before);
    compare("pressure", &wanted.seen, &seen.seen);
    pi2_session_free(seen.session);
    pi2_engine_close(engine);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("model.gguf");
    idle_path = test_folder_path("idle.gguf");
    zero_path = test_folder_path("zero.gguf");
    random_path = test_folder_path("random.gguf");
    other_path = test_folder_path("other.gguf");
    saved_path = test_folder_path("saved.session");
    cache_path = test_folder_path("prompts");
    pi2_tiny_model_options options;
    pi2_streamed_model_options_init(&options);
    options.layer_count = 6;
    if (pi2_tiny_model_write_apart(&options, model_path)) return 1;
    options.idle_first = 1;
    options.idle_end = 5;
    if (pi2_tiny_model_write_apart(&options, idle_path)) return 1;
    pi2_shortcut_maker maker;
    pi2_shortcut_maker_init(&maker);
    if (pi2_shortcut_maker_write(&maker, zero_path)) return 1;
    maker.deviation = 0.05f;
    maker.type = PI2_F16;
    if (pi2_shortcut_maker_write(&maker, random_path)) return 1;
    maker.first = 3;
    maker.end = 6; /* up to the head */
    if (pi2_shortcut_maker_write(&maker, other_path)) return 1;
    place least = { .model = model_path, .map = zero_path, .memory = LEAST, .most = 8, .nodes = 31 };
    least_bytes = pi2_small_budget_least(STEP, STEPS, is_enough, &least);
    return least_bytes == 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pressure), cmocka_unit_test(test_the_text_is_the_same),
        cmocka_unit_test(test_guesses_are_right),
        cmocka_unit_test(test_sessions_together), cmocka_unit_test(test_forks_and_files),
        cmocka_unit_test(test_prompt_cache), cmocka_unit_test(test_cancelled), cmocka_unit_test(test_read_error),
        cmocka_unit_test(test_loan),
    };
    return cmocka_run_group_tests_name("draft shortcut", tests, set_up, test_folder_end);
}
