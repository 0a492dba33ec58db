/* jinja_strings.c: what the text filters and the string methods share, and those methods. */
#include "chat_template/jinja.h"

#include <string.h>

#include <utf8proc.h>

/* ---- letter case ---- */

static bool is_cased(int32_t code_point) {
    const utf8proc_category_t category =
        code_point >= 0 ? utf8proc_category(code_point) : UTF8PROC_CATEGORY_CN;
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
           category == UTF8PROC_CATEGORY_LT;
}

static bool begins_word(int32_t previous, pi2_jinja_letter_case to) {
    if (to == PI2_JINJA_TITLE_METHOD) return !is_cased(previous);
    return previous == -2 || pi2_jinja_is_space(previous) ||
           (previous > 0 && previous < 0x80 && strchr("-({[<", previous) != NULL);
}

pi2_status pi2_jinja_change_case(pi2_jinja_call *call, pi2_jinja_string string,
                                 pi2_jinja_letter_case to, pi2_jinja_value *out) {
    pi2_jinja_text text = {.arena = call->run->arena};
    int32_t code_point, previous = -2; /* before the first character */
    for (size_t at = 0; at < string.length; previous = code_point) {
        const size_t bytes = pi2_jinja_character(string, at, &code_point);
        bool upper = to == PI2_JINJA_UPPER || (to == PI2_JINJA_CAPITALIZE && at == 0);
        if (to == PI2_JINJA_TITLE_FILTER || to == PI2_JINJA_TITLE_METHOD)
            upper = begins_word(previous, to);
        if (code_point < 0) {
            PI2_TRY(pi2_jinja_text_add(&text, pi2_jinja_part(string, at, bytes)));
        } else if (upper && code_point == 0xdf) { /* the sharp s is two letters above */
            const char *pair = to == PI2_JINJA_UPPER ? "SS" : "Ss";
            PI2_TRY(pi2_jinja_text_add_bytes(&text, pair, 2, pi2_jinja_is_trusted(string, at)));
        } else {
            char changed[4];
            const size_t length = pi2_jinja_encode(
                upper ? utf8proc_toupper(code_point) : utf8proc_tolower(code_point), changed);
            PI2_TRY(pi2_jinja_text_add_bytes(&text, changed, length,
                                             pi2_jinja_is_trusted(string, at)));
        }
        at += bytes;
    }
    pi2_jinja_charge(call->run->arena, string.length / 16);
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    out->as.string.markup = string.markup && to != PI2_JINJA_TITLE_FILTER;
    return PI2_OK;
}

/* ---- escape, replace, join, split ---- */

