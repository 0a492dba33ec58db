/* schema.c: a JSON Schema as GBNF: which types, alternatives and references a schema is made of. */
#include "grammar/schema_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar_internal.h"

enum { MOST_DEPTH = 64, MOST_MERGES = 1024, MOST_ONE_OF = 128 };

/* What says nothing of a value. */
static const char *const annotations[] = {"title", "description", "default", "examples", "example", "$schema", "$id",
                                          "id", "$comment", "$defs", "definitions", "deprecated", "readOnly",
                                          "writeOnly", "contentMediaType", "contentEncoding", "discriminator"};
/* What is obeyed, here or where values of its type are written. */
static const char *const constraints[] = {
    "type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "nullable", "properties", "required",
    "additionalProperties", "unevaluatedProperties", "minProperties", "maxProperties", "items", "prefixItems",
    "additionalItems", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "format", "minimum",
    "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"};

static bool is_one_of(const char *name, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) return true;
    }
    return false;
}

static bool is_annotation(const char *name) {
    return is_one_of(name, annotations, sizeof annotations / sizeof annotations[0]);
}

static pi2_status check_keywords(const json_t *schema, const pi2_schema_place *place) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, name, value) {
        if (is_annotation(name) || is_one_of(name, constraints, sizeof constraints / sizeof constraints[0])) continue;
        const pi2_schema_place at = {place, name, 0};
        return pi2_schema_refuse(&at, "this keyword is not supported");
    }
    return PI2_OK;
}

/** Beside `name`, nothing but what is in `also` may constrain the value. */
static pi2_status refuse_beside(const json_t *schema, const char *name, const char *also,
                                const pi2_schema_place *place) {
    const char *other;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, other, value) {
        if (is_annotation(other) || strcmp(other, name) == 0 || strcmp(other, also) == 0) continue;
        const pi2_schema_place at = {place, other, 0};
        return pi2_schema_refuse(&at, "this keyword is not supported beside '%s'", name);
    }
    return PI2_OK;
}

/** The rule is finished; nothing is the empty literal. */
static void write_rule(pi2_schema_writer *writer, uint32_t rule, pi2_schema_text *body) {
    writer->out.has_failed |= body->has_failed;
    pi2_schema_add(&writer->out, "r%u ::= ", rule);
    if (body->length) pi2_schema_add_bytes(&writer->out, body->data, body->length);
    else pi2_schema_add(&writer->out, "\"\"");
    pi2_schema_add(&writer->out, "\n");
    pi2_schema_text_free(body);
}

uint32_t pi2_schema_put_rule(pi2_schema_writer *writer, pi2_schema_text *body) {
    const uint32_t rule = writer->next_rule++;
    write_rule(writer, rule, body);
    return rule;
}

const json_t *pi2_schema_find(const pi2_schema_writer *writer, const char *reference) {
    const json_t *found = writer->root;
    if (*reference++ != '#') return NULL;
    while (found && *reference == '/') {
        char name[256];
        size_t length = 0;
        for (reference++; *reference && *reference != '/' && length < sizeof name - 1; reference++) {
            char byte = *reference;
            if (byte == '~' && (reference[1] == '0' || reference[1] == '1')) byte = *++reference == '1' ? '/' : '~';
            name[length++] = byte;
        }
        name[length] = '\0';
        found = json_is_array(found) ? json_array_get(found, strtoul(name, NULL, 10)) : json_object_get(found, name);
    }
    return *reference ? NULL : found;
}

/* ---- values ---- */

static bool has_type(const json_t *value, const char *type) {
    switch (json_typeof(value)) {
    case JSON_NULL: return strcmp(type, "null") == 0;
    case JSON_TRUE:
    case JSON_FALSE: return strcmp(type, "boolean") == 0;
    case JSON_INTEGER: return strcmp(type, "integer") == 0 || strcmp(type, "number") == 0;
    case JSON_REAL: return strcmp(type, "number") == 0;
    case JSON_STRING: return strcmp(type, "string") == 0;
    case JSON_ARRAY: return strcmp(type, "array") == 0;
    case JSON_OBJECT: return strcmp(type, "object") == 0;
    default: return false;
    }
}

static bool has_schema_type(const json_t *schema, const json_t *value) {
    const json_t *type = json_object_get(schema, "type");
    if (json_is_string(type)) return has_type(value, json_string_value(type));
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *name = json_string_value(json_array_get(type, i));
        if (name && has_type(value, name)) return true;
    }
    return !type;
}

static bool add_value(pi2_schema_text *body, const json_t *value) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (text) pi2_schema_add_literal(body, text, strlen(text));
    free(text);
    return text != NULL;
}

