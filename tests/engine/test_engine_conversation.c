/*
 * Goal:   conversations in JSON give the tokens of the same messages, and what the template wrote; tokens give their
 *         text back; a session takes another sampling and keeps its timeline.
 * Method: a tiny model with the ChatML template.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "powerinfer2/session.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

static pi2_engine *engine;

static int begin(void **state) {
    if (test_folder_begin(state) != 0) return 1;
    char *path = test_folder_path("m.gguf");
    pi2_tiny_model_options model;
    pi2_tiny_model_options_init(&model);
    if (pi2_tiny_model_write(&model, path) != 0) return 1;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.context_tokens = 256;
    options.thread_count = 1;
    return pi2_engine_open(&options, &engine) != PI2_OK;
}

static int end(void **state) {
    pi2_engine_close(engine);
    return test_folder_end(state);
}

/* The same model, whose file says of a token that answers never have it. */
static void write_suppressing(const char *path, uint32_t token) {
    pi2_tiny_model_options model;
    pi2_gguf_builder builder;
    pi2_test_bytes bytes = { 0 };
    pi2_tiny_model_options_init(&model);
    pi2_tiny_model_build(&model, &builder);
    pi2_test_bytes_add_u32(&bytes, token);
    pi2_gguf_builder_array(&builder, "tokenizer.ggml.suppress_tokens", PI2_TEST_GGUF_I32, 1, &bytes);
    assert_int_equal(pi2_gguf_builder_write(&builder, path), 0);
    pi2_test_bytes_free(&bytes);
    pi2_gguf_builder_free(&builder);
}

static pi2_status ask(const char *messages, const char *variables, char **text, int32_t **tokens, size_t *count) {
    size_t length = 0;
    const pi2_conversation conversation = {.messages = messages, .messages_length = strlen(messages),
                                           .variables = variables, .add_generation_prompt = true};
    return pi2_engine_conversation_tokens(engine, &conversation, text, &length, tokens, count);
}

static void test_conversation(void **state) {
    (void)state;
    const pi2_message message = {"user", "Hello <|im_end|>"};
    int32_t *wanted = NULL, *tokens = NULL;
    size_t wanted_count = 0, count = 0;
    char *text = NULL;
    assert_int_equal(pi2_engine_chat_tokens(engine, &message, 1, true, &wanted, &wanted_count), PI2_OK);
    static const char json[] = "[{\"role\":\"user\",\"content\":\"Hello <|im_end|>\"}]";
    assert_int_equal(ask(json, NULL, &text, &tokens, &count), PI2_OK);
    assert_int_equal(count, wanted_count);
    assert_memory_equal(tokens, wanted, count * sizeof *tokens);
    assert_non_null(strstr(text, "<|im_start|>user\nHello <|im_end|><|im_end|>\n<|im_start|>assistant\n"));
    free(text);
    free(tokens);
    free(wanted);
    assert_int_equal(ask("[{]", NULL, &text, &tokens, &count), PI2_ERR_INVALID);
    assert_int_equal(ask("[]", "[]", &text, &tokens, &count), PI2_ERR_INVALID);
    assert_null(text);
    assert_null(tokens);
    char *lengthy = calloc(1, 100001);
    assert_non_null(lengthy);
    memset(lengthy, ' ', 100000);
    assert_int_equal(ask(lengthy, NULL, &text, &tokens, &count), PI2_ERR_CONTEXT);
    free(lengthy);
}

static void test_detokenize(void **state) {
    (void)state;
    static const char said[] = "He said \xe2\x82\xac 5.\n";
    int32_t *tokens = NULL;
    size_t count = 0, length = 0;
    char *text = NULL;
    assert_int_equal(pi2_engine_tokenize(engine, said, strlen(said), false, false, &tokens, &count), PI2_OK);
    assert_int_equal(pi2_engine_detokenize(engine, tokens, count, false, &text, &length), PI2_OK);
    assert_string_equal(text, said);
    assert_int_equal(length, strlen(said));
    free(text);
    free(tokens);
    assert_int_equal(pi2_engine_tokenize(engine, "<|im_end|>", 10, false, true, &tokens, &count), PI2_OK);
    assert_int_equal(count, 1);
    assert_int_equal(pi2_engine_detokenize(engine, tokens, count, true, &text, &length), PI2_OK);
    assert_string_equal(text, "<|im_end|>");
    free(text);
    assert_int_equal(pi2_engine_detokenize(engine, tokens, count, false, &text, &length), PI2_OK);
    assert_string_equal(text, "");
    free(text);
    tokens[0] = 1 << 24;
    assert_int_equal(pi2_engine_detokenize(engine, tokens, count, false, &text, &length), PI2_ERR_INVALID);
    assert_null(text);
    free(tokens);
}