pi2_status pi2_jinja_escape(pi2_jinja_call *call, pi2_jinja_string string, pi2_jinja_string *out) {
    static const char letters[] = "&<>'\"";
    static const char *const escapes[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    pi2_jinja_text text = {.arena = call->run->arena};
    *out = string;
    if (string.markup) return PI2_OK;
    size_t start = 0;
    for (size_t at = 0; at < string.length; at++) {
        const char *found = string.bytes[at] != '\0' ? strchr(letters, string.bytes[at]) : NULL;
        if (found == NULL) continue;
        const char *escape = escapes[found - letters];
        PI2_TRY(pi2_jinja_text_add(&text, pi2_jinja_part(string, start, at - start)));
        PI2_TRY(pi2_jinja_text_add_bytes(&text, escape, strlen(escape), pi2_jinja_is_trusted(string, at)));
        start = at + 1;
    }
    PI2_TRY(pi2_jinja_text_add(&text, pi2_jinja_part(string, start, string.length - start)));
    *out = pi2_jinja_text_string(&text);
    out->markup = true;
    return PI2_OK;
}

pi2_status pi2_jinja_replace(pi2_jinja_call *call, pi2_jinja_string string, pi2_jinja_string old,
                             pi2_jinja_string new_text, int64_t most, pi2_jinja_value *out) {
    pi2_jinja_arena *arena = call->run->arena;
    pi2_jinja_text text = {.arena = arena};
    size_t at = 0;
    if (most < 0) most = INT64_MAX;
    while (most > 0) {
        const size_t found = pi2_jinja_find(arena, string, old, at);
        if (found == SIZE_MAX) break;
        PI2_TRY(pi2_jinja_text_add(&text, pi2_jinja_part(string, at, found - at)));
        PI2_TRY(pi2_jinja_text_add(&text, new_text));
        at = found + old.length;
        most--;
        pi2_jinja_charge(arena, 1);
        if (old.length > 0) continue;
        if (at == string.length) break; /* an empty `old` stands between all characters */
        int32_t code_point;
        const size_t bytes = pi2_jinja_character(string, at, &code_point);
        PI2_TRY(pi2_jinja_text_add(&text, pi2_jinja_part(string, at, bytes)));
        at += bytes;
    }
    PI2_TRY(pi2_jinja_text_add(&text, pi2_jinja_part(string, at, string.length - at)));
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    return PI2_OK;
}

pi2_status pi2_jinja_join(pi2_jinja_call *call, pi2_jinja_string separator,
                          const pi2_jinja_list *list, bool strings_only, pi2_jinja_value *out) {
    pi2_jinja_text text = {.arena = call->run->arena};
    for (size_t i = 0; i < list->count; i++) {
        pi2_jinja_string item;
        if (i > 0) PI2_TRY(pi2_jinja_text_add(&text, separator));
        if (strings_only) PI2_TRY(pi2_jinja_want_string(call, &list->items[i], &item));
        else PI2_TRY(pi2_jinja_to_string(call, &list->items[i], &item));
        if (strings_only && separator.markup) PI2_TRY(pi2_jinja_escape(call, item, &item));
        PI2_TRY(pi2_jinja_text_add(&text, item));
        pi2_jinja_charge(call->run->arena, 1);
    }
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    out->as.string.markup = strings_only && separator.markup; /* the method's: the filter gives plain text */
    return PI2_OK;
}

static pi2_status add_part(pi2_jinja_call *call, pi2_jinja_list *list, pi2_jinja_string string,
                           size_t start, size_t end) {
    const pi2_jinja_value part = pi2_jinja_of_string(pi2_jinja_part(string, start, end - start));
    return pi2_jinja_list_add(call->run->arena, list, part);
}

static bool ends_line(int32_t c) {
    return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

pi2_status pi2_jinja_lines(pi2_jinja_call *call, pi2_jinja_string string, pi2_jinja_list **out) {
    pi2_jinja_value lines;
    size_t start = 0;
    PI2_TRY(pi2_jinja_list_new(call->run->arena, 0, PI2_JINJA_PLAIN_LIST, &lines));
    for (size_t at = 0; at < string.length;) {
        int32_t code_point;
        size_t after = at + pi2_jinja_character(string, at, &code_point);
        if (ends_line(code_point)) {
            if (code_point == '\r' && after < string.length && string.bytes[after] == '\n') after++;
            PI2_TRY(add_part(call, lines.as.list, string, start, at));
            start = after;
        }
        at = after;
    }
    if (start < string.length)
        PI2_TRY(add_part(call, lines.as.list, string, start, string.length));
    pi2_jinja_charge(call->run->arena, string.length / 64);
    *out = lines.as.list;
    return PI2_OK;
}

/** split() without a separator: runs of white space; none at the edges. */
static pi2_status split_spaces(pi2_jinja_call *call, pi2_jinja_string string, int64_t most,
                               pi2_jinja_list *list) {
    int32_t code_point;
    size_t at = 0;
    for (;;) {
        while (at < string.length) {
            const size_t bytes = pi2_jinja_character(string, at, &code_point);
            if (!pi2_jinja_is_space(code_point)) break;
            at += bytes;
        }
        if (at >= string.length) return PI2_OK;
        size_t end = at;
        while (end < string.length) {
            const size_t bytes = pi2_jinja_character(string, end, &code_point);
            if (pi2_jinja_is_space(code_point)) break;
            end += bytes;
        }
        if (most-- == 0) {
            const pi2_jinja_string rest = pi2_jinja_part(string, at, string.length - at);
            const pi2_jinja_string kept =
                pi2_jinja_strip(call->run->arena, rest, NULL, false, true);
            return pi2_jinja_list_add(call->run->arena, list, pi2_jinja_of_string(kept));
        }
        PI2_TRY(add_part(call, list, string, at, end));
        at = end;
    }
}

static pi2_status method_split(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[2];
    unsigned has;
    int64_t most = -1;
    const pi2_jinja_string string = call->subject.as.string;
    PI2_TRY(pi2_jinja_arguments(call, "sep maxsplit", 0, 2, given, &has));
    if (has & 2u) PI2_TRY(pi2_jinja_want_integer(call, &given[1], &most));
    PI2_TRY(pi2_jinja_list_new(call->run->arena, 0, PI2_JINJA_PLAIN_LIST, out));
    pi2_jinja_charge(call->run->arena, string.length / 64);
    if ((has & 1u) == 0 || given[0].type == PI2_JINJA_NONE)
        return split_spaces(call, string, most, out->as.list);
    pi2_jinja_string separator;
    PI2_TRY(pi2_jinja_want_string(call, &given[0], &separator));
    if (separator.length == 0) return pi2_jinja_fail(call, "empty separator");
    size_t at = 0;
    while (most != 0) {
        const size_t found = pi2_jinja_find(call->run->arena, string, separator, at);
        if (found == SIZE_MAX) break;
        PI2_TRY(add_part(call, out->as.list, string, at, found));
        at = found + separator.length;
        if (most > 0) most--;
    }
    return add_part(call, out->as.list, string, at, string.length);
}

/** rsplit with a separator: the last `maxsplit` of them. */
static pi2_status method_rsplit(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[2], all;
    pi2_jinja_string separator;
    int64_t most;
    PI2_TRY(pi2_jinja_arguments(call, "sep maxsplit", 2, 2, given, NULL));
    PI2_TRY(pi2_jinja_want_string(call, &given[0], &separator));
    PI2_TRY(pi2_jinja_want_integer(call, &given[1], &most));
    /* Overlapping matches would be found from the other side: refuse what could overlap. */
    for (size_t i = 1; i < separator.length; i++)
        if (separator.bytes[i] == separator.bytes[0])
            return pi2_jinja_refuse(call, "rsplit by a separator that repeats a letter");
    pi2_jinja_call split = *call;
    split.count = 1;
    split.arguments = given;
    split.named_count = 0;
    PI2_TRY(method_split(&split, &all));
    const size_t count = all.as.list->count;
    if (most < 0 || (uint64_t)most + 1 >= count) {
        *out = all;
        return PI2_OK;
    }
    PI2_TRY(pi2_jinja_list_new(call->run->arena, 0, PI2_JINJA_PLAIN_LIST, out));
    const pi2_jinja_string string = call->subject.as.string;
    size_t start = string.length;
    for (int64_t i = 0; i < most; i++)
        start -= all.as.list->items[count - 1 - (size_t)i].as.string.length + separator.length;
    PI2_TRY(add_part(call, out->as.list, string, 0, start));
    for (size_t i = count - (size_t)most; i < count; i++)
        PI2_TRY(pi2_jinja_list_add(call->run->arena, out->as.list, all.as.list->items[i]));
    return PI2_OK;
}

static pi2_status method_splitlines(pi2_jinja_call *call, pi2_jinja_value *out) {
    *out = (pi2_jinja_value){.type = PI2_JINJA_LIST};
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    return pi2_jinja_lines(call, call->subject.as.string, &out->as.list);
}

/* ---- the other string methods ---- */

static pi2_status strip_sides(pi2_jinja_call *call, bool left, bool right, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_string set;
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 1, &given, &has));
    const bool has_set = has != 0 && given.type != PI2_JINJA_NONE;
    if (has_set) PI2_TRY(pi2_jinja_want_string(call, &given, &set));
    *out = pi2_jinja_of_string(pi2_jinja_strip(call->run->arena, call->subject.as.string,
                                               has_set ? &set : NULL, left, right));
    return PI2_OK;
}

