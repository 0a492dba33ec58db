/* jinja_operators.c: arithmetic, comparison, attributes, subscripts and iteration, as in Python. */
#include "chat_template/jinja.h"

#include <math.h>
#include <string.h>

pi2_status pi2_jinja_want_string(const pi2_jinja_call *call, const pi2_jinja_value *value,
                                 pi2_jinja_string *out) {
    if (value->type != PI2_JINJA_STRING)
        return pi2_jinja_fail(call, "'%.*s' needs a string, not %s", PI2_JINJA_SHOWN(call->name),
                              pi2_jinja_type_name(value));
    *out = value->as.string;
    return PI2_OK;
}

pi2_status pi2_jinja_want_integer(const pi2_jinja_call *call, const pi2_jinja_value *value,
                                  int64_t *out) {
    if (value->type == PI2_JINJA_BOOLEAN) *out = value->as.boolean;
    else if (value->type == PI2_JINJA_INTEGER) *out = value->as.integer;
    else
        return pi2_jinja_fail(call, "an integer is needed, not %s", pi2_jinja_type_name(value));
    return PI2_OK;
}

pi2_status pi2_jinja_want_key(const pi2_jinja_call *call, const pi2_jinja_value *value) {
    const bool changes = value->type == PI2_JINJA_DICT ||
                         (value->type == PI2_JINJA_LIST && value->as.list->kind != PI2_JINJA_TUPLE);
    if (!changes) return PI2_OK;
    return pi2_jinja_fail(call, "unhashable type: '%s'", pi2_jinja_python_type(value));
}

static pi2_status characters_of(const pi2_jinja_call *call, pi2_jinja_string string,
                                pi2_jinja_list **out) {
    pi2_jinja_arena *arena = call->run->arena;
    pi2_jinja_value list;
    int32_t code_point;
    PI2_TRY(pi2_jinja_list_new(arena, pi2_jinja_character_count(arena, string), PI2_JINJA_PLAIN_LIST, &list));
    for (size_t at = 0; at < string.length;) {
        const size_t bytes = pi2_jinja_character(string, at, &code_point);
        pi2_jinja_value item = pi2_jinja_of_string(pi2_jinja_part(string, at, bytes));
        item.as.string.markup = false;
        PI2_TRY(pi2_jinja_list_add(arena, list.as.list, item));
        at += bytes;
    }
    *out = list.as.list;
    return PI2_OK;
}

/** The items of a generator, which has none afterwards. */
static pi2_status take_all(pi2_jinja_arena *arena, pi2_jinja_list *once, pi2_jinja_list **out) {
    pi2_jinja_value taken;
    PI2_TRY(pi2_jinja_list_new(arena, 0, PI2_JINJA_PLAIN_LIST, &taken));
    taken.as.list->items = once->items;
    taken.as.list->count = taken.as.list->capacity = once->count;
    once->items = NULL;
    once->count = once->capacity = 0;
    *out = taken.as.list;
    return PI2_OK;
}

pi2_status pi2_jinja_iterate(const pi2_jinja_call *call, const pi2_jinja_value *value,
                             pi2_jinja_list **out) {
    pi2_jinja_arena *arena = call->run->arena;
    pi2_jinja_value list;
    if (value->type == PI2_JINJA_LIST && pi2_jinja_is_once(value->as.list)) return take_all(arena, value->as.list, out);
    if (value->type == PI2_JINJA_LIST) {
        *out = value->as.list;
        return PI2_OK;
    }
    if (value->type == PI2_JINJA_STRING) return characters_of(call, value->as.string, out);
    if (value->type != PI2_JINJA_DICT && value->type != PI2_JINJA_UNDEFINED)
        return pi2_jinja_fail(call, "'%s' object is not iterable", pi2_jinja_python_type(value));
    const size_t count = value->type == PI2_JINJA_DICT ? value->as.dict->count : 0;
    PI2_TRY(pi2_jinja_list_new(arena, count, PI2_JINJA_PLAIN_LIST, &list));
    for (size_t i = 0; i < count; i++)
        PI2_TRY(pi2_jinja_list_add(arena, list.as.list, value->as.dict->entries[i].key));
    *out = list.as.list;
    return PI2_OK;
}

