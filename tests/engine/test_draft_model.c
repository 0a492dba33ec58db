/*
 * Goal:   with a draft model the text is the same, greedy and with temperature, in memory and streamed, however many
 *         threads compute and however answers follow one another; its memory is in the budget; one that cannot guess
 *         for the model, or would not pay, is refused or left out with a line that says why.
 * Method: a tiny model that streams; drafts are itself and one with other weights, which is nearly always wrong. Their
 *         answers are held against an engine without guesses.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/memory_ledger.h"
#include "base/memory_limit.h"
#include "engine/run_draft.h"
#include "engine/session_internal.h"
#include "powerinfer2/generate.h"
#include "powerinfer2/plan.h"
#include "support/emulator.h"
#include "support/family_model.h"
#include "support/sanitizer.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum {
    CONTEXT = 96, ANSWER = PI2_UNDER_TSAN || PI2_UNDER_ASAN ? 6 : 20, TURNS = 3, LONG_ANSWER = 40, MOST_TOKENS = 60,
    SCARCE = PI2_UNDER_ASAN ? 18000000 : 14000000, OWN_WEIGHTS = 12000000
};

static char *model_path, *other_path, *longer_path, *tokens_path, *beginning_path, *few_path;
static char logged[4096];

static void keep_line(void *user, const char *line) {
    (void)user;
    const size_t used = strlen(logged);
    (void)snprintf(logged + used, sizeof logged - used, "%s\n", line);
}

static pi2_engine_options options_of(const char *draft) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.context_tokens = CONTEXT;
    options.batch_tokens = 16;
    options.thread_count = 2;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.draft_tokens = draft ? 6 : 0;
    options.draft_model_path = draft;
    options.draft_always = true;
    options.callbacks.log = keep_line;
    logged[0] = '\0';
    return options;
}

/* ---- the same text ---- */

typedef struct variation {
    const char *name;
    uint64_t more_bytes; /* 0: everything in memory */
    uint32_t threads, most, least;
    float temperature;
    bool is_other;       /* the draft model has other weights */
    uint32_t nodes;      /* of a tree */
} variation;

typedef struct answers {
    int32_t tokens[MOST_TOKENS];
    size_t count;
} answers;

static bool take_token(void *user, int32_t token) {
    answers *seen = user;
    seen->tokens[seen->count++] = token;
    return true;
}

/* A prompt, another that goes on from a part of it, and the first again: what is kept of the timeline shrinks. */
static void answer_turns(pi2_engine *engine, float temperature, answers *seen, pi2_drafter_counters counters[2]) {
    static const int32_t prompt[] = { 20, 21, 22, 23, 24, 25, 26, 20, 21, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49 };
    static const size_t counts[TURNS] = { 12, 19, 9 }, kept[TURNS] = { 0, 12, 4 };
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = temperature;
    sampling.seed = 3;
    sampling.repeat_penalty = 1.1f;
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    for (int i = 0; i < TURNS; i++) {
        const pi2_answer_options options = { .limit = ANSWER, .user = seen, .token = take_token };
        pi2_answer_result result;
        assert_int_equal(pi2_session_truncate(session, (uint32_t)kept[i]), PI2_OK);
        if (pi2_generate(session, prompt, counts[i], &options, &result) != PI2_OK) fail_msg("%s", pi2_error_text());
    }
    assert_int_equal(pi2_session_count_drafters(session, counters, 2), counters ? 3 : 0);
    pi2_session_free(session);
}