static pi2_status method_strip(pi2_jinja_call *call, pi2_jinja_value *out) {
    return strip_sides(call, true, true, out);
}
static pi2_status method_lstrip(pi2_jinja_call *call, pi2_jinja_value *out) {
    return strip_sides(call, true, false, out);
}
static pi2_status method_rstrip(pi2_jinja_call *call, pi2_jinja_value *out) {
    return strip_sides(call, false, true, out);
}

static bool has_affix(pi2_jinja_string string, pi2_jinja_string affix, bool at_end) {
    if (affix.length > string.length) return false;
    const size_t start = at_end ? string.length - affix.length : 0;
    return pi2_jinja_same_bytes(pi2_jinja_part(string, start, affix.length), affix);
}

/** startswith and endswith take one string or a tuple of them. */
static pi2_status test_affix(pi2_jinja_call *call, bool at_end, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_list one = {.items = &given, .count = 1, .capacity = 1};
    bool found = false;
    PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
    const pi2_jinja_list *affixes = &one;
    if (given.type == PI2_JINJA_LIST && given.as.list->kind == PI2_JINJA_TUPLE) affixes = given.as.list;
    for (size_t i = 0; i < affixes->count; i++) {
        pi2_jinja_string affix;
        PI2_TRY(pi2_jinja_want_string(call, &affixes->items[i], &affix));
        found = found || has_affix(call->subject.as.string, affix, at_end);
    }
    *out = pi2_jinja_boolean(found);
    return PI2_OK;
}

