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

#include "powerinfer2/generate.h"

enum { TEXT_MOST = 40, WORD_MOST = 9, ROUNDS = 200000 };

typedef struct stop_list {
    const char *items[4];
    size_t count;
} stop_list;

/* A text that comes in pieces: what is certain is shown, what is not is held behind it. */
typedef struct growing {
    const stop_list *words;
    char text[2 * TEXT_MOST];
    size_t shown, length; /* bytes of it */
    bool is_stopped;
} growing;

static void add(growing *answer, const char *piece, size_t length) {
    const size_t seen = answer->length - answer->shown;
    memcpy(answer->text + answer->length, piece, length);
    answer->length += length;
    const pi2_text_end end = pi2_text_find_end(answer->text + answer->shown, seen + length, seen, answer->words->items,
                                               answer->words->count);
    answer->shown += end.certain;
    answer->is_stopped = end.is_stopped;
    if (end.is_stopped) answer->length = answer->shown;
}

/* ---- the definition: quadratic, over the whole text ---- */

/* Where the answer ends; SIZE_MAX: no stop word stands in the text. */
static size_t right_end(const char *text, size_t length, const stop_list *words) {
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
static size_t right_certain(const char *text, size_t length, const stop_list *words) {
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

static void make_case(char *text, size_t *length_out, char (*store)[WORD_MOST + 1], stop_list *words) {
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

static void check_case(const char *text, size_t length, const stop_list *words, size_t *stopped) {
    growing answer = {.words = words};
    const size_t limit = random_below(3) ? length : random_below((uint32_t)length + 1); /* the token limit */
    size_t added = 0;
    while (added < limit && !answer.is_stopped) {
        size_t piece = random_below(7);
        if (piece > limit - added) piece = limit - added;
        add(&answer, text + added, piece);
        added += piece;
        if (!answer.is_stopped) assert_int_equal(answer.shown, right_certain(text, added, words));
    }
    const size_t end = right_end(text, limit, words);
    assert_int_equal(answer.is_stopped, end != SIZE_MAX);
    const size_t right = end == SIZE_MAX ? limit : end;
    *stopped += end != SIZE_MAX;
    assert_int_equal(answer.length, right);
    assert_memory_equal(answer.text, text, right);
}

static void test_against_definition(void **state) {
    (void)state;
    char text[TEXT_MOST + 1], store[4][WORD_MOST + 1];
    size_t stopped = 0;
    for (int round = 0; round < ROUNDS; round++) {
        stop_list words = {.count = 0};
        size_t length = 0;
        make_case(text, &length, store, &words);
        check_case(text, length, &words, &stopped);
    }
    assert_true(stopped > ROUNDS / 10 && stopped < ROUNDS - ROUNDS / 10); /* both kinds were tried */
}

static void expect(const char *text, const char *const *words, size_t count, const char *right) {
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        stop_list list = {.count = count};
        for (size_t i = 0; i < count; i++) list.items[i] = words[i];
        growing answer = {.words = &list};
        for (size_t at = 0; at < strlen(text) && !answer.is_stopped; at += piece) {
            const size_t left = strlen(text) - at;
            add(&answer, text + at, piece < left ? piece : left);
        }
        assert_int_equal(answer.length, strlen(right));
        assert_memory_equal(answer.text, right, answer.length);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_definition), cmocka_unit_test(test_cases)
    };
    return cmocka_run_group_tests_name("text end", tests, NULL, NULL);
}
