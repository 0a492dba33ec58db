/* schema_number.c: numbers between bounds, digit by digit. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "grammar/schema_internal.h"

#define MOST_INTEGER INT64_C(999999999999999) /* every JSON reader keeps these exactly */

typedef struct number_bounds {
    int64_t least, most;
    bool has_least, has_most;
    bool without_least, without_most; /* of numbers that need not be whole: the bound itself is not allowed */
} number_bounds;

/** A bound that is a whole number; of an integer's, one that is not is brought to the next that is allowed. */
static pi2_status read_bound(const json_t *schema, const char *name, bool is_integer, bool is_least,
                             const pi2_schema_place *place, int64_t *value, bool *is_there) {
    const json_t *bound = json_object_get(schema, name);
    const pi2_schema_place at = {place, name, 0};
    *is_there = bound != NULL;
    if (!bound) return PI2_OK;
    if (!json_is_number(bound)) return pi2_schema_refuse(&at, "this must be a number");
    double number = json_number_value(bound);
    if (is_integer) number = is_least ? ceil(number) : floor(number);
    if (number != floor(number)) return pi2_schema_refuse(&at, "a bound that is no whole number is not supported");
    if (number > (double)MOST_INTEGER) number = (double)MOST_INTEGER + 1;
    if (number < -(double)MOST_INTEGER) number = -(double)MOST_INTEGER - 1;
    *value = (int64_t)number;
    return PI2_OK;
}

/** An exclusive bound tightens the inclusive one. */
static pi2_status read_exclusive(const json_t *schema, const char *name, bool is_integer, bool is_least,
                                 const pi2_schema_place *place, number_bounds *bounds) {
    const pi2_schema_place at = {place, name, 0};
    int64_t value = 0;
    bool is_there, *has = is_least ? &bounds->has_least : &bounds->has_most;
    int64_t *bound = is_least ? &bounds->least : &bounds->most;
    if (json_is_boolean(json_object_get(schema, name))) { /* as draft 4 had it */
        if (json_is_false(json_object_get(schema, name)) || !*has) return PI2_OK;
        value = *bound;
    } else {
        const json_t *given = json_object_get(schema, name);
        if (is_integer && json_is_real(given) && json_real_value(given) != floor(json_real_value(given))) {
            is_there = true; /* no integer equals it */
            double next = is_least ? ceil(json_real_value(given)) : floor(json_real_value(given));
            if (fabs(next) > (double)MOST_INTEGER) return pi2_schema_refuse(&at, "this bound is too large");
            value = (int64_t)next + (is_least ? -1 : 1);
        } else {
            PI2_TRY(read_bound(schema, name, is_integer, is_least, place, &value, &is_there));
        }
        if (!is_there) return PI2_OK;
    }
    if (is_integer) value += is_least ? 1 : -1;
    if (*has && (is_least ? value < *bound : value > *bound)) return PI2_OK;
    *bound = value;
    *has = true;
    if (!is_integer) *(is_least ? &bounds->without_least : &bounds->without_most) = true;
    return PI2_OK;
}

static pi2_status read_bounds(const json_t *schema, bool is_integer, const pi2_schema_place *place,
                              number_bounds *bounds) {
    PI2_TRY(read_bound(schema, "minimum", is_integer, true, place, &bounds->least, &bounds->has_least));
    PI2_TRY(read_bound(schema, "maximum", is_integer, false, place, &bounds->most, &bounds->has_most));
    PI2_TRY(read_exclusive(schema, "exclusiveMinimum", is_integer, true, place, bounds));
    return read_exclusive(schema, "exclusiveMaximum", is_integer, false, place, bounds);
}

