/* tool_call_texts.c: see tool_call_texts.h. */
#include "tool_call_texts.h"

#include <stdlib.h>
#include <string.h>

#include "cli/answer_text.h"
#include "cli/json_bounds.h"

enum { MOST_VALUES = 8192 }; /* of a call: what a model writes takes no more memory than JSON may */

static const char gemma_quote[] = "<|\"|>";

void pi2_rest_skip(pi2_text_rest *rest, size_t count) {
    rest->text += count;
    rest->length -= count;
}

void pi2_rest_skip_space(pi2_text_rest *rest, const char *also) {
    while (rest->length && *rest->text && (strchr(" \n\r\t", *rest->text) || strchr(also, *rest->text))) {
        pi2_rest_skip(rest, 1);
    }
}

bool pi2_rest_begins_with(const pi2_text_rest *rest, const char *mark) {
    return rest->length >= strlen(mark) && memcmp(rest->text, mark, strlen(mark)) == 0;
}

bool pi2_rest_take(pi2_text_rest *rest, const char *mark) {
    if (!pi2_rest_begins_with(rest, mark)) return false;
    pi2_rest_skip(rest, strlen(mark));
    return true;
}

bool pi2_rest_take_until(pi2_text_rest *rest, const char *mark, pi2_text_rest *before_out) {
    for (size_t i = 0; i + strlen(mark) <= rest->length; i++) {
        if (memcmp(rest->text + i, mark, strlen(mark)) != 0) continue;
        *before_out = (pi2_text_rest){rest->text, i};
        pi2_rest_skip(rest, i + strlen(mark));
        return true;
    }
    return false;
}

/** Bytes of a name at the beginning. */
static size_t name_length(const pi2_text_rest *rest) {
    size_t length = 0;
    while (length < rest->length && !strchr(" \t\r\n(){}[]=:,'\"<>", rest->text[length])) length++;
    return length;
}

/* ---- values ---- */

typedef struct value_reader {
    bool is_python;      /* or Gemma's */
    unsigned depth, left; /* nesting; values that may still come */
} value_reader;

static json_t *read_value(value_reader *reader, pi2_text_rest *rest);

/** Whether a quote ends a text: behind it stands what may follow a value. LFM2.5's template escapes no quotes. */
static bool ends_python_text(pi2_text_rest rest) {
    pi2_rest_skip(&rest, 1);
    pi2_rest_skip_space(&rest, "");
    return rest.length == 0 || strchr(",)]}:", *rest.text);
}

/** A text in Python's quotes, with its escapes. */
static json_t *read_python_text(pi2_text_rest *rest) {
    static const char names[] = "nrt\\'\"", characters[] = "\n\r\t\\'\"";
    const char quote = *rest->text;
    pi2_cli_text text = {0};
    bool is_good = pi2_cli_text_add(&text, "", 0), has_end = false;
    for (pi2_rest_skip(rest, 1); is_good && rest->length && !has_end; pi2_rest_skip(rest, 1)) {
        const char byte = *rest->text;
        const char *found = byte == '\\' && rest->length > 1 ? strchr(names, rest->text[1]) : NULL;
        has_end = byte == quote && ends_python_text(*rest);
        if (found && *found) {
            pi2_rest_skip(rest, 1);
            is_good = pi2_cli_text_add(&text, &characters[found - names], 1);
        } else if (!has_end) {
            is_good = pi2_cli_text_add(&text, &byte, 1);
        }
    }
    json_t *value = is_good && has_end ? json_stringn(text.data, text.length) : NULL;
    free(text.data);
    return value;
}

static json_t *read_word(pi2_text_rest *rest) {
    static const struct { const char *word; json_t *(*make)(void); } words[] = {
        {"True", json_true}, {"False", json_false}, {"None", json_null},
        {"true", json_true}, {"false", json_false}, {"null", json_null}};
    const size_t length = name_length(rest);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strlen(words[i].word) != length || memcmp(rest->text, words[i].word, length) != 0) continue;
        pi2_rest_skip(rest, length);
        return words[i].make();
    }
    json_error_t error;
    json_t *number = json_loadb(rest->text, length, JSON_DECODE_ANY, &error);
    if (!json_is_number(number)) {
        json_decref(number);
        return NULL;
    }
    pi2_rest_skip(rest, length);
    return number;
}