static pi2_status method_startswith(pi2_jinja_call *call, pi2_jinja_value *out) {
    return test_affix(call, false, out);
}
static pi2_status method_endswith(pi2_jinja_call *call, pi2_jinja_value *out) {
    return test_affix(call, true, out);
}

static pi2_status remove_affix(pi2_jinja_call *call, bool at_end, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_string affix, string = call->subject.as.string;
    PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
    PI2_TRY(pi2_jinja_want_string(call, &given, &affix));
    if (has_affix(string, affix, at_end))
        string = pi2_jinja_part(string, at_end ? 0 : affix.length, string.length - affix.length);
    *out = pi2_jinja_of_string(string);
    return PI2_OK;
}

static pi2_status method_removeprefix(pi2_jinja_call *call, pi2_jinja_value *out) {
    return remove_affix(call, false, out);
}
static pi2_status method_removesuffix(pi2_jinja_call *call, pi2_jinja_value *out) {
    return remove_affix(call, true, out);
}

static pi2_status case_method(pi2_jinja_call *call, pi2_jinja_letter_case to,
                              pi2_jinja_value *out) {
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    return pi2_jinja_change_case(call, call->subject.as.string, to, out);
}

static pi2_status method_upper(pi2_jinja_call *call, pi2_jinja_value *out) {
    return case_method(call, PI2_JINJA_UPPER, out);
}
static pi2_status method_lower(pi2_jinja_call *call, pi2_jinja_value *out) {
    return case_method(call, PI2_JINJA_LOWER, out);
}
static pi2_status method_title(pi2_jinja_call *call, pi2_jinja_value *out) {
    return case_method(call, PI2_JINJA_TITLE_METHOD, out);
}
static pi2_status method_capitalize(pi2_jinja_call *call, pi2_jinja_value *out) {
    return case_method(call, PI2_JINJA_CAPITALIZE, out);
}