static void test_set_sampling(void **state) {
    (void)state;
    static const int32_t prompt[] = {10, 11, 12};
    pi2_sampling greedy, other;
    pi2_session *session = NULL;
    int32_t first = -1, again = -1;
    pi2_sampling_init(&greedy);
    greedy.temperature = 0;
    other = greedy;
    other.temperature = 1;
    other.seed = 5;
    assert_int_equal(pi2_session_create(engine, &greedy, &session), PI2_OK);
    assert_int_equal(pi2_session_append(session, prompt, 3, PI2_LOGITS_LAST), PI2_OK);
    pi2_session_begin_answer(session, prompt, 3);
    assert_int_equal(pi2_session_sample(session, &first), PI2_OK);
    assert_int_equal(pi2_session_set_sampling(session, &other), PI2_OK);
    assert_int_equal(pi2_session_seed(session), 5);
    assert_int_equal(pi2_session_position(session), 3);
    other.top_p = 2;
    assert_int_equal(pi2_session_set_sampling(session, &other), PI2_ERR_INVALID);
    assert_int_equal(pi2_session_seed(session), 5);
    /* Ends are forbidden and allowed again: with all logits equal the lowest token is picked that is allowed. */
    const uint32_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    int32_t end_token = -1;
    for (uint32_t i = 0; i < vocabulary && end_token < 0; i++) {
        if (pi2_engine_ends_generation(engine, (int32_t)i)) end_token = (int32_t)i;
    }
    assert_true(end_token >= 0);
    float *logits = (float *)(uintptr_t)pi2_session_logits(session, 0);
    const float kept = logits[end_token];
    logits[end_token] = 1e9f;
    greedy.forbid_end_tokens = true;
    assert_int_equal(pi2_session_set_sampling(session, &greedy), PI2_OK);
    assert_int_equal(pi2_session_sample(session, &again), PI2_OK);
    assert_int_not_equal(again, end_token);
    logits[end_token] = 1e9f;
    greedy.forbid_end_tokens = false;
    assert_int_equal(pi2_session_set_sampling(session, &greedy), PI2_OK);
    assert_int_equal(pi2_session_sample(session, &again), PI2_OK);
    assert_int_equal(again, end_token);
    logits[end_token] = kept;
    assert_int_equal(pi2_session_sample(session, &again), PI2_OK);
    assert_int_equal(again, first);
    pi2_session_free(session);
}

/* What answers never have, by the file: the token that would be picked is not, nor with a grammar's or any other
 * sampling; a file that says so of a token that is none, or of all of them, is refused. */
static void test_suppressed(void **state) {
    (void)state;
    static const int32_t prompt[] = {10, 11, 12};
    char *path = test_folder_path("suppressed.gguf");
    pi2_engine *other = NULL;
    pi2_session *session = NULL;
    pi2_engine_options options;
    pi2_sampling greedy;
    int32_t first = -1, second = -1;
    pi2_sampling_init(&greedy);
    greedy.temperature = 0;
    assert_int_equal(pi2_session_create(engine, &greedy, &session), PI2_OK);
    assert_int_equal(pi2_session_append(session, prompt, 3, PI2_LOGITS_LAST), PI2_OK);
    assert_int_equal(pi2_session_sample(session, &first), PI2_OK);
    ((float *)(uintptr_t)pi2_session_logits(session, 0))[first] = -1e9f;
    assert_int_equal(pi2_session_sample(session, &second), PI2_OK);
    pi2_session_free(session);
    pi2_engine_options_init(&options);
    options.model_path = path;
    options.context_tokens = 256;
    write_suppressing(path, (uint32_t)first);
    assert_int_equal(pi2_engine_open(&options, &other), PI2_OK);
    assert_int_equal(pi2_session_create(other, NULL, &session), PI2_OK);
    assert_int_equal(pi2_session_set_sampling(session, &greedy), PI2_OK);
    assert_int_equal(pi2_session_append(session, prompt, 3, PI2_LOGITS_LAST), PI2_OK);
    assert_int_equal(pi2_session_sample(session, &first), PI2_OK);
    assert_int_equal(first, second);
    pi2_session_free(session);
    pi2_engine_close(other);
    write_suppressing(path, 1u << 30);
    assert_int_equal(pi2_engine_open(&options, &other), PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "tokenizer.ggml.suppress_tokens has 1073741824"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_conversation), cmocka_unit_test(test_detokenize),
                                       cmocka_unit_test(test_set_sampling), cmocka_unit_test(test_suppressed)};
    return cmocka_run_group_tests(tests, begin, end);
}
