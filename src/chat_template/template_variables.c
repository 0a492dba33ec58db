/* template_variables.c: values that a caller gives to a template, from JSON. The JSON is untrusted: its size and
 * depth are bounded before anything of it is made a value. */
#include "chat_template/jinja.h"

#include <jansson.h>
#include <string.h>

enum { JSON_DEPTH = 100 };

/** A copy in the arena. Like a message it is text: special tokens come from the template only. */
static pi2_status copy_string(pi2_jinja_arena *arena, const char *bytes, size_t length,
                              pi2_jinja_value *out) {
    char *copy = pi2_jinja_alloc(arena, length + 1, 1);
    if (copy == NULL) return pi2_jinja_no_memory(arena);
    memcpy(copy, bytes, length);
    *out = pi2_jinja_of_string((pi2_jinja_string){.bytes = copy, .length = length});
    return PI2_OK;
}

static pi2_status convert(pi2_jinja_arena *arena, const json_t *json, const char *what, int depth,
                          pi2_jinja_value *out);

static pi2_status convert_list(pi2_jinja_arena *arena, const json_t *json, const char *what, int depth,
                               pi2_jinja_value *out) {
    PI2_TRY(pi2_jinja_list_new(arena, json_array_size(json), PI2_JINJA_PLAIN_LIST, out));
    for (size_t i = 0; i < json_array_size(json); i++) {
        pi2_jinja_value item;
        PI2_TRY(convert(arena, json_array_get(json, i), what, depth + 1, &item));
        PI2_TRY(pi2_jinja_list_add(arena, out->as.list, item));
    }
    return PI2_OK;
}

static pi2_status convert_object(pi2_jinja_arena *arena, json_t *json, const char *what, int depth,
                                 pi2_jinja_value *out) {
    const char *name;
    json_t *member;
    PI2_TRY(pi2_jinja_dict_new(arena, out));
    json_object_foreach(json, name, member) {
        pi2_jinja_value key, value;
        PI2_TRY(copy_string(arena, name, strlen(name), &key));
        PI2_TRY(convert(arena, member, what, depth + 1, &value));
        PI2_TRY(pi2_jinja_dict_add(arena, out->as.dict, key, value)); /* jansson has each name once */
    }
    return PI2_OK;
}

static pi2_status convert(pi2_jinja_arena *arena, const json_t *json, const char *what, int depth,
                          pi2_jinja_value *out) {
    if (depth > JSON_DEPTH)
        return pi2_fail(PI2_ERR_INVALID, "%s nest more than %d deep: give them flatter", what, JSON_DEPTH);
    switch (json_typeof(json)) {
    case JSON_OBJECT: return convert_object(arena, (json_t *)(uintptr_t)json, what, depth, out);
    case JSON_ARRAY: return convert_list(arena, json, what, depth, out);
    case JSON_STRING:
        return copy_string(arena, json_string_value(json), json_string_length(json), out);
    case JSON_INTEGER: *out = pi2_jinja_integer(json_integer_value(json)); return PI2_OK;
    case JSON_REAL: *out = pi2_jinja_float(json_real_value(json)); return PI2_OK;
    case JSON_TRUE:
    case JSON_FALSE: *out = pi2_jinja_boolean(json_is_true(json)); return PI2_OK;
    default: *out = pi2_jinja_none(); return PI2_OK;
    }
}

/** Parses; `what` is a plural such as "messages". jansson's text may quote the JSON: it is made printable. */
static pi2_status load(pi2_json_text text, const char *what, size_t flags, json_t **json_out) {
    if (text.length > PI2_JINJA_STRING_BYTES)
        return pi2_fail(PI2_ERR_INVALID, "%s have %zu bytes of JSON; the limit is %d", what, text.length,
                        PI2_JINJA_STRING_BYTES);
    json_error_t error;
    *json_out = json_loadb(text.bytes, text.length, JSON_ALLOW_NUL | flags, &error);
    if (*json_out != NULL) return PI2_OK;
    for (char *at = error.text; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f) *at = ' ';
    return pi2_fail(PI2_ERR_INVALID, "%s are no JSON: %s (line %d, column %d; at byte %d)", what, error.text,
                    error.line, error.column, error.position);
}

pi2_status pi2_jinja_list_of_objects(pi2_jinja_arena *arena, pi2_json_text text, const char *what,
                                     pi2_jinja_value *out) {
    json_t *json = NULL;
    PI2_TRY(load(text, what, 0, &json)); /* of a name given twice the last counts, as in Python */
    pi2_status status = PI2_OK;
    if (!json_is_array(json))
        status = pi2_fail(PI2_ERR_INVALID, "%s are a JSON array of objects, and this is none%s", what,
                          json_object_get(json, what) ? ": give the value of its member of that name alone" : "");
    for (size_t i = 0; status == PI2_OK && i < json_array_size(json); i++)
        if (!json_is_object(json_array_get(json, i)))
            status = pi2_fail(PI2_ERR_INVALID, "%s are a JSON array of objects, and number %zu is none", what, i + 1);
    if (status == PI2_OK) status = convert(arena, json, what, 0, out);
    json_decref(json);
    return status;
}

/* ---- variables ---- */

/** Whether the space-separated `names` hold this one. */
static bool is_one_of(const char *names, const char *name) {
    const size_t length = strlen(name);
    for (const char *at = names; *at != '\0'; at += *at == ' ') {
        const size_t own = strcspn(at, " ");
        if (own == length && memcmp(at, name, length) == 0) return true;
        at += own;
    }
    return false;
}

static pi2_status set_all(pi2_jinja_arena *arena, json_t *object, const char *reserved, pi2_jinja_dict *variables) {
    const char *name;
    json_t *member;
    json_object_foreach(object, name, member) {
        if (is_one_of(reserved, name))
            return pi2_fail(PI2_ERR_INVALID, "'%.40s' cannot be a variable for the chat template: "
                            "it is set by the program", name);
        pi2_jinja_value key, value;
        PI2_TRY(copy_string(arena, name, strlen(name), &key));
        PI2_TRY(convert(arena, member, "variables for the chat template", 0, &value));
        PI2_TRY(pi2_jinja_dict_set(arena, variables, key, value));
    }
    return PI2_OK;
}

pi2_status pi2_jinja_set_variables(pi2_jinja_arena *arena, const char *json, const char *reserved,
                                   pi2_jinja_dict *variables) {
    json_t *object = NULL;
    PI2_TRY(load((pi2_json_text){json, strlen(json)}, "variables for the chat template", JSON_REJECT_DUPLICATES,
                 &object));
    pi2_status status = PI2_OK;
    if (json_is_object(object)) status = set_all(arena, object, reserved, variables);
    else status = pi2_fail(PI2_ERR_INVALID, "variables for the chat template are a JSON object such "
                           "as {\"enable_thinking\": false}, and this is none");
    json_decref(object);
    return status;
}