/** "enum", or "const": one of these values, as they are written. */
static pi2_status add_values(const json_t *schema, const char *name, const pi2_schema_place *place,
                             pi2_schema_text *body) {
    const json_t *values = json_object_get(schema, name);
    const pi2_schema_place at = {place, name, 0};
    const bool is_enum = strcmp(name, "enum") == 0;
    PI2_TRY(refuse_beside(schema, name, "type", place));
    if (is_enum && !json_is_array(values)) return pi2_schema_refuse(&at, "this must be an array");
    size_t added = 0;
    for (size_t i = 0; i < (is_enum ? json_array_size(values) : 1); i++) {
        const json_t *value = is_enum ? json_array_get(values, i) : values;
        if (!has_schema_type(schema, value)) continue;
        if (added++) pi2_schema_add(body, " | ");
        if (!add_value(body, value)) return pi2_schema_refuse(&at, "this value cannot be written");
    }
    return added ? PI2_OK : pi2_schema_refuse(&at, "no value of these has the schema's type");
}

static const char value_rules[] =
    "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
    "object ::= \"{\" ws (pair (\",\" ws pair)* ws)? \"}\"\n"
    "pair ::= string \":\" ws value\n"
    "array ::= \"[\" ws (value (\",\" ws value)* ws)? \"]\"\n"
    "number ::= \"-\"? (\"0\" | [1-9] [0-9]{0,15}) (\".\" [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?\n";

/** The rules of any JSON value, once. */
static void put_value_rules(pi2_schema_writer *writer) {
    if (!writer->has_value) pi2_schema_add_bytes(&writer->out, value_rules, sizeof value_rules - 1);
    writer->has_value = true;
}

static pi2_status add_type(pi2_schema_writer *writer, const char *type, const json_t *schema,
                           const pi2_schema_place *place, pi2_schema_text *body) {
    if (strcmp(type, "null") == 0) pi2_schema_add(body, "\"null\"");
    else if (strcmp(type, "boolean") == 0) pi2_schema_add(body, "\"true\" | \"false\"");
    else if (strcmp(type, "integer") == 0) return pi2_schema_number(schema, true, place, body);
    else if (strcmp(type, "number") == 0) return pi2_schema_number(schema, false, place, body);
    else if (strcmp(type, "string") == 0) return pi2_schema_string(schema, place, body);
    else if (strcmp(type, "array") == 0) return pi2_schema_array(writer, schema, place, body);
    else if (strcmp(type, "object") == 0) return pi2_schema_object(writer, schema, place, body);
    else return pi2_schema_refuse(place, "'%s' is no type", type);
    return PI2_OK;
}

/** The type that a schema without one means by its other keywords; NULL: any. */
static const char *implied_type(const json_t *schema) {
    static const struct { const char *keyword, *type; } signs[] = {
        {"properties", "object"}, {"required", "object"}, {"additionalProperties", "object"},
        {"unevaluatedProperties", "object"}, {"minProperties", "object"}, {"maxProperties", "object"},
        {"items", "array"}, {"prefixItems", "array"}, {"minItems", "array"}, {"maxItems", "array"},
        {"uniqueItems", "array"}, {"additionalItems", "array"}, {"minLength", "string"}, {"maxLength", "string"},
        {"pattern", "string"}, {"format", "string"}, {"minimum", "number"}, {"maximum", "number"},
        {"exclusiveMinimum", "number"}, {"exclusiveMaximum", "number"}, {"multipleOf", "number"}};
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (json_object_get(schema, signs[i].keyword)) return signs[i].type;
    }
    return NULL;
}

static pi2_status add_types(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                            pi2_schema_text *body) {
    const json_t *type = json_object_get(schema, "type");
    const pi2_schema_place at = {place, "type", 0};
    const char *implied = implied_type(schema);
    if (!type && implied) return add_type(writer, implied, schema, place, body);
    if (!type) {
        put_value_rules(writer);
        pi2_schema_add(body, "value");
        return PI2_OK;
    }
    if (json_is_string(type)) return add_type(writer, json_string_value(type), schema, place, body);
    if (json_array_size(type) == 0) return pi2_schema_refuse(&at, "this must be a type or an array of types");
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *name = json_string_value(json_array_get(type, i));
        if (i) pi2_schema_add(body, " | ");
        PI2_TRY(add_type(writer, name ? name : "", schema, place, body));
    }
    return PI2_OK;
}

/* ---- several schemas ---- */

