/*
 * Goal:   pi2_generate() gives the text of picking, appending and decoding by hand, whatever ends it; answers that
 *         several sessions make step by step in common passes are those that each makes alone.
 * Method: a tiny model with random weights; greedy and with temperature; stop words cut out of the text itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/generate.h"
#include "support/emulator.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { CONTEXT = 64, TEXT_BYTES = 4096, SESSIONS = 3, LIMIT = 24 };

static char *path;
static pi2_engine *engine;
static const int32_t prompt[] = { 20, 21, 22, 23, 24, 25, 20, 21, 22 };
enum { PROMPT = sizeof prompt / sizeof prompt[0] };
static bool is_cancelled; /* of the engine */

static bool cancelled(void *user) {
    (void)user;
    return is_cancelled;
}

/** An answer as its callbacks saw it. */
typedef struct seen_answer {
    int32_t tokens[CONTEXT];
    char text[TEXT_BYTES];
    size_t token_count, length, tokens_most, texts_most; /* *_most: it is enough; 0: never */
    size_t texts;
    bool cancels; /* the engine, when it is enough */
} seen_answer;

static bool take_token(void *user, int32_t token) {
    seen_answer *seen = user;
    assert_true(seen->token_count < CONTEXT);
    seen->tokens[seen->token_count++] = token;
    const bool is_enough = seen->token_count == seen->tokens_most;
    is_cancelled = is_enough && seen->cancels;
    return !is_enough || seen->cancels;
}

static bool take_text(void *user, const char *text, size_t length) {
    seen_answer *seen = user;
    assert_true(length > 0 && length < TEXT_BYTES - seen->length);
    assert_false(seen->texts_most && seen->texts >= seen->texts_most); /* it was enough */
    memcpy(seen->text + seen->length, text, length);
    seen->length += length;
    return ++seen->texts != seen->texts_most;
}

static pi2_session *create(float temperature, uint32_t seed) {
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = temperature;
    sampling.top_k = 0;
    sampling.top_p = 1;
    sampling.min_p = 0;
    sampling.seed = seed;
    pi2_session *session = NULL;
    if (pi2_session_create(engine, &sampling, &session) != PI2_OK) fail_msg("%s", pi2_error_text());
    return session;
}

static pi2_answer_options options_of(seen_answer *seen, int64_t limit, const char *const *words, size_t count) {
    return (pi2_answer_options){ .limit = limit, .special = true, .stop_words = words, .stop_word_count = count,
                                 .user = seen, .token = take_token, .text = take_text };
}