/* ---- attributes and subscripts ---- */

static pi2_status loop_attribute(const pi2_jinja_call *call, const pi2_jinja_loop *loop,
                                 pi2_jinja_string name, pi2_jinja_value *out) {
    const size_t count = loop->items->count, index = loop->index;
    const int64_t left = (int64_t)count - (int64_t)index;
    if (pi2_jinja_is(name, "index")) *out = pi2_jinja_integer((int64_t)index + 1);
    else if (pi2_jinja_is(name, "index0")) *out = pi2_jinja_integer((int64_t)index);
    else if (pi2_jinja_is(name, "revindex")) *out = pi2_jinja_integer(left);
    else if (pi2_jinja_is(name, "revindex0")) *out = pi2_jinja_integer(left - 1);
    else if (pi2_jinja_is(name, "length")) *out = pi2_jinja_integer((int64_t)count);
    else if (pi2_jinja_is(name, "first")) *out = pi2_jinja_boolean(index == 0);
    else if (pi2_jinja_is(name, "last")) *out = pi2_jinja_boolean(index + 1 >= count);
    else if (pi2_jinja_is(name, "depth")) *out = pi2_jinja_integer((int64_t)loop->depth);
    else if (pi2_jinja_is(name, "depth0")) *out = pi2_jinja_integer((int64_t)loop->depth - 1);
    else if (pi2_jinja_is(name, "previtem"))
        *out = index > 0 && index <= count
                   ? loop->items->items[index - 1]
                   : pi2_jinja_undefined(PI2_JINJA_HINT, pi2_jinja_own_string("there is no previous item"));
    else if (pi2_jinja_is(name, "nextitem"))
        *out = index + 1 < count
                   ? loop->items->items[index + 1]
                   : pi2_jinja_undefined(PI2_JINJA_HINT, pi2_jinja_own_string("there is no next item"));
    else
        return pi2_jinja_refuse(call, "attribute '%.*s' of a loop", PI2_JINJA_SHOWN(name));
    return PI2_OK;
}

static pi2_status bind_method(const pi2_jinja_call *call, const pi2_jinja_value *value,
                              pi2_jinja_string name, pi2_jinja_value *out) {
    pi2_jinja_method *method = pi2_jinja_alloc(call->run->arena, 1, sizeof *method);
    pi2_jinja_value *receiver = pi2_jinja_alloc(call->run->arena, 1, sizeof *receiver);
    if (method == NULL || receiver == NULL) return pi2_jinja_no_memory(call->run->arena);
    *receiver = *value;
    method->receiver = receiver;
    method->name = name;
    *out = (pi2_jinja_value){.type = PI2_JINJA_METHOD, .as.method = method};
    return PI2_OK;
}

pi2_status pi2_jinja_attribute(const pi2_jinja_call *call, const pi2_jinja_value *value,
                               pi2_jinja_string name, pi2_jinja_value *out) {
    if (value->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, value);
    *out = pi2_jinja_undefined_of(value, PI2_JINJA_NO_ATTRIBUTE, name);
    const pi2_jinja_value *found = NULL;
    if (pi2_jinja_is_kept_back(value, name)) {
        *out = pi2_jinja_undefined_of(value, PI2_JINJA_UNSAFE, name);
        return PI2_OK;
    }
    switch (value->type) {
    case PI2_JINJA_DICT:
        if (pi2_jinja_has_method(value, name)) return bind_method(call, value, name, out);
        found = pi2_jinja_dict_find_name(call->run->arena, value->as.dict, name);
        break;
    case PI2_JINJA_NAMESPACE:
        found = pi2_jinja_dict_find_name(call->run->arena, value->as.dict, name);
        break;
    case PI2_JINJA_STRING:
    case PI2_JINJA_LIST:
        if (pi2_jinja_has_method(value, name)) return bind_method(call, value, name, out);
        break;
    case PI2_JINJA_LOOP: return loop_attribute(call, value->as.loop, name, out);
    case PI2_JINJA_MACRO:
        return pi2_jinja_refuse(call, "attribute '%.*s' of %s", PI2_JINJA_SHOWN(name),
                                pi2_jinja_type_name(value));
    default: break; /* none, numbers, functions: they have nothing that a template asks for */
    }
    if (found != NULL) *out = *found;
    return PI2_OK;
}

