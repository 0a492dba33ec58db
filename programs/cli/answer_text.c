/* answer_text.c: stop words and what may be shown. */
#include "answer_text.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "powerinfer2/generate.h"

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

static void show_until(pi2_cli_answer_text *answer, size_t end) {
    if (end > answer->shown && answer->show && !answer->is_lost) {
        answer->is_lost = !answer->show(answer->text.data + answer->shown, end - answer->shown);
    }
    answer->shown = end;
}

bool pi2_cli_answer_text_add(pi2_cli_answer_text *answer, const char *piece, size_t length) {
    pi2_cli_text *text = &answer->text;
    const pi2_cli_texts *words = answer->stop_words;
    const size_t seen = text->length - answer->shown;
    if (!pi2_cli_text_add(text, piece, length)) return false;
    const pi2_text_end end = pi2_text_find_end(text->data + answer->shown, seen + length, seen,
                                               words ? words->items : NULL, words ? words->count : 0);
    const size_t certain = answer->shown + end.certain;
    if (end.is_stopped) {
        text->length = certain;
        text->data[certain] = '\0';
        answer->is_stopped = true;
        answer->stop_index = end.stop_word;
    }
    show_until(answer, certain);
    return true;
}

void pi2_cli_answer_text_finish(pi2_cli_answer_text *answer) { show_until(answer, answer->text.length); }