static void check(const variation *v) {
    pi2_engine_options options = options_of(NULL);
    pi2_engine *engine = NULL;
    answers plain = { .count = 0 }, drafted = { .count = 0 };
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    answer_turns(engine, v->temperature, &plain, NULL);
    pi2_engine_close(engine);

    options = options_of(v->is_other ? other_path : model_path);
    options.thread_count = v->threads;
    options.draft_tokens = v->most;
    options.draft_least_tokens = v->least;
    options.draft_nodes = v->nodes;
    const pi2_status status = v->more_bytes ? pi2_small_budget_open(&options, v->more_bytes, &engine)
                                            : pi2_engine_open(&options, &engine);
    if (status != PI2_OK) fail_msg("%s: %s", v->name, pi2_error_text());
    const pi2_engine_report *report = pi2_engine_get_report(engine);
    if (!report->draft_model) fail_msg("%s: no draft model: %s", v->name, logged);
    assert_int_equal(v->more_bytes > 0, report->resident_bytes < report->weight_bytes);
    pi2_drafter_counters counters[2];
    answer_turns(engine, v->temperature, &drafted, counters);
    pi2_engine_close(engine);
    assert_string_equal(counters[1].name, "model");
    assert_true(counters[1].guessed > 0);
    assert_true(counters[1].draft_ns > 0);
    /* Penalties, which it does not know, may pick another token. */
    if (!v->is_other && v->temperature <= 0 && !v->nodes) {
        assert_true(counters[1].right * 3 > counters[1].guessed);
    }
    if (plain.count != drafted.count || memcmp(plain.tokens, drafted.tokens, plain.count * sizeof plain.tokens[0])) {
        fail_msg("%s: the text is another one", v->name);
    }
}

static void test_the_text_is_the_same(void **state) {
    (void)state;
    static const variation variations[] = {
        { "itself, in memory", 0, 2, 6, 0, 0, false, 0 },
        { "itself, at 0.8, streamed", SCARCE + OWN_WEIGHTS, 2, 3, 0, 0.8f, false, 0 },
        { "another, at 0.8", 0, 1, 6, 0, 0.8f, true, 0 },
        { "another, streamed", SCARCE, 1, 15, 2, 0, true, 0 },
        { "itself, in trees", 0, 2, 6, 0, 0.8f, false, 15 },
        { "another, in trees, streamed", SCARCE, 2, 4, 1, 0.8f, true, 15 },
    };
    for (size_t i = 0; i < sizeof variations / sizeof variations[0]; i++) check(&variations[i]);
}

