/* jinja_tests.c: what stands after `is`. */
#include "chat_template/jinja.h"

#include <utf8proc.h>

/** One of type_tests. */
static bool is_type(const pi2_jinja_value *value, pi2_jinja_string test) {
    const pi2_jinja_type type = value->type;
    if (pi2_jinja_is(test, "defined")) return type != PI2_JINJA_UNDEFINED;
    if (pi2_jinja_is(test, "undefined")) return type == PI2_JINJA_UNDEFINED;
    if (pi2_jinja_is(test, "none")) return type == PI2_JINJA_NONE;
    if (pi2_jinja_is(test, "string")) return type == PI2_JINJA_STRING;
    if (pi2_jinja_is(test, "escaped")) return type == PI2_JINJA_STRING && value->as.string.markup;
    if (pi2_jinja_is(test, "mapping")) return type == PI2_JINJA_DICT;
    if (pi2_jinja_is(test, "boolean")) return type == PI2_JINJA_BOOLEAN;
    if (pi2_jinja_is(test, "true")) return type == PI2_JINJA_BOOLEAN && value->as.boolean;
    if (pi2_jinja_is(test, "false")) return type == PI2_JINJA_BOOLEAN && !value->as.boolean;
    if (pi2_jinja_is(test, "integer")) return type == PI2_JINJA_INTEGER;
    if (pi2_jinja_is(test, "float")) return type == PI2_JINJA_FLOAT;
    if (pi2_jinja_is(test, "number")) return pi2_jinja_is_number(value);
    /* In Python an undefined value of jinja2 can be visited and measured: it is empty. */
    const bool items = type == PI2_JINJA_STRING || type == PI2_JINJA_LIST ||
                       type == PI2_JINJA_DICT || type == PI2_JINJA_UNDEFINED;
    const bool numbered = type != PI2_JINJA_LIST || pi2_jinja_is_sequence(value->as.list) ||
                          value->as.list->kind == PI2_JINJA_RANGE;
    if (pi2_jinja_is(test, "sequence")) return items && numbered;
    if (pi2_jinja_is(test, "iterable")) return items || type == PI2_JINJA_LOOP;
    return type == PI2_JINJA_MACRO || type == PI2_JINJA_FUNCTION || /* callable */
           type == PI2_JINJA_METHOD || type == PI2_JINJA_UNDEFINED;
}

static const char *const type_tests[] = {
    "defined", "undefined", "none", "string", "mapping", "boolean", "true", "false", "integer",
    "float", "number", "sequence", "iterable", "callable", "escaped",
};

/* Names of comparisons and the operators that they stand for. */
static const char *const comparisons[][2] = {
    {"eq", "=="}, {"equalto", "=="}, {"==", "=="}, {"ne", "!="}, {"!=", "!="},
    {"lt", "<"}, {"lessthan", "<"}, {"<", "<"}, {"le", "<="}, {"<=", "<="},
    {"gt", ">"}, {"greaterthan", ">"}, {">", ">"}, {"ge", ">="}, {">=", ">="}, {"in", "in"},
};

/** odd, even, divisibleby: the remainder by a divisor. */
static pi2_status test_remainder(pi2_jinja_call *call, int64_t divisor, int64_t wanted, bool *out) {
    int64_t integer;
    const pi2_jinja_value *subject = &call->subject;
    if (subject->type == PI2_JINJA_FLOAT)
        return pi2_jinja_refuse(call, "'%.*s' of a float", PI2_JINJA_SHOWN(call->name));
    if (subject->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, subject);
    if (subject->type == PI2_JINJA_STRING) /* Python takes % for the formatting of text */
        return pi2_jinja_fail(call, "not all arguments converted during string formatting");
    if (!pi2_jinja_is_number(subject))
        return pi2_jinja_fail(call, "unsupported operand type(s) for %%: '%s' and 'int'",
                              pi2_jinja_python_type(subject));
    PI2_TRY(pi2_jinja_want_integer(call, subject, &integer));
    if (divisor == 0) return pi2_jinja_fail(call, "division by zero");
    const int64_t remainder = divisor == -1 ? 0 : integer % divisor;
    *out = (remainder < 0 ? -remainder : remainder) == wanted;
    return PI2_OK;
}

/** Python's islower and isupper: a letter is there, and none is of the other case. */
static pi2_status test_case(pi2_jinja_call *call, bool upper, bool *out) {
    pi2_jinja_string string;
    bool found = false, other = false;
    PI2_TRY(pi2_jinja_to_string(call, &call->subject, &string));
    for (size_t at = 0; at < string.length;) {
        int32_t code_point;
        at += pi2_jinja_character(string, at, &code_point);
        if (code_point < 0) continue;
        const utf8proc_category_t category = utf8proc_category(code_point);
        const bool is_upper = category == UTF8PROC_CATEGORY_LU;
        const bool is_lower = category == UTF8PROC_CATEGORY_LL;
        found = found || (upper ? is_upper : is_lower);
        other = other || (upper ? is_lower : is_upper) || category == UTF8PROC_CATEGORY_LT;
    }
    pi2_jinja_charge(call->run->arena, string.length / 64);
    *out = found && !other;
    return PI2_OK;
}

/** Python's `is`: clear for none and booleans; of other values it depends on the interpreter. */
static pi2_status test_same(pi2_jinja_call *call, const pi2_jinja_value *other, bool *out) {
    const pi2_jinja_value *value = &call->subject;
    const bool clear = other->type == PI2_JINJA_NONE || other->type == PI2_JINJA_BOOLEAN ||
                       value->type == PI2_JINJA_NONE || value->type == PI2_JINJA_BOOLEAN;
    if (!clear) return pi2_jinja_refuse(call, "sameas of anything but none and booleans");
    *out = value->type == other->type && pi2_jinja_equal(call->run->arena, value, other);
    return PI2_OK;
}

pi2_status pi2_jinja_apply_test(pi2_jinja_call *call, bool *out) {
    pi2_jinja_value given;
    for (size_t i = 0; i < sizeof type_tests / sizeof type_tests[0]; i++) {
        if (!pi2_jinja_is(call->name, type_tests[i])) continue;
        PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
        *out = is_type(&call->subject, call->name);
        return PI2_OK;
    }
    for (size_t i = 0; i < sizeof comparisons / sizeof comparisons[0]; i++) {
        if (!pi2_jinja_is(call->name, comparisons[i][0])) continue;
        PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
        return pi2_jinja_compare(call, pi2_jinja_own_string(comparisons[i][1]), &call->subject,
                                 &given, out);
    }
    if (pi2_jinja_is(call->name, "divisibleby") || pi2_jinja_is(call->name, "sameas")) {
        int64_t divisor;
        PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
        if (pi2_jinja_is(call->name, "sameas")) return test_same(call, &given, out);
        PI2_TRY(pi2_jinja_want_integer(call, &given, &divisor));
        return test_remainder(call, divisor, 0, out);
    }
    const bool odd = pi2_jinja_is(call->name, "odd"), even = pi2_jinja_is(call->name, "even");
    const bool upper = pi2_jinja_is(call->name, "upper");
    if (odd || even || upper || pi2_jinja_is(call->name, "lower")) {
        PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
        return odd || even ? test_remainder(call, 2, odd, out) : test_case(call, upper, out);
    }
    if (pi2_jinja_is(call->name, "filter") || pi2_jinja_is(call->name, "test"))
        return pi2_jinja_refuse(call, "test '%.*s'", PI2_JINJA_SHOWN(call->name));
    return pi2_jinja_fail(call, "No test named '%.*s' found.", PI2_JINJA_SHOWN(call->name));
}
