/* schema_object.c: objects and arrays of a JSON Schema. */
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar_internal.h"
#include "grammar/schema_internal.h"

/* ---- names of members that are none of the schema's ---- */

/** Bytes of the character that begins here. */
static size_t character_bytes(const char *text) {
    const unsigned char first = (unsigned char)*text;
    return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static void add_class_character(pi2_schema_text *text, const char *character, size_t length) {
    if (strchr("\\]^-", *character)) pi2_schema_add(text, "\\");
    pi2_schema_add_bytes(text, character, length);
}

/** A name's text behind `from` bytes, NULL where it does not begin with `prefix`, or is written with escapes anyway. */
static const char *rest_of(const char *name, const char *prefix, size_t from) {
    if (strncmp(name, prefix, from) != 0) return NULL;
    for (const char *byte = name; *byte; byte++) {
        if ((unsigned char)*byte < 0x20 || *byte == 0x7f || *byte == '"' || *byte == '\\') return NULL;
    }
    return name + from;
}

/**
 * A rule for what may follow `from` bytes of `prefix` so that the whole is none of the names; each character with which
 * one of them goes on leads to a rule of its own.
 */
static pi2_status put_other_names(pi2_schema_writer *writer, const json_t *names, const char *prefix, size_t from,
                                  uint32_t *rule_out) {
    pi2_schema_text body = {0}, taken = {0};
    const char *name;
    json_t *value;
    bool is_name = false;
    pi2_status status = PI2_OK;
    if (from >= 256 || writer->next_rule > PI2_GRAMMAR_MOST_RULES) {
        status = pi2_fail(PI2_ERR_UNSUPPORTED, "the JSON schema: its properties' names are too long, or too many, "
                          "beside 'additionalProperties'");
    }
    json_object_foreach((json_t *)(uintptr_t)names, name, value) {
        const char *rest = rest_of(name, prefix, from);
        uint32_t rule;
        if (!rest || status != PI2_OK) continue;
        const size_t length = *rest ? character_bytes(rest) : 0;
        is_name = is_name || length == 0;
        bool is_new = length > 0;
        for (const char *there = taken.data; is_new && there && *there; there += character_bytes(there)) {
            is_new = strncmp(there, rest, length) != 0;
        }
        if (!is_new) continue;
        pi2_schema_add_bytes(&taken, rest, length);
        status = put_other_names(writer, names, name, from + length, &rule);
        if (status == PI2_OK) {
            pi2_schema_add(&body, " | ");
            pi2_schema_add_literal(&body, rest, length);
            pi2_schema_add(&body, " r%u", rule);
        }
    }
    pi2_schema_add(&body, " | [^\"\\\\\\x00-\\x1F\\x7F");
    for (const char *there = taken.data; there && *there; there += character_bytes(there)) {
        add_class_character(&body, there, character_bytes(there));
    }
    pi2_schema_add(&body, "] [^\"\\\\\\x00-\\x1F\\x7F]*");
    body.has_failed |= taken.has_failed;
    free(taken.data);
    if (status == PI2_OK) { /* each alternative has ' | ' before it: the first one loses it, or is the empty text */
        if (!is_name && body.data) pi2_schema_add(&body, " | \"\"");
        if (body.data) memcpy(body.data, "   ", 3);
        *rule_out = pi2_schema_put_rule(writer, &body);
    }
    free(body.data);
    return status;
}

/* ---- objects ---- */

/** An object's members in order: whether each must be there, and the rule of its name and value. */
typedef struct member_list {
    struct { uint32_t rule; bool is_required; } *items;
    size_t count, required_count;
} member_list;

static bool is_required(const json_t *required, const char *name) {
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *there = json_string_value(json_array_get(required, i));
        if (there && strcmp(there, name) == 0) return true;
    }
    return false;
}

static pi2_status add_member(pi2_schema_writer *writer, const char *name, const json_t *schema, bool must_be,
                             const pi2_schema_place *place, member_list *list) {
    pi2_schema_text body = {0};
    uint32_t value;
    PI2_TRY(pi2_schema_rule(writer, schema, place, &value));
    json_t *text = json_string(name);
    char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    json_decref(text);
    if (!quoted) return pi2_schema_refuse(place, "this name cannot be written");
    pi2_schema_add_literal(&body, quoted, strlen(quoted));
    free(quoted);
    pi2_schema_add(&body, " \":\" ws r%u", value);
    list->items[list->count].rule = pi2_schema_put_rule(writer, &body);
    list->items[list->count++].is_required = must_be;
    list->required_count += must_be;
    return PI2_OK;
}