/** "multipleOf", "format" of numbers. */
static pi2_status check_number(const json_t *schema, bool is_integer, const pi2_schema_place *place,
                               number_bounds *bounds) {
    const json_t *step = json_object_get(schema, "multipleOf");
    const pi2_schema_place at = {place, "multipleOf", 0}, format_at = {place, "format", 0};
    const double size = json_number_value(step);
    const bool is_one = is_integer && size >= 1.0 && size <= 1.0;
    if (step && !is_one) return pi2_schema_refuse(&at, "only multiples of 1, of an integer, are supported");
    const char *format = json_string_value(json_object_get(schema, "format"));
    if (!format || strcmp(format, "int64") == 0 || (!is_integer && (strcmp(format, "double") == 0 ||
                                                                    strcmp(format, "float") == 0))) {
        return PI2_OK; /* how it is kept says nothing of its text */
    }
    if (strcmp(format, "int32") != 0) return pi2_schema_refuse(&format_at, "'%s' is not supported", format);
    if (!bounds->has_least || bounds->least < INT32_MIN) bounds->least = INT32_MIN;
    if (!bounds->has_most || bounds->most > INT32_MAX) bounds->most = INT32_MAX;
    bounds->has_least = bounds->has_most = true;
    return PI2_OK;
}

/* ---- digits ---- */

static void add_digits(pi2_schema_text *body, char first, char last, size_t times) {
    if (times == 0) return;
    pi2_schema_add(body, "[%c-%c]", first, last);
    if (times > 1) pi2_schema_add(body, "{%zu}", times);
}

/** Numbers of as many digits as both have, from one to the other. */
static void add_same_length(pi2_schema_text *body, const char *low, const char *high) {
    const size_t length = strlen(low);
    size_t same = 0;
    while (same < length && low[same] == high[same]) same++;
    if (same) pi2_schema_add(body, "\"%.*s\" ", (int)same, low);
    if (same == length) return;
    low += same;
    high += same;
    const size_t rest = length - same - 1;
    if (rest == 0) {
        add_digits(body, *low, *high, 1);
        return;
    }
    const bool is_least = strspn(low + 1, "0") == rest, is_most = strspn(high + 1, "9") == rest;
    const char first = (char)(*low + !is_least), last = (char)(*high - !is_most);
    static const char nines[] = "99999999999999999999", zeros[] = "00000000000000000000";
    const char *mark = "";
    pi2_schema_add(body, "(");
    if (!is_least) { /* from low on to ...999 */
        pi2_schema_add(body, "\"%c\" (", *low);
        add_same_length(body, low + 1, nines + sizeof nines - 1 - rest);
        pi2_schema_add(body, ")");
        mark = " | ";
    }
    if (first <= last) {
        pi2_schema_add(body, "%s", mark);
        add_digits(body, first, last, 1);
        pi2_schema_add(body, " ");
        add_digits(body, '0', '9', rest);
        mark = " | ";
    }
    if (!is_most) {
        pi2_schema_add(body, "%s\"%c\" (", mark, *high);
        add_same_length(body, zeros + sizeof zeros - 1 - rest, high + 1);
        pi2_schema_add(body, ")");
    }
    pi2_schema_add(body, ")");
}

/** Whole numbers from low to high, 0 <= low <= high, without leading zeros. */
static void add_range(pi2_schema_text *body, int64_t low, int64_t high) {
    int64_t power = 10; /* the first number with more digits than low */
    while (power <= low) power *= 10;
    const char *mark = "";
    pi2_schema_add(body, "(");
    while (low <= high) {
        char from[24], to[24];
        const int64_t last = high < power - 1 ? high : power - 1;
        (void)snprintf(from, sizeof from, "%lld", (long long)low);
        (void)snprintf(to, sizeof to, "%lld", (long long)last);
        pi2_schema_add(body, "%s", mark);
        add_same_length(body, from, to);
        mark = " | ";
        low = last + 1;
        power *= 10;
    }
    pi2_schema_add(body, ")");
}

static void add_integers(pi2_schema_text *body, int64_t least, int64_t most) {
    const char *mark = "";
    if (least < 0) {
        const int64_t low = most < 0 ? 0 - most : 1, high = 0 - least;
        pi2_schema_add(body, "\"-\" ");
        add_range(body, low, high);
        mark = " | ";
    }
    if (most >= 0) {
        pi2_schema_add(body, "%s", mark);
        add_range(body, least > 0 ? least : 0, most);
    }
}

/* ---- numbers that need not be whole ---- */

/** Digits behind the point with which a number still differs from every bound of so many before it. */
static unsigned digits_behind(int64_t most) {
    unsigned digits = 14;
    for (; most >= 10 && digits; most /= 10) digits--;
    return digits;
}

