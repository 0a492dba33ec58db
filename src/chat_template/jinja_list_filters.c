/* jinja_list_filters.c: filters that visit items. What jinja2 gives as a generator is made at once, and called one. */
#include "chat_template/jinja.h"

#include <string.h>

static pi2_status subject_items(pi2_jinja_call *call, pi2_jinja_list **out) {
    return pi2_jinja_iterate(call, &call->subject, out);
}

/** map, select and reject take anything that counts as false, such as none, for no items. */
static pi2_status items_or_none(pi2_jinja_call *call, pi2_jinja_list **out) {
    if (pi2_jinja_truth(&call->subject)) return subject_items(call, out);
    pi2_jinja_value empty;
    PI2_TRY(pi2_jinja_list_new(call->run->arena, 0, PI2_JINJA_PLAIN_LIST, &empty));
    *out = empty.as.list;
    return PI2_OK;
}

/** item.a.b.0 of a path "a.b.0", or item[n] of an integer. */
static pi2_status item_at_path(pi2_jinja_call *call, const pi2_jinja_value *item,
                               const pi2_jinja_value *path, pi2_jinja_value *out) {
    if (path->type == PI2_JINJA_INTEGER) return pi2_jinja_subscript(call, item, path, out);
    pi2_jinja_string rest;
    PI2_TRY(pi2_jinja_want_string(call, path, &rest));
    if (pi2_jinja_find(call->run->arena, rest, pi2_jinja_own_string(","), 0) != SIZE_MAX)
        return pi2_jinja_refuse(call, "an attribute with a comma");
    *out = *item;
    for (bool more = true; more;) {
        const size_t dot = pi2_jinja_find(call->run->arena, rest, pi2_jinja_own_string("."), 0);
        more = dot != SIZE_MAX;
        const pi2_jinja_string name = more ? pi2_jinja_part(rest, 0, dot) : rest;
        pi2_jinja_value key = pi2_jinja_of_string(name);
        bool digits = name.length > 0 && name.length < 18;
        int64_t number = 0;
        for (size_t i = 0; i < name.length && digits; i++) {
            digits = name.bytes[i] >= '0' && name.bytes[i] <= '9';
            number = number * 10 + (name.bytes[i] - '0');
        }
        if (digits) key = pi2_jinja_integer(number);
        const pi2_jinja_value owner = *out;
        PI2_TRY(pi2_jinja_subscript(call, &owner, &key, out));
        if (more) rest = pi2_jinja_part(rest, dot + 1, rest.length - dot - 1);
    }
    return PI2_OK;
}

static pi2_status filter_join(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[2];
    pi2_jinja_list *items;
    pi2_jinja_string separator = pi2_jinja_own_string("");
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "d attribute", 0, 2, given, &has));
    if (has & 1u) PI2_TRY(pi2_jinja_to_string(call, &given[0], &separator));
    PI2_TRY(subject_items(call, &items));
    if ((has & 2u) == 0 || given[1].type == PI2_JINJA_NONE)
        return pi2_jinja_join(call, separator, items, false, out);
    pi2_jinja_value found;
    PI2_TRY(pi2_jinja_list_new(call->run->arena, items->count, PI2_JINJA_PLAIN_LIST, &found));
    for (size_t i = 0; i < items->count; i++) {
        pi2_jinja_value item;
        PI2_TRY(item_at_path(call, &items->items[i], &given[1], &item));
        PI2_TRY(pi2_jinja_list_add(call->run->arena, found.as.list, item));
    }
    return pi2_jinja_join(call, separator, found.as.list, false, out);
}

