/*
 * Goal:   an answer ends before the stop word that is complete first, whatever pieces the text came in;
 *         what was shown is never taken back, and no more is held back than may yet become a stop word.
 * Method: random texts over a few letters, random stop words (mostly cut out of the text, so that they
 *         overlap, hide and end in one another) and random pieces, against definitions that look at the
 *         whole text; and the cases that users met.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/answer_text.h"

enum { TEXT_MOST = 40, WORD_MOST = 9, ROUNDS = 200000 };

static char shown[2 * TEXT_MOST];
static size_t shown_length;

static bool show(const char *text, size_t length) {
    assert_true(length > 0 && length <= sizeof shown - shown_length);
    memcpy(shown + shown_length, text, length);
    shown_length += length;
    return true;
}

/* ---- the definition: quadratic, over the whole text ---- */

/* Where the answer ends; SIZE_MAX: no stop word stands in the text. */
static size_t right_end(const char *text, size_t length, const pi2_cli_texts *words) {
    for (size_t end = 1; end <= length; end++) {
        for (size_t begin = 0; begin < end; begin++) {
            for (size_t i = 0; i < words->count; i++) {
                const size_t size = strlen(words->items[i]);
                if (size == end - begin && memcmp(text + begin, words->items[i], size) == 0) return begin;
            }
        }
    }
    return SIZE_MAX;
}

/* Bytes that are certain: what follows may yet begin a stop word, whatever comes. */
static size_t right_certain(const char *text, size_t length, const pi2_cli_texts *words) {
    for (size_t begin = 0; begin < length; begin++) {
        for (size_t i = 0; i < words->count; i++) {
            if (strncmp(words->items[i], text + begin, length - begin) == 0) return begin;
        }
    }
    return length;
}

static uint32_t random_below(uint32_t limit) {
    static uint64_t state = 7;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

static void make_case(char *text, size_t *length_out, char (*store)[WORD_MOST + 1], pi2_cli_texts *words) {
    const uint32_t letters = 2 + random_below(2), length = 1 + random_below(TEXT_MOST);
    for (uint32_t i = 0; i < length; i++) text[i] = (char)('a' + random_below(letters));
    text[length] = '\0';
    *length_out = length;
    words->count = random_below(5);
    for (size_t i = 0; i < words->count; i++) {
        const uint32_t size = random_below(WORD_MOST + 1); /* an empty word counts for nothing */
        const uint32_t begin = random_below(length);
        for (uint32_t k = 0; k < size; k++) {
            const bool is_own = begin + k >= length || random_below(12) == 0;
            store[i][k] = is_own ? (char)('a' + random_below(letters)) : text[begin + k];
        }
        store[i][size] = '\0';
        words->items[i] = store[i];
    }
}

static void check_case(const char *text, size_t length, const pi2_cli_texts *words, size_t *stopped) {
    pi2_cli_answer_text answer = {.stop_words = words, .show = show};
    const size_t limit = random_below(3) ? length : random_below((uint32_t)length + 1); /* the token limit */
    size_t added = 0;
    shown_length = 0;
    while (added < limit && !answer.is_stopped) {
        size_t piece = random_below(7);
        if (piece > limit - added) piece = limit - added;
        assert_true(pi2_cli_answer_text_add(&answer, text + added, piece));
        added += piece;
        if (!answer.is_stopped) assert_int_equal(shown_length, right_certain(text, added, words));
    }
    pi2_cli_answer_text_finish(&answer);
    const size_t end = right_end(text, limit, words);
    assert_int_equal(answer.is_stopped, end != SIZE_MAX);
    const size_t right = end == SIZE_MAX ? limit : end;
    *stopped += end != SIZE_MAX;
    assert_int_equal(shown_length, right);
    assert_memory_equal(shown, text, right);
    assert_int_equal(answer.text.length, right);
    if (answer.text.data) assert_int_equal(strlen(answer.text.data), right);
    free(answer.text.data);
}

static void test_against_definition(void **state) {
    (void)state;
    char text[TEXT_MOST + 1], store[4][WORD_MOST + 1];
    size_t stopped = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pi2_cli_texts words = {.count = 0};
        size_t length = 0;
        make_case(text, &length, store, &words);
        check_case(text, length, &words, &stopped);
    }
    assert_true(stopped > ROUNDS / 10 && stopped < ROUNDS - ROUNDS / 10); /* both kinds were tried */
}

static void expect(const char *text, const char *const *words, size_t count, const char *right) {
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        pi2_cli_texts list = {.count = count};
        for (size_t i = 0; i < count; i++) list.items[i] = words[i];
        pi2_cli_answer_text answer = {.stop_words = &list, .show = show};
        shown_length = 0;
        for (size_t at = 0; at < strlen(text) && !answer.is_stopped; at += piece) {
            const size_t left = strlen(text) - at;
            assert_true(pi2_cli_answer_text_add(&answer, text + at, piece < left ? piece : left));
        }
        pi2_cli_answer_text_finish(&answer);
        assert_string_equal(answer.text.data, right);
        assert_int_equal(shown_length, strlen(right));
        free(answer.text.data);
    }
}

static void test_cases(void **state) {
    (void)state;
    static const char *const hello[] = {"Hello there! How can I assist you today?!", "How"};
    expect("Hello there! How can I assist you today?", hello, 2, "Hello there! ");
    static const char *const inner[] = {"abcd", "bc"}; /* the one inside is complete first */
    expect("xabcd", inner, 2, "xa");
    static const char *const ends[] = {"d", "bcd", "cd"}; /* of those that end together the longest */
    expect("abcd", ends, 3, "a");
    static const char *const held[] = {"END."};
    expect("in the EN", held, 1, "in the EN"); /* a limit: what was held back belongs to the answer */
    expect("ENEND.x", held, 1, "EN");
}

static bool show_nothing(const char *text, size_t length) {
    (void)text;
    (void)length;
    return false;
}

static void test_lost(void **state) {
    (void)state;
    pi2_cli_answer_text answer = {.show = show_nothing};
    assert_true(pi2_cli_answer_text_add(&answer, "a", 1));
    assert_true(answer.is_lost);
    answer.show = show; /* once lost, nothing is shown any more: the answer would have a hole */
    shown_length = 0;
    assert_true(pi2_cli_answer_text_add(&answer, "b", 1));
    assert_true(answer.is_lost);
    assert_int_equal(shown_length, 0);
    free(answer.text.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_definition), cmocka_unit_test(test_cases), cmocka_unit_test(test_lost),
    };
    return cmocka_run_group_tests_name("answer text", tests, NULL, NULL);
}