static pi2_status add_choice(pi2_schema_writer *writer, const json_t *schema, const char *name,
                             const pi2_schema_place *place, pi2_schema_text *body) {
    const json_t *choices = json_object_get(schema, name);
    const pi2_schema_place at = {place, name, 0};
    PI2_TRY(refuse_beside(schema, name, "", place));
    if (json_array_size(choices) == 0) return pi2_schema_refuse(&at, "this must be an array of schemas");
    if (strcmp(name, "oneOf") == 0 && json_array_size(choices) > MOST_ONE_OF) {
        return pi2_schema_refuse(&at, "more than %d schemas, each of which must be apart from each other", MOST_ONE_OF);
    }
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const pi2_schema_place here = {&at, NULL, i};
        uint32_t rule;
        for (size_t before = 0; strcmp(name, "oneOf") == 0 && before < i; before++) {
            if (!pi2_schemas_are_apart(writer, json_array_get(choices, before), json_array_get(choices, i))) {
                return pi2_schema_refuse(&here, "a value might satisfy this and number %zu too, which 'oneOf' forbids: "
                                         "use 'anyOf', or a required property whose 'const' differs", before);
            }
        }
        PI2_TRY(pi2_schema_rule(writer, json_array_get(choices, i), &here, &rule));
        pi2_schema_add(body, "%sr%u", i ? " | " : "", rule);
    }
    return PI2_OK;
}

/** Schemas that become one. */
typedef struct merged_schemas {
    json_t *all;   /* what they say together */
    json_t *parts; /* each of them; the one that has the "allOf" comes first */
} merged_schemas;

/** Adds a map of properties to those that the others of an "allOf" named. */
static pi2_status merge_properties(json_t *there, const json_t *properties, const pi2_schema_place *place) {
    const char *name;
    json_t *property;
    json_object_foreach((json_t *)(uintptr_t)properties, name, property) {
        const json_t *known = json_object_get(there, name);
        if (known && !json_equal(known, property)) {
            return pi2_schema_refuse(place, "'%s' is described twice within 'allOf'", name);
        }
        (void)json_object_set(there, name, property);
    }
    return PI2_OK;
}

/** Adds what one schema says to what the others of an "allOf" said. */
static pi2_status merge(pi2_schema_writer *writer, const merged_schemas *merged, const json_t *schema,
                        const pi2_schema_place *place, unsigned depth) {
    const char *name;
    json_t *value;
    if (!json_is_object(schema) || depth > MOST_DEPTH || writer->merge_count++ > MOST_MERGES) {
        return pi2_schema_refuse(place, "this cannot be merged into one schema");
    }
    (void)json_array_append(merged->parts, (json_t *)(uintptr_t)schema);
    json_object_foreach((json_t *)(uintptr_t)schema, name, value) {
        const pi2_schema_place at = {place, name, 0};
        json_t *there = json_object_get(merged->all, name);
        if (is_annotation(name)) continue;
        if (strcmp(name, "$ref") == 0) {
            const char *reference = json_is_string(value) ? json_string_value(value) : "";
            PI2_TRY(merge(writer, merged, pi2_schema_find(writer, reference), &at, depth + 1));
        } else if (strcmp(name, "allOf") == 0) {
            for (size_t i = 0; i < json_array_size(value); i++) {
                const pi2_schema_place here = {&at, NULL, i};
                PI2_TRY(merge(writer, merged, json_array_get(value, i), &here, depth + 1));
            }
        } else if (!there) {
            (void)json_object_set_new(merged->all, name, json_copy(value));
        } else if (strcmp(name, "required") == 0 && json_is_array(value) && json_is_array(there)) {
            (void)json_array_extend(there, value);
        } else if (strcmp(name, "properties") == 0 && json_is_object(value) && json_is_object(there)) {
            PI2_TRY(merge_properties(there, value, &at));
        } else if (!json_equal(there, value)) {
            return pi2_schema_refuse(&at, "this keyword differs within 'allOf', which is not supported");
        }
    }
    return PI2_OK;
}

/** Whether a schema of what a list of names or places leaves over is there, and forbids something. */
static bool forbids(const json_t *schema) {
    return schema && !json_is_true(schema) && !(json_is_object(schema) && json_object_size(schema) == 0);
}

/**
 * What a schema says of other members than its own, and of all items, the merged one would say only of those that no
 * schema names: that is refused. "unevaluatedProperties" of the first schema sees what all of them name.
 */