static pi2_status edge_item(pi2_jinja_call *call, bool last, pi2_jinja_value *out) {
    pi2_jinja_list *items;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    const pi2_jinja_value *subject = &call->subject;
    const bool is_once = subject->type == PI2_JINJA_LIST && pi2_jinja_is_once(subject->as.list);
    const bool has_items = subject->type == PI2_JINJA_LIST || subject->type == PI2_JINJA_STRING ||
                           subject->type == PI2_JINJA_DICT || subject->type == PI2_JINJA_UNDEFINED;
    if (last && (is_once || !has_items))
        return pi2_jinja_fail(call, "'%s' object is not reversible", pi2_jinja_python_type(subject));
    if (is_once) items = subject->as.list;
    else PI2_TRY(subject_items(call, &items));
    *out = pi2_jinja_undefined(PI2_JINJA_HINT, pi2_jinja_own_string(last ? "No last item, sequence was empty."
                                                                         : "No first item, sequence was empty."));
    if (items->count > 0) *out = items->items[last ? items->count - 1 : 0];
    if (is_once && items->count > 0) pi2_jinja_skip(items, 1);
    return PI2_OK;
}

static pi2_status filter_first(pi2_jinja_call *call, pi2_jinja_value *out) {
    return edge_item(call, false, out);
}
static pi2_status filter_last(pi2_jinja_call *call, pi2_jinja_value *out) {
    return edge_item(call, true, out);
}

static pi2_status filter_list(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_list *items;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    PI2_TRY(subject_items(call, &items));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, items->count, PI2_JINJA_PLAIN_LIST, out));
    for (size_t i = 0; i < items->count; i++)
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, items->items[i]));
    return PI2_OK;
}

static pi2_status filter_reverse(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_list *items;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    const bool is_once = call->subject.type == PI2_JINJA_LIST && pi2_jinja_is_once(call->subject.as.list);
    PI2_TRY(subject_items(call, &items));
    const pi2_jinja_list_kind kind = is_once ? PI2_JINJA_PLAIN_LIST : PI2_JINJA_REVERSED;
    PI2_TRY(pi2_jinja_list_new(call->run->arena, items->count, kind, out));
    for (size_t i = items->count; i > 0; i--)
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, items->items[i - 1]));
    if (call->subject.type != PI2_JINJA_STRING) return PI2_OK;
    PI2_TRY(pi2_jinja_join(call, pi2_jinja_own_string(""), out->as.list, false, out));
    out->as.string.markup = call->subject.as.string.markup;
    return PI2_OK;
}

static pi2_status filter_items(pi2_jinja_call *call, pi2_jinja_value *out) {
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    if (call->subject.type == PI2_JINJA_DICT) {
        PI2_TRY(pi2_jinja_items(call, call->subject.as.dict, out));
        out->as.list->kind = PI2_JINJA_GENERATOR;
        return PI2_OK;
    }
    if (call->subject.type == PI2_JINJA_UNDEFINED)
        return pi2_jinja_list_new(call->run->arena, 0, PI2_JINJA_GENERATOR, out);
    return pi2_jinja_fail(call, "Can only get item pairs from a mapping. (This is %s: give a call's arguments as a "
                          "JSON object, not as text)", pi2_jinja_type_name(&call->subject));
}

/* ---- map, select, reject ---- */

/** The call of an inner filter or test: its name is argument `at`, the others follow it. */
static pi2_status inner_call(pi2_jinja_call *call, size_t at, pi2_jinja_call *inner) {
    *inner = *call;
    PI2_TRY(pi2_jinja_want_string(call, &call->arguments[at], &inner->name));
    inner->arguments = call->arguments + at + 1;
    inner->count = call->count - at - 1;
    return PI2_OK;
}

/** map(attribute=PATH, default=VALUE). */
static pi2_status map_attribute(pi2_jinja_call *call, const pi2_jinja_list *items,
                                pi2_jinja_value *out) {
    pi2_jinja_value given[2];
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "attribute default", 1, 2, given, &has));
    for (size_t i = 0; i < items->count; i++) {
        pi2_jinja_value item;
        PI2_TRY(item_at_path(call, &items->items[i], &given[0], &item));
        if ((has & 2u) != 0 && item.type == PI2_JINJA_UNDEFINED) item = given[1];
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, item));
    }
    return PI2_OK;
}

