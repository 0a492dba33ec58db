/* jinja_methods.c: methods of mappings and lists, and the global functions. */
#include "chat_template/jinja.h"

#include <stdio.h>
#include <string.h>

/* ---- mappings and lists ---- */

pi2_status pi2_jinja_items(pi2_jinja_call *call, const pi2_jinja_dict *dict,
                           pi2_jinja_value *out) {
    pi2_jinja_arena *arena = call->run->arena;
    PI2_TRY(pi2_jinja_list_new(arena, dict->count, PI2_JINJA_DICT_ITEMS, out));
    for (size_t i = 0; i < dict->count; i++) {
        pi2_jinja_value pair;
        PI2_TRY(pi2_jinja_list_new(arena, 2, PI2_JINJA_TUPLE, &pair));
        PI2_TRY(pi2_jinja_list_add(arena, pair.as.list, dict->entries[i].key));
        PI2_TRY(pi2_jinja_list_add(arena, pair.as.list, dict->entries[i].value));
        PI2_TRY(pi2_jinja_list_add(arena, out->as.list, pair));
    }
    return PI2_OK;
}

static pi2_status dict_items(pi2_jinja_call *call, pi2_jinja_value *out) {
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    return pi2_jinja_items(call, call->subject.as.dict, out);
}

static pi2_status dict_keys(pi2_jinja_call *call, pi2_jinja_value *out) {
    *out = (pi2_jinja_value){.type = PI2_JINJA_LIST};
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    PI2_TRY(pi2_jinja_iterate(call, &call->subject, &out->as.list));
    out->as.list->kind = PI2_JINJA_DICT_KEYS; /* a new list, of a mapping */
    return PI2_OK;
}

static pi2_status dict_values(pi2_jinja_call *call, pi2_jinja_value *out) {
    const pi2_jinja_dict *dict = call->subject.as.dict;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, dict->count, PI2_JINJA_DICT_VALUES, out));
    for (size_t i = 0; i < dict->count; i++)
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, dict->entries[i].value));
    return PI2_OK;
}

static pi2_status dict_get(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[2];
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, " ", 1, 2, given, &has));
    PI2_TRY(pi2_jinja_want_key(call, &given[0]));
    const pi2_jinja_value *found =
        pi2_jinja_dict_find(call->run->arena, call->subject.as.dict, &given[0]);
    if (found != NULL) *out = *found;
    else *out = (has & 2u) != 0 ? given[1] : pi2_jinja_none();
    return PI2_OK;
}

static const pi2_jinja_builtin dict_methods[] = {
    {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values},
    {"get", dict_get},     {NULL, NULL},
};
static pi2_status list_count(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given;
    int64_t count = 0;
    const pi2_jinja_list *list = call->subject.as.list;
    PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
    for (size_t i = 0; i < list->count; i++) count += pi2_jinja_equal(call->run->arena, &list->items[i], &given);
    *out = pi2_jinja_integer(count);
    return PI2_OK;
}

static pi2_status list_index(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_string shown;
    const pi2_jinja_list *list = call->subject.as.list;
    PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
    for (size_t i = 0; i < list->count; i++) {
        if (!pi2_jinja_equal(call->run->arena, &list->items[i], &given)) continue;
        *out = pi2_jinja_integer((int64_t)i);
        return PI2_OK;
    }
    PI2_TRY(pi2_jinja_to_string(call, &given, &shown));
    const char *quote = given.type == PI2_JINJA_STRING ? "'" : "";
    return pi2_jinja_fail(call, "%s%.*s%s is not in list", quote, PI2_JINJA_SHOWN(shown), quote);
}

static const pi2_jinja_builtin list_methods[] = {{"count", list_count}, {"index", list_index}, {NULL, NULL}};

/* Python has these too: an attribute of this name is a method, not a key or nothing. */
static const char *const other_dict_methods[] = {"copy", "fromkeys", NULL};
static const char *const other_list_methods[] = {"copy", NULL};
static const char *const other_string_methods[] = {
    "casefold", "center", "encode", "expandtabs", "format", "format_map", "index", "isalnum",
    "isalpha", "isascii", "isdecimal", "isidentifier", "islower", "isnumeric", "isprintable",
    "istitle", "isupper", "ljust", "maketrans", "partition", "rfind", "rindex", "rjust",
    "rpartition", "swapcase", "translate", "zfill", NULL};

static const pi2_jinja_builtin *find_method(const pi2_jinja_value *value, pi2_jinja_string name) {
    const pi2_jinja_builtin *at = value->type == PI2_JINJA_DICT   ? dict_methods
                                  : value->type == PI2_JINJA_LIST ? list_methods
                                                                  : pi2_jinja_string_methods;
    if (value->type == PI2_JINJA_LIST && !pi2_jinja_is_sequence(value->as.list)) return NULL;
    for (; at->name != NULL; at++)
        if (pi2_jinja_is(name, at->name)) return at;
    return NULL;
}

bool pi2_jinja_has_method(const pi2_jinja_value *value, pi2_jinja_string name) {
    if (find_method(value, name) != NULL) return true;
    if (value->type == PI2_JINJA_LIST && !pi2_jinja_is_sequence(value->as.list)) return false;
    const char *const *at = value->type == PI2_JINJA_DICT   ? other_dict_methods
                            : value->type == PI2_JINJA_LIST ? other_list_methods
                                                            : other_string_methods;
    for (; *at != NULL; at++)
        if (pi2_jinja_is(name, *at)) return true;
    return false;
}