/** The character `index` of a string; an empty result's type stays UNDEFINED. */
static void character_at(const pi2_jinja_call *call, pi2_jinja_string string, int64_t index,
                         pi2_jinja_value *out) {
    pi2_jinja_arena *arena = call->run->arena;
    int32_t code_point;
    if (index < 0) index += (int64_t)pi2_jinja_character_count(arena, string);
    if (index < 0) return;
    size_t at = 0;
    for (; at < string.length && index > 0; index--)
        at += pi2_jinja_character(string, at, &code_point);
    pi2_jinja_charge(arena, at / 64);
    if (at >= string.length) return;
    const size_t bytes = pi2_jinja_character(string, at, &code_point);
    *out = pi2_jinja_of_string(pi2_jinja_part(string, at, bytes));
}

pi2_status pi2_jinja_subscript(const pi2_jinja_call *call, const pi2_jinja_value *value,
                               const pi2_jinja_value *key, pi2_jinja_value *out) {
    if (value->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, value);
    if (value->type == PI2_JINJA_DICT) {
        const pi2_jinja_value *found =
            pi2_jinja_dict_find(call->run->arena, value->as.dict, key);
        if (found != NULL) {
            *out = *found;
            return PI2_OK;
        }
    }
    if (key->type == PI2_JINJA_STRING)
        return pi2_jinja_attribute(call, value, key->as.string, out);
    *out = pi2_jinja_undefined_of(value, PI2_JINJA_NO_ATTRIBUTE, pi2_jinja_own_string("the item that was asked for"));
    if (key->type != PI2_JINJA_INTEGER && key->type != PI2_JINJA_BOOLEAN) return PI2_OK;
    int64_t index = key->type == PI2_JINJA_BOOLEAN ? key->as.boolean : key->as.integer;
    *out = pi2_jinja_undefined_element(value, index);
    if (value->type == PI2_JINJA_STRING) character_at(call, value->as.string, index, out);
    if (value->type != PI2_JINJA_LIST) return PI2_OK;
    if (!pi2_jinja_is_sequence(value->as.list) && value->as.list->kind != PI2_JINJA_RANGE) return PI2_OK;
    const int64_t count = (int64_t)value->as.list->count;
    if (index < 0) index += count;
    if (index >= 0 && index < count) *out = value->as.list->items[index];
    return PI2_OK;
}

/** Python's slice.indices(): visits start, start + step ... while before (after) stop. */
static pi2_status slice_bounds(const pi2_jinja_call *call, const pi2_jinja_value given[3],
                               int64_t count, int64_t *start, int64_t *stop, int64_t *step) {
    int64_t bounds[3] = {0, 0, 1};
    bool has[3];
    for (size_t i = 0; i < 3; i++) {
        has[i] = given[i].type != PI2_JINJA_NONE;
        if (has[i]) PI2_TRY(pi2_jinja_want_integer(call, &given[i], &bounds[i]));
    }
    *step = bounds[2];
    if (*step == 0) return pi2_jinja_fail(call, "slice step cannot be zero");
    const int64_t lowest = *step < 0 ? -1 : 0, highest = *step < 0 ? count - 1 : count;
    int64_t edges[2] = {*step < 0 ? highest : lowest, *step < 0 ? lowest : highest};
    for (size_t i = 0; i < 2; i++) {
        if (!has[i]) continue;
        int64_t edge = bounds[i];
        if (edge < 0) edge = edge < -count ? lowest : edge + count;
        edges[i] = edge < lowest ? lowest : edge > highest ? highest : edge;
    }
    *start = edges[0];
    *stop = edges[1];
    return PI2_OK;
}

