/* jinja_print.c: Python's str(), repr() and json.dumps() of a value; every byte keeps its origin. */
#include "chat_template/jinja.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

enum { PRINT_DEPTH = 100 };

/* What tojson was asked for, and the state of printing. */
typedef struct printer {
    pi2_jinja_call *call;
    pi2_jinja_text *text;
    bool json, ascii, sort_keys;
    bool indented;
    pi2_jinja_string indent, item_separator, key_separator;
    int depth;
} printer;

static pi2_status print_nested(printer *print, const pi2_jinja_value *value);

static pi2_status add(printer *print, const char *bytes) {
    return pi2_jinja_text_add_own(print->text, bytes);
}

static pi2_status add_integer(pi2_jinja_text *text, int64_t integer) {
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%lld", (long long)integer);
    return pi2_jinja_text_add_bytes(text, digits, (size_t)length, true);
}

/** Python's repr: the fewest digits that give the same number, exponent below -4 and from 16. */
static pi2_status add_float(pi2_jinja_text *text, double number, bool json) {
    if (isnan(number)) return pi2_jinja_text_add_own(text, json ? "NaN" : "nan");
    if (isinf(number)) {
        if (number < 0) PI2_TRY(pi2_jinja_text_add_own(text, "-"));
        return pi2_jinja_text_add_own(text, json ? "Infinity" : "inf");
    }
    char scientific[40], digits[20], out[64];
    for (int precision = 0; precision < 17; precision++) {
        (void)snprintf(scientific, sizeof scientific, "%.*e", precision, number);
        if (strtod(scientific, NULL) == number) break;
    }
    const char *at = scientific;
    const bool negative = *at == '-';
    int count = 0, exponent;
    for (at += negative; *at != 'e'; at++) /* the point may be a comma in this locale */
        if (*at >= '0' && *at <= '9') digits[count++] = *at;
    exponent = (int)strtol(at + 1, NULL, 10);
    digits[count] = '\0';
    const char *sign = negative ? "-" : "";
    if (exponent < -4 || exponent >= 16)
        (void)snprintf(out, sizeof out, "%s%c%s%se%c%02d", sign, digits[0], count > 1 ? "." : "",
                       digits + 1, exponent < 0 ? '-' : '+', abs(exponent));
    else if (exponent < 0)
        (void)snprintf(out, sizeof out, "%s0.%.*s%s", sign, -exponent - 1, "0000", digits);
    else if (count > exponent + 1)
        (void)snprintf(out, sizeof out, "%s%.*s.%s", sign, exponent + 1, digits,
                       digits + exponent + 1);
    else
        (void)snprintf(out, sizeof out, "%s%s%.*s.0", sign, digits, exponent + 1 - count,
                       "0000000000000000");
    return pi2_jinja_text_add_own(text, out);
}

/* ---- strings in quotes ---- */

static pi2_status add_escape(printer *print, int32_t code_point, bool trusted) {
    char out[16];
    if (print->json && code_point >= 0x10000) {
        const unsigned rest = (unsigned)code_point - 0x10000u;
        (void)snprintf(out, sizeof out, "\\u%04x\\u%04x", 0xd800u + (rest >> 10),
                       0xdc00u + (rest & 0x3ffu));
    } else if (print->json || (code_point >= 0x100 && code_point < 0x10000)) {
        (void)snprintf(out, sizeof out, "\\u%04x", (unsigned)code_point);
    } else {
        (void)snprintf(out, sizeof out, code_point < 0x100 ? "\\x%02x" : "\\U%08x",
                       (unsigned)code_point);
    }
    return pi2_jinja_text_add_bytes(print->text, out, strlen(out), trusted);
}

/** The letter after the backslash for a character that has a short escape; 0 when it has none. */
static char short_escape(const printer *print, int32_t code_point, char quote) {
    switch (code_point) {
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    case '\\': return '\\';
    case '\b': return print->json ? 'b' : (char)0;
    case '\f': return print->json ? 'f' : (char)0;
    default: return code_point == quote ? quote : (char)0;
    }
}

