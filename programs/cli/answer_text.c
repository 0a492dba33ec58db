/* answer_text.c: stop words and what may be shown. */
#include "answer_text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void *pi2_cli_grow(void *data, size_t length, size_t more, size_t element, size_t *capacity) {
    if (data && more <= *capacity - length) return data;
    size_t wanted = *capacity ? *capacity : 256;
    while (wanted - length < more) {
        if (wanted > SIZE_MAX / element / 2) return NULL;
        wanted *= 2;
    }
    void *grown = realloc(data, wanted * element);
    if (grown) *capacity = wanted;
    return grown;
}

bool pi2_cli_text_add(pi2_cli_text *text, const char *data, size_t length) {
    char *grown = pi2_cli_grow(text->data, text->length, length + 1, 1, &text->capacity);
    if (!grown) return false;
    text->data = grown;
    if (length) memcpy(grown + text->length, data, length);
    text->length += length;
    grown[text->length] = '\0';
    return true;
}

/** The length of the longest stop word that ends at text[end] and begins at text[from] or later; 0: none. */
static size_t stop_that_ends(const char *text, size_t from, size_t end, const pi2_cli_texts *words, size_t *index_out) {
    size_t longest = 0;
    for (size_t i = 0; i < words->count; i++) {
        const size_t length = strlen(words->items[i]);
        if (length <= longest || length > end - from) continue;
        if (memcmp(text + end - length, words->items[i], length) != 0) continue;
        longest = length;
        *index_out = i;
    }
    return longest;
}

/** Whether the text's last `length` bytes begin a stop word that is longer. */
static bool may_become_stop(const char *tail, size_t length, const pi2_cli_texts *words) {
    for (size_t i = 0; i < words->count; i++) {
        if (strlen(words->items[i]) > length && memcmp(tail, words->items[i], length) == 0) return true;
    }
    return false;
}

static void show_until(pi2_cli_answer_text *answer, size_t end) {
    if (end > answer->shown && answer->show && !answer->is_lost) {
        answer->is_lost = !answer->show(answer->text.data + answer->shown, end - answer->shown);
    }
    answer->shown = end;
}

/* No stop word begins before `shown`: what could have begun one was held back. */
bool pi2_cli_answer_text_add(pi2_cli_answer_text *answer, const char *piece, size_t length) {
    pi2_cli_text *text = &answer->text;
    const pi2_cli_texts *words = answer->stop_words;
    const size_t old_length = text->length;
    if (!pi2_cli_text_add(text, piece, length)) return false;
    size_t certain = words ? answer->shown : text->length;
    for (size_t end = old_length + 1; words && end <= text->length; end++) {
        const size_t stop = stop_that_ends(text->data, answer->shown, end, words, &answer->stop_index);
        if (stop == 0) continue;
        text->length = certain = end - stop;
        text->data[certain] = '\0';
        answer->is_stopped = true;
        break;
    }
    while (certain < text->length && !may_become_stop(text->data + certain, text->length - certain, words)) certain++;
    show_until(answer, certain);
    return true;
}

void pi2_cli_answer_text_finish(pi2_cli_answer_text *answer) { show_until(answer, answer->text.length); }
