/* schema_apart.c: whether two schemas have no value in common, where that is easily told. */
#include "grammar/schema_internal.h"

#include <string.h>

enum { NULLS = 1, BOOLEANS = 2, INTEGERS = 4, REALS = 8, STRINGS = 16, ARRAYS = 32, OBJECTS = 64, ANY = 127,
       MOST_COMPARISONS = 10000 };

static unsigned types_of_name(const char *name) {
    static const struct { const char *name; unsigned types; } names[] = {
        {"null", NULLS}, {"boolean", BOOLEANS}, {"integer", INTEGERS}, {"number", INTEGERS | REALS},
        {"string", STRINGS}, {"array", ARRAYS}, {"object", OBJECTS}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (name && strcmp(name, names[i].name) == 0) return names[i].types;
    }
    return ANY;
}

static unsigned types_of(const json_t *schema) {
    const json_t *type = json_object_get(schema, "type");
    if (json_is_string(type)) return types_of_name(json_string_value(type));
    unsigned types = 0;
    for (size_t i = 0; i < json_array_size(type); i++) {
        types |= types_of_name(json_string_value(json_array_get(type, i)));
    }
    return types ? types : ANY;
}

/** The values that a schema names, which the caller frees; NULL: it names none. */
static json_t *values_of(const json_t *schema) {
    json_t *value = json_object_get(schema, "const"), *values = json_object_get(schema, "enum");
    if (value) return json_pack("[O]", value);
    return json_is_array(values) ? json_incref(values) : NULL;
}

static bool values_are_apart(const json_t *a, const json_t *b) {
    json_t *left = values_of(a), *right = values_of(b);
    bool are_apart = left && right && json_array_size(left) * json_array_size(right) <= MOST_COMPARISONS;
    for (size_t i = 0; are_apart && i < json_array_size(left); i++) {
        for (size_t j = 0; are_apart && j < json_array_size(right); j++) {
            const json_t *one = json_array_get(left, i), *other = json_array_get(right, j);
            const bool are_numbers = json_is_number(one) && json_is_number(other);
            are_apart = are_numbers ? json_number_value(one) < json_number_value(other) ||
                                          json_number_value(one) > json_number_value(other)
                                    : !json_equal(one, other);
        }
    }
    json_decref(left);
    json_decref(right);
    return are_apart;
}

static bool is_required(const json_t *schema, const char *name) {
    const json_t *required = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *there = json_string_value(json_array_get(required, i));
        if (there && strcmp(there, name) == 0) return true;
    }
    return false;
}

static const json_t *resolve(const pi2_schema_writer *writer, const json_t *schema) {
    for (unsigned steps = 0; steps < 16; steps++) {
        const char *reference = json_string_value(json_object_get(schema, "$ref"));
        if (!reference) return schema;
        schema = pi2_schema_find(writer, reference);
    }
    return NULL;
}

static bool is_nullable(const json_t *schema) { return json_is_true(json_object_get(schema, "nullable")); }

/** Whether null may satisfy both, where "nullable" adds it to what the rest of one of them allows. */
static bool may_share_null(const json_t *a, const json_t *b) {
    if (is_nullable(a)) return is_nullable(b) || (types_of(b) & NULLS) != 0;
    return is_nullable(b) && (types_of(a) & NULLS) != 0;
}

bool pi2_schemas_are_apart(const pi2_schema_writer *writer, const json_t *a, const json_t *b) {
    a = resolve(writer, a);
    b = resolve(writer, b);
    if (!json_is_object(a) || !json_is_object(b) || may_share_null(a, b)) return false;
    if ((types_of(a) & types_of(b)) == 0 || values_are_apart(a, b)) return true;
    if (types_of(a) != OBJECTS || types_of(b) != OBJECTS) return false;
    const char *name;
    json_t *property;
    json_object_foreach(json_object_get(a, "properties"), name, property) {
        const json_t *one = resolve(writer, property);
        const json_t *other = resolve(writer, json_object_get(json_object_get(b, "properties"), name));
        if (is_required(a, name) && is_required(b, name) && !may_share_null(one, other) &&
            values_are_apart(one, other)) {
            return true;
        }
    }
    return false;
}