static pi2_status filter_map(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_list *items;
    pi2_jinja_call inner;
    PI2_TRY(items_or_none(call, &items));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, items->count, PI2_JINJA_GENERATOR, out));
    if (call->count == 0) return map_attribute(call, items, out);
    PI2_TRY(inner_call(call, 0, &inner));
    for (size_t i = 0; i < items->count; i++) {
        pi2_jinja_value item;
        inner.subject = items->items[i];
        PI2_TRY(pi2_jinja_step(call->run, call->node));
        PI2_TRY(pi2_jinja_apply_filter(&inner, &item));
        call->run->depth--;
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, item));
    }
    return PI2_OK;
}

/** Items (by attribute: their attribute) that pass a test, or with `wanted` false fail it. */
static pi2_status select_items(pi2_jinja_call *call, bool by_attribute, bool wanted,
                               pi2_jinja_value *out) {
    pi2_jinja_list *items;
    pi2_jinja_call inner = *call;
    const size_t test_at = by_attribute ? 1 : 0;
    if (call->count < test_at) return pi2_jinja_fail(call, "an attribute is needed");
    const bool has_test = call->count > test_at;
    if (has_test) PI2_TRY(inner_call(call, test_at, &inner));
    PI2_TRY(items_or_none(call, &items));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, 0, PI2_JINJA_GENERATOR, out));
    for (size_t i = 0; i < items->count; i++) {
        PI2_TRY(pi2_jinja_step(call->run, call->node));
        call->run->depth--;
        inner.subject = items->items[i];
        if (by_attribute)
            PI2_TRY(item_at_path(call, &items->items[i], &call->arguments[0], &inner.subject));
        bool passes = pi2_jinja_truth(&inner.subject);
        if (has_test) PI2_TRY(pi2_jinja_apply_test(&inner, &passes));
        if (passes == wanted)
            PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, items->items[i]));
    }
    return PI2_OK;
}

static pi2_status filter_select(pi2_jinja_call *call, pi2_jinja_value *out) {
    return select_items(call, false, true, out);
}
static pi2_status filter_reject(pi2_jinja_call *call, pi2_jinja_value *out) {
    return select_items(call, false, false, out);
}
static pi2_status filter_selectattr(pi2_jinja_call *call, pi2_jinja_value *out) {
    return select_items(call, true, true, out);
}
static pi2_status filter_rejectattr(pi2_jinja_call *call, pi2_jinja_value *out) {
    return select_items(call, true, false, out);
}

/* ---- order ---- */

/** What an item is compared by: its attribute, in lower case unless case matters. */
static pi2_status sort_key(pi2_jinja_call *call, const pi2_jinja_value *item,
                           const pi2_jinja_value *attribute, bool case_sensitive,
                           pi2_jinja_value *out) {
    *out = *item;
    if (attribute->type != PI2_JINJA_NONE && attribute->type != PI2_JINJA_UNDEFINED)
        PI2_TRY(item_at_path(call, item, attribute, out));
    if (case_sensitive || out->type != PI2_JINJA_STRING) return PI2_OK;
    return pi2_jinja_change_case(call, out->as.string, PI2_JINJA_LOWER, out);
}

/* An item with what it is compared by. */
typedef struct keyed {
    pi2_jinja_value key, item;
} keyed;

static pi2_status goes_before(pi2_jinja_call *call, const pi2_jinja_value *a,
                              const pi2_jinja_value *b, bool reverse, bool *out) {
    int order;
    *out = false;
    if (call->run->arena->work > PI2_JINJA_WORK)
        return pi2_jinja_fail(call, "it takes more than the limit of %d steps", PI2_JINJA_WORK);
    if (!pi2_jinja_order(call->run->arena, a, b, &order))
        return pi2_jinja_fail(call, "'<' not supported between instances of '%s' and '%s'", pi2_jinja_python_type(a),
                              pi2_jinja_python_type(b));
    *out = order == (reverse ? 1 : -1);
    return PI2_OK;
}