/** A part of what add_magnitudes() adds: all but the first have '|' before them. */
static void begin_part(pi2_schema_text *body, bool *has_some) {
    if (*has_some) pi2_schema_add(body, " | ");
    *has_some = true;
}

/** Numbers from low to high, 0 <= low <= high; without those of the two that are not allowed. False: there are none. */
static bool add_magnitudes(pi2_schema_text *body, int64_t low, int64_t high, bool without_low, bool without_high) {
    const unsigned above_low = digits_behind(low), digits = without_high ? digits_behind(high) : 14;
    bool has_some = false;
    if (without_low && low < high) {
        if (above_low) {
            begin_part(body, &has_some);
            pi2_schema_add(body, "\"%lld.\" [0-9]{0,%u} [1-9]", (long long)low, above_low - 1);
        }
        low++;
        without_low = false;
    }
    if (low < high) {
        begin_part(body, &has_some);
        add_range(body, low, high - 1);
        if (digits) pi2_schema_add(body, " (\".\" [0-9]{1,%u})?", digits);
    }
    if (!without_high && !without_low) {
        begin_part(body, &has_some);
        pi2_schema_add(body, "\"%lld\" (\".\" \"0\"{1,15})?", (long long)high);
    }
    return has_some;
}

static bool add_reals(pi2_schema_text *body, const number_bounds *bounds) {
    bool has_some = false;
    if (bounds->least < 0) {
        const bool reaches_zero = bounds->most >= 0;
        const int64_t low = reaches_zero ? 0 : -bounds->most;
        pi2_schema_text part = {0};
        /* A negative number that is not zero: also where zero is the bound. */
        has_some = add_magnitudes(&part, low, -bounds->least, reaches_zero || bounds->without_most,
                                  bounds->without_least);
        if (has_some) {
            pi2_schema_add(body, "\"-\" (");
            pi2_schema_add_bytes(body, part.data ? part.data : "", part.length);
            pi2_schema_add(body, ")");
        }
        body->has_failed |= part.has_failed;
        pi2_schema_text_free(&part);
    }
    if (bounds->most >= 0) {
        const int64_t low = bounds->least > 0 ? bounds->least : 0;
        pi2_schema_text part = {0};
        if (add_magnitudes(&part, low, bounds->most, bounds->least >= 0 && bounds->without_least,
                           bounds->without_most)) {
            pi2_schema_add(body, "%s", has_some ? " | " : "");
            pi2_schema_add_bytes(body, part.data ? part.data : "", part.length);
            has_some = true;
        }
        body->has_failed |= part.has_failed;
        pi2_schema_text_free(&part);
    }
    return has_some;
}

pi2_status pi2_schema_number(const json_t *schema, bool is_integer, const pi2_schema_place *place,
                             pi2_schema_text *body) {
    number_bounds bounds = {0};
    PI2_TRY(read_bounds(schema, is_integer, place, &bounds));
    PI2_TRY(check_number(schema, is_integer, place, &bounds));
    if (!bounds.has_least && !bounds.has_most) {
        pi2_schema_add(body, "\"-\"? (\"0\" | [1-9] [0-9]{0,14})");
        if (!is_integer) pi2_schema_add(body, " (\".\" [0-9]{1,16})? ([eE] [-+]? [0-9] [0-9]?)?");
        return PI2_OK;
    }
    if (!bounds.has_least) bounds.least = -MOST_INTEGER;
    if (!bounds.has_most) bounds.most = MOST_INTEGER;
    bool has_some = bounds.least <= bounds.most && bounds.least <= MOST_INTEGER && bounds.most >= -MOST_INTEGER;
    if (bounds.least < -MOST_INTEGER) bounds.least = -MOST_INTEGER;
    if (bounds.most > MOST_INTEGER) bounds.most = MOST_INTEGER;
    if (has_some && is_integer) add_integers(body, bounds.least, bounds.most);
    else if (has_some) has_some = add_reals(body, &bounds);
    return has_some ? PI2_OK : pi2_schema_refuse(place, "no number lies between these bounds, as far as 15 digits go");
}
