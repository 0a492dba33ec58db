/* jinja_value.c: the values of a template: making, comparing, looking up. */
#include "chat_template/jinja.h"

#include <string.h>

enum { COMPARE_DEPTH = 100 };

pi2_jinja_value pi2_jinja_undefined(pi2_jinja_absence absence, pi2_jinja_string name) {
    const pi2_jinja_missing missing = {name.bytes, "", (int64_t)name.length, absence};
    return (pi2_jinja_value){.type = PI2_JINJA_UNDEFINED, .as.missing = missing};
}
pi2_jinja_value pi2_jinja_undefined_of(const pi2_jinja_value *owner, pi2_jinja_absence absence, pi2_jinja_string name) {
    pi2_jinja_value value = pi2_jinja_undefined(absence, name);
    value.as.missing.owner = pi2_jinja_python_type(owner);
    return value;
}
pi2_jinja_value pi2_jinja_undefined_element(const pi2_jinja_value *owner, int64_t element) {
    pi2_jinja_value value = pi2_jinja_undefined_of(owner, PI2_JINJA_NO_ELEMENT, pi2_jinja_own_string(""));
    value.as.missing.number = element;
    return value;
}
pi2_jinja_value pi2_jinja_none(void) { return (pi2_jinja_value){.type = PI2_JINJA_NONE}; }
pi2_jinja_value pi2_jinja_boolean(bool boolean) {
    return (pi2_jinja_value){.type = PI2_JINJA_BOOLEAN, .as.boolean = boolean};
}
pi2_jinja_value pi2_jinja_integer(int64_t integer) {
    return (pi2_jinja_value){.type = PI2_JINJA_INTEGER, .as.integer = integer};
}
pi2_jinja_value pi2_jinja_float(double number) {
    return (pi2_jinja_value){.type = PI2_JINJA_FLOAT, .as.number = number};
}
pi2_jinja_value pi2_jinja_of_string(pi2_jinja_string string) {
    return (pi2_jinja_value){.type = PI2_JINJA_STRING, .as.string = string};
}

/* ---- lists and dicts ---- */

bool pi2_jinja_is_sequence(const pi2_jinja_list *list) {
    return list->kind == PI2_JINJA_PLAIN_LIST || list->kind == PI2_JINJA_TUPLE;
}

bool pi2_jinja_is_once(const pi2_jinja_list *list) {
    return list->kind == PI2_JINJA_GENERATOR || list->kind == PI2_JINJA_REVERSED;
}

pi2_status pi2_jinja_list_new(pi2_jinja_arena *arena, size_t capacity, pi2_jinja_list_kind kind,
                              pi2_jinja_value *out) {
    pi2_jinja_list *list = pi2_jinja_alloc(arena, 1, sizeof *list);
    if (list == NULL) return pi2_jinja_no_memory(arena);
    if (capacity > 0) {
        list->items = pi2_jinja_alloc(arena, capacity, sizeof *list->items);
        if (list->items == NULL) return pi2_jinja_no_memory(arena);
    }
    list->capacity = capacity;
    list->kind = kind;
    *out = (pi2_jinja_value){.type = PI2_JINJA_LIST, .as.list = list};
    return PI2_OK;
}

pi2_status pi2_jinja_list_add(pi2_jinja_arena *arena, pi2_jinja_list *list, pi2_jinja_value item) {
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity * 2 + 4;
        pi2_jinja_value *items = pi2_jinja_alloc(arena, capacity, sizeof *items);
        if (items == NULL) return pi2_jinja_no_memory(arena);
        if (list->count > 0) memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = item;
    return PI2_OK;
}

pi2_status pi2_jinja_dict_new(pi2_jinja_arena *arena, pi2_jinja_value *out) {
    pi2_jinja_dict *dict = pi2_jinja_alloc(arena, 1, sizeof *dict);
    if (dict == NULL) return pi2_jinja_no_memory(arena);
    *out = (pi2_jinja_value){.type = PI2_JINJA_DICT, .as.dict = dict};
    return PI2_OK;
}

