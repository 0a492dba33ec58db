/* Goal:   every pre-tokenizer cuts a text as llama.cpp does, whatever scripts, marks, numbers and white space it has.
 * Method: tests/golden/pre_tokenizers (made by make_pre_tokenizers.py beside it): a text, two vocabularies whose merges
 *         join across every place that a pattern may cut, and for each name the number of llama-tokenize's ids and the
 *         XXH3 of their line. Names of pre_tokenizers.inc that have none are listed there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <xxhash.h>

#include "support/temporary_files.h"
#include "tokenizer/tokenizer_internal.h"

#define GOLDEN PI2_TESTS_FOLDER "/golden/pre_tokenizers/"

static const struct {
    const char *name;
    unsigned flags;
} pre_tokenizers[] = {
#define PRE_TOKENIZER(name, flags, ...) {name, flags},
#include "tokenizer/pre_tokenizers.inc"
#undef PRE_TOKENIZER
};
enum { NAMES = sizeof pre_tokenizers / sizeof pre_tokenizers[0] };

static uint8_t *vocabularies[2], *text; /* of bytes, of characters */
static size_t vocabulary_bytes[2], text_bytes;

/** The vocabulary with another name of the pre-tokenizer, by way of a file. */
static pi2_tokenizer *make(const char *path, const uint8_t *bytes, size_t count, const char *name) {
    static const char key[] = "tokenizer.ggml.pre";
    size_t at = 0;
    while (memcmp(bytes + at, key, sizeof key - 1) != 0) assert_true(++at + sizeof key + 16 < count);
    at += sizeof key - 1 + 4; /* the key and the type; the length of the value follows */
    uint64_t old_length;
    memcpy(&old_length, bytes + at, sizeof old_length);
    const uint64_t length = strlen(name);
    uint8_t *changed = malloc(count + length);
    assert_non_null(changed);
    memcpy(changed, bytes, at);
    memcpy(changed + at, &length, 8);
    memcpy(changed + at + 8, name, length);
    const size_t rest = at + 8 + old_length;
    memcpy(changed + at + 8 + length, bytes + rest, count - rest);
    test_file_write(path, changed, count - old_length + length);
    free(changed);
    pi2_gguf *gguf = NULL;
    pi2_tokenizer *tokenizer = NULL;
    if (pi2_gguf_open(path, &gguf) != PI2_OK || pi2_tokenizer_create(gguf, &tokenizer) != PI2_OK) {
        fail_msg("%s: %s", name, pi2_error_text());
    }
    pi2_gguf_close(gguf);
    return tokenizer;
}

/** "COUNT XXH3" of the text's ids. */
static void digest_of(const pi2_tokenizer *tokenizer, char digest[64]) {
    const pi2_text_segment segment = {(const char *)text, text_bytes, false};
    int32_t *tokens;
    size_t count, length = 0;
    assert_int_equal(pi2_tokenizer_encode(tokenizer, &segment, 1, false, &tokens, &count), PI2_OK);
    char *line = malloc(count * 12 + 1);
    assert_non_null(line);
    for (size_t i = 0; i < count; i++) length += (size_t)sprintf(line + length, i ? " %d" : "%d", (int)tokens[i]);
    (void)snprintf(digest, 64, "%zu %016llx", count, (unsigned long long)XXH3_64bits(line, length));
    free(line);
    free(tokens);
}

static void test_every_name(void **state) {
    (void)state;
    json_error_t error;
    json_t *golden = json_load_file(GOLDEN "tokens.json", 0, &error), *left_out;
    assert_non_null(golden);
    size_t index, checked = 0, wrong = 0;
    const char *path = test_folder_path("vocabulary.gguf");
    for (size_t i = 0; i < NAMES; i++) {
        const bool of_characters = pre_tokenizers[i].flags & PI2_PRE_CHARACTERS;
        pi2_tokenizer *tokenizer =
            make(path, vocabularies[of_characters], vocabulary_bytes[of_characters], pre_tokenizers[i].name);
        const json_t *want = json_object_get(json_object_get(golden, "names"), pre_tokenizers[i].name);
        bool is_listed = false;
        json_array_foreach(json_object_get(golden, "not_checked"), index, left_out) {
            is_listed = is_listed || strcmp(json_string_value(left_out), pre_tokenizers[i].name) == 0;
        }
        if (!want && !is_listed) fail_msg("%s: no golden tokens", pre_tokenizers[i].name);
        char digest[64];
        digest_of(tokenizer, digest);
        if (want && strcmp(digest, json_string_value(want)) != 0) {
            print_message("%s: %s, not %s\n", pre_tokenizers[i].name, digest, json_string_value(want));
            wrong++;
        }
        checked += want != NULL;
        pi2_tokenizer_free(tokenizer);
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(checked, json_object_size(json_object_get(golden, "names")));
    json_decref(golden);
}

int main(void) {
    vocabularies[0] = test_file_read(GOLDEN "bytes.vocabulary", &vocabulary_bytes[0]);
    vocabularies[1] = test_file_read(GOLDEN "characters.vocabulary", &vocabulary_bytes[1]);
    text = test_file_read(GOLDEN "text.utf8", &text_bytes);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_name, test_folder_begin, test_folder_end)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(vocabularies[0]);
    free(vocabularies[1]);
    free(text);
    return failed;
}
