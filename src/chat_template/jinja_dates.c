/* jinja_dates.c: strftime_now, as Python's strftime() of a date without a time zone in the C locale. */
#include "chat_template/jinja.h"

#include <stdio.h>
#include <string.h>

static const char *const month_names[] = {"January", "February", "March",     "April",   "May",      "June",
                                          "July",    "August",   "September", "October", "November", "December"};
static const char *const day_names[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                        "Thursday", "Friday", "Saturday"};

static bool is_leap(int year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

/** From 1. */
static int day_of_year(const pi2_jinja_date *date) {
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    return before[date->month - 1] + date->day + (is_leap(date->year) && date->month > 2);
}

/** 0: Sunday (Zeller's congruence in Sakamoto's form). */
static int day_of_week(const pi2_jinja_date *date) {
    static const int shift[] = {0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4};
    const int year = date->year - (date->month < 3);
    return (year + year / 4 - year / 100 + year / 400 + shift[date->month - 1] + date->day) % 7;
}

/** ISO 8601's week: the one of this day's Thursday, in the year that the Thursday lies in. */
static int iso_week(const pi2_jinja_date *date, int *year_out) {
    const int monday_based = (day_of_week(date) + 6) % 7;
    int thursday = day_of_year(date) - monday_based + 3; /* its day of the year */
    *year_out = date->year;
    if (thursday < 1) {
        *year_out = date->year - 1;
        thursday += is_leap(date->year - 1) ? 366 : 365;
    } else if (thursday > (is_leap(date->year) ? 366 : 365)) {
        *year_out = date->year + 1;
        thursday -= is_leap(date->year) ? 366 : 365;
    }
    return (thursday - 1) / 7 + 1;
}

/** A conversion that stands for several others; NULL: it does not. */
static const char *compound(char kind) {
    switch (kind) {
    case 'c': return "%a %b %e %H:%M:%S %Y";
    case 'D':
    case 'x': return "%m/%d/%y";
    case 'F': return "%Y-%m-%d";
    case 'r': return "%I:%M:%S %p";
    case 'R': return "%H:%M";
    case 'T':
    case 'X': return "%H:%M:%S";
    default: return NULL;
    }
}

static bool format_name(const pi2_jinja_date *date, char kind, char *out, size_t size) {
    switch (kind) {
    case 'B': (void)snprintf(out, size, "%s", month_names[date->month - 1]); return true;
    case 'b':
    case 'h': (void)snprintf(out, size, "%.3s", month_names[date->month - 1]); return true;
    case 'A': (void)snprintf(out, size, "%s", day_names[day_of_week(date)]); return true;
    case 'a': (void)snprintf(out, size, "%.3s", day_names[day_of_week(date)]); return true;
    case 'p': (void)snprintf(out, size, "%s", date->hour < 12 ? "AM" : "PM"); return true;
    case 'P': (void)snprintf(out, size, "%s", date->hour < 12 ? "am" : "pm"); return true;
    default: return false;
    }
}

/** Characters that are always the same; of a date without a zone its zone is nothing. */
static bool format_constant(char kind, char *out, size_t size) {
    const char *text = kind == '%' ? "%" : kind == 'n' ? "\n" : kind == 't' ? "\t" : kind == 'f' ? "000000" : "";
    (void)snprintf(out, size, "%s", text);
    return *text != '\0' || kind == 'z' || kind == 'Z';
}

/** A number with its width, padded with zeros or (width below 0) with spaces. */
static bool number_of(const pi2_jinja_date *date, char kind, int *number, int *width) {
    const int hour = date->hour % 12 == 0 ? 12 : date->hour % 12;
    int iso_year;
    const int week = iso_week(date, &iso_year), weekday = day_of_week(date), day = day_of_year(date) - 1;
    *width = 2;
    switch (kind) {
    case 'C': *number = date->year / 100; return true;
    case 'd': *number = date->day; return true;
    case 'e': *number = date->day; *width = -2; return true;
    case 'g': *number = iso_year % 100; return true;
    case 'G': *number = iso_year; *width = 1; return true;
    case 'H': *number = date->hour; return true;
    case 'I': *number = hour; return true;
    case 'j': *number = day + 1; *width = 3; return true;
    case 'k': *number = date->hour; *width = -2; return true;
    case 'l': *number = hour; *width = -2; return true;
    case 'm': *number = date->month; return true;
    case 'M': *number = date->minute; return true;
    case 'S': *number = date->second; return true;
    case 'u': *number = weekday == 0 ? 7 : weekday; *width = 1; return true;
    case 'U': *number = (day + 7 - weekday) / 7; return true;
    case 'V': *number = week; return true;
    case 'w': *number = weekday; *width = 1; return true;
    case 'W': *number = (day + 7 - (weekday + 6) % 7) / 7; return true;
    case 'y': *number = date->year % 100; return true;
    case 'Y': *number = date->year; *width = 1; return true;
    default: return false;
    }
}

static bool format_one(const pi2_jinja_date *date, char kind, bool bare, char *out, size_t size) {
    int number, width;
    if (number_of(date, kind, &number, &width)) {
        if (bare) width = 1;
        (void)snprintf(out, size, width < 0 ? "%*d" : "%0*d", width < 0 ? -width : width, number);
        return true;
    }
    if (format_name(date, kind, out, size)) return true;
    return !bare && format_constant(kind, out, size);
}

static pi2_status add_date(pi2_jinja_call *call, pi2_jinja_text *text, pi2_jinja_string format) {
    for (size_t at = 0; at < format.length; at++) {
        if (format.bytes[at] != '%') {
            PI2_TRY(pi2_jinja_text_add(text, pi2_jinja_part(format, at, 1)));
            continue;
        }
        char shown[32] = "";
        const bool bare = at + 1 < format.length && format.bytes[at + 1] == '-';
        at += 1 + bare;
        const char kind = at < format.length ? format.bytes[at] : '\0';
        const char *several = bare ? NULL : compound(kind);
        if (several != NULL) PI2_TRY(add_date(call, text, pi2_jinja_own_string(several))); /* which has none of these */
        else if (!format_one(&call->run->date, kind, bare, shown, sizeof shown))
            return pi2_jinja_refuse(call, "the date format '%.*s'", PI2_JINJA_SHOWN(format));
        PI2_TRY(pi2_jinja_text_add_bytes(text, shown, strlen(shown), true));
    }
    return PI2_OK;
}

pi2_status pi2_jinja_strftime_now(pi2_jinja_call *call, pi2_jinja_value *out) {
    pi2_jinja_value given;
    pi2_jinja_string format;
    pi2_jinja_text text = {.arena = call->run->arena};
    PI2_TRY(pi2_jinja_arguments(call, "format", 1, 1, &given, NULL));
    PI2_TRY(pi2_jinja_want_string(call, &given, &format));
    PI2_TRY(add_date(call, &text, format));
    *out = pi2_jinja_of_string(pi2_jinja_text_string(&text));
    return PI2_OK;
}