pi2_status pi2_jinja_dict_add(pi2_jinja_arena *arena, pi2_jinja_dict *dict, pi2_jinja_value key,
                              pi2_jinja_value value) {
    if (dict->count == dict->capacity) {
        const size_t capacity = dict->capacity * 2 + 4;
        pi2_jinja_entry *entries = pi2_jinja_alloc(arena, capacity, sizeof *entries);
        if (entries == NULL) return pi2_jinja_no_memory(arena);
        if (dict->count > 0) memcpy(entries, dict->entries, dict->count * sizeof *entries);
        dict->entries = entries;
        dict->capacity = capacity;
    }
    dict->entries[dict->count++] = (pi2_jinja_entry){key, value};
    return PI2_OK;
}

pi2_status pi2_jinja_dict_set(pi2_jinja_arena *arena, pi2_jinja_dict *dict, pi2_jinja_value key,
                              pi2_jinja_value value) {
    pi2_jinja_value *present = pi2_jinja_dict_find(arena, dict, &key);
    if (present == NULL) return pi2_jinja_dict_add(arena, dict, key, value);
    *present = value;
    return PI2_OK;
}

pi2_jinja_value *pi2_jinja_dict_find(pi2_jinja_arena *arena, const pi2_jinja_dict *dict,
                                     const pi2_jinja_value *key) {
    if (key->type == PI2_JINJA_STRING)
        return pi2_jinja_dict_find_name(arena, dict, key->as.string);
    for (size_t i = 0; i < dict->count; i++)
        if (pi2_jinja_equal(arena, &dict->entries[i].key, key)) return &dict->entries[i].value;
    return NULL;
}

pi2_jinja_value *pi2_jinja_dict_find_name(pi2_jinja_arena *arena, const pi2_jinja_dict *dict,
                                          pi2_jinja_string name) {
    pi2_jinja_charge(arena, dict->count / 16);
    for (size_t i = 0; i < dict->count; i++) {
        const pi2_jinja_value *key = &dict->entries[i].key;
        if (key->type != PI2_JINJA_STRING || key->as.string.length != name.length) continue;
        pi2_jinja_charge(arena, name.length / 64);
        if (pi2_jinja_same_bytes(key->as.string, name)) return &dict->entries[i].value;
    }
    return NULL;
}

/* ---- what a value is ---- */

bool pi2_jinja_is_number(const pi2_jinja_value *value) {
    return value->type == PI2_JINJA_INTEGER || value->type == PI2_JINJA_FLOAT ||
           value->type == PI2_JINJA_BOOLEAN;
}

double pi2_jinja_as_double(const pi2_jinja_value *value) {
    if (value->type == PI2_JINJA_FLOAT) return value->as.number;
    if (value->type == PI2_JINJA_BOOLEAN) return value->as.boolean ? 1.0 : 0.0;
    return (double)value->as.integer;
}

bool pi2_jinja_truth(const pi2_jinja_value *value) {
    switch (value->type) {
    case PI2_JINJA_UNDEFINED:
    case PI2_JINJA_NONE: return false;
    case PI2_JINJA_BOOLEAN: return value->as.boolean;
    case PI2_JINJA_INTEGER: return value->as.integer != 0;
    case PI2_JINJA_FLOAT: return value->as.number < 0.0 || value->as.number > 0.0 ||
                                 value->as.number != value->as.number; /* NaN is true */
    case PI2_JINJA_STRING: return value->as.string.length > 0;
    case PI2_JINJA_LIST: return value->as.list->count > 0 || pi2_jinja_is_once(value->as.list);
    case PI2_JINJA_DICT: return value->as.dict->count > 0;
    case PI2_JINJA_NAMESPACE:
    case PI2_JINJA_LOOP:
    case PI2_JINJA_MACRO:
    case PI2_JINJA_FUNCTION:
    case PI2_JINJA_METHOD: return true;
    }
    return false;
}

