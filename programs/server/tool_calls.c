/* tool_calls.c: see tool_calls.h. */
#include "tool_calls.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json_bounds.h"
#include "tool_call_texts.h"

enum { ANSWER_JSON_BYTES = 4 << 20 }; /* that the calls of an answer may take, parsed: a model writes what it is told */

static const char args_mark[] = "[ARGS]", id_mark[] = "[CALL_ID]", kimi_begin[] = "<|tool_call_begin|>",
                  deepseek_begin[] = "<\xef\xbd\x9ctool\xe2\x96\x81" "call\xe2\x96\x81" "begin\xef\xbd\x9c>",
                  key_begin[] = "<arg_key>", key_end[] = "</arg_key>", value_begin[] = "<arg_value>",
                  value_end[] = "</arg_value>";
/* What may stand between calls, and says nothing. */
static const char *const between_marks[] = {"[TOOL_CALLS]", "<tool_call>", "</tool_call>"};
enum { BETWEEN_MARKS = sizeof between_marks / sizeof between_marks[0] };

/* Calls whose arguments each have marks: names and keys stand up to `middle`. */
static const struct tagged_form {
    const char *begin, *middle, *end, *parameter_begin, *parameter_end;
} tagged_forms[] = {{"<function=", ">", "</function>", "<parameter=", "</parameter>"},                /* Qwen3-Coder */
                    {"<invoke name=\"", "\">", "</invoke>", "<parameter name=\"", "</parameter>"}}; /* MiniMax M2 */
enum { TAGGED_FORMS = sizeof tagged_forms / sizeof tagged_forms[0] };

static bool is_within_bounds(const char *text, size_t length) {
    const pi2_json_bounds bounds = pi2_json_measure(text, length);
    return bounds.depth <= PI2_JSON_DEPTH && bounds.memory <= ANSWER_JSON_BYTES;
}

bool pi2_add_call(json_t *calls, json_t *name, json_t *arguments) {
    char *text = NULL;
    if (json_is_string(arguments)) {
        const char *inner = json_string_value(arguments); /* JSON within a text, as the API itself has it */
        json_t *object = is_within_bounds(inner, strlen(inner)) ? json_loads(inner, 0, NULL) : NULL;
        if (json_is_object(object)) text = strdup(inner);
        json_decref(object);
    } else if (!arguments || json_is_object(arguments)) {
        text = arguments ? json_dumps(arguments, JSON_COMPACT) : strdup("{}");
    }
    json_decref(arguments);
    if (!text || !json_is_string(name) || json_string_length(name) == 0) {
        free(text);
        return false;
    }
    const int failed = json_array_append_new(calls, json_pack("{s:O, s:s}", "name", name, "arguments", text));
    free(text);
    return failed == 0;
}

/* A call as JSON; one that wraps it in "function" is one too. */
static bool add_json_call(json_t *calls, json_t *value) {
    json_t *inner = json_object_get(value, "function");
    if (json_is_object(inner)) value = inner;
    json_t *arguments = json_object_get(value, "arguments");
    if (!arguments) arguments = json_object_get(value, "parameters");
    return pi2_add_call(calls, json_object_get(value, "name"), json_incref(arguments));
}

json_t *pi2_rest_take_json(pi2_text_rest *rest) {
    json_error_t error;
    if (!is_within_bounds(rest->text, rest->length)) return NULL;
    json_t *value = json_loadb(rest->text, rest->length, JSON_DISABLE_EOF_CHECK, &error);
    if (value) pi2_rest_skip(rest, (size_t)error.position);
    return value;
}

static bool read_json_calls(pi2_text_rest *rest, json_t *calls) {
    json_t *value = pi2_rest_take_json(rest);
    bool is_call = json_is_object(value) && add_json_call(calls, value);
    if (json_is_array(value)) {
        is_call = json_array_size(value) > 0;
        for (size_t i = 0; is_call && i < json_array_size(value); i++) {
            is_call = add_json_call(calls, json_array_get(value, i));
        }
    }
    json_decref(value);
    return is_call;
}

/** The parameters of a function's schema that have a type other than text. */
static json_t *parameter_types(const json_t *function) {
    json_t *properties = json_object_get(json_object_get(function, "parameters"), "properties"), *types = json_object();
    const char *name;
    json_t *schema;
    json_object_foreach(properties, name, schema) {
        const char *type = json_string_value(json_object_get(schema, "type"));
        if (type && strcmp(type, "string") != 0 && json_object_set_new(types, name, json_true()) != 0) {
            json_decref(types);
            return NULL;
        }
    }
    return types;
}

