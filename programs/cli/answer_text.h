/* answer_text.h: a text that grows. */
#ifndef PI2_CLI_ANSWER_TEXT_H
#define PI2_CLI_ANSWER_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/** Growing text; starts as {0}. */
typedef struct pi2_cli_text {
    char *data; /* NUL-terminated once something was added */
    size_t length, capacity;
} pi2_cli_text;
/** False: no memory. */
bool pi2_cli_text_add(pi2_cli_text *text, const char *data, size_t length);
/** Makes room for `more` elements beside `length`; NULL: no memory, and `data` is still good. */
void *pi2_cli_grow(void *data, size_t length, size_t more, size_t element, size_t *capacity);

#endif