const char *pi2_jinja_type_name(const pi2_jinja_value *value) {
    switch (value->type) {
    case PI2_JINJA_UNDEFINED: return "an undefined value";
    case PI2_JINJA_NONE: return "none";
    case PI2_JINJA_BOOLEAN: return "a boolean";
    case PI2_JINJA_INTEGER: return "an integer";
    case PI2_JINJA_FLOAT: return "a float";
    case PI2_JINJA_STRING: return "a string";
    case PI2_JINJA_LIST:
        return value->as.list->kind == PI2_JINJA_TUPLE        ? "a tuple"
               : value->as.list->kind == PI2_JINJA_PLAIN_LIST ? "a list"
                                                              : "a generator, view or range: put '| list' behind it";
    case PI2_JINJA_DICT: return "a mapping";
    case PI2_JINJA_NAMESPACE: return "a namespace";
    case PI2_JINJA_LOOP: return "a loop";
    case PI2_JINJA_MACRO: return "a macro";
    case PI2_JINJA_FUNCTION: return "a function";
    case PI2_JINJA_METHOD: return "a method";
    }
    return "a value";
}

const char *pi2_jinja_python_type(const pi2_jinja_value *value) {
    static const char *const list_types[] = {"list", "tuple", "generator", "list_reverseiterator", "range",
                                             "dict_items", "dict_keys", "dict_values"};
    switch (value->type) {
    case PI2_JINJA_UNDEFINED: return "Undefined";
    case PI2_JINJA_NONE: return "NoneType";
    case PI2_JINJA_BOOLEAN: return "bool";
    case PI2_JINJA_INTEGER: return "int";
    case PI2_JINJA_FLOAT: return "float";
    case PI2_JINJA_STRING: return value->as.string.markup ? "Markup" : "str";
    case PI2_JINJA_LIST: return list_types[value->as.list->kind];
    case PI2_JINJA_DICT: return "dict";
    case PI2_JINJA_NAMESPACE: return "Namespace";
    case PI2_JINJA_LOOP: return "LoopContext";
    case PI2_JINJA_MACRO: return "Macro";
    case PI2_JINJA_FUNCTION: return "function";
    case PI2_JINJA_METHOD: return "builtin_function_or_method";
    }
    return "object";
}

/* ---- comparing ---- */

static int64_t as_integer(const pi2_jinja_value *value) {
    return value->type == PI2_JINJA_BOOLEAN ? value->as.boolean : value->as.integer;
}

static int number_order(const pi2_jinja_value *a, const pi2_jinja_value *b) {
    if (a->type != PI2_JINJA_FLOAT && b->type != PI2_JINJA_FLOAT) {
        const int64_t x = as_integer(a), y = as_integer(b);
        return x < y ? -1 : x > y;
    }
    const double x = pi2_jinja_as_double(a), y = pi2_jinja_as_double(b);
    if (x < y) return -1;
    if (x > y) return 1;
    return x <= y ? 0 : 2;
}

static bool equal_to_depth(pi2_jinja_arena *arena, const pi2_jinja_value *a,
                           const pi2_jinja_value *b, int depth);

static bool equal_lists(pi2_jinja_arena *arena, const pi2_jinja_list *a, const pi2_jinja_list *b,
                        int depth) {
    if (a == b) return true;
    if (a->count != b->count || a->kind != b->kind || pi2_jinja_is_once(a)) return false;
    for (size_t i = 0; i < a->count; i++) {
        if (arena->work > PI2_JINJA_WORK) return false; /* the next step reports it */
        if (!equal_to_depth(arena, &a->items[i], &b->items[i], depth + 1)) return false;
    }
    return true;
}

static bool equal_dicts(pi2_jinja_arena *arena, const pi2_jinja_dict *a, const pi2_jinja_dict *b,
                        int depth) {
    if (a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
        if (arena->work > PI2_JINJA_WORK) return false;
        const pi2_jinja_value *other = pi2_jinja_dict_find(arena, b, &a->entries[i].key);
        if (other == NULL || !equal_to_depth(arena, &a->entries[i].value, other, depth + 1))
            return false;
    }
    return true;
}