/** Members that "required" names and "properties" does not. */
static pi2_status add_unnamed(pi2_schema_writer *writer, const json_t *schema, const json_t *names,
                              const pi2_schema_place *place, member_list *list) {
    const json_t *required = json_object_get(schema, "required");
    const json_t *others = json_object_get(schema, "additionalProperties");
    const pi2_schema_place at = {place, "required", 0};
    if (required && !json_is_array(required)) return pi2_schema_refuse(&at, "this must be an array of names");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        const pi2_schema_place here = {&at, NULL, i};
        if (!name) return pi2_schema_refuse(&here, "this must be a name");
        if (json_object_get(names, name)) continue;
        if (json_is_false(others)) return pi2_schema_refuse(&here, "'%s' is required and not allowed", name);
        (void)json_object_set_new((json_t *)(uintptr_t)names, name, json_true());
        PI2_TRY(add_member(writer, name, json_is_object(others) ? others : json_true(), true, &here, list));
    }
    return PI2_OK;
}

static pi2_status read_members(pi2_schema_writer *writer, const json_t *schema, json_t *names,
                               const pi2_schema_place *place, member_list *list) {
    json_t *properties = json_object_get(schema, "properties"), *property;
    const json_t *required = json_object_get(schema, "required");
    const pi2_schema_place at = {place, "properties", 0};
    const char *name;
    if (properties && !json_is_object(properties)) return pi2_schema_refuse(&at, "this must be an object");
    list->items = calloc(json_object_size(properties) + json_array_size(required) + 1, sizeof *list->items);
    if (!list->items) return pi2_fail(PI2_ERR_MEMORY, "no memory for a schema");
    json_object_foreach(properties, name, property) {
        const pi2_schema_place here = {&at, name, 0};
        (void)json_object_set_new(names, name, json_true());
        if (json_is_false(property) && !is_required(required, name)) continue; /* it must not be there */
        PI2_TRY(add_member(writer, name, property, is_required(required, name), &here, list));
    }
    return add_unnamed(writer, schema, names, place, list);
}

/** The rule of a further member; 0: none is allowed. */
static pi2_status read_others(pi2_schema_writer *writer, const json_t *schema, const json_t *names,
                              const pi2_schema_place *place, uint32_t *rule_out) {
    const json_t *others = json_object_get(schema, "additionalProperties");
    const json_t *unevaluated = json_object_get(schema, "unevaluatedProperties");
    const pi2_schema_place at = {place, "additionalProperties", 0}, also = {place, "unevaluatedProperties", 0};
    uint32_t value, name;
    pi2_schema_text body = {0};
    *rule_out = 0;
    if (unevaluated && !json_is_boolean(unevaluated)) {
        return pi2_schema_refuse(&also, "only true and false are supported");
    }
    if (json_is_false(others) || (!others && (json_is_false(unevaluated) || json_object_size(names)))) return PI2_OK;
    PI2_TRY(pi2_schema_rule(writer, others ? others : json_true(), &at, &value));
    if (json_object_size(names) == 0) {
        pi2_schema_add(&body, "string \":\" ws r%u", value);
    } else {
        PI2_TRY(put_other_names(writer, names, "", 0, &name));
        pi2_schema_add(&body, "\"\\\"\" r%u \"\\\":\" ws r%u", name, value);
    }
    *rule_out = pi2_schema_put_rule(writer, &body);
    return PI2_OK;
}

static pi2_status check_member_counts(const json_t *schema, const pi2_schema_place *place, const member_list *list,
                                      bool has_others) {
    int64_t least = 0, most = INT64_MAX;
    const pi2_schema_place at_least = {place, "minProperties", 0}, at_most = {place, "maxProperties", 0};
    PI2_TRY(pi2_schema_count(schema, "minProperties", place, &least));
    PI2_TRY(pi2_schema_count(schema, "maxProperties", place, &most));
    if ((uint64_t)least > list->required_count) {
        return pi2_schema_refuse(&at_least, "more members than are required cannot be asked for");
    }
    if (most != INT64_MAX && (has_others || (uint64_t)most < list->count)) {
        return pi2_schema_refuse(&at_most, "fewer members than there may be cannot be asked for");
    }
    return PI2_OK;
}

/**
 * From the last member to the first, two rules each: what may come from it on behind another member, and as the first.
 * So any of those that need not be there may be missing, and the rules are as many as the members.
 */
static void add_members(pi2_schema_writer *writer, const member_list *list, uint32_t others, pi2_schema_text *body) {
    pi2_schema_text text = {0};
    if (others) pi2_schema_add(&text, "(\",\" ws r%u)* ", others);
    pi2_schema_add(&text, "ws");
    uint32_t behind = pi2_schema_put_rule(writer, &text);
    if (others) pi2_schema_add(&text, "(r%u r%u)?", others, behind);
    uint32_t first = pi2_schema_put_rule(writer, &text);
    for (size_t i = list->count; i > 0; i--) {
        const uint32_t member = list->items[i - 1].rule;
        const bool must_be = list->items[i - 1].is_required;
        pi2_schema_add(&text, "r%u r%u", member, behind);
        if (!must_be) pi2_schema_add(&text, " | r%u", first);
        first = pi2_schema_put_rule(writer, &text);
        pi2_schema_add(&text, "(\",\" ws r%u)%s r%u", member, must_be ? "" : "?", behind);
        behind = pi2_schema_put_rule(writer, &text);
    }
    pi2_schema_add(body, "\"{\" ws r%u \"}\"", first);
}