/** Does Python's repr show this character as it is? */
static bool is_printable(int32_t code_point) {
    if (code_point < 0x7f) return code_point >= 0x20;
    switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

static bool needs_escape(const printer *print, int32_t code_point) {
    if (print->json) return code_point < 0x20 || (print->ascii && code_point >= 0x7f);
    return !is_printable(code_point);
}

static pi2_status add_quoted(printer *print, pi2_jinja_string string) {
    char quote = '"';
    if (!print->json) {
        const pi2_jinja_string single = pi2_jinja_own_string("'"), pair = pi2_jinja_own_string("\"");
        pi2_jinja_arena *arena = print->call->run->arena;
        const bool has_single = pi2_jinja_find(arena, string, single, 0) != SIZE_MAX;
        const bool has_pair = pi2_jinja_find(arena, string, pair, 0) != SIZE_MAX;
        quote = has_single && !has_pair ? '"' : '\'';
    }
    PI2_TRY(pi2_jinja_text_add_bytes(print->text, &quote, 1, true));
    for (size_t at = 0; at < string.length;) {
        int32_t code_point;
        const size_t bytes = pi2_jinja_character(string, at, &code_point);
        const bool trusted = pi2_jinja_is_trusted(string, at);
        const char letter = code_point >= 0 ? short_escape(print, code_point, quote) : (char)0;
        if (letter != 0) {
            const char escape[2] = {'\\', letter};
            PI2_TRY(pi2_jinja_text_add_bytes(print->text, escape, 2, trusted));
        } else if (code_point >= 0 && needs_escape(print, code_point)) {
            PI2_TRY(add_escape(print, code_point, trusted));
        } else {
            PI2_TRY(pi2_jinja_text_add(print->text, pi2_jinja_part(string, at, bytes)));
        }
        at += bytes;
    }
    pi2_jinja_charge(print->call->run->arena, string.length / 16);
    return pi2_jinja_text_add_bytes(print->text, &quote, 1, true);
}

/* ---- lists and mappings ---- */

static pi2_status add_line_break(printer *print) {
    if (!print->indented) return PI2_OK;
    PI2_TRY(add(print, "\n"));
    for (int i = 0; i < print->depth; i++) PI2_TRY(pi2_jinja_text_add(print->text, print->indent));
    return PI2_OK;
}

static pi2_status print_list(printer *print, const pi2_jinja_list *list) {
    const bool round = list->kind == PI2_JINJA_TUPLE && !print->json;
    if (list->count == 0) return add(print, round ? "()" : "[]");
    PI2_TRY(add(print, round ? "(" : "["));
    print->depth++;
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0) PI2_TRY(pi2_jinja_text_add(print->text, print->item_separator));
        PI2_TRY(add_line_break(print));
        PI2_TRY(print_nested(print, &list->items[i]));
    }
    print->depth--;
    PI2_TRY(add_line_break(print));
    return add(print, round ? (list->count == 1 ? ",)" : ")") : "]");
}

/** A key as JSON has it: always a string. */
static pi2_status print_json_key(printer *print, const pi2_jinja_value *key) {
    if (key->type == PI2_JINJA_STRING) return add_quoted(print, key->as.string);
    PI2_TRY(add(print, "\""));
    PI2_TRY(print_nested(print, key));
    return add(print, "\"");
}

/** Entries in the order to print: that of insertion, or of the keys. */
static pi2_status ordered_entries(printer *print, const pi2_jinja_dict *dict,
                                  const pi2_jinja_entry ***order_out) {
    pi2_jinja_arena *arena = print->call->run->arena;
    const pi2_jinja_entry **order = pi2_jinja_alloc(arena, dict->count, sizeof *order);
    if (order == NULL) return pi2_jinja_no_memory(arena);
    for (size_t i = 0; i < dict->count; i++) {
        size_t at = i;
        for (; print->sort_keys && at > 0; at--) {
            int relation;
            if (!pi2_jinja_order(arena, &dict->entries[i].key, &order[at - 1]->key, &relation))
                return pi2_jinja_fail(print->call, "keys of different types cannot be sorted");
            if (relation != -1 || arena->work > PI2_JINJA_WORK) break; /* print_nested reports */
            order[at] = order[at - 1];
        }
        order[at] = &dict->entries[i];
    }
    *order_out = order;
    return PI2_OK;
}

static pi2_status print_dict(printer *print, const pi2_jinja_dict *dict) {
    const pi2_jinja_entry **order = NULL;
    if (dict->count == 0) return add(print, "{}");
    PI2_TRY(ordered_entries(print, dict, &order));
    PI2_TRY(add(print, "{"));
    print->depth++;
    for (size_t i = 0; i < dict->count; i++) {
        if (i > 0) PI2_TRY(pi2_jinja_text_add(print->text, print->item_separator));
        PI2_TRY(add_line_break(print));
        if (print->json) PI2_TRY(print_json_key(print, &order[i]->key));
        else PI2_TRY(print_nested(print, &order[i]->key));
        PI2_TRY(pi2_jinja_text_add(print->text, print->key_separator));
        PI2_TRY(print_nested(print, &order[i]->value));
    }
    print->depth--;
    PI2_TRY(add_line_break(print));
    return add(print, "}");
}