/** The step to the next index, or past the end when it would pass INT64's range. */
static int64_t advance(int64_t at, int64_t step, int64_t stop) {
    if (step > 0 && step > stop - at) return stop;
    if (step < 0 && step < stop - at) return stop;
    return at + step;
}

static pi2_status slice_string(pi2_jinja_call *call, pi2_jinja_string string,
                               const pi2_jinja_value bounds[3], pi2_jinja_value *out) {
    pi2_jinja_arena *arena = call->run->arena;
    int64_t start, stop, step;
    const size_t count = pi2_jinja_character_count(arena, string);
    PI2_TRY(slice_bounds(call, bounds, (int64_t)count, &start, &stop, &step));
    if (step == 1) {
        int32_t code_point;
        size_t at = 0, from = 0;
        for (int64_t i = 0; i < stop; i++) {
            if (i == start) from = at;
            at += pi2_jinja_character(string, at, &code_point);
        }
        *out = pi2_jinja_of_string(
            start < stop ? pi2_jinja_part(string, from, at - from) : pi2_jinja_part(string, 0, 0));
        return PI2_OK;
    }
    pi2_jinja_list *characters;
    pi2_jinja_text text = {.arena = arena};
    PI2_TRY(characters_of(call, string, &characters));
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i = advance(i, step, stop))
        PI2_TRY(pi2_jinja_text_add(&text, characters->items[i].as.string));
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    out->as.string.markup = string.markup;
    return PI2_OK;
}

pi2_status pi2_jinja_slice(pi2_jinja_call *call, const pi2_jinja_value *value,
                           const pi2_jinja_value bounds[3], pi2_jinja_value *out) {
    int64_t start, stop, step;
    if (value->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, value);
    if (value->type == PI2_JINJA_STRING)
        return slice_string(call, value->as.string, bounds, out);
    if (value->type == PI2_JINJA_DICT) return pi2_jinja_fail(call, "unhashable type: 'slice'");
    if (value->type != PI2_JINJA_LIST ||
        (!pi2_jinja_is_sequence(value->as.list) && value->as.list->kind != PI2_JINJA_RANGE))
        return pi2_jinja_fail(call, "'%s' object is not subscriptable", pi2_jinja_python_type(value));
    const pi2_jinja_list *list = value->as.list;
    PI2_TRY(slice_bounds(call, bounds, (int64_t)list->count, &start, &stop, &step));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, 0, list->kind, out));
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i = advance(i, step, stop))
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, list->items[i]));
    return PI2_OK;
}

/* ---- arithmetic ---- */

static bool add_fits(int64_t a, int64_t b, int64_t *out) {
    if (b >= 0 ? a > INT64_MAX - b : a < INT64_MIN - b) return false;
    *out = a + b;
    return true;
}

static bool multiply_fits(int64_t a, int64_t b, int64_t *out) {
    if (a == 0 || b == 0) {
        *out = 0;
        return true;
    }
    if (a == INT64_MIN || b == INT64_MIN) return false; /* rare; refused rather than exact */
    const int64_t x = a < 0 ? -a : a, y = b < 0 ? -b : b;
    if (x > INT64_MAX / y) return false;
    *out = a * b;
    return true;
}

static bool power_fits(int64_t base, int64_t exponent, int64_t *out) {
    *out = 1;
    if (exponent > 64 && base != 0 && base != 1 && base != -1) return false;
    if (base == -1) exponent &= 1;
    if (base == 0 || base == 1) exponent = exponent > 0;
    for (; exponent > 0; exponent--)
        if (!multiply_fits(*out, base, out)) return false;
    return true;
}