static pi2_status check_merged(const merged_schemas *merged, const pi2_schema_place *place) {
    const json_t *properties = json_object_get(merged->all, "properties"), *value;
    for (size_t i = 0; i < json_array_size(merged->parts); i++) {
        const json_t *part = json_array_get(merged->parts, i), *own = json_object_get(part, "properties");
        const bool is_about_others = forbids(json_object_get(part, "additionalProperties")) ||
                                     (i > 0 && forbids(json_object_get(part, "unevaluatedProperties")));
        const char *name;
        json_object_foreach((json_t *)(uintptr_t)properties, name, value) {
            if (!is_about_others || json_object_get(own, name)) continue;
            return pi2_schema_refuse(place, "'%s' is a property of 'allOf' that 'additionalProperties' of another "
                                     "schema there is about: name it there, too", name);
        }
        const json_t *items = json_object_get(part, "items");
        if (!json_is_array(items) && forbids(items) && !json_object_get(part, "prefixItems") &&
            json_object_get(merged->all, "prefixItems")) {
            return pi2_schema_refuse(place, "'items' of one schema of 'allOf' beside 'prefixItems' of another is not "
                                     "supported");
        }
    }
    return PI2_OK;
}

static pi2_status add_reference(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                                pi2_schema_text *body) {
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    const pi2_schema_place at = {place, "$ref", 0}, there = {NULL, reference, 0};
    const json_t *found = reference ? pi2_schema_find(writer, reference) : NULL;
    uint32_t rule;
    PI2_TRY(refuse_beside(schema, "$ref", "", place));
    if (!found) return pi2_schema_refuse(&at, "'%s' is no place of this schema", reference ? reference : "");
    unsigned steps = 0;
    for (const json_t *next = found; next && json_object_get(next, "$ref"); steps++) {
        const char *name = json_string_value(json_object_get(next, "$ref"));
        if (steps == MOST_DEPTH) return pi2_schema_refuse(&at, "this refers to itself");
        next = name ? pi2_schema_find(writer, name) : NULL;
    }
    const json_t *known = json_object_get(writer->refs, reference);
    if (known) rule = (uint32_t)json_integer_value(known);
    else PI2_TRY(pi2_schema_rule(writer, found, &there, &rule));
    pi2_schema_add(body, "r%u", rule);
    return PI2_OK;
}

static pi2_status add_all_of(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                             pi2_schema_text *body) {
    const merged_schemas merged = {json_object(), json_array()};
    uint32_t rule;
    pi2_status status = merged.all && merged.parts ? merge(writer, &merged, schema, place, 0)
                                                   : pi2_fail(PI2_ERR_MEMORY, "no memory for a schema");
    if (status == PI2_OK) status = check_merged(&merged, place);
    if (status == PI2_OK) status = pi2_schema_rule(writer, merged.all, place, &rule);
    if (status == PI2_OK) pi2_schema_add(body, "r%u", rule);
    json_decref(merged.parts);
    json_decref(merged.all);
    return status;
}

static pi2_status add_schema(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                             pi2_schema_text *body) {
    if (json_is_true(schema)) {
        put_value_rules(writer);
        pi2_schema_add(body, "value");
        return PI2_OK;
    }
    if (!json_is_object(schema)) return pi2_schema_refuse(place, "this allows no value, or is no schema");
    PI2_TRY(check_keywords(schema, place));
    if (json_object_get(schema, "nullable")) {
        json_t *rest = json_copy((json_t *)(uintptr_t)schema);
        const bool is_nullable = json_is_true(json_object_get(schema, "nullable"));
        (void)json_object_del(rest, "nullable");
        const pi2_status status = add_schema(writer, rest, place, body);
        json_decref(rest);
        if (is_nullable) pi2_schema_add(body, " | \"null\"");
        return status;
    }
    if (json_object_get(schema, "allOf")) return add_all_of(writer, schema, place, body);
    if (json_object_get(schema, "$ref")) return add_reference(writer, schema, place, body);
    if (json_object_get(schema, "anyOf")) return add_choice(writer, schema, "anyOf", place, body);
    if (json_object_get(schema, "oneOf")) return add_choice(writer, schema, "oneOf", place, body);
    if (json_object_get(schema, "enum")) return add_values(schema, "enum", place, body);
    if (json_object_get(schema, "const")) return add_values(schema, "const", place, body);
    return add_types(writer, schema, place, body);
}

