/* jinja_filters.c: filters over one value, and the table of all of them. */
#include "chat_template/jinja.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** The subject as text, whatever it is: what most text filters of jinja2 begin with. */
static pi2_status subject_text(pi2_jinja_call *call, pi2_jinja_string *out) {
    return pi2_jinja_to_string(call, &call->subject, out);
}

static pi2_status filter_trim(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_string string, set;
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "chars", 0, 1, &given, &has));
    PI2_TRY(subject_text(call, &string));
    const bool has_set = has != 0 && given.type != PI2_JINJA_NONE;
    if (has_set) PI2_TRY(pi2_jinja_want_string(call, &given, &set));
    *out = pi2_jinja_of_string(
        pi2_jinja_strip(call->run->arena, string, has_set ? &set : NULL, true, true));
    return PI2_OK;
}

static pi2_status change_case(pi2_jinja_call *call, pi2_jinja_letter_case to,
                              pi2_jinja_value *out) {
    pi2_jinja_string string;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    PI2_TRY(subject_text(call, &string));
    return pi2_jinja_change_case(call, string, to, out);
}

static pi2_status filter_upper(pi2_jinja_call *call, pi2_jinja_value *out) {
    return change_case(call, PI2_JINJA_UPPER, out);
}
static pi2_status filter_lower(pi2_jinja_call *call, pi2_jinja_value *out) {
    return change_case(call, PI2_JINJA_LOWER, out);
}
static pi2_status filter_title(pi2_jinja_call *call, pi2_jinja_value *out) {
    return change_case(call, PI2_JINJA_TITLE_FILTER, out);
}
static pi2_status filter_capitalize(pi2_jinja_call *call, pi2_jinja_value *out) {
    return change_case(call, PI2_JINJA_CAPITALIZE, out);
}

static pi2_status filter_replace(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[3];
    pi2_jinja_string string, old, new_text;
    int64_t most = -1;
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "old new count", 2, 3, given, &has));
    PI2_TRY(subject_text(call, &string));
    PI2_TRY(pi2_jinja_to_string(call, &given[0], &old));
    PI2_TRY(pi2_jinja_to_string(call, &given[1], &new_text));
    if ((has & 4u) != 0 && given[2].type != PI2_JINJA_NONE)
        PI2_TRY(pi2_jinja_want_integer(call, &given[2], &most));
    return pi2_jinja_replace(call, string, old, new_text, most, out);
}

static pi2_status filter_string(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_string string;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    PI2_TRY(subject_text(call, &string));
    *out = pi2_jinja_of_string(string);
    return PI2_OK;
}

/* What is printed is escaped nowhere, but what is added to such a string is. */
static pi2_status filter_safe(pi2_jinja_call *call, pi2_jinja_value *out) {
    PI2_TRY(filter_string(call, out));
    out->as.string.markup = true;
    return PI2_OK;
}

static pi2_status filter_escape(pi2_jinja_call *call, pi2_jinja_value *out) {
    PI2_TRY(filter_string(call, out));
    if (pi2_jinja_is(call->name, "forceescape")) out->as.string.markup = false;
    return pi2_jinja_escape(call, out->as.string, &out->as.string);
}

/** A number of spaces, or the text to indent with. */
static pi2_status indentation(pi2_jinja_call *call, const pi2_jinja_value *width, bool given,
                              pi2_jinja_string *out) {
    int64_t count = 4;
    if (given && width->type == PI2_JINJA_STRING) {
        *out = width->as.string;
        return PI2_OK;
    }
    if (given) PI2_TRY(pi2_jinja_want_integer(call, width, &count));
    if (count > 1000) return pi2_jinja_refuse(call, "an indent above 1000");
    pi2_jinja_text text = {.arena = call->run->arena};
    for (int64_t i = 0; i < count; i++) PI2_TRY(pi2_jinja_text_add_own(&text, " "));
    *out = pi2_jinja_text_string(&text);
    return PI2_OK;
}

static pi2_status filter_indent(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[3];
    pi2_jinja_string string, indent;
    pi2_jinja_list *lines;
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "width first blank", 0, 3, given, &has));
    if (call->subject.type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, &call->subject);
    if (call->subject.type == PI2_JINJA_LIST && call->subject.as.list->kind == PI2_JINJA_PLAIN_LIST)
        return pi2_jinja_fail(call, "'list' object has no attribute 'splitlines'");
    if (call->subject.type != PI2_JINJA_STRING)
        return pi2_jinja_fail(call, "unsupported operand type(s) for +=: '%s' and 'str'",
                              pi2_jinja_python_type(&call->subject));
    string = call->subject.as.string;
    PI2_TRY(indentation(call, &given[0], (has & 1u) != 0, &indent));
    const bool first = pi2_jinja_truth(&given[1]), blank = pi2_jinja_truth(&given[2]);
    pi2_jinja_text ended = {.arena = call->run->arena}, text = {.arena = call->run->arena};
    /* jinja2 adds a newline first, so that a newline at the end stays one. */
    PI2_TRY(pi2_jinja_text_add(&ended, string));
    PI2_TRY(pi2_jinja_text_add_own(&ended, "\n"));
    PI2_TRY(pi2_jinja_lines(call, pi2_jinja_text_string(&ended), &lines));
    if (first) PI2_TRY(pi2_jinja_text_add(&text, indent));
    for (size_t i = 0; i < lines->count; i++) {
        const pi2_jinja_string line = lines->items[i].as.string;
        if (i > 0) PI2_TRY(pi2_jinja_text_add_own(&text, "\n"));
        if (i > 0 && (blank || line.length > 0)) PI2_TRY(pi2_jinja_text_add(&text, indent));
        PI2_TRY(pi2_jinja_text_add(&text, line));
    }
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    out->as.string.markup = string.markup;
    return PI2_OK;
}