static pi2_answer_result generate(pi2_session *session, seen_answer *seen, int64_t limit, const char *const *words,
                                  size_t count) {
    const pi2_answer_options options = options_of(seen, limit, words, count);
    pi2_answer_result result;
    assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
    if (pi2_generate(session, prompt, PROMPT, &options, &result) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(result.token_count, seen->token_count);
    return result;
}

/* What pi2_generate() says that it does. */
static void by_hand(pi2_session *session, seen_answer *seen, size_t limit) {
    assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
    pi2_session_begin_answer(session, prompt, PROMPT);
    assert_int_equal(pi2_session_append(session, prompt, PROMPT, PI2_LOGITS_LAST), PI2_OK);
    while (seen->token_count < limit) {
        int32_t token = 0;
        size_t length = 0;
        assert_int_equal(pi2_session_sample(session, &token), PI2_OK);
        seen->tokens[seen->token_count++] = token;
        if (pi2_engine_ends_generation(engine, token)) break;
        assert_int_equal(pi2_session_token_text(session, token, true, seen->text + seen->length,
                                                TEXT_BYTES - seen->length, &length), PI2_OK);
        seen->length += length;
        if (seen->token_count == limit || pi2_session_position(session) == CONTEXT) break;
        assert_int_equal(pi2_session_append(session, &token, 1, PI2_LOGITS_LAST), PI2_OK);
    }
    seen->length += pi2_session_text_finish(session, seen->text + seen->length, TEXT_BYTES - seen->length);
}

static void assert_same(const seen_answer *left, const seen_answer *right) {
    assert_int_equal(left->token_count, right->token_count);
    assert_memory_equal(left->tokens, right->tokens, left->token_count * sizeof left->tokens[0]);
    assert_int_equal(left->length, right->length);
    assert_memory_equal(left->text, right->text, left->length);
}

static void test_the_text_of_the_loop(void **state) {
    (void)state;
    for (uint32_t seed = 0; seed < 4; seed++) {
        pi2_session *session = create(seed ? 0.8f + (float)seed : 0, seed);
        seen_answer hand = { 0 }, seen = { 0 };
        by_hand(session, &hand, LIMIT);
        const pi2_answer_result result = generate(session, &seen, LIMIT, NULL, 0);
        assert_same(&hand, &seen);
        assert_int_equal(result.stop, seen.token_count < LIMIT ? PI2_STOP_EOS : PI2_STOP_LIMIT);
        assert_int_equal(result.prompt_count, PROMPT);
        pi2_session_free(session);
    }
}

/* The end is where the context, the limit or a callback says. */
static void test_what_ends_it(void **state) {
    (void)state;
    pi2_session *session = create(0, 1);
    seen_answer none = { 0 }, all = { 0 }, some = { .tokens_most = 3 }, lost = { .texts_most = 2 },
                asked = { .tokens_most = 4, .cancels = true };
    assert_int_equal(generate(session, &none, 0, NULL, 0).stop, PI2_STOP_LIMIT);
    assert_int_equal(none.length + none.token_count, 0);
    assert_int_equal(pi2_session_position(session), PROMPT);
    assert_int_equal(generate(session, &all, -1, NULL, 0).stop, PI2_STOP_CONTEXT);
    assert_int_equal(pi2_session_position(session), CONTEXT);
    assert_int_equal(all.token_count, CONTEXT - PROMPT + 1); /* the last one has no place any more */
    assert_int_equal(generate(session, &some, -1, NULL, 0).stop, PI2_STOP_INTERRUPTED);
    assert_int_equal(some.token_count, 3);
    assert_memory_equal(some.text, all.text, some.length);
    assert_int_equal(generate(session, &lost, -1, NULL, 0).stop, PI2_STOP_INTERRUPTED);
    assert_int_equal(lost.texts, 2);
    assert_int_equal(generate(session, &asked, -1, NULL, 0).stop, PI2_STOP_INTERRUPTED);
    assert_int_equal(asked.token_count, 4);

    is_cancelled = true; /* before the prompt's first layer */
    seen_answer silent = { 0 };
    const pi2_answer_result result = generate(session, &silent, -1, NULL, 0);
    is_cancelled = false;
    assert_int_equal(result.stop, PI2_STOP_INTERRUPTED);
    assert_int_equal(result.prompt_count + silent.token_count, 0);
    pi2_session_free(session);
}

/* What the timeline holds of the prompt is not computed again; all of it leaves nothing to pick from. */
static void test_what_is_kept(void **state) {
    (void)state;
    pi2_session *session = create(0, 1);
    seen_answer whole = { 0 }, kept = { 0 };
    (void)generate(session, &whole, LIMIT, NULL, 0);
    assert_int_equal(pi2_session_truncate(session, PROMPT - 2), PI2_OK);
    pi2_answer_options options = options_of(&kept, LIMIT, NULL, 0);
    pi2_answer_result result;
    assert_int_equal(pi2_generate(session, prompt, PROMPT, &options, &result), PI2_OK);
    assert_int_equal(result.prompt_count, 2);
    assert_same(&whole, &kept);
    assert_int_equal(pi2_session_truncate(session, PROMPT), PI2_OK);
    assert_int_equal(pi2_generate(session, prompt, PROMPT, &options, &result), PI2_ERR_INVALID);
    assert_non_null(strstr(pi2_error_text(), "one at least must be left"));
    pi2_session_free(session);
}

/* A word that the text holds ends it there; one that nearly stands there, or only its beginning, is given out. */
static void test_stop_words(void **state) {
    (void)state;
    pi2_session *session = create(1.5f, 9);
    seen_answer whole = { 0 };
    (void)generate(session, &whole, LIMIT, NULL, 0);
    assert_true(whole.length > 12);
    for (size_t at = 1; at + 5 < whole.length; at += 3) {
        char word[6] = { 0 }, beginning[TEXT_BYTES];
        memcpy(word, whole.text + at, 5);
        memcpy(beginning, whole.text + whole.length - 3, 3);
        memcpy(beginning + 3, "!?", 3);
        if (strlen(word) < 5) continue; /* a NUL is a token's text too */
        const char *const words[] = { "", "nowhere in it", word, beginning };
        size_t right = 0;
        while (memcmp(whole.text + right, word, 5) != 0) right++;
        seen_answer seen = { 0 };
        const pi2_answer_result result = generate(session, &seen, LIMIT, words, 4);
        assert_int_equal(result.stop, PI2_STOP_WORD);
        assert_int_equal(result.stop_word, 2);
        assert_int_equal(seen.length, right);
        assert_memory_equal(seen.text, whole.text, right);
        seen_answer beyond = { 0 };
        const char *const held[] = { beginning };
        assert_true(generate(session, &beyond, LIMIT, held, 1).stop != PI2_STOP_WORD);
        assert_same(&whole, &beyond);
    }
    pi2_session_free(session);
}

/* Passes are common, answers end at different times. */
static void test_step_by_step(void **state) {
    (void)state;
    pi2_session *sessions[SESSIONS];
    pi2_answer *answers[SESSIONS];
    seen_answer alone[SESSIONS] = { { .token_count = 0 } }, together[SESSIONS] = { { .token_count = 0 } };
    pi2_session_tokens parts[SESSIONS];
    int32_t tokens[SESSIONS];
    for (size_t i = 0; i < SESSIONS; i++) {
        sessions[i] = create(i ? 0.8f : 0, (uint32_t)i);
        (void)generate(sessions[i], &alone[i], (int64_t)(LIMIT - 5 * i), NULL, 0);
        assert_int_equal(pi2_session_truncate(sessions[i], 0), PI2_OK);
        pi2_session_begin_answer(sessions[i], prompt, PROMPT);
        const pi2_answer_options options = options_of(&together[i], (int64_t)(LIMIT - 5 * i), NULL, 0);
        assert_int_equal(pi2_answer_create(sessions[i], &options, &answers[i]), PI2_OK);
        parts[i] = (pi2_session_tokens){ sessions[i], prompt, PROMPT, true };
    }
    for (size_t count = SESSIONS; count;) {
        assert_int_equal(pi2_sessions_append(parts, count), PI2_OK);
        count = 0;
        for (size_t i = 0; i < SESSIONS; i++) {
            assert_int_equal(pi2_answer_next(answers[i], &tokens[i]), PI2_OK);
            if (tokens[i] >= 0) parts[count++] = (pi2_session_tokens){ sessions[i], &tokens[i], 1, true };
        }
    }
    for (size_t i = 0; i < SESSIONS; i++) {
        assert_same(&alone[i], &together[i]);
        pi2_answer_interrupt(answers[i]); /* it has ended */
        assert_int_equal(pi2_answer_result_of(answers[i]).token_count, together[i].token_count);
        assert_int_not_equal(pi2_answer_result_of(answers[i]).stop, PI2_STOP_INTERRUPTED);
        pi2_answer_free(answers[i]);
        pi2_session_free(sessions[i]);
    }
}

static void test_names(void **state) {
    (void)state;
    assert_string_equal(pi2_stop_name(PI2_STOP_EOS), "eos");
    assert_string_equal(pi2_stop_name(PI2_STOP_INTERRUPTED), "interrupted");
    assert_string_equal(pi2_stop_name((pi2_stop)77), "unknown");
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    path = test_folder_path("tiny.gguf");
    pi2_tiny_model_options model;
    pi2_tiny_model_options_init(&model);
    if (pi2_tiny_model_write_apart(&model, path)) return 1;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.sequences = SESSIONS;
    options.context_tokens = CONTEXT;
    options.thread_count = 2;
    options.draft_tokens = 4;
    options.memory_bytes = PI2_TEST_PLENTY_BYTES;
    options.callbacks.cancelled = cancelled;
    return pi2_engine_open(&options, &engine) != PI2_OK;
}

static int tear_down(void **state) {
    pi2_engine_close(engine);
    return test_folder_end(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_text_of_the_loop), cmocka_unit_test(test_what_ends_it),
        cmocka_unit_test(test_what_is_kept), cmocka_unit_test(test_stop_words), cmocka_unit_test(test_step_by_step),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("generate", tests, set_up, tear_down);
}
