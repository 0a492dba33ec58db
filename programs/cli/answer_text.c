/* answer_text.c: see answer_text.h. */
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
