/*
 * Goal:   a table of next tokens has what the model says behind single tokens; with it the logits are the same bits, in
 *         memory and streamed; a damaged one guesses nothing.
 * Method: a tiny random model; a script of tokens of which few repeat, with a table and without guesses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/next_table_file.h"
#include "engine/session_internal.h"
#include "support/emulator.h"
#include "support/small_budget.h"
#include "support/temporary_files.h"
#include "support/tiny_model.h"

enum { CONTEXT = 128, FOLLOWED = 60, ROOMY = PI2_TEST_PLENTY_BYTES, SCARCE = 13000000 };

static char *model_path;
static char table_path[PI2_NEXT_TABLE_PATH_BYTES];

static pi2_engine *open_engine(uint32_t draft, uint32_t sequences, uint64_t more_bytes) {
    pi2_engine *engine = NULL;
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = model_path;
    options.context_tokens = CONTEXT;
    options.thread_count = 2;
    options.draft_tokens = draft;
    options.sequences = sequences;
    if (pi2_small_budget_open(&options, more_bytes, &engine) != PI2_OK) fail_msg("%s", pi2_error_text());
    return engine;
}

static pi2_session *begin(pi2_engine *engine) {
    pi2_session *session = NULL;
    if (pi2_session_create(engine, NULL, &session) != PI2_OK) fail_msg("%s", pi2_error_text());
    return session;
}

static void make_table(uint32_t sequences) {
    pi2_engine *engine = open_engine(0, sequences, ROOMY);
    if (pi2_next_table_make(engine, table_path) != PI2_OK) fail_msg("%s", pi2_error_text());
    assert_int_equal(pi2_next_table_entries(&engine->run), engine->run.report.vocabulary_size);
    pi2_engine_close(engine);
}

/* The likeliest token behind one alone, as a session computes it. */
static int32_t next_of(pi2_session *session, int32_t token) {
    const int32_t tokens[] = { pi2_tokenizer_bos(session->engine->run.source.tokenizer), token };
    const size_t begin = tokens[0] >= 0 ? 0 : 1;
    int32_t best = 0;
    assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
    assert_int_equal(pi2_session_append(session, tokens + begin, 2 - begin, PI2_LOGITS_LAST), PI2_OK);
    const float *logits = pi2_session_logits(session, 0);
    for (uint32_t i = 1; i < session->engine->run.report.vocabulary_size; i++) {
        if (logits[i] > logits[best]) best = (int32_t)i;
    }
    return best;
}

/* Its chain is what the model says behind single tokens; a byte that is another one leaves no guess. */
static void check_chain(pi2_session *session, pi2_session *plain, bool is_damaged) {
    const int32_t token = 20;
    const pi2_draft_text text = { .tokens = &token, .length = 1 };
    const pi2_draft_wish wish = { .most = 3 };
    pi2_draft draft = { .count = 9 };
    void *state = NULL;
    assert_int_equal(pi2_drafter_next.begin(session, &state), PI2_OK);
    assert_int_equal(pi2_drafter_next.propose(state, &text, &wish, &draft), PI2_OK);
    assert_int_equal(draft.count, is_damaged ? 0 : 3);
    for (uint32_t i = 0; i < draft.count; i++) {
        assert_int_equal(draft.tokens[i], next_of(plain, i ? draft.tokens[i - 1] : token));
    }
    pi2_drafter_next.end(state);
}

static void test_what_it_says(void **state) {
    (void)state;
    make_table(3); /* the last pass has fewer tokens */
    pi2_engine *engine = open_engine(8, 1, ROOMY), *plain_engine = open_engine(0, 1, ROOMY);
    pi2_session *session = begin(engine), *plain = begin(plain_engine);
    check_chain(session, plain, false);
    FILE *file = fopen(table_path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 40, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, 40, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
    check_chain(session, plain, true);
    pi2_session_free(session);
    pi2_session_free(plain);
    pi2_engine_close(engine);
    pi2_engine_close(plain_engine);
}

static void follow(uint64_t more_bytes) {
    pi2_engine *engines[2] = { open_engine(0, 1, ROOMY), open_engine(8, 1, more_bytes) };
    pi2_session *sessions[2] = { begin(engines[0]), begin(engines[1]) };
    const size_t bytes = engines[0]->run.report.vocabulary_size * sizeof(float);
    int32_t token = 20;
    for (int i = 0; i < FOLLOWED; i++) {
        for (int s = 0; s < 2; s++) {
            assert_int_equal(pi2_session_append(sessions[s], &token, 1, PI2_LOGITS_LAST), PI2_OK);
        }
        const float *logits = pi2_session_logits(sessions[0], 0);
        assert_memory_equal(logits, pi2_session_logits(sessions[1], 0), bytes);
        int32_t best = 0;
        for (size_t v = 1; v < bytes / sizeof(float); v++) best = logits[v] > logits[best] ? (int32_t)v : best;
        token = i % 3 == 2 ? 30 + i : best;
    }
    pi2_drafter_counters counters[PI2_DRAFTERS_MOST];
    assert_int_equal(pi2_session_count_drafters(sessions[1], counters, PI2_DRAFTERS_MOST), 2);
    assert_string_equal(counters[1].name, "next");
    for (int s = 0; s < 2; s++) {
        pi2_session_free(sessions[s]);
        pi2_engine_close(engines[s]);
    }
}

static void test_same_logits(void **state) {
    (void)state;
    make_table(8);
    follow(ROOMY);
    follow(SCARCE);
}

static int set_up(void **state) {
    (void)test_folder_begin(state);
    model_path = test_folder_path("dense.gguf");
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    options.layer_count = 4;
    options.embedding_length = 512;
    options.feed_forward_length = 3072;
    options.head_count = 8;
    options.tied_head = false;
    return pi2_tiny_model_write_apart(&options, model_path);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_what_it_says), cmocka_unit_test(test_same_logits) };
    return cmocka_run_group_tests_name("next table", tests, set_up, test_folder_end);
}
