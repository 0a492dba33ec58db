/*
 * Goal:   a table of next tokens has what the model says behind single tokens, the likeliest first, and how likely;
 *         with it the logits are the same bits, in memory and streamed; one that is damaged, another model's or of
 *         another version guesses nothing, and a line says so.
 * Method: a tiny random model; a script of tokens of which few repeat, with a table and without guesses; files whose
 *         bytes are changed.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "engine/next_table_file.h"
#include "engine/session_internal.h"
#include "support/emulator.h"
#include "support/small_budget.h"
#include "support/streamed_model.h"
#include "support/temporary_files.h"

enum { CONTEXT = 128, FOLLOWED = 60, ROOMY = PI2_TEST_PLENTY_BYTES, SCARCE = 13000000 };

static char *model_path, *by_hand;
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
    assert_true(pi2_next_table_bytes(&engine->run) > engine->run.report.vocabulary_size * sizeof(uint32_t));
    pi2_engine_close(engine);
}

static const float *logits_of(pi2_session *session, int32_t token) {
    const int32_t tokens[] = { pi2_tokenizer_bos(session->engine->run.source.tokenizer), token };
    const size_t begin = tokens[0] >= 0 ? 0 : 1;
    assert_int_equal(pi2_session_truncate(session, 0), PI2_OK);
    assert_int_equal(pi2_session_append(session, tokens + begin, 2 - begin, PI2_LOGITS_LAST), PI2_OK);
    return pi2_session_logits(session, 0);
}

/* The chance of a token, as the softmax has it. */
static double chance_of(const float *logits, uint32_t count, uint32_t token) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) sum += exp((double)logits[i] - (double)logits[token]);
    return 1 / sum;
}

/* A row has the largest logits, in their order, and what they say. */
static void check_row(const pi2_next_table *table, pi2_session *plain, uint32_t token) {
    const uint32_t *row = table->entries + (size_t)token * table->width;
    const float *logits = logits_of(plain, (int32_t)token);
    uint32_t larger = 0;
    for (uint32_t i = 0; i < table->width; i++) {
        const uint32_t id = pi2_next_id(row[i]);
        assert_true(i == 0 || logits[id] < logits[pi2_next_id(row[i - 1])] ||
                    (logits[id] == logits[pi2_next_id(row[i - 1])] && id > pi2_next_id(row[i - 1])));
        const double halvings = -log2(chance_of(logits, table->count, id));
        assert_float_equal((double)pi2_next_unlikeliness(row[i]) / PI2_NEXT_STEPS, halvings, 0.05);
    }
    for (uint32_t i = 0; i < table->count; i++) larger += logits[i] > logits[pi2_next_id(row[table->width - 1])];
    assert_true(larger < table->width);
}

static void test_what_it_says(void **state) {
    (void)state;
    make_table(3); /* the last pass has fewer tokens */
    pi2_engine *engine = open_engine(8, 1, ROOMY), *plain_engine = open_engine(0, 1, ROOMY);
    pi2_session *plain = begin(plain_engine);
    assert_non_null(engine->next_table);
    assert_null(plain_engine->next_table);
    check_row(engine->next_table, plain, 0);
    check_row(engine->next_table, plain, 20);
    check_row(engine->next_table, plain, engine->next_table->count - 1);
    pi2_session_free(plain);
    pi2_engine_close(engine);
    pi2_engine_close(plain_engine);
}

/* ---- tables that are no good ---- */

enum { TOKENS = 4, WIDTH = 3, HASH = 77, WORDS = 8 + TOKENS * WIDTH };
static const uint32_t none = PI2_NO_NEXT;

static uint32_t entry(uint32_t id, uint32_t unlikeliness) { return id | unlikeliness << PI2_NEXT_ID_BITS; }

/* A table by hand whose checksum is right. */
static void write_words(uint32_t words[WORDS], char version, size_t bytes) {
    memcpy(words, "PI2NEXT", 7);
    ((char *)words)[7] = version;
    words[2] = HASH;
    words[3] = 0;
    const uint64_t checksum = XXH3_64bits(words + 8, (WORDS - 8) * sizeof *words);
    memcpy(words + 4, &checksum, sizeof checksum);
    words[6] = TOKENS;
    words[7] = WIDTH;
    FILE *file = fopen(by_hand, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(words, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void expect_refused(const char *words) {
    pi2_next_table *table = NULL;
    assert_int_equal(pi2_next_table_read(by_hand, HASH, TOKENS, &table),
                     PI2_ERR_FORMAT);
    assert_null(table);
    if (!strstr(pi2_error_text(), words)) fail_msg("no \"%s\" in: %s", words, pi2_error_text());
    assert_non_null(strstr(pi2_error_text(), "make it again"));
}

static void test_damaged_files(void **state) {
    (void)state;
    const uint32_t good[WORDS - 8] = { entry(1, 3), entry(2, 9), entry(3, 9), entry(0, 0), none, none,
                                       none, none, none, entry(3, 254), entry(1, 255), none };
    static const struct { int at; uint32_t id, unlikeliness; } wrong[] = {
        { 1, TOKENS, 9 }, { 1, 1, 9 }, { 1, 2, 2 }, { 2, 2, 9 }, { 5, 1, 9 }, { 7, 1, 1 } };
    uint32_t words[WORDS];
    pi2_next_table *table = NULL;
    memcpy(words + 8, good, sizeof good);
    write_words(words, '2', sizeof words);
    assert_int_equal(pi2_next_table_read(by_hand, HASH, TOKENS, &table), PI2_OK);
    assert_memory_equal(table->entries, good, sizeof good);
    free(table);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memcpy(words + 8, good, sizeof good);
        words[8 + wrong[i].at] = entry(wrong[i].id, wrong[i].unlikeliness);
        write_words(words, '2', sizeof words);
        expect_refused("damaged");
    }
    memcpy(words + 8, good, sizeof good);
    for (size_t bytes = 0; bytes < sizeof words; bytes += 4) {
        write_words(words, '2', bytes);
        expect_refused("damaged");
    }
    write_words(words, '1', sizeof words);
    expect_refused("another version");
    write_words(words, '2', sizeof words);
    assert_int_equal(pi2_next_table_read(by_hand, HASH + 1, TOKENS, &table),
                     PI2_ERR_FORMAT);
    assert_non_null(strstr(pi2_error_text(), "another model's"));
    FILE *file = fopen(by_hand, "r+b"); /* a byte that the checksum does not fit */
    assert_non_null(file);
    assert_int_equal(fseek(file, 32, SEEK_SET), 0);
    assert_int_equal(fputc(0, file), 0);
    assert_int_equal(fclose(file), 0);
    expect_refused("damaged");
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
    assert_string_equal(counters[1].name, "tree");
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
    by_hand = test_folder_path("by_hand.next-tokens");
    pi2_tiny_model_options options;
    pi2_streamed_model_options_init(&options);
    options.tied_head = false;
    return pi2_tiny_model_write_apart(&options, model_path);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_what_it_says), cmocka_unit_test(test_damaged_files),
                                        cmocka_unit_test(test_same_logits) };
    return cmocka_run_group_tests_name("next table", tests, set_up, test_folder_end);
}
