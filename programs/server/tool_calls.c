/* tool_calls.c: see tool_calls.h. */
#include "tool_calls.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/json_bounds.h"
#include "tool_call_texts.h"

enum { ANSWER_JSON_BYTES = 4 << 20 }; /* that the calls of an answer may take, parsed: a model writes what it is told */

static const char args_mark[] = "[ARGS]", again_mark[] = "[TOOL_CALLS]", function_begin[] = "<function=",
                  function_end[] = "</function>",
                  deepseek_begin[] = "<\xef\xbd\x9ctool\xe2\x96\x81" "call\xe2\x96\x81" "begin\xef\xbd\x9c>",
                  parameter_begin[] = "<parameter=", parameter_end[] = "</parameter>";

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

/* name[ARGS]{...}, or name{...} */
static bool read_named_call(pi2_text_rest *rest, json_t *calls) {
    size_t length = 0;
    while (length < rest->length && !strchr("[{ \n", rest->text[length])) length++;
    json_t *name = json_stringn(rest->text, length);
    pi2_rest_skip(rest, length);
    if (pi2_rest_begins_with(rest, args_mark)) pi2_rest_skip(rest, strlen(args_mark));
    pi2_rest_skip_space(rest, "");
    json_t *arguments = pi2_rest_take_json(rest);
    const bool is_call = json_is_object(arguments) && pi2_add_call(calls, name, json_incref(arguments));
    json_decref(arguments);
    json_decref(name);
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

/* <function=name><parameter=key>value</parameter>...</function>, whose last mark may be cut off */
static bool read_function(pi2_text_rest *rest, const json_t *types, json_t *calls) {
    pi2_text_rest name, key, value;
    pi2_rest_skip(rest, strlen(function_begin));
    if (!pi2_rest_take_until(rest, ">", &name)) return false;
    json_t *arguments = json_object();
    bool is_call = arguments != NULL;
    pi2_rest_skip_space(rest, "");
    while (is_call && pi2_rest_begins_with(rest, parameter_begin)) {
        char key_text[256];
        pi2_rest_skip(rest, strlen(parameter_begin));
        is_call = pi2_rest_take_until(rest, ">", &key) && key.length < sizeof key_text &&
                  pi2_rest_take_until(rest, parameter_end, &value);
        if (!is_call) break;
        memcpy(key_text, key.text, key.length);
        key_text[key.length] = '\0';
        is_call = json_object_set_new(arguments, key_text,
                                      typed_value(value, is_typed(types, &name, key_text))) == 0;
        pi2_rest_skip_space(rest, "");
    }
    if (is_call && pi2_rest_begins_with(rest, function_end)) pi2_rest_skip(rest, strlen(function_end));
    json_t *name_json = json_stringn(name.text, name.length);
    is_call = is_call && pi2_add_call(calls, name_json, json_incref(arguments));
    json_decref(arguments);
    json_decref(name_json);
    return is_call;
}

bool pi2_tool_arguments_are_good(const char *text, size_t length) {
    json_t *object = is_within_bounds(text, length) ? json_loadb(text, length, 0, NULL) : NULL;
    const bool are_good = json_is_object(object);
    json_decref(object);
    return are_good;
}

static bool read_calls(pi2_text_rest rest, const json_t *types, json_t *calls) {
    for (pi2_rest_skip_space(&rest, ";,"); rest.length; pi2_rest_skip_space(&rest, ";,")) {
        bool is_call;
        if (pi2_rest_begins_with(&rest, again_mark)) {
            pi2_rest_skip(&rest, strlen(again_mark));
            continue;
        }
        if (pi2_rest_is_python(&rest)) is_call = pi2_read_python_calls(&rest, calls);
        else if (pi2_rest_begins_with(&rest, "call:")) is_call = pi2_read_gemma_call(&rest, calls);
        else if (pi2_rest_begins_with(&rest, deepseek_begin)) is_call = pi2_read_deepseek_call(&rest, calls);
        else if (*rest.text == '{' || *rest.text == '[') is_call = read_json_calls(&rest, calls);
        else if (pi2_rest_begins_with(&rest, function_begin)) is_call = read_function(&rest, types, calls);
        else is_call = read_named_call(&rest, calls);
        if (!is_call) return false;
    }
    return json_array_size(calls) > 0;
}

bool pi2_tool_calls_read(const char *text, size_t length, const json_t *types, pi2_part_taker *taker, void *user,
                         bool *taken_out) {
    json_t *calls = json_array();
    const bool has_calls = read_calls((pi2_text_rest){text, length}, types, calls);
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
