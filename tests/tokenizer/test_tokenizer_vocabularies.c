/* Goal:   real vocabularies give the tokens that their makers publish.
 * Method: each ggml-vocab-*.gguf of $PI2_TEST_DATA/vocab with its .inp (texts) and .out (ids, a
 *         line each); the text must also come back from the ids. A user's clone has no such
 *         folder and skips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/temporary_files.h"
#include "tokenizer/tokenizer.h"

static const char separator[] = "\n__ggml_vocab_test__\n";

static char *data_file(const char *vocabulary, const char *ending, size_t *length_out) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/vocab/ggml-vocab-%s.gguf%s", getenv("PI2_TEST_DATA"),
                   vocabulary, ending);
    size_t length;
    uint8_t *bytes = test_file_read(path, &length);
    char *text = malloc(length + 1);
    assert_non_null(text);
    memcpy(text, bytes, length);
    text[length] = '\0';
    free(bytes);
    *length_out = length;
    return text;
}

static char *decode(const pi2_tokenizer *tokenizer, const int32_t *tokens, size_t count,
                    size_t *length_out) {
    const size_t room = 3 * (pi2_tokenizer_longest_piece(tokenizer) + 4);
    char *text = malloc(room * (count + 1));
    assert_non_null(text);
    pi2_detokenizer detokenizer;
    pi2_detokenizer_reset(&detokenizer, true);
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        length += pi2_detokenizer_push(&detokenizer, tokenizer, tokens[i], text + length, room);
    }
    length += pi2_detokenizer_finish(&detokenizer, text + length, room);
    *length_out = length;
    return text;
}

/** Reads the ids of one line and moves *line to the next. */
static size_t read_ids(const char **line, int32_t *ids, size_t capacity) {
    size_t count = 0;
    while (**line && **line != '\n') {
        char *end;
        const long id = strtol(*line, &end, 10);
        if (end == *line) break;
        assert_true(count < capacity);
        ids[count++] = (int32_t)id;
        *line = end;
    }
    while (**line && **line != '\n') (*line)++;
    if (**line) (*line)++;
    return count;
}

static void check_text(const pi2_tokenizer *tokenizer, const char *text, size_t length,
                       const int32_t *expected, size_t expected_count) {
    const pi2_text_segment segment = { text, length, false };
    int32_t *tokens;
    size_t count, decoded_length;
    assert_int_equal(pi2_tokenizer_encode(tokenizer, &segment, 1, false, &tokens, &count), PI2_OK);
    if (count != expected_count || memcmp(tokens, expected, count * sizeof *tokens) != 0) {
        fail_msg("other tokens for '%.*s'", (int)length, text);
    }
    char *decoded = decode(tokenizer, tokens, count, &decoded_length);
    assert_int_equal(decoded_length, length);
    assert_memory_equal(decoded, text, length);
    free(decoded);
    free(tokens);
}

static void check_vocabulary(void **state) {
    const char *vocabulary = *state;
    if (!getenv("PI2_TEST_DATA")) skip();
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/vocab/ggml-vocab-%s.gguf", getenv("PI2_TEST_DATA"),
                   vocabulary);
    pi2_gguf *gguf;
    pi2_tokenizer *tokenizer;
    if (pi2_gguf_open(path, &gguf) != PI2_OK || pi2_tokenizer_create(gguf, &tokenizer) != PI2_OK) {
        fail_msg("%s", pi2_error_text());
    }
    pi2_gguf_close(gguf); /* the tokenizer keeps nothing of it */
    size_t length, ignored;
    char *texts = data_file(vocabulary, ".inp", &length);
    char *lines = data_file(vocabulary, ".out", &ignored);
    const char *line = lines;
    size_t checked = 0;
    int32_t ids[4096];
    for (const char *text = texts; text;) {
        const char *next = strstr(text, separator);
        const size_t text_length = next ? (size_t)(next - text) : length - (size_t)(text - texts);
        const size_t count = read_ids(&line, ids, sizeof ids / sizeof ids[0]);
        check_text(tokenizer, text, text_length, ids, count);
        text = next ? next + sizeof separator - 1 : NULL;
        checked++;
    }
    assert_true(checked > 40);
    free(texts);
    free(lines);
    pi2_tokenizer_free(tokenizer);
}

int main(void) {
    static char *const names[] = { "falcon", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2" };
    enum { COUNT = sizeof names / sizeof names[0] };
    struct CMUnitTest tests[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        tests[i] = (struct CMUnitTest){ names[i], check_vocabulary, NULL, NULL, names[i] };
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed) return failed;
    if (!getenv("PI2_TEST_DATA")) {
        (void)puts("skipped: PI2_TEST_DATA is not set");
        return 77;
    }
    return 0;
}