/* ---- numbers ---- */

/** Reads a string as Python's int() or float() would; false when it is no number. */
static bool parse_number(pi2_jinja_string string, bool *whole, int64_t *integer, double *number) {
    char text[64];
    if (string.length == 0 || string.length >= sizeof text) return false;
    *whole = true;
    size_t digits = 0;
    for (size_t i = 0; i < string.length; i++) {
        const char c = string.bytes[i];
        const bool digit = c >= '0' && c <= '9';
        if (!digit && strchr("+-.eE", c) == NULL) return false;
        if (!digit && (i > 0 || (c != '+' && c != '-'))) *whole = false;
        digits += digit;
        text[i] = c;
    }
    text[string.length] = '\0';
    if (digits == 0 || (*whole && digits > 18)) return false;
    char *end = NULL;
    if (*whole) *integer = strtoll(text, &end, 10);
    else *number = strtod(text, &end);
    return end == text + string.length;
}

static pi2_status fail_if_undefined(const pi2_jinja_call *call) {
    if (call->subject.type != PI2_JINJA_UNDEFINED) return PI2_OK;
    return pi2_jinja_fail_undefined(call, &call->subject);
}

static pi2_status filter_int(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[1];
    unsigned has;
    const pi2_jinja_value *value = &call->subject;
    PI2_TRY(pi2_jinja_arguments(call, "default", 0, 1, given, &has));
    PI2_TRY(fail_if_undefined(call));
    const pi2_jinja_value missing = has != 0 ? given[0] : pi2_jinja_integer(0);
    bool whole = false;
    int64_t integer = 0;
    double number = NAN;
    if (value->type == PI2_JINJA_STRING) {
        const pi2_jinja_string text =
            pi2_jinja_strip(call->run->arena, value->as.string, NULL, true, true);
        if (!parse_number(text, &whole, &integer, &number)) {
            *out = missing;
            return PI2_OK;
        }
    } else if (value->type == PI2_JINJA_FLOAT) {
        number = value->as.number;
    } else if (pi2_jinja_is_number(value)) {
        whole = true;
        PI2_TRY(pi2_jinja_want_integer(call, value, &integer));
    }
    *out = missing;
    if (whole) *out = pi2_jinja_integer(integer);
    else if (number > -9e18 && number < 9e18) *out = pi2_jinja_integer((int64_t)number);
    return PI2_OK;
}

static pi2_status filter_float(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[1];
    unsigned has;
    const pi2_jinja_value *value = &call->subject;
    PI2_TRY(pi2_jinja_arguments(call, "default", 0, 1, given, &has));
    PI2_TRY(fail_if_undefined(call));
    *out = has != 0 ? given[0] : pi2_jinja_float(0.0);
    if (pi2_jinja_is_number(value)) *out = pi2_jinja_float(pi2_jinja_as_double(value));
    if (value->type != PI2_JINJA_STRING) return PI2_OK;
    const pi2_jinja_string text =
        pi2_jinja_strip(call->run->arena, value->as.string, NULL, true, true);
    bool whole;
    int64_t integer;
    double number;
    if (parse_number(text, &whole, &integer, &number))
        *out = pi2_jinja_float(whole ? (double)integer : number);
    return PI2_OK;
}

static pi2_status filter_abs(pi2_jinja_call *call, pi2_jinja_value *out) {
    const pi2_jinja_value *value = &call->subject;
    int64_t integer;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    if (value->type == PI2_JINJA_FLOAT) {
        *out = pi2_jinja_float(fabs(value->as.number));
        return PI2_OK;
    }
    if (value->type == PI2_JINJA_UNDEFINED) return pi2_jinja_fail_undefined(call, value);
    if (!pi2_jinja_is_number(value))
        return pi2_jinja_fail(call, "bad operand type for abs(): '%s'", pi2_jinja_python_type(value));
    PI2_TRY(pi2_jinja_want_integer(call, value, &integer));
    if (integer == INT64_MIN) return pi2_jinja_refuse(call, "an integer above 64 bits");
    *out = pi2_jinja_integer(integer < 0 ? -integer : integer);
    return PI2_OK;
}