static pi2_status integer_arithmetic(pi2_jinja_call *call, pi2_jinja_string op, int64_t a,
                                     int64_t b, pi2_jinja_value *out) {
    int64_t result = 0;
    bool fits = true;
    if (pi2_jinja_is(op, "+")) fits = add_fits(a, b, &result);
    else if (pi2_jinja_is(op, "-")) fits = b != INT64_MIN && add_fits(a, -b, &result);
    else if (pi2_jinja_is(op, "*")) fits = multiply_fits(a, b, &result);
    else if (pi2_jinja_is(op, "**")) fits = power_fits(a, b, &result);
    else if (b == 0)
        return pi2_jinja_fail(call, "integer %s by zero", pi2_jinja_is(op, "%") ? "modulo" : "division or modulo");
    else if (a == INT64_MIN && b == -1) fits = false;
    else { /* // and %: Python rounds down, and the remainder has the divisor's sign */
        int64_t quotient = a / b, remainder = a % b;
        if (remainder != 0 && (remainder < 0) != (b < 0)) {
            quotient--;
            remainder += b;
        }
        result = pi2_jinja_is(op, "%") ? remainder : quotient;
    }
    if (!fits) return pi2_jinja_refuse(call, "an integer above 64 bits");
    *out = pi2_jinja_integer(result);
    return PI2_OK;
}

/** Python's // and %: rounded down, and the remainder has the divisor's sign. */
static double floor_division(double a, double b, bool remainder) {
    double rest = fmod(a, b), quotient = (a - rest) / b;
    if (rest < 0.0 || rest > 0.0) {
        if ((rest < 0.0) != (b < 0.0)) {
            rest += b;
            quotient -= 1.0;
        }
    } else {
        rest = copysign(0.0, b);
    }
    if (remainder) return rest;
    if (!(quotient < 0.0 || quotient > 0.0)) return copysign(0.0, a / b);
    const double whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1.0 : whole;
}

static pi2_status float_power(pi2_jinja_call *call, double a, double b, pi2_jinja_value *out) {
    if (!(a < 0.0 || a > 0.0) && b < 0.0)
        return pi2_jinja_fail(call, "0.0 cannot be raised to a negative power");
    if (a < 0.0 && floor(b) < b) return pi2_jinja_refuse(call, "a complex number");
    const double power = pow(a, b);
    if (isinf(power) && !isinf(a) && !isinf(b)) return pi2_jinja_fail(call, "(34, 'Numerical result out of range')");
    *out = pi2_jinja_float(power);
    return PI2_OK;
}

static pi2_status float_arithmetic(pi2_jinja_call *call, pi2_jinja_string op, double a, double b,
                                   pi2_jinja_value *out) {
    if (pi2_jinja_is(op, "+")) *out = pi2_jinja_float(a + b);
    else if (pi2_jinja_is(op, "-")) *out = pi2_jinja_float(a - b);
    else if (pi2_jinja_is(op, "*")) *out = pi2_jinja_float(a * b);
    else if (pi2_jinja_is(op, "**")) return float_power(call, a, b, out);
    else if (!(b < 0.0 || b > 0.0) && b == b) return pi2_jinja_fail(call, "division by zero");
    else if (pi2_jinja_is(op, "/")) *out = pi2_jinja_float(a / b);
    else *out = pi2_jinja_float(floor_division(a, b, pi2_jinja_is(op, "%")));
    return PI2_OK;
}

static pi2_status add_strings(pi2_jinja_call *call, pi2_jinja_string a, pi2_jinja_string b, pi2_jinja_value *out) {
    pi2_jinja_text text = {.arena = call->run->arena};
    const bool markup = a.markup || b.markup;
    if (markup) PI2_TRY(pi2_jinja_escape(call, a, &a));
    if (markup) PI2_TRY(pi2_jinja_escape(call, b, &b));
    PI2_TRY(pi2_jinja_text_add(&text, a));
    PI2_TRY(pi2_jinja_text_add(&text, b));
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    out->as.string.markup = markup;
    return PI2_OK;
}

static pi2_status add_lists(pi2_jinja_call *call, const pi2_jinja_list *a, const pi2_jinja_list *b,
                            pi2_jinja_value *out) {
    PI2_TRY(pi2_jinja_list_new(call->run->arena, a->count + b->count, a->kind, out));
    for (size_t i = 0; i < a->count; i++)
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, a->items[i]));
    for (size_t i = 0; i < b->count; i++)
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, b->items[i]));
    return PI2_OK;
}