/** Merges sorted runs [from, middle) and [middle, to) of `a` into `b`; equal items keep order. */
static pi2_status merge(pi2_jinja_call *call, const keyed *a, keyed *b, size_t from, size_t middle,
                        size_t to, bool reverse) {
    size_t left = from, right = middle;
    for (size_t at = from; at < to; at++) {
        bool take_right = left == middle;
        /* jinja2 compares lists of one key each: such as are equal need no order. */
        if (left < middle && right < to && !pi2_jinja_equal(call->run->arena, &a[right].key, &a[left].key))
            PI2_TRY(goes_before(call, &a[right].key, &a[left].key, reverse, &take_right));
        b[at] = take_right ? a[right++] : a[left++];
    }
    return PI2_OK;
}

static pi2_status sort_keyed(pi2_jinja_call *call, keyed **items, size_t count, bool reverse) {
    keyed *other = pi2_jinja_alloc(call->run->arena, count, sizeof *other);
    if (other == NULL) return pi2_jinja_no_memory(call->run->arena);
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t from = 0; from < count; from += 2 * width) {
            const size_t middle = from + width < count ? from + width : count;
            const size_t to = from + 2 * width < count ? from + 2 * width : count;
            PI2_TRY(merge(call, *items, other, from, middle, to, reverse));
        }
        keyed *swap = *items;
        *items = other;
        other = swap;
    }
    return PI2_OK;
}

/** Sorts items by an attribute (NONE or UNDEFINED: by themselves). */
static pi2_status sort_list(pi2_jinja_call *call, const pi2_jinja_list *list,
                            const pi2_jinja_value *attribute, bool case_sensitive, bool reverse,
                            pi2_jinja_value *out) {
    keyed *items = pi2_jinja_alloc(call->run->arena, list->count, sizeof *items);
    if (items == NULL) return pi2_jinja_no_memory(call->run->arena);
    for (size_t i = 0; i < list->count; i++) {
        items[i].item = list->items[i];
        PI2_TRY(sort_key(call, &list->items[i], attribute, case_sensitive, &items[i].key));
    }
    PI2_TRY(sort_keyed(call, &items, list->count, reverse));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, list->count, PI2_JINJA_PLAIN_LIST, out));
    for (size_t i = 0; i < list->count; i++)
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, items[i].item));
    return PI2_OK;
}

static pi2_status filter_sort(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[3];
    pi2_jinja_list *items;
    PI2_TRY(pi2_jinja_arguments(call, "reverse case_sensitive attribute", 0, 3, given, NULL));
    PI2_TRY(subject_items(call, &items));
    return sort_list(call, items, &given[2], pi2_jinja_truth(&given[1]),
                     pi2_jinja_truth(&given[0]), out);
}

static pi2_status filter_dictsort(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[3], pairs;
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "case_sensitive by reverse", 0, 3, given, &has));
    if (call->subject.type != PI2_JINJA_DICT)
        return pi2_jinja_fail(call, "'%s' object has no attribute 'items'", pi2_jinja_python_type(&call->subject));
    pi2_jinja_string by = pi2_jinja_own_string("key");
    if (has & 2u) PI2_TRY(pi2_jinja_want_string(call, &given[1], &by));
    const bool by_value = pi2_jinja_is(by, "value");
    if (!by_value && !pi2_jinja_is(by, "key"))
        return pi2_jinja_fail(call, "dictsort by anything but 'key' or 'value'");
    PI2_TRY(pi2_jinja_items(call, call->subject.as.dict, &pairs));
    const pi2_jinja_value position = pi2_jinja_integer(by_value);
    return sort_list(call, pairs.as.list, &position, pi2_jinja_truth(&given[0]),
                     pi2_jinja_truth(&given[2]), out);
}