/** A member's name: a text, or what stands before ':' or '='. */
static json_t *read_key(const value_reader *reader, pi2_text_rest *rest) {
    pi2_text_rest name;
    if (!reader->is_python && pi2_rest_take(rest, gemma_quote)) {
        return pi2_rest_take_until(rest, gemma_quote, &name) ? json_stringn(name.text, name.length) : NULL;
    }
    if (reader->is_python && rest->length && strchr("'\"", *rest->text)) return read_python_text(rest);
    const size_t length = name_length(rest);
    json_t *key = length ? json_stringn(rest->text, length) : NULL;
    pi2_rest_skip(rest, length);
    return key;
}

/** key, separator, value, ... up to `end`, behind the opening bracket. */
static json_t *read_members(value_reader *reader, pi2_text_rest *rest, const char *separator, const char *end) {
    json_t *object = json_object();
    bool is_good = object != NULL;
    pi2_rest_skip_space(rest, "");
    while (is_good && !pi2_rest_take(rest, end)) {
        json_t *key = read_key(reader, rest);
        pi2_rest_skip_space(rest, "");
        is_good = key && pi2_rest_take(rest, separator);
        json_t *value = is_good ? read_value(reader, rest) : NULL;
        is_good = value && json_object_set_new(object, json_string_value(key), value) == 0;
        json_decref(key);
        pi2_rest_skip_space(rest, "");
        is_good = is_good && (pi2_rest_take(rest, ",") || pi2_rest_begins_with(rest, end));
        pi2_rest_skip_space(rest, "");
    }
    if (is_good) return object;
    json_decref(object);
    return NULL;
}

static json_t *read_list(value_reader *reader, pi2_text_rest *rest) {
    json_t *list = json_array();
    bool is_good = list != NULL;
    pi2_rest_skip_space(rest, "");
    while (is_good && !pi2_rest_take(rest, "]")) {
        json_t *value = read_value(reader, rest);
        is_good = value && json_array_append_new(list, value) == 0;
        pi2_rest_skip_space(rest, "");
        is_good = is_good && (pi2_rest_take(rest, ",") || pi2_rest_begins_with(rest, "]"));
        pi2_rest_skip_space(rest, "");
    }
    if (is_good) return list;
    json_decref(list);
    return NULL;
}

static json_t *read_value(value_reader *reader, pi2_text_rest *rest) {
    pi2_text_rest text;
    json_t *value = NULL;
    pi2_rest_skip_space(rest, "");
    if (rest->length == 0 || reader->left == 0 || reader->depth == PI2_JSON_DEPTH) return NULL;
    reader->left--;
    reader->depth++;
    if (!reader->is_python && pi2_rest_take(rest, gemma_quote)) {
        if (pi2_rest_take_until(rest, gemma_quote, &text)) value = json_stringn(text.text, text.length);
    } else if (reader->is_python && strchr("'\"", *rest->text)) {
        value = read_python_text(rest);
    } else if (pi2_rest_take(rest, "{")) {
        value = read_members(reader, rest, ":", "}");
    } else if (pi2_rest_take(rest, "[")) {
        value = read_list(reader, rest);
    } else {
        value = read_word(rest);
    }
    reader->depth--;
    return value;
}

/* ---- calls ---- */

/** Behind the name: its arguments, and the call is added. */
static bool add_named(const pi2_text_rest *name, json_t *arguments, json_t *calls) {
    json_t *text = json_stringn(name->text, name->length);
    const bool is_call = arguments && pi2_add_call(calls, text, json_incref(arguments));
    json_decref(arguments);
    json_decref(text);
    return is_call;
}