json_t *pi2_tool_types(const json_t *tools) {
    json_t *types = json_object();
    for (size_t i = 0; types && i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const char *name = json_string_value(json_object_get(function, "name"));
        if (!name || json_object_get(types, name)) continue;
        if (json_object_set_new(types, name, parameter_types(function)) != 0) {
            json_decref(types);
            types = NULL;
        }
    }
    return types;
}

static bool is_typed(const json_t *types, const pi2_text_rest *tool, const char *parameter) {
    const char *name;
    json_t *parameters;
    json_object_foreach((json_t *)(uintptr_t)types, name, parameters) {
        if (strlen(name) == tool->length && memcmp(name, tool->text, tool->length) == 0) {
            return json_object_get(parameters, parameter) != NULL;
        }
    }
    return false;
}

/** A text as the JSON that a parameter with a type has; a text where it has none, or this is no JSON. */
static json_t *typed_value(pi2_text_rest value, bool has_type) {
    if (value.length && *value.text == '\n') pi2_rest_skip(&value, 1);
    if (value.length && value.text[value.length - 1] == '\n') value.length--;
    json_t *typed = NULL;
    if (has_type && is_within_bounds(value.text, value.length)) {
        typed = json_loadb(value.text, value.length, JSON_DECODE_ANY, NULL);
    }
    return typed ? typed : json_stringn(value.text, value.length);
}

/* An argument whose text is the value; false: it cannot be kept. */
static bool add_argument(json_t *arguments, const json_t *types, const pi2_text_rest *tool, const pi2_text_rest *key,
                         pi2_text_rest value) {
    char text[256];
    if (key->length >= sizeof text) return false;
    memcpy(text, key->text, key->length);
    text[key->length] = '\0';
    return json_object_set_new(arguments, text, typed_value(value, is_typed(types, tool, text))) == 0;
}

static bool add_text_call(json_t *calls, const pi2_text_rest *name, json_t *arguments, bool is_call) {
    json_t *text = json_stringn(name->text, name->length);
    is_call = is_call && pi2_add_call(calls, text, json_incref(arguments));
    json_decref(arguments);
    json_decref(text);
    return is_call;
}

/* <function=name><parameter=key>value</parameter>...</function>, whose last mark may be cut off; or JSON (Llama 3.1) */
static bool read_tagged(const struct tagged_form *form, pi2_text_rest *rest, const json_t *types, json_t *calls) {
    pi2_text_rest name, key, value;
    pi2_rest_skip(rest, strlen(form->begin));
    if (!pi2_rest_take_until(rest, form->middle, &name) || memchr(name.text, '<', name.length)) return false;
    pi2_rest_skip_space(rest, "");
    json_t *arguments = pi2_rest_begins_with(rest, "{") ? pi2_rest_take_json(rest) : json_object();
    bool is_call = json_is_object(arguments);
    pi2_rest_skip_space(rest, "");
    while (is_call && pi2_rest_take(rest, form->parameter_begin)) {
        is_call = pi2_rest_take_until(rest, form->middle, &key) &&
                  pi2_rest_take_until(rest, form->parameter_end, &value) &&
                  add_argument(arguments, types, &name, &key, value);
        pi2_rest_skip_space(rest, "");
    }
    (void)pi2_rest_take(rest, form->end);
    return add_text_call(calls, &name, arguments, is_call);
}

static bool is_tool(const json_t *types, const pi2_text_rest *name) {
    json_t *text = json_stringn(name->text, name->length);
    const bool is_one = text && json_object_get(types, json_string_value(text));
    json_decref(text);
    return is_one;
}

/* <arg_key>key</arg_key><arg_value>value</arg_value>... behind a name (GLM 4.5 and later) */
static bool read_pairs(const pi2_text_rest *name, pi2_text_rest *rest, const json_t *types, json_t *calls) {
    pi2_text_rest key, value;
    json_t *arguments = json_object();
    bool is_call = arguments != NULL;
    while (is_call && pi2_rest_take(rest, key_begin)) {
        is_call = pi2_rest_take_until(rest, key_end, &key);
        pi2_rest_skip_space(rest, "");
        is_call = is_call && pi2_rest_take(rest, value_begin) && pi2_rest_take_until(rest, value_end, &value) &&
                  add_argument(arguments, types, name, &key, value);
        pi2_rest_skip_space(rest, "");
    }
    return add_text_call(calls, name, arguments, is_call);
}