/** Python's round(): to the nearest, of two as near the even one, decided by the exact value. */
static double round_to(double number, int64_t digits) {
    char text[400];
    if (!isfinite(number) || digits > 22) return number;
    if (digits < 0) {
        const double scale = pow(10.0, (double)-digits);
        return nearbyint(number / scale) * scale;
    }
    (void)snprintf(text, sizeof text, "%.*f", (int)digits, number);
    return strtod(text, NULL);
}

static pi2_status filter_round(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[2];
    pi2_jinja_string method = pi2_jinja_own_string("common");
    int64_t digits = 0;
    unsigned has;
    const pi2_jinja_value *value = &call->subject;
    PI2_TRY(pi2_jinja_arguments(call, "precision method", 0, 2, given, &has));
    if (has & 1u) PI2_TRY(pi2_jinja_want_integer(call, &given[0], &digits));
    if (has & 2u) PI2_TRY(pi2_jinja_want_string(call, &given[1], &method));
    const bool up = pi2_jinja_is(method, "ceil"), down = pi2_jinja_is(method, "floor");
    if (!up && !down && !pi2_jinja_is(method, "common"))
        return pi2_jinja_fail(call, "method must be common, ceil or floor");
    if (digits < -300 || digits > 300) return pi2_jinja_refuse(call, "a precision above 300");
    if (!pi2_jinja_is_number(value))
        return pi2_jinja_fail(call, "type %s doesn't define __round__ method", pi2_jinja_python_type(value));
    const double number = pi2_jinja_as_double(value), scale = pow(10.0, (double)digits);
    *out = *value;
    if (up || down) *out = pi2_jinja_float((up ? ceil(number * scale) : floor(number * scale)) / scale);
    else if (value->type == PI2_JINJA_FLOAT) *out = pi2_jinja_float(round_to(number, digits));
    else if (digits < 0) return pi2_jinja_refuse(call, "a precision below 0 of an integer");
    else if (value->type == PI2_JINJA_BOOLEAN) *out = pi2_jinja_integer(value->as.boolean);
    return PI2_OK;
}

/* ---- any value ---- */

static pi2_status filter_default(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[2];
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "default_value boolean", 0, 2, given, &has));
    const bool replaced =
        call->subject.type == PI2_JINJA_UNDEFINED ||
        (pi2_jinja_truth(&given[1]) && !pi2_jinja_truth(&call->subject));
    *out = call->subject;
    if (replaced)
        *out = (has & 1u) != 0 ? given[0] : pi2_jinja_of_string(pi2_jinja_own_string(""));
    return PI2_OK;
}

static pi2_status filter_length(pi2_jinja_call *call, pi2_jinja_value *out) {
    const pi2_jinja_value *value = &call->subject;
    size_t count = 0;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    if (value->type == PI2_JINJA_STRING)
        count = pi2_jinja_character_count(call->run->arena, value->as.string);
    else if (value->type == PI2_JINJA_LIST && !pi2_jinja_is_once(value->as.list)) count = value->as.list->count;
    else if (value->type == PI2_JINJA_DICT) count = value->as.dict->count;
    else if (value->type == PI2_JINJA_LOOP) count = value->as.loop->items->count;
    else if (value->type != PI2_JINJA_UNDEFINED)
        return pi2_jinja_fail(call, "object of type '%s' has no len()", pi2_jinja_python_type(value));
    *out = pi2_jinja_integer((int64_t)count);
    return PI2_OK;
}

static const pi2_jinja_builtin value_filters[] = {
    {"trim", filter_trim},
    {"upper", filter_upper},
    {"lower", filter_lower},
    {"title", filter_title},
    {"capitalize", filter_capitalize},
    {"replace", filter_replace},
    {"string", filter_string},
    {"safe", filter_safe},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"forceescape", filter_escape},
    {"indent", filter_indent},
    {"tojson", pi2_jinja_tojson},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"round", filter_round},
    {"default", filter_default},
    {"d", filter_default},
    {"length", filter_length},
    {"count", filter_length},
    {NULL, NULL},
};

/* Those of jinja2 that we do not have. */
static const char *const other_filters[] = {
    "attr", "batch", "center", "filesizeformat", "format", "groupby", "pprint", "random",
    "slice", "striptags", "truncate", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr"};

pi2_status pi2_jinja_apply_filter(pi2_jinja_call *call, pi2_jinja_value *out) {
    const pi2_jinja_builtin *const tables[] = {value_filters, pi2_jinja_list_filters};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        for (const pi2_jinja_builtin *filter = tables[i]; filter->name != NULL; filter++)
            if (pi2_jinja_is(call->name, filter->name)) return filter->run(call, out);
    for (size_t i = 0; i < sizeof other_filters / sizeof other_filters[0]; i++)
        if (pi2_jinja_is(call->name, other_filters[i]))
            return pi2_jinja_refuse(call, "filter '%.*s'", PI2_JINJA_SHOWN(call->name));
    return pi2_jinja_fail(call, "No filter named '%.*s' found. (In a chat: use 'run --raw' or 'run --chat-template "
                          "NAME')", PI2_JINJA_SHOWN(call->name));
}