/* Without penalties it picks what it guessed, unless a context ends between: the draws to come are known. */
static void guess_for_itself(float temperature, uint32_t nodes) {
    pi2_engine_options options = options_of(model_path);
    options.draft_nodes = nodes;
    pi2_engine *engine = NULL;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = temperature;
    sampling.top_k = 0;
    sampling.top_p = 1; /* what that leaves out, it does not know either */
    sampling.seed = 7;
    pi2_session *session = NULL, *fork = NULL;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    static const int32_t prompt[] = { 30, 31, 32, 33 };
    assert_int_equal(pi2_session_append(session, prompt, 4, PI2_LOGITS_LAST), PI2_OK);
    for (int i = 0; i < LONG_ANSWER; i++) { /* beyond tokens that would end an answer */
        int32_t token = 0;
        assert_int_equal(pi2_session_sample(session, &token), PI2_OK);
        assert_int_equal(pi2_session_append(session, &token, 1, PI2_LOGITS_LAST), PI2_OK);
    }
    pi2_drafter_counters counters[2];
    pi2_draft_counters all;
    assert_int_equal(pi2_session_count_drafters(session, counters, 2), 3);
    pi2_session_count_drafts(session, &all);
    assert_true(counters[1].passes > 1);
    /* The last guess goes beyond the answer's end. */
    if (nodes == 0) assert_true(counters[1].right * 10 >= counters[1].guessed * 7);
    assert_true(counters[1].right * 10 >= counters[1].passes * (nodes ? 30 : 42));
    assert_true(all.passes * 2 < LONG_ANSWER);
    /* One sequence, which is in use, of the model that guesses too. */
    assert_int_equal(pi2_session_fork(session, NULL, &fork), PI2_ERR_INVALID);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static void test_a_model_guesses_for_itself(void **state) {
    (void)state;
    guess_for_itself(0, 0);
    guess_for_itself(0.8f, 0);
    guess_for_itself(2, 0);
    guess_for_itself(0, 15); /* what comes beside its own chain leaves that as it is */
    guess_for_itself(0.8f, 15);
}

/* Every place of a tree names what the model itself says there: its timeline is that of the place. */
static void test_places_of_a_tree(void **state) {
    (void)state;
    enum { TEXT = 9, DEPTH = 3 };
    static const int32_t text[TEXT] = { 30, 31, 32, 33, 34, 60, 61, 30, 31 };
    static const pi2_draws draws = { .count = 0 };
    pi2_engine_options options = options_of(model_path);
    pi2_engine *engine = NULL;
    pi2_session *session = NULL;
    void *drafter = NULL;
    uint32_t beside = 0;
    options.sequences = 2; /* of the draft too: of the session's own drafter, and of the one that is asked here */
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    assert_int_equal(pi2_drafter_model.begin(session, &drafter), PI2_OK);
    for (uint32_t length = 3; length <= TEXT; length += 2) {
        pi2_draft draft;
        pi2_draft_named named = { .most = PI2_DRAFT_PLACES };
        assert_int_equal(pi2_drafter_model.propose(
            drafter, &(pi2_draft_text){ text, length, length > 3 ? length - 2 : 0, &draws, NULL },
            &(pi2_draft_wish){ .most = DEPTH, .nodes = 31, .leaves = 15, .named = &named }, &draft), PI2_OK);
        assert_in_range(named.count, DEPTH, PI2_DRAFT_PLACES);
        beside += named.count > DEPTH;
        for (uint32_t n = 1; n <= named.count; n++) {
            int32_t path[DEPTH], token = 0;
            uint32_t count = 0;
            for (uint32_t at = n; at > 1; at = named.places[at - 1].parent) path[count++] = named.places[at - 1].token;
            assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
            assert_int_equal(pi2_session_append(session, text, length, PI2_LOGITS_LAST), PI2_OK);
            while (count) assert_int_equal(pi2_session_append(session, &path[--count], 1, PI2_LOGITS_LAST), PI2_OK);
            const float *logits = pi2_session_logits(session, 0);
            for (uint32_t i = 0; i < pi2_engine_get_report(engine)->vocabulary_size; i++) {
                if (logits[i] > logits[token]) token = (int32_t)i;
            }
            assert_int_equal(named.places[n - 1].tokens[0], token);
        }
    }
    assert_true(beside > 0);
    pi2_drafter_model.end(drafter);
    pi2_session_free(session);
    pi2_engine_close(engine);
}

static int layers_left = -1; /* until the work is cancelled; -1: it is not */

static bool cancelled(void *user) {
    (void)user;
    if (layers_left > 0) layers_left--;
    return layers_left == 0;
}

/* Every third token is cancelled after some layers, of whichever model computes then, and appended again; then the text
 * takes another turn than the one that was cancelled. */
static void follow(pi2_engine *engine, bool cancels, answers *seen) {
    static const int32_t prompt[] = { 50, 51, 52, 53, 54 };
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 0;
    pi2_session *session = NULL;
    assert_int_equal(pi2_session_create(engine, &sampling, &session), PI2_OK);
    assert_int_equal(pi2_session_append(session, prompt, 5, PI2_LOGITS_LAST), PI2_OK);
    for (int i = 0; i < 2 * ANSWER; i++) {
        int32_t token = 0;
        assert_int_equal(pi2_session_sample(session, &token), PI2_OK);
        seen->tokens[seen->count++] = token;
        const int32_t other = 60 + i, *next = i % 5 == 4 ? &other : &token;
        if (cancels && i % 3 == 2) {
            layers_left = 1 + i % 7;
            const pi2_status status = pi2_session_append(session, &token, 1, PI2_LOGITS_LAST);
            layers_left = -1;
            if (status == PI2_OK) assert_int_equal(pi2_session_truncate(session, (uint32_t)(5 + i)), PI2_OK);
            else assert_int_equal(status, PI2_ERR_INTERRUPTED);
            assert_int_equal(pi2_session_position(session), 5 + i);
        }
        assert_int_equal(pi2_session_append(session, next, 1, PI2_LOGITS_LAST), PI2_OK);
    }
    pi2_session_free(session);
}

static void test_cancelled_while_it_guesses(void **state) {
    (void)state;
    answers seen[2] = { { .count = 0 }, { .count = 0 } };
    for (int i = 0; i < 2; i++) {
        pi2_engine_options options = options_of(i ? model_path : NULL);
        options.callbacks.cancelled = cancelled;
        pi2_engine *engine = NULL;
        if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
        follow(engine, i > 0, &seen[i]);
        pi2_engine_close(engine);
    }
    assert_int_equal(seen[0].count, seen[1].count);
    assert_memory_equal(seen[0].tokens, seen[1].tokens, seen[0].count * sizeof seen[0].tokens[0]);
}

/* ---- what is refused ---- */

static void expect_refusal(const char *draft, pi2_status wanted, const char *words) {
    pi2_engine_options options = options_of(draft);
    pi2_engine *engine = NULL;
    assert_int_equal(pi2_engine_open(&options, &engine), wanted);
    assert_null(engine);
    if (!strstr(pi2_error_text(), words)) fail_msg("'%s' lacks '%s'", pi2_error_text(), words);
    assert_null(strchr(pi2_error_text(), '\n'));
}

/* Where `text` begins behind `from`. */
static long find_text(FILE *file, const char *text, long from) {
    const size_t length = strlen(text);
    size_t found = 0;
    assert_int_equal(fseek(file, from, SEEK_SET), 0);
    for (long at = from;; at++) {
        const int byte = fgetc(file);
        assert_int_not_equal(byte, EOF);
        found = byte == text[found] ? found + 1 : byte == text[0];
        if (found == length) return at + 1 - (long)length;
    }
}

/* The same vocabulary, but for a control token's name; swaps: and two bytes that have changed places. */
static void alter_tokens(const char *path, bool swaps) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    long at = find_text(file, "<|im_en", find_text(file, "tokenizer.ggml.tokens", 0));
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_true(fputs("<|im_enz|>", file) >= 0);
    at += 10;
    for (int byte = 0; swaps && byte <= '{'; byte++) { /* each is a length of 8 bytes and one or two of text */
        assert_int_equal(fseek(file, at, SEEK_SET), 0);
        const int length = fgetc(file);
        assert_in_range(length, 1, 2);
        assert_int_equal(fseek(file, at + 8, SEEK_SET), 0);
        if (byte == 'z') assert_int_equal(fputc('{', file), '{');
        if (byte == '{') assert_int_equal(fputc('z', file), 'z');
        at += 8 + length;
    }
    assert_int_equal(fclose(file), 0);
}