/* name[ARGS]{...} with [CALL_ID]... between, or name{...}, also as ```json (Hunyuan); name and pairs, or none (GLM) */
static bool read_named_call(pi2_text_rest *rest, const json_t *types, bool is_ended, json_t *calls) {
    pi2_text_rest name = {rest->text, 0};
    while (name.length < rest->length && !strchr("[{<` \n", rest->text[name.length])) name.length++;
    pi2_rest_skip(rest, name.length);
    pi2_rest_skip_space(rest, "");
    if (pi2_rest_begins_with(rest, key_begin)) return read_pairs(&name, rest, types, calls);
    if (is_ended && rest->length == 0) return is_tool(types, &name) && add_text_call(calls, &name, json_object(), true);
    if (pi2_rest_take(rest, id_mark)) {
        while (rest->length && *rest->text != '[') pi2_rest_skip(rest, 1);
    }
    (void)pi2_rest_take(rest, args_mark);
    const bool is_fenced = pi2_rest_take(rest, "```json");
    pi2_rest_skip_space(rest, "");
    json_t *arguments = pi2_rest_take_json(rest);
    const bool is_object = json_is_object(arguments);
    pi2_rest_skip_space(rest, "");
    if (is_fenced) (void)pi2_rest_take(rest, "```");
    return add_text_call(calls, &name, arguments, is_object);
}

/* <|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}<|tool_call_end|> (Kimi K2) */
static bool read_kimi_call(pi2_text_rest *rest, json_t *calls) {
    pi2_text_rest name;
    if (!pi2_rest_take(rest, kimi_begin) || !pi2_rest_take_until(rest, "<|tool_call_argument_begin|>", &name)) {
        return false;
    }
    pi2_rest_skip_space(&name, "");
    (void)pi2_rest_take(&name, "functions.");
    for (size_t i = name.length; i > 0; i--) {
        if (name.text[i - 1] == ':') name.length = i - 1;
    }
    pi2_rest_skip_space(rest, "");
    json_t *arguments = pi2_rest_take_json(rest);
    const bool is_object = json_is_object(arguments);
    pi2_rest_skip_space(rest, "");
    (void)pi2_rest_take(rest, "<|tool_call_end|>");
    return add_text_call(calls, &name, arguments, is_object);
}

bool pi2_tool_arguments_are_good(const char *text, size_t length) {
    json_t *object = is_within_bounds(text, length) ? json_loadb(text, length, 0, NULL) : NULL;
    const bool are_good = json_is_object(object);
    json_decref(object);
    return are_good;
}

static bool skip_between(pi2_text_rest *rest) {
    for (size_t i = 0; i < BETWEEN_MARKS; i++) {
        if (pi2_rest_take(rest, between_marks[i])) return true;
    }
    return false;
}

static bool read_next(pi2_text_rest *rest, const json_t *types, bool is_ended, json_t *calls) {
    for (size_t i = 0; i < TAGGED_FORMS; i++) {
        if (pi2_rest_begins_with(rest, tagged_forms[i].begin)) return read_tagged(&tagged_forms[i], rest, types, calls);
    }
    if (pi2_rest_is_python(rest)) return pi2_read_python_calls(rest, calls);
    if (pi2_rest_begins_with(rest, "call:")) return pi2_read_gemma_call(rest, calls);
    if (pi2_rest_begins_with(rest, deepseek_begin)) return pi2_read_deepseek_call(rest, calls);
    if (pi2_rest_begins_with(rest, kimi_begin)) return read_kimi_call(rest, calls);
    if (*rest->text == '{' || *rest->text == '[') return read_json_calls(rest, calls);
    return read_named_call(rest, types, is_ended, calls);
}

static bool read_calls(pi2_text_rest rest, const json_t *types, bool is_ended, json_t *calls) {
    for (pi2_rest_skip_space(&rest, ";,"); rest.length; pi2_rest_skip_space(&rest, ";,")) {
        if (!skip_between(&rest) && !read_next(&rest, types, is_ended, calls)) return false;
    }
    return json_array_size(calls) > 0;
}

bool pi2_tool_calls_read(const char *text, size_t length, bool is_ended, const json_t *types, pi2_part_taker *taker,
                         void *user, bool *taken_out) {
    json_t *calls = json_array();
    const bool has_calls = read_calls((pi2_text_rest){text, length}, types, is_ended, calls);
    *taken_out = true;
    for (size_t i = 0; has_calls && *taken_out && i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i), *arguments = json_object_get(call, "arguments");
        const pi2_answer_part part = {PI2_PART_TOOL, json_string_value(arguments), json_string_length(arguments),
                                      json_string_value(json_object_get(call, "name"))};
        *taken_out = taker(user, &part);
    }
    json_decref(calls);
    return has_calls;
}