/** string * integer and list * integer. */
static pi2_status repeat(pi2_jinja_call *call, const pi2_jinja_value *value, int64_t times,
                         pi2_jinja_value *out) {
    pi2_jinja_arena *arena = call->run->arena;
    pi2_jinja_text text = {.arena = arena};
    const bool is_string = value->type == PI2_JINJA_STRING;
    const size_t size = is_string ? value->as.string.length : value->as.list->count;
    if (!is_string) PI2_TRY(pi2_jinja_list_new(arena, 0, value->as.list->kind, out));
    for (int64_t i = 0; size > 0 && i < times; i++) {
        PI2_TRY(pi2_jinja_step(call->run, call->node)); /* times comes from the template */
        call->run->depth--;
        if (is_string) PI2_TRY(pi2_jinja_text_add(&text, value->as.string));
        for (size_t j = 0; !is_string && j < size; j++)
            PI2_TRY(pi2_jinja_list_add(arena, out->as.list, value->as.list->items[j]));
    }
    if (is_string) *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    if (is_string) out->as.string.markup = value->as.string.markup;
    return PI2_OK;
}

static bool is_integer(const pi2_jinja_value *value) {
    return value->type == PI2_JINJA_INTEGER || value->type == PI2_JINJA_BOOLEAN;
}

static int64_t integer_of(const pi2_jinja_value *value) {
    return value->type == PI2_JINJA_BOOLEAN ? value->as.boolean : value->as.integer;
}

static bool repeats(const pi2_jinja_value *value, const pi2_jinja_value *times) {
    return is_integer(times) &&
           (value->type == PI2_JINJA_STRING ||
            (value->type == PI2_JINJA_LIST && pi2_jinja_is_sequence(value->as.list)));
}

/** What Python says of operands that have no result. */
static pi2_status fail_operands(const pi2_jinja_call *call, pi2_jinja_string op, const pi2_jinja_value *a,
                                const pi2_jinja_value *b) {
    const bool is_sequence =
        a->type == PI2_JINJA_STRING || (a->type == PI2_JINJA_LIST && pi2_jinja_is_sequence(a->as.list));
    const char *left = pi2_jinja_python_type(a), *right = pi2_jinja_python_type(b);
    if (pi2_jinja_is(op, "+") && is_sequence)
        return pi2_jinja_fail(call, "can only concatenate %s (not \"%s\") to %s", left, right, left);
    if (pi2_jinja_is(op, "*") && is_sequence)
        return pi2_jinja_fail(call, "can't multiply sequence by non-int of type '%s'", right);
    if (pi2_jinja_is(op, "*") &&
        (b->type == PI2_JINJA_STRING || (b->type == PI2_JINJA_LIST && pi2_jinja_is_sequence(b->as.list))))
        return pi2_jinja_fail(call, "can't multiply sequence by non-int of type '%s'", left);
    return pi2_jinja_fail(call, "unsupported operand type(s) for %.*s%s: '%s' and '%s'", PI2_JINJA_SHOWN(op),
                          pi2_jinja_is(op, "**") ? " or pow()" : "", left, right);
}