static pi2_status print_nested(printer *print, const pi2_jinja_value *value) {
    pi2_jinja_run *run = print->call->run;
    run->arena->work++;
    if (run->arena->work > PI2_JINJA_WORK || print->depth > PRINT_DEPTH)
        return pi2_jinja_fail(print->call, "it prints a value past the limit of %d levels or %d "
                                           "steps", PRINT_DEPTH, PI2_JINJA_WORK);
    switch (value->type) {
    case PI2_JINJA_NONE: return add(print, print->json ? "null" : "None");
    case PI2_JINJA_BOOLEAN:
        if (print->json) return add(print, value->as.boolean ? "true" : "false");
        return add(print, value->as.boolean ? "True" : "False");
    case PI2_JINJA_INTEGER: return add_integer(print->text, value->as.integer);
    case PI2_JINJA_FLOAT: return add_float(print->text, value->as.number, print->json);
    case PI2_JINJA_STRING:
        if (print->json || !value->as.string.markup) return add_quoted(print, value->as.string);
        PI2_TRY(add(print, "Markup("));
        PI2_TRY(add_quoted(print, value->as.string));
        return add(print, ")");
    case PI2_JINJA_LIST:
        if (pi2_jinja_is_sequence(value->as.list)) return print_list(print, value->as.list);
        if (print->json)
            return pi2_jinja_fail(print->call, "Object of type %s is not JSON serializable",
                                  pi2_jinja_python_type(value));
        if (value->as.list->kind < PI2_JINJA_DICT_ITEMS) break; /* Python prints an address, or a range's ends */
        PI2_TRY(add(print, pi2_jinja_python_type(value)));
        PI2_TRY(add(print, "("));
        PI2_TRY(print_list(print, value->as.list));
        return add(print, ")");
    case PI2_JINJA_DICT: return print_dict(print, value->as.dict);
    case PI2_JINJA_UNDEFINED:
        if (!print->json) return add(print, "Undefined");
        return pi2_jinja_fail(print->call, "Object of type Undefined is not JSON serializable");
    case PI2_JINJA_NAMESPACE:
    case PI2_JINJA_LOOP:
    case PI2_JINJA_MACRO:
    case PI2_JINJA_FUNCTION:
    case PI2_JINJA_METHOD: break;
    }
    return pi2_jinja_refuse(print->call, "printing %s", pi2_jinja_type_name(value));
}

pi2_status pi2_jinja_print(pi2_jinja_call *call, pi2_jinja_text *text,
                           const pi2_jinja_value *value) {
    if (value->type == PI2_JINJA_STRING) return pi2_jinja_text_add(text, value->as.string);
    if (value->type == PI2_JINJA_UNDEFINED) return PI2_OK;
    printer print = {.call = call, .text = text,
                     .item_separator = pi2_jinja_own_string(", "),
                     .key_separator = pi2_jinja_own_string(": ")};
    return print_nested(&print, value);
}

pi2_status pi2_jinja_to_string(pi2_jinja_call *call, const pi2_jinja_value *value,
                               pi2_jinja_string *out) {
    if (value->type == PI2_JINJA_STRING) {
        *out = value->as.string;
        return PI2_OK;
    }
    pi2_jinja_text text = {.arena = call->run->arena};
    PI2_TRY(pi2_jinja_print(call, &text, value));
    *out = pi2_jinja_text_string(&text);
    return PI2_OK;
}

/* ---- tojson ---- */

static pi2_status json_indent(printer *print, const pi2_jinja_value *given) {
    pi2_jinja_text spaces = {.arena = print->call->run->arena};
    if (given->type == PI2_JINJA_NONE || given->type == PI2_JINJA_UNDEFINED) return PI2_OK;
    print->indented = true;
    print->item_separator = pi2_jinja_own_string(",");
    if (given->type == PI2_JINJA_STRING) {
        print->indent = given->as.string;
        return PI2_OK;
    }
    int64_t count;
    PI2_TRY(pi2_jinja_want_integer(print->call, given, &count));
    if (count > 100) return pi2_jinja_refuse(print->call, "an indent above 100");
    for (int64_t i = 0; i < count; i++) PI2_TRY(pi2_jinja_text_add_own(&spaces, " "));
    print->indent = pi2_jinja_text_string(&spaces);
    return PI2_OK;
}

static pi2_status json_separators(printer *print, const pi2_jinja_value *given) {
    if (given->type == PI2_JINJA_NONE || given->type == PI2_JINJA_UNDEFINED) return PI2_OK;
    if (given->type != PI2_JINJA_LIST || given->as.list->count != 2)
        return pi2_jinja_fail(print->call, "separators must be two strings");
    PI2_TRY(pi2_jinja_want_string(print->call, &given->as.list->items[0], &print->item_separator));
    return pi2_jinja_want_string(print->call, &given->as.list->items[1], &print->key_separator);
}

/** As transformers defines it: json.dumps without HTML escapes, ensure_ascii off by default. */
pi2_status pi2_jinja_tojson(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[4];
    pi2_jinja_text text = {.arena = call->run->arena};
    PI2_TRY(pi2_jinja_arguments(call, "ensure_ascii indent separators sort_keys", 0, 4, given,
                                NULL));
    printer print = {.call = call, .text = &text, .json = true,
                     .ascii = pi2_jinja_truth(&given[0]), .sort_keys = pi2_jinja_truth(&given[3]),
                     .indent = pi2_jinja_own_string(""),
                     .item_separator = pi2_jinja_own_string(", "),
                     .key_separator = pi2_jinja_own_string(": ")};
    PI2_TRY(json_indent(&print, &given[1]));
    PI2_TRY(json_separators(&print, &given[2]));
    PI2_TRY(print_nested(&print, &call->subject));
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    return PI2_OK;
}