/* The number is taken before what is inside is written: that may refer to it. */
pi2_status pi2_schema_rule(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                           uint32_t *rule_out) {
    if (writer->depth == MOST_DEPTH) return pi2_schema_refuse(place, "schemas are nested more than 64 deep");
    if (writer->next_rule >= PI2_GRAMMAR_MOST_RULES) { /* a type that is named twice doubles what is inside of it */
        return pi2_schema_refuse(place, "the schema's grammar has more than %d rules", PI2_GRAMMAR_MOST_RULES);
    }
    pi2_schema_text body = {0};
    const uint32_t rule = *rule_out = writer->next_rule++;
    if (!place->up && json_object_set_new(writer->refs, place->name, json_integer(rule)) != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for a schema");
    }
    writer->depth++;
    const pi2_status status = add_schema(writer, schema, place, &body);
    writer->depth--;
    write_rule(writer, rule, &body);
    return status;
}

/* ---- the whole ---- */

/* Outside of texts a line's end, with what it is indented by, or one space; within them any character. */
static const char common_rules[] =
    "ws ::= (\" \" | \"\\n\" [ \\t]{0,20})?\n"
    "string ::= \"\\\"\" character* \"\\\"\"\n"
    "character ::= [^\"\\\\\\x00-\\x1F\\x7F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" unit)\n"
    "unit ::= \"000\" [1-9a-fA-F] | \"00\" [1-9a-fA-F] hex | \"0\" [1-9a-fA-F] hex hex | [1-9a-cA-CefEF] hex hex hex |"
    " [dD] ([0-7] hex hex | [89abAB] hex hex \"\\\\u\" [dD] [c-fC-F] hex hex)\n"
    "hex ::= [0-9a-fA-F]\n";

/** A schema's rules, of which "root-N" is the whole. */
static pi2_status write_schema(pi2_schema_writer *writer, size_t index) {
    static const pi2_schema_place top = {NULL, "#", 0};
    uint32_t rule;
    json_decref(writer->refs);
    writer->refs = json_object();
    if (!writer->refs) return pi2_fail(PI2_ERR_MEMORY, "no memory for a schema");
    PI2_TRY(pi2_schema_rule(writer, writer->root, &top, &rule));
    pi2_schema_add(&writer->out, "root-%zu ::= r%u\n", index, rule);
    return PI2_OK;
}

static pi2_status read_schema(pi2_schema_writer *writer, const char *schema, size_t length, size_t index) {
    json_error_t error;
    if (length > PI2_GRAMMAR_TEXT_BYTES) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "the JSON schema has %zu bytes, %zu are read", length,
                        PI2_GRAMMAR_TEXT_BYTES);
    }
    json_t *root = json_loadb(schema, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        return pi2_fail(PI2_ERR_FORMAT, "the JSON schema is no JSON: line %d, column %d: %s", error.line, error.column,
                        error.text);
    }
    writer->root = root;
    const pi2_status status = write_schema(writer, index);
    writer->root = NULL;
    json_decref(root);
    return status;
}

/** Behind the rules of all schemas: those that they share. */
static pi2_status finish(pi2_schema_writer *writer, size_t count) {
    pi2_schema_add(&writer->out, "root ::= root-0");
    for (size_t i = 1; i < count; i++) pi2_schema_add(&writer->out, " | root-%zu", i);
    pi2_schema_add(&writer->out, "\n");
    pi2_schema_add_bytes(&writer->out, common_rules, sizeof common_rules - 1);
    if (!writer->out.has_failed) return PI2_OK;
    return pi2_fail(PI2_ERR_UNSUPPORTED, "the JSON schema's grammar is too large, or there is no memory for it");
}

pi2_status pi2_schemas_to_gbnf(const char *const *schemas, size_t count, char **gbnf_out) {
    pi2_schema_writer writer = {.root = NULL};
    pi2_status status = count ? PI2_OK : pi2_fail(PI2_ERR_INVALID, "there is no schema");
    *gbnf_out = NULL;
    for (size_t i = 0; status == PI2_OK && i < count; i++) {
        status = read_schema(&writer, schemas[i], strlen(schemas[i]), i);
    }
    if (status == PI2_OK) status = finish(&writer, count);
    if (status == PI2_OK) *gbnf_out = writer.out.data;
    else pi2_schema_text_free(&writer.out);
    json_decref(writer.refs);
    return status;
}

pi2_status pi2_grammar_from_schema(const char *schema, size_t length, pi2_grammar **grammar_out) {
    pi2_schema_writer writer = {.root = NULL};
    *grammar_out = NULL;
    pi2_status status = read_schema(&writer, schema, length, 0);
    if (status == PI2_OK) status = finish(&writer, 1);
    if (status == PI2_OK) {
        status = pi2_grammar_parse(writer.out.data, writer.out.length, NULL, grammar_out);
        if (status != PI2_OK) (void)pi2_fail_prefix(status, "the JSON schema");
    }
    pi2_schema_text_free(&writer.out);
    json_decref(writer.refs);
    return status;
}