pi2_status pi2_schema_object(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                             pi2_schema_text *body) {
    member_list list = {0};
    uint32_t others = 0;
    json_t *names = json_object();
    pi2_status status = names ? read_members(writer, schema, names, place, &list)
                              : pi2_fail(PI2_ERR_MEMORY, "no memory for a schema");
    if (status == PI2_OK) status = read_others(writer, schema, names, place, &others);
    if (status == PI2_OK) status = check_member_counts(schema, place, &list, others != 0);
    if (status == PI2_OK) add_members(writer, &list, others, body);
    free(list.items);
    json_decref(names);
    return status;
}

/* ---- arrays ---- */

/** Items beyond those of the prefix: their rule; 0: none is allowed. */
static pi2_status read_items(pi2_schema_writer *writer, const json_t *schema, size_t prefix_count,
                             const pi2_schema_place *place, uint32_t *rule_out) {
    const bool is_old = json_is_array(json_object_get(schema, "items")); /* as drafts before 2020 had it */
    const char *name = is_old ? "additionalItems" : "items";
    const json_t *items = json_object_get(schema, name);
    const pi2_schema_place at = {place, name, 0};
    *rule_out = 0;
    if (json_is_false(items) || (!items && prefix_count)) return PI2_OK;
    return pi2_schema_rule(writer, items ? items : json_true(), &at, rule_out);
}

/** The first items, each with a schema of its own, all of which are written. */
static pi2_status add_prefix(pi2_schema_writer *writer, const json_t *prefix, int64_t most,
                             const pi2_schema_place *place, pi2_schema_text *body) {
    for (size_t i = 0; i < json_array_size(prefix) && (int64_t)i < most; i++) {
        const pi2_schema_place here = {place, NULL, i};
        uint32_t rule;
        PI2_TRY(pi2_schema_rule(writer, json_array_get(prefix, i), &here, &rule));
        pi2_schema_add(body, "%s r%u", i ? " \",\" ws" : "", rule);
    }
    return PI2_OK;
}

static void add_rest(pi2_schema_text *body, uint32_t rule, bool has_prefix, int64_t least, int64_t most) {
    if (most == 0) return;
    if (has_prefix) {
        pi2_schema_add(body, " (\",\" ws r%u){%lld,", rule, (long long)least);
        if (most != INT64_MAX) {
            pi2_schema_add(body, "%lld", (long long)pi2_schema_least_of(most, PI2_GRAMMAR_MOST_REPEATS));
        }
        pi2_schema_add(body, "}");
        return;
    }
    pi2_schema_add(body, " (r%u (\",\" ws r%u){%lld,", rule, rule, (long long)(least ? least - 1 : 0));
    if (most != INT64_MAX) {
        pi2_schema_add(body, "%lld", (long long)pi2_schema_least_of(most - 1, PI2_GRAMMAR_MOST_REPEATS));
    }
    pi2_schema_add(body, "})%s", least ? "" : "?");
}

pi2_status pi2_schema_array(pi2_schema_writer *writer, const json_t *schema, const pi2_schema_place *place,
                            pi2_schema_text *body) {
    const json_t *items = json_object_get(schema, "items");
    const char *name = json_is_array(items) ? "items" : "prefixItems";
    const json_t *prefix = json_object_get(schema, name);
    const pi2_schema_place at = {place, name, 0}, unique = {place, "uniqueItems", 0}, less = {place, "minItems", 0};
    int64_t least = 0, most = INT64_MAX;
    uint32_t rule;
    if (prefix && !json_is_array(prefix)) return pi2_schema_refuse(&at, "this must be an array of schemas");
    if (json_is_array(items) && json_object_get(schema, "prefixItems")) {
        return pi2_schema_refuse(&(pi2_schema_place){place, "prefixItems", 0}, "'items' is an array, too");
    }
    PI2_TRY(pi2_schema_count(schema, "minItems", place, &least));
    PI2_TRY(pi2_schema_count(schema, "maxItems", place, &most));
    if (json_object_get(schema, "uniqueItems") && !json_is_false(json_object_get(schema, "uniqueItems")) && most > 1) {
        return pi2_schema_refuse(&unique, "that items differ cannot be asked for");
    }
    int64_t prefix_count = (int64_t)json_array_size(prefix);
    PI2_TRY(read_items(writer, schema, (size_t)prefix_count, place, &rule));
    if (prefix_count > most) prefix_count = most;
    if (least > most || least > PI2_GRAMMAR_MOST_REPEATS || (!rule && least > prefix_count)) {
        return pi2_schema_refuse(&less, "so many items cannot be written");
    }
    pi2_schema_add(body, "\"[\" ws");
    PI2_TRY(add_prefix(writer, prefix, prefix_count, &at, body));
    if (rule) {
        add_rest(body, rule, prefix_count > 0, least > prefix_count ? least - prefix_count : 0,
                 most == INT64_MAX ? most : most - prefix_count);
    }
    pi2_schema_add(body, " ws \"]\"");
    return PI2_OK;
}