static void expect_accepted(const char *draft) {
    pi2_engine_options options = options_of(draft);
    pi2_engine *engine = NULL;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_string_equal(pi2_engine_get_report(engine)->draft_model, draft);
    pi2_engine_close(engine);
}

static void test_another_vocabulary(void **state) {
    (void)state;
    alter_tokens(tokens_path, false); /* a control token may have another name */
    expect_accepted(tokens_path);
    alter_tokens(tokens_path, true);
    expect_refusal(tokens_path, PI2_ERR_INVALID, "its token 125 is \"{\", the model's is \"z\"");
    expect_refusal(beginning_path, PI2_ERR_INVALID, "its texts begin with token 1, the model's with -1 (-1: none)");
    expect_refusal(few_path, PI2_ERR_INVALID, "its vocabulary has");
    expect_refusal("/nowhere/draft.gguf", PI2_ERR_IO, "/nowhere/draft.gguf");
    expect_accepted(longer_path); /* some ids more, which no text gives, are no difference */
}

/* Its own guesses would have to be taken back. */
static void test_recurrent_states(void **state) {
    (void)state;
    char *path = test_folder_path("recurrent.gguf");
    assert_int_equal(pi2_family_model_write_apart("qwen35", PI2_Q8_0, 1, path), 0);
    expect_refusal(path, PI2_ERR_UNSUPPORTED, "a state that cannot be taken back");
}

/* ---- what it takes ---- */

