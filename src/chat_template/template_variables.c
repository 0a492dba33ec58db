/* template_variables.c: variables that a caller gives to a template, from JSON. */
#include "chat_template/jinja.h"

#include <jansson.h>
#include <string.h>

enum { VARIABLE_DEPTH = 50 };

/** Names that say what the program itself decides. */
static bool is_reserved(const char *name) {
    static const char *const reserved[] = {"messages", "add_generation_prompt", "bos_token",
                                           "eos_token"};
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (strcmp(reserved[i], name) == 0) return true;
    return false;
}

/** A copy in the arena. Like a message it is text: special tokens come from the template only. */
static pi2_status copy_string(pi2_jinja_arena *arena, const char *bytes, size_t length,
                              pi2_jinja_value *out) {
    char *copy = pi2_jinja_alloc(arena, length + 1, 1);
    if (copy == NULL) return pi2_jinja_no_memory(arena);
    memcpy(copy, bytes, length);
    *out = pi2_jinja_of_string((pi2_jinja_string){.bytes = copy, .length = length});
    return PI2_OK;
}

static pi2_status convert(pi2_jinja_arena *arena, const json_t *json, int depth,
                          pi2_jinja_value *out);

static pi2_status convert_list(pi2_jinja_arena *arena, const json_t *json, int depth,
                               pi2_jinja_value *out) {
    PI2_TRY(pi2_jinja_list_new(arena, json_array_size(json), false, out));
    for (size_t i = 0; i < json_array_size(json); i++) {
        pi2_jinja_value item;
        PI2_TRY(convert(arena, json_array_get(json, i), depth + 1, &item));
        PI2_TRY(pi2_jinja_list_add(arena, out->as.list, item));
    }
    return PI2_OK;
}

static pi2_status convert_object(pi2_jinja_arena *arena, json_t *json, int depth,
                                 pi2_jinja_value *out) {
    const char *name;
    json_t *member;
    PI2_TRY(pi2_jinja_dict_new(arena, out));
    json_object_foreach(json, name, member) {
        pi2_jinja_value key, value;
        PI2_TRY(copy_string(arena, name, strlen(name), &key));
        PI2_TRY(convert(arena, member, depth + 1, &value));
        PI2_TRY(pi2_jinja_dict_set(arena, out->as.dict, key, value));
    }
    return PI2_OK;
}

static pi2_status convert(pi2_jinja_arena *arena, const json_t *json, int depth,
                          pi2_jinja_value *out) {
    if (depth > VARIABLE_DEPTH)
        return pi2_fail(PI2_ERR_INVALID, "variables of the chat template nest more than %d deep",
                        VARIABLE_DEPTH);
    switch (json_typeof(json)) {
    case JSON_OBJECT: return convert_object(arena, (json_t *)(uintptr_t)json, depth, out);
    case JSON_ARRAY: return convert_list(arena, json, depth, out);
    case JSON_STRING:
        return copy_string(arena, json_string_value(json), json_string_length(json), out);
    case JSON_INTEGER: *out = pi2_jinja_integer(json_integer_value(json)); return PI2_OK;
    case JSON_REAL: *out = pi2_jinja_float(json_real_value(json)); return PI2_OK;
    case JSON_TRUE:
    case JSON_FALSE: *out = pi2_jinja_boolean(json_is_true(json)); return PI2_OK;
    default: *out = pi2_jinja_none(); return PI2_OK;
    }
}

static pi2_status set_all(pi2_jinja_arena *arena, json_t *object, pi2_jinja_dict *variables) {
    const char *name;
    json_t *member;
    json_object_foreach(object, name, member) {
        if (is_reserved(name))
            return pi2_fail(PI2_ERR_INVALID, "'%.40s' cannot be a variable for the chat template: "
                            "it is set by the program", name);
        pi2_jinja_value key, value;
        PI2_TRY(copy_string(arena, name, strlen(name), &key));
        PI2_TRY(convert(arena, member, 0, &value));
        PI2_TRY(pi2_jinja_dict_set(arena, variables, key, value));
    }
    return PI2_OK;
}

pi2_status pi2_jinja_set_variables(pi2_jinja_arena *arena, const char *json,
                                   pi2_jinja_dict *variables) {
    json_error_t error;
    json_t *object = json_loads(json, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        return pi2_fail(PI2_ERR_INVALID, "variables for the chat template are no JSON: %s (at byte "
                        "%d)", error.text, error.position);
    pi2_status status = PI2_OK;
    if (json_is_object(object)) status = set_all(arena, object, variables);
    else status = pi2_fail(PI2_ERR_INVALID, "variables for the chat template are a JSON object such "
                           "as {\"enable_thinking\": false}, and this is none");
    json_decref(object);
    return status;
}