/* Of methods the sandbox keeps back those that change a value. */
bool pi2_jinja_is_kept_back(const pi2_jinja_value *value, pi2_jinja_string name) {
    static const char *const of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const of_lists[] = {"append", "clear",  "pop",    "reverse", "insert",
                                           "sort",   "extend", "remove", NULL};
    static const char *const none[] = {NULL};
    /* Every Python object has attributes such as __class__; other names with "_" may be keys. */
    const bool is_hidden = name.length > 0 && name.bytes[0] == '_';
    const bool is_pythons = name.length > 4 && memcmp(name.bytes, "__", 2) == 0 &&
                            memcmp(name.bytes + name.length - 2, "__", 2) == 0;
    if (is_pythons || (is_hidden && value->type == PI2_JINJA_NAMESPACE)) return true;
    const bool is_list = value->type == PI2_JINJA_LIST && value->as.list->kind == PI2_JINJA_PLAIN_LIST;
    const char *const *at = value->type == PI2_JINJA_DICT ? of_dicts : is_list ? of_lists : none;
    for (; *at != NULL; at++)
        if (pi2_jinja_is(name, *at)) return true;
    return false;
}

pi2_status pi2_jinja_call_method(pi2_jinja_call *call, pi2_jinja_value *out) {
    const pi2_jinja_builtin *method = find_method(&call->subject, call->name);
    if (method != NULL) return method->run(call, out);
    return pi2_jinja_refuse(call, "method '%.*s' of %s", PI2_JINJA_SHOWN(call->name),
                            pi2_jinja_type_name(&call->subject));
}

/* ---- global functions ---- */

static pi2_status function_range(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[3];
    int64_t bounds[3] = {0, 0, 1};
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "  ", 1, 3, given, &has));
    for (size_t i = 0; i < 3; i++)
        if (has >> i & 1u) PI2_TRY(pi2_jinja_want_integer(call, &given[i], &bounds[i]));
    if (has == 1u) {
        bounds[1] = bounds[0];
        bounds[0] = 0;
    }
    const int64_t step = bounds[2];
    if (step == 0) return pi2_jinja_fail(call, "range with a step of 0");
    /* Unsigned differences: they are exact over the whole of int64_t. */
    const bool empty = step > 0 ? bounds[0] >= bounds[1] : bounds[0] <= bounds[1];
    const uint64_t span = step > 0 ? (uint64_t)bounds[1] - (uint64_t)bounds[0]
                                   : (uint64_t)bounds[0] - (uint64_t)bounds[1];
    const uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    const uint64_t count = empty ? 0 : (span - 1) / stride + 1;
    if (count > PI2_JINJA_RANGE_ITEMS)
        return pi2_jinja_fail(call, "range passes the limit of %d items", PI2_JINJA_RANGE_ITEMS);
    PI2_TRY(pi2_jinja_list_new(call->run->arena, (size_t)count, PI2_JINJA_RANGE, out));
    for (uint64_t i = 0; i < count; i++) {
        const int64_t item = (int64_t)((uint64_t)bounds[0] + i * (uint64_t)step);
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, pi2_jinja_integer(item)));
    }
    return PI2_OK;
}

/** dict(mapping, name=value, ...), and namespace() of the same. */
static pi2_status function_dict(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_arena *arena = call->run->arena;
    PI2_TRY(pi2_jinja_dict_new(arena, out));
    if (call->count > 1 || (call->count == 1 && call->arguments[0].type != PI2_JINJA_DICT))
        return pi2_jinja_refuse(call, "'%.*s' of anything but one mapping and names",
                                PI2_JINJA_SHOWN(call->name));
    for (size_t i = 0; call->count == 1 && i < call->arguments[0].as.dict->count; i++) {
        const pi2_jinja_entry *entry = &call->arguments[0].as.dict->entries[i];
        PI2_TRY(pi2_jinja_dict_set(arena, out->as.dict, entry->key, entry->value));
    }
    for (size_t i = 0; i < call->named_count; i++)
        PI2_TRY(pi2_jinja_dict_set(arena, out->as.dict, pi2_jinja_of_string(call->named[i].name),
                                   call->named[i].value));
    return PI2_OK;
}

static pi2_status function_namespace(pi2_jinja_call *call, pi2_jinja_value *out) {
    PI2_TRY(function_dict(call, out));
    out->type = PI2_JINJA_NAMESPACE;
    return PI2_OK;
}

static pi2_status function_raise_exception(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_string message;
    (void)out;
    PI2_TRY(pi2_jinja_arguments(call, "message", 1, 1, &given, NULL));
    PI2_TRY(pi2_jinja_to_string(call, &given, &message));
    return pi2_jinja_fail(call, "it refuses this conversation: %.*s",
                          (int)(message.length < 400 ? message.length : 400), message.bytes);
}

const pi2_jinja_builtin pi2_jinja_functions[] = {
    {"range", function_range},
    {"dict", function_dict},
    {"namespace", function_namespace},
    {"raise_exception", function_raise_exception},
    {"strftime_now", pi2_jinja_strftime_now},
    {NULL, NULL},
};