static void test_what_does_not_pay_is_left_out(void **state) {
    (void)state;
    pi2_engine_options options = options_of(model_path);
    options.draft_always = false; /* as large as the model, and all of that in memory */
    pi2_engine *engine = NULL;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_null(pi2_engine_get_report(engine)->draft_model);
    assert_non_null(strstr(logged, "more time than its guesses save"));
    pi2_engine_close(engine);
    options = options_of(model_path); /* as little memory as the model itself can live with */
    if (pi2_small_budget_open(&options, 9000000, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_null(pi2_engine_get_report(engine)->draft_model);
    assert_non_null(strstr(logged, "no room for it"));
    pi2_engine_close(engine);
    char *path = test_folder_path("opt.gguf"); /* it has a vector for each of its positions, and no more */
    pi2_tiny_model_options positions;
    pi2_tiny_model_options_init(&positions);
    positions.architecture = "opt";
    positions.head_count_kv = positions.head_count;
    positions.attention_biases = positions.feed_forward_biases = positions.ungated = true;
    assert_int_equal(pi2_tiny_model_write_apart(&positions, path), 0);
    options = options_of(path);
    options.context_tokens = 4096;
    options.memory_bytes = 2 * PI2_TEST_PLENTY_BYTES;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_null(pi2_engine_get_report(engine)->draft_model);
    assert_non_null(strstr(logged, "opt.gguf is left out: it has positions for "));
    pi2_engine_close(engine);
    options = options_of(model_path);
    options.draft_tokens = 0; /* nothing is to be guessed: it is not even looked for */
    options.draft_model_path = "/nowhere/draft.gguf";
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    pi2_engine_close(engine);
}

static void *free_session(void *session) {
    pi2_session_free(session);
    return NULL;
}

/* A place among the sessions is free when its drafter's place is: whoever takes it then, from another thread, guesses.
 * The draft model's turn is kept, so that the drafter cannot be freed. */
static void test_a_place_is_free_with_its_drafter(void **state) {
    (void)state;
    enum { LOOKS = 300 };
    const pi2_engine_options options = options_of(other_path);
    pi2_engine *engine = NULL;
    pi2_session *session = NULL;
    pthread_t thread;
    if (pi2_engine_open(&options, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_session_create(engine, NULL, &session), PI2_OK);
    assert_non_null(engine->draft);
    pi2_engine_take_turn(engine->draft);
    assert_int_equal(pthread_create(&thread, NULL, free_session, session), 0);
    bool is_free = false;
    for (int busy = 0; busy < LOOKS && !is_free;) { /* whoever frees the session has the turn, and waits */
        (void)nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
        busy++;
        if (pthread_mutex_trylock(&engine->sessions.turn) != 0) continue;
        is_free = engine->sessions.used == 0;
        busy = 0;
        pi2_engine_end_turn(engine);
    }
    assert_false(is_free);
    pi2_engine_end_turn(engine->draft);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(engine->sessions.used, 0);
    pi2_engine_close(engine);
}

/* What making a cluster file left in the process is no part of what other engines were promised. */
static void test_what_a_file_left_is_the_process_own(void **state) {
    (void)state;
    static const uint64_t promised = 1000000000;
    pi2_engine_options options = options_of(NULL);
    options.memory_bytes = 2 * promised;
    for (int claims = 0; claims < 2; claims++) {
        pi2_planned_run run = { .draft = NULL };
        pi2_gguf *gguf = NULL;
        if (pi2_planned_run_open(&options, &run, &gguf) != PI2_OK) fail_msg("%s", pi2_error_text());
        uint64_t peak = 0, current = 0;
        assert_true(pi2_process_memory(&peak, &current));
        run.plan.prepared_bytes = current / 2;
        if (claims) pi2_memory_claim(current, promised);
        if (pi2_planned_run_settle(&run, true, NULL, &gguf) != PI2_OK) fail_msg("%s", pi2_error_text());
        if (claims) pi2_memory_unclaim(promised);
        if (claims) assert_int_equal(run.plan.held_bytes, current + promised);
        else assert_in_range(run.plan.held_bytes, current / 4, current * 3 / 4);
        pi2_gguf_close(gguf);
        pi2_planned_run_close(&run);
    }
}

/* What a token leaves alone is not in its cost: all but a row of a table, and the experts that are not chosen. */
static void test_what_a_guess_computes_with(void **state) {
    (void)state;
    static const struct { const char *family, *part, *guesses; uint64_t unused, of; } cases[] = {
        { "gemma4", "per_layer_token_embd.", "none", 1, 1 }, { "glm4moe", "_exps.", "blk.4.", 4, 6 } };
    char *path = test_folder_path("costs.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(pi2_family_model_write_apart(cases[i].family, PI2_Q8_0, 1, path), 0);
        pi2_engine_options options = options_of(path);
        options.model_path = path;
        pi2_planned_run run = { .draft = NULL };
        pi2_gguf *gguf = NULL;
        if (pi2_planned_run_open(&options, &run, &gguf) != PI2_OK) fail_msg("%s", pi2_error_text());
        uint64_t apart = 0;
        for (size_t t = 0; t < pi2_gguf_tensor_count(gguf); t++) {
            const pi2_gguf_tensor *tensor = pi2_gguf_tensor_at(gguf, t);
            if (strncmp(tensor->name, cases[i].guesses, strlen(cases[i].guesses)) == 0) continue; /* a layer for that */
            if (strstr(tensor->name, cases[i].part)) apart += tensor->bytes;
        }
        const uint64_t all = run.draft->run.source.model->layout->weight_bytes;
        assert_true(apart > 0);
        if (run.draft->token_bytes > all - apart * cases[i].unused / cases[i].of) fail_msg("%s", cases[i].family);
        assert_true(run.draft->token_bytes > (all - apart) / 2);
        pi2_gguf_close(gguf);
        pi2_planned_run_close(&run);
    }
}

/* What the weights lose is at least what the draft model's weights are. */
static void test_its_memory_is_in_the_budget(void **state) {
    (void)state;
    pi2_plan *plans[2] = { NULL, NULL };
    uint64_t drafting = 0, peak = 0, current = 0;
    assert_true(pi2_process_memory(&peak, &current));
    const uint64_t budget = current + 45000000;
    for (int i = 0; i < 2; i++) {
        pi2_engine_options options = options_of(i ? other_path : NULL);
        options.draft_tokens = 6;
        options.memory_bytes = budget;
        if (pi2_plan_make(&options, NULL, NULL, &plans[i]) != PI2_OK) fail_msg("%s", pi2_error_text());
        size_t count = 0;
        const pi2_plan_line *lines = pi2_plan_lines(plans[i], &count);
        uint64_t sum = 0;
        for (size_t k = 0; k < count; k++) {
            if (strcmp(lines[k].what, "draft model") == 0) drafting = lines[k].bytes;
            sum += lines[k].resident_bytes;
        }
        assert_true(sum <= budget);
    }
    const pi2_engine_report *with = pi2_plan_report(plans[1]);
    assert_non_null(with->draft_model);
    assert_int_equal(drafting, with->draft_bytes);
    assert_true(drafting > 3000000); /* its weights alone */
    assert_true(with->process_bytes > pi2_plan_report(plans[0])->process_bytes + 3000000);
    for (int i = 0; i < 2; i++) pi2_plan_free(plans[i]);
}

static int write(const char *path, uint32_t layers, uint32_t seed, uint32_t vocabulary_size) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = layers;
    options.seed = seed;
    options.embedding_length = 512;
    options.feed_forward_length = 3072;
    options.head_count = 8;
    options.tied_head = false;
    options.vocabulary_size = vocabulary_size;
    return pi2_tiny_model_write_apart(&options, path);
}

static int write_other_tokens(const char *path) {
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.vocabulary = PI2_TINY_SPM;
    return pi2_tiny_model_write_apart(&options, path);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("model.gguf");
    other_path = test_folder_path("other.gguf");
    tokens_path = test_folder_path("tokens.gguf");
    longer_path = test_folder_path("longer.gguf");
    beginning_path = test_folder_path("beginning.gguf");
    few_path = test_folder_path("few.gguf");
    return write(model_path, 4, 1, 0) || write(other_path, 1, 7, 0) || write(few_path, 1, 1, 600) ||
           write(tokens_path, 1, 1, 0) || write(longer_path, 1, 1, 400) || write_other_tokens(beginning_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_text_is_the_same), cmocka_unit_test(test_a_model_guesses_for_itself),
        cmocka_unit_test(test_places_of_a_tree),
        cmocka_unit_test(test_cancelled_while_it_guesses), cmocka_unit_test(test_another_vocabulary),
        cmocka_unit_test(test_recurrent_states),
        cmocka_unit_test(test_what_a_guess_computes_with),
        cmocka_unit_test(test_a_place_is_free_with_its_drafter),
        cmocka_unit_test(test_what_a_file_left_is_the_process_own),
        cmocka_unit_test(test_what_does_not_pay_is_left_out), cmocka_unit_test(test_its_memory_is_in_the_budget),
    };
    return cmocka_run_group_tests_name("draft model", tests, set_up, test_folder_end);
}
