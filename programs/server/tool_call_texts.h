/* tool_call_texts.h: calls that are no JSON, or lie between marks of their own; for tool_calls.c. */
#ifndef PI2_SERVER_TOOL_CALL_TEXTS_H
#define PI2_SERVER_TOOL_CALL_TEXTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/** What is left of a text. */
typedef struct pi2_text_rest {
    const char *text;
    size_t length;
} pi2_text_rest;
void pi2_rest_skip(pi2_text_rest *rest, size_t count);
/** Skips white space, and the characters `also`. */
void pi2_rest_skip_space(pi2_text_rest *rest, const char *also);
bool pi2_rest_begins_with(const pi2_text_rest *rest, const char *mark);
/** Skips the mark where the rest begins with it. */
bool pi2_rest_take(pi2_text_rest *rest, const char *mark);
/** The text up to the mark, and the rest moved past it. False: the mark is not there. */
bool pi2_rest_take_until(pi2_text_rest *rest, const char *mark, pi2_text_rest *before_out);

/** Adds a call of {name, arguments: text}; takes the arguments over. NULL of them: none were given. */
bool pi2_add_call(json_t *calls, json_t *name, json_t *arguments);
/** The JSON value that the rest begins with, bounded; NULL: none. */
json_t *pi2_rest_take_json(pi2_text_rest *rest);

/** Each reads calls and adds them; false: they are none. */

/** call:name{key:value,...} (Gemma 4), where texts lie between <|"|>. */
bool pi2_read_gemma_call(pi2_text_rest *rest, json_t *calls);
/** [name(key=value, ...), ...] (LFM2), also without the brackets: Python's texts, numbers, lists and dictionaries. */
bool pi2_read_python_calls(pi2_text_rest *rest, json_t *calls);
/** Whether the rest begins as such calls do. */
bool pi2_rest_is_python(const pi2_text_rest *rest);
/** A name and its arguments in JSON between DeepSeek's marks, as V3.1 writes them; or, as R1 does, the word "function",
 *  the name on a line of its own, and the arguments between ```json and ```. */
bool pi2_read_deepseek_call(pi2_text_rest *rest, json_t *calls);

/** Whether a call, as far as it is read, ends within one of its texts, where a mark that ends calls ends none. */
bool pi2_call_ends_within_text(pi2_text_rest rest);

#endif