bool pi2_read_gemma_call(pi2_text_rest *rest, json_t *calls) {
    value_reader reader = {false, 0, MOST_VALUES};
    pi2_text_rest name;
    if (!pi2_rest_take(rest, "call:") || !pi2_rest_take_until(rest, "{", &name)) return false;
    return add_named(&name, read_members(&reader, rest, ":", "}"), calls);
}

bool pi2_rest_is_python(const pi2_text_rest *rest) {
    pi2_text_rest begin = *rest;
    if (pi2_rest_take(&begin, "[")) pi2_rest_skip_space(&begin, "");
    const size_t length = name_length(&begin);
    return length > 0 && length < begin.length && begin.text[length] == '(';
}

static bool read_python_call(pi2_text_rest *rest, json_t *calls) {
    value_reader reader = {true, 0, MOST_VALUES};
    const pi2_text_rest name = {rest->text, name_length(rest)};
    pi2_rest_skip(rest, name.length);
    if (name.length == 0 || !pi2_rest_take(rest, "(")) return false;
    return add_named(&name, read_members(&reader, rest, "=", ")"), calls);
}

bool pi2_read_python_calls(pi2_text_rest *rest, json_t *calls) {
    if (!pi2_rest_take(rest, "[")) return read_python_call(rest, calls);
    pi2_rest_skip_space(rest, "");
    while (!pi2_rest_take(rest, "]")) {
        if (!read_python_call(rest, calls)) return false;
        pi2_rest_skip_space(rest, "");
        if (!pi2_rest_take(rest, ",") && !pi2_rest_begins_with(rest, "]")) return false;
        pi2_rest_skip_space(rest, "");
    }
    return true;
}

bool pi2_call_ends_within_text(pi2_text_rest rest) {
    pi2_text_rest before;
    pi2_rest_skip_space(&rest, "");
    if (pi2_rest_begins_with(&rest, "<function=")) return false; /* its texts have no quotes */
    bool is_within = false;
    if (pi2_rest_begins_with(&rest, "call:")) {
        while (pi2_rest_take_until(&rest, gemma_quote, &before)) is_within = !is_within;
        return is_within;
    }
    const bool is_python = pi2_rest_is_python(&rest);
    for (char quote = '\0'; rest.length; pi2_rest_skip(&rest, 1)) {
        const char byte = *rest.text;
        if (quote && byte == '\\' && rest.length > 1) pi2_rest_skip(&rest, 1);
        else if (quote && byte == quote) quote = '\0';
        else if (!quote && (byte == '"' || (is_python && byte == '\''))) quote = byte;
        is_within = quote != '\0';
    }
    return is_within;
}

bool pi2_read_deepseek_call(pi2_text_rest *rest, json_t *calls) {
    pi2_text_rest name;
    if (!pi2_rest_take(rest, "<\xef\xbd\x9ctool\xe2\x96\x81" "call\xe2\x96\x81" "begin\xef\xbd\x9c>") ||
        !pi2_rest_take_until(rest, "<\xef\xbd\x9ctool\xe2\x96\x81sep\xef\xbd\x9c>", &name)) {
        return false;
    }
    if (name.length == 8 && memcmp(name.text, "function", 8) == 0 && !pi2_rest_take_until(rest, "\n", &name)) {
        return false;
    }
    pi2_rest_skip_space(rest, "");
    const bool is_fenced = pi2_rest_take(rest, "```json");
    pi2_rest_skip_space(rest, "");
    json_t *arguments = pi2_rest_take_json(rest);
    if (!json_is_object(arguments)) {
        json_decref(arguments);
        return false;
    }
    pi2_rest_skip_space(rest, "");
    if (is_fenced) (void)pi2_rest_take(rest, "```");
    (void)pi2_rest_take(rest, "<\xef\xbd\x9ctool\xe2\x96\x81" "call\xe2\x96\x81" "end\xef\xbd\x9c>");
    return add_named(&name, arguments, calls);
}