pi2_status pi2_jinja_arithmetic(pi2_jinja_call *call, pi2_jinja_string op,
                                const pi2_jinja_value *a, const pi2_jinja_value *b,
                                pi2_jinja_value *out) {
    if (pi2_jinja_is(op, "%") && a->type == PI2_JINJA_STRING)
        return pi2_jinja_refuse(call, "the operator %% on a string");
    if (a->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, a);
    if (b->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, b);
    const bool adds = pi2_jinja_is(op, "+"), multiplies = pi2_jinja_is(op, "*");
    if (adds && a->type == PI2_JINJA_STRING && b->type == PI2_JINJA_STRING)
        return add_strings(call, a->as.string, b->as.string, out);
    if (adds && a->type == PI2_JINJA_LIST && b->type == PI2_JINJA_LIST &&
        a->as.list->kind == b->as.list->kind && pi2_jinja_is_sequence(a->as.list))
        return add_lists(call, a->as.list, b->as.list, out);
    if (multiplies && repeats(a, b)) return repeat(call, a, integer_of(b), out);
    if (multiplies && repeats(b, a)) return repeat(call, b, integer_of(a), out);
    if (!pi2_jinja_is_number(a) || !pi2_jinja_is_number(b))
        return fail_operands(call, op, a, b);
    const bool whole = is_integer(a) && is_integer(b) && !pi2_jinja_is(op, "/") &&
                       !(pi2_jinja_is(op, "**") && integer_of(b) < 0);
    if (whole) return integer_arithmetic(call, op, integer_of(a), integer_of(b), out);
    return float_arithmetic(call, op, pi2_jinja_as_double(a), pi2_jinja_as_double(b), out);
}

/* ---- comparison ---- */

void pi2_jinja_skip(pi2_jinja_list *once, size_t count) {
    if (count > 0) once->items += count;
    once->count -= count;
    once->capacity -= count;
}

pi2_status pi2_jinja_contains(const pi2_jinja_call *call, const pi2_jinja_value *whole,
                              const pi2_jinja_value *part, bool *out) {
    pi2_jinja_arena *arena = call->run->arena;
    *out = false;
    switch (whole->type) {
    case PI2_JINJA_STRING:
        if (part->type != PI2_JINJA_STRING)
            return pi2_jinja_fail(call, "'in <string>' requires string as left operand, not %s",
                                  pi2_jinja_python_type(part));
        *out = pi2_jinja_find(arena, whole->as.string, part->as.string, 0) != SIZE_MAX;
        return PI2_OK;
    case PI2_JINJA_LIST: {
        pi2_jinja_list *list = whole->as.list;
        size_t seen = 0;
        while (seen < list->count && !*out) *out = pi2_jinja_equal(arena, &list->items[seen++], part);
        if (pi2_jinja_is_once(list)) pi2_jinja_skip(list, seen);
        return PI2_OK;
    }
    case PI2_JINJA_DICT:
        PI2_TRY(pi2_jinja_want_key(call, part));
        *out = pi2_jinja_dict_find(arena, whole->as.dict, part) != NULL;
        return PI2_OK;
    case PI2_JINJA_UNDEFINED: return PI2_OK;
    default:
        return pi2_jinja_fail(call, "argument of type '%s' is not iterable", pi2_jinja_python_type(whole));
    }
}

pi2_status pi2_jinja_compare(const pi2_jinja_call *call, pi2_jinja_string op,
                             const pi2_jinja_value *a, const pi2_jinja_value *b, bool *out) {
    pi2_jinja_arena *arena = call->run->arena;
    if (pi2_jinja_is(op, "==") || pi2_jinja_is(op, "!=")) {
        *out = pi2_jinja_equal(arena, a, b) == pi2_jinja_is(op, "==");
        return PI2_OK;
    }
    if (pi2_jinja_is(op, "in")) return pi2_jinja_contains(call, b, a, out);
    if (pi2_jinja_is(op, "not in")) {
        PI2_TRY(pi2_jinja_contains(call, b, a, out));
        *out = !*out;
        return PI2_OK;
    }
    int order;
    if (a->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, a);
    if (b->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, b);
    if (!pi2_jinja_order(arena, a, b, &order))
        return pi2_jinja_fail(call, "'%.*s' not supported between instances of '%s' and '%s'", PI2_JINJA_SHOWN(op),
                              pi2_jinja_python_type(a), pi2_jinja_python_type(b));
    if (pi2_jinja_is(op, "<")) *out = order == -1;
    else if (pi2_jinja_is(op, "<=")) *out = order == -1 || order == 0;
    else if (pi2_jinja_is(op, ">")) *out = order == 1;
    else *out = order == 1 || order == 0;
    return PI2_OK;
}
