/*
 * answer_text.h: the text of an answer while it grows, and where it ends.
 *
 * An answer ends before the stop word that is complete first: of all places in the text where a stop
 * word stands wholly, the one whose last byte comes earliest counts; of several that end with the same
 * byte the longest, which begins earliest (pi2_text_find_end() of generate.h). So the end depends on the
 * text alone, not on the pieces in which it came. What is told as shown never has to be taken back: bytes that may yet
 * begin a stop word are held back, no more than those, and given out when the answer ends without it.
 */
#ifndef PI2_CLI_ANSWER_TEXT_H
#define PI2_CLI_ANSWER_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "options.h"

/** Growing text; starts as {0}. */
typedef struct pi2_cli_text {
    char *data; /* NUL-terminated once something was added */
    size_t length, capacity;
} pi2_cli_text;
/** False: no memory. */
bool pi2_cli_text_add(pi2_cli_text *text, const char *data, size_t length);
/** Makes room for `more` elements beside `length`; NULL: no memory, and `data` is still good. */
void *pi2_cli_grow(void *data, size_t length, size_t more, size_t element, size_t *capacity);

/** An answer's text; starts as {.stop_words = ..., .show = ...}. Free text.data. */
typedef struct pi2_cli_answer_text {
    pi2_cli_text text; /* what has come; without the stop word once is_stopped */
    size_t shown;      /* bytes of it that were shown */
    bool is_stopped;   /* by a stop word; nothing is to be added any more */
    size_t stop_index; /* which one, once is_stopped */
    bool is_lost;      /* it could not be shown */
    const pi2_cli_texts *stop_words; /* empty ones count for nothing; NULL: none */
    /** Called with text that is certain to belong to the answer; NULL: collect only. False: it
     *  cannot be shown, so no more is needed. */
    bool (*show)(const char *text, size_t length);
} pi2_cli_answer_text;

/** Adds a piece, shows what is certain, and cuts the text at a stop word. False: no memory. */
bool pi2_cli_answer_text_add(pi2_cli_answer_text *answer, const char *piece, size_t length);
/** The answer has ended: what was held back belongs to it and is shown. */
void pi2_cli_answer_text_finish(pi2_cli_answer_text *answer);

#endif