static pi2_status method_replace(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given[3];
    pi2_jinja_string old, new_text;
    int64_t most = -1;
    unsigned has;
    PI2_TRY(pi2_jinja_arguments(call, "  count", 2, 3, given, &has));
    PI2_TRY(pi2_jinja_want_string(call, &given[0], &old));
    PI2_TRY(pi2_jinja_want_string(call, &given[1], &new_text));
    if (has & 4u) PI2_TRY(pi2_jinja_want_integer(call, &given[2], &most));
    const bool markup = call->subject.as.string.markup;
    if (markup) PI2_TRY(pi2_jinja_escape(call, new_text, &new_text));
    PI2_TRY(pi2_jinja_replace(call, call->subject.as.string, old, new_text, most, out));
    out->as.string.markup = markup;
    return PI2_OK;
}

static pi2_status method_join(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_list *list;
    PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
    PI2_TRY(pi2_jinja_iterate(call, &given, &list));
    return pi2_jinja_join(call, call->subject.as.string, list, true, out);
}

static pi2_status method_find(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_string part;
    PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
    PI2_TRY(pi2_jinja_want_string(call, &given, &part));
    pi2_jinja_arena *arena = call->run->arena;
    const pi2_jinja_string string = call->subject.as.string;
    const size_t at = pi2_jinja_find(arena, string, part, 0);
    *out = pi2_jinja_integer(-1);
    if (at != SIZE_MAX)
        *out = pi2_jinja_integer(
            (int64_t)pi2_jinja_character_count(arena, pi2_jinja_part(string, 0, at)));
    return PI2_OK;
}

static pi2_status method_count(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_string part;
    int64_t count = 0;
    PI2_TRY(pi2_jinja_arguments(call, "", 1, 1, &given, NULL));
    PI2_TRY(pi2_jinja_want_string(call, &given, &part));
    if (part.length == 0) return pi2_jinja_refuse(call, "counting an empty string");
    for (size_t at = 0;; count++) {
        at = pi2_jinja_find(call->run->arena, call->subject.as.string, part, at);
        if (at == SIZE_MAX) break;
        at += part.length;
    }
    *out = pi2_jinja_integer(count);
    return PI2_OK;
}

/** isdigit and isspace: every character is one, and there is at least one. */
static pi2_status test_characters(pi2_jinja_call *call, bool digits, pi2_jinja_value *out) {
    const pi2_jinja_string string = call->subject.as.string;
    bool all = string.length > 0;
    PI2_TRY(pi2_jinja_arguments(call, "", 0, 0, NULL, NULL));
    for (size_t at = 0; at < string.length && all;) {
        int32_t code_point;
        at += pi2_jinja_character(string, at, &code_point);
        if (digits)
            all = code_point >= 0 && utf8proc_category(code_point) == UTF8PROC_CATEGORY_ND;
        else
            all = pi2_jinja_is_space(code_point);
    }
    pi2_jinja_charge(call->run->arena, string.length / 64);
    *out = pi2_jinja_boolean(all);
    return PI2_OK;
}

static pi2_status method_isdigit(pi2_jinja_call *call, pi2_jinja_value *out) {
    return test_characters(call, true, out);
}
static pi2_status method_isspace(pi2_jinja_call *call, pi2_jinja_value *out) {
    return test_characters(call, false, out);
}

const pi2_jinja_builtin pi2_jinja_string_methods[] = {
    {"strip", method_strip},
    {"lstrip", method_lstrip},
    {"rstrip", method_rstrip},
    {"split", method_split},
    {"rsplit", method_rsplit},
    {"splitlines", method_splitlines},
    {"startswith", method_startswith},
    {"endswith", method_endswith},
    {"removeprefix", method_removeprefix},
    {"removesuffix", method_removesuffix},
    {"upper", method_upper},
    {"lower", method_lower},
    {"title", method_title},
    {"capitalize", method_capitalize},
    {"replace", method_replace},
    {"join", method_join},
    {"find", method_find},
    {"count", method_count},
    {"isdigit", method_isdigit},
    {"isspace", method_isspace},
    {NULL, NULL},
};