static pi2_status filter_unique(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[2], seen;
    pi2_jinja_list *items;
    PI2_TRY(pi2_jinja_arguments(call, "case_sensitive attribute", 0, 2, given, NULL));
    PI2_TRY(subject_items(call, &items));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, 0, PI2_JINJA_PLAIN_LIST, &seen));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, 0, PI2_JINJA_GENERATOR, out));
    for (size_t i = 0; i < items->count; i++) {
        pi2_jinja_value key;
        bool found;
        PI2_TRY(pi2_jinja_step(call->run, call->node));
        call->run->depth--;
        PI2_TRY(sort_key(call, &items->items[i], &given[1], pi2_jinja_truth(&given[0]), &key));
        PI2_TRY(pi2_jinja_want_key(call, &key));
        PI2_TRY(pi2_jinja_contains(call, &seen, &key, &found));
        if (found) continue;
        PI2_TRY(pi2_jinja_list_add(call->run->arena, seen.as.list, key));
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, items->items[i]));
    }
    return PI2_OK;
}

static pi2_status extreme(pi2_jinja_call *call, bool largest, pi2_jinja_value *out) {
    pi2_jinja_value given[2], best_key = pi2_jinja_none();
    pi2_jinja_list *items;
    PI2_TRY(pi2_jinja_arguments(call, "case_sensitive attribute", 0, 2, given, NULL));
    PI2_TRY(subject_items(call, &items));
    *out = pi2_jinja_undefined(PI2_JINJA_HINT, pi2_jinja_own_string("No aggregated item, sequence was empty."));
    for (size_t i = 0; i < items->count; i++) {
        pi2_jinja_value key;
        bool better = true;
        PI2_TRY(sort_key(call, &items->items[i], &given[1], pi2_jinja_truth(&given[0]), &key));
        if (i > 0) PI2_TRY(goes_before(call, &key, &best_key, largest, &better));
        if (!better) continue;
        best_key = key;
        *out = items->items[i];
    }
    return PI2_OK;
}

static pi2_status filter_max(pi2_jinja_call *call, pi2_jinja_value *out) {
    return extreme(call, true, out);
}
static pi2_status filter_min(pi2_jinja_call *call, pi2_jinja_value *out) {
    return extreme(call, false, out);
}

static pi2_status filter_sum(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[2];
    pi2_jinja_list *items;
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "attribute start", 0, 2, given, &has));
    PI2_TRY(subject_items(call, &items));
    *out = (has & 2u) != 0 ? given[1] : pi2_jinja_integer(0);
    for (size_t i = 0; i < items->count; i++) {
        pi2_jinja_value item = items->items[i], sum = *out;
        if ((has & 1u) != 0 && given[0].type != PI2_JINJA_NONE)
            PI2_TRY(item_at_path(call, &items->items[i], &given[0], &item));
        if (!pi2_jinja_is_number(&sum))
            return pi2_jinja_refuse(call, "a sum that begins with %s", pi2_jinja_type_name(&sum));
        PI2_TRY(pi2_jinja_arithmetic(call, pi2_jinja_own_string("+"), &sum, &item, out));
    }
    return PI2_OK;
}

const pi2_jinja_builtin pi2_jinja_list_filters[] = {
    {"join", filter_join},
    {"first", filter_first},
    {"last", filter_last},
    {"list", filter_list},
    {"reverse", filter_reverse},
    {"items", filter_items},
    {"map", filter_map},
    {"select", filter_select},
    {"reject", filter_reject},
    {"selectattr", filter_selectattr},
    {"rejectattr", filter_rejectattr},
    {"sort", filter_sort},
    {"dictsort", filter_dictsort},
    {"unique", filter_unique},
    {"max", filter_max},
    {"min", filter_min},
    {"sum", filter_sum},
    {NULL, NULL},
};