static bool equal_to_depth(pi2_jinja_arena *arena, const pi2_jinja_value *a,
                           const pi2_jinja_value *b, int depth) {
    pi2_jinja_charge(arena, 1);
    if (depth > COMPARE_DEPTH) return false;
    if (pi2_jinja_is_number(a) && pi2_jinja_is_number(b)) return number_order(a, b) == 0;
    if (a->type != b->type) return false;
    switch (a->type) {
    case PI2_JINJA_STRING:
        if (a->as.string.length == b->as.string.length)
            pi2_jinja_charge(arena, a->as.string.length / 64);
        return pi2_jinja_same_bytes(a->as.string, b->as.string);
    case PI2_JINJA_LIST: return equal_lists(arena, a->as.list, b->as.list, depth);
    case PI2_JINJA_DICT: return equal_dicts(arena, a->as.dict, b->as.dict, depth);
    case PI2_JINJA_NAMESPACE: return a->as.dict == b->as.dict;
    case PI2_JINJA_LOOP: return a->as.loop == b->as.loop;
    case PI2_JINJA_MACRO: return a->as.macro == b->as.macro;
    case PI2_JINJA_FUNCTION: return a->as.function == b->as.function;
    case PI2_JINJA_METHOD: return a->as.method == b->as.method;
    case PI2_JINJA_UNDEFINED:
    case PI2_JINJA_NONE:
    case PI2_JINJA_BOOLEAN:
    case PI2_JINJA_INTEGER:
    case PI2_JINJA_FLOAT: return true; /* numbers were compared above */
    }
    return false;
}

bool pi2_jinja_equal(pi2_jinja_arena *arena, const pi2_jinja_value *a, const pi2_jinja_value *b) {
    return equal_to_depth(arena, a, b, 0);
}

static int string_order(pi2_jinja_string a, pi2_jinja_string b) {
    const size_t shared = a.length < b.length ? a.length : b.length;
    const int order = shared > 0 ? memcmp(a.bytes, b.bytes, shared) : 0;
    if (order != 0) return order < 0 ? -1 : 1;
    return a.length < b.length ? -1 : a.length > b.length;
}

static bool order_to_depth(pi2_jinja_arena *arena, const pi2_jinja_value *a,
                           const pi2_jinja_value *b, int *order_out, int depth) {
    pi2_jinja_charge(arena, 1);
    if (depth > COMPARE_DEPTH) return false;
    if (pi2_jinja_is_number(a) && pi2_jinja_is_number(b)) {
        *order_out = number_order(a, b);
        return true;
    }
    if (a->type == PI2_JINJA_STRING && b->type == PI2_JINJA_STRING) {
        pi2_jinja_charge(arena, a->as.string.length / 64);
        *order_out = string_order(a->as.string, b->as.string);
        return true;
    }
    if (a->type != PI2_JINJA_LIST || b->type != PI2_JINJA_LIST ||
        a->as.list->kind != b->as.list->kind || !pi2_jinja_is_sequence(a->as.list))
        return false;
    const pi2_jinja_list *x = a->as.list, *y = b->as.list;
    for (size_t i = 0; i < x->count && i < y->count; i++) {
        if (arena->work > PI2_JINJA_WORK) return false;
        if (equal_to_depth(arena, &x->items[i], &y->items[i], depth + 1)) continue;
        return order_to_depth(arena, &x->items[i], &y->items[i], order_out, depth + 1);
    }
    *order_out = x->count < y->count ? -1 : x->count > y->count;
    return true;
}

bool pi2_jinja_order(pi2_jinja_arena *arena, const pi2_jinja_value *a, const pi2_jinja_value *b,
                     int *order_out) {
    return order_to_depth(arena, a, b, order_out, 0);
}
