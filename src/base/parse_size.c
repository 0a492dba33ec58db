/* parse_size.c: integer arithmetic only, so that 0.1G is exactly 100000000 bytes. */
#include "base/parse_size.h"

#include <stdio.h>
#include <string.h>

#include "base/fail.h"

enum { LONGEST_SHOWN = 60 };

static pi2_status refuse(const char *text, const char *why) {
    return pi2_fail(PI2_ERR_INVALID,
                    "\"%.*s\" is no size (%s): write bytes, or a number with K, M, G, T (powers of "
                    "1000) or KiB, MiB, GiB, TiB, such as 1.5G",
                    LONGEST_SHOWN, text, why);
}

static int is_digit(char character) { return character >= '0' && character <= '9'; }

static char lower(char character) {
    return character >= 'A' && character <= 'Z' ? (char)(character - 'A' + 'a') : character;
}

/* 0: not a unit; 1: no unit or bytes. */
static uint64_t unit_of(const char *text) {
    static const char letters[] = "kmgt";
    uint64_t unit = 1;
    const char *letter = *text ? strchr(letters, lower(*text)) : NULL;
    if (letter) {
        text++;
        const uint64_t base = lower(*text) == 'i' ? 1024 : 1000;
        if (base == 1024) text++;
        for (const char *l = letters; l <= letter; l++) unit *= base;
    }
    if (lower(*text) == 'b') text++;
    return *text ? 0 : unit;
}

pi2_status pi2_parse_size(const char *text, uint64_t *bytes_out) {
    *bytes_out = 0;
    if (!is_digit(text[0])) return refuse(text, text[0] ? "no digit at its start" : "empty");
    uint64_t whole = 0;
    const char *next = text;
    for (; is_digit(*next); next++) {
        const uint64_t digit = (uint64_t)(*next - '0');
        if (whole > (UINT64_MAX - digit) / 10) return refuse(text, "too large");
        whole = whole * 10 + digit;
    }
    const char *fraction = next, *fraction_end = next;
    if (*next == '.') {
        fraction = next + 1;
        for (fraction_end = fraction; is_digit(*fraction_end);) fraction_end++;
        if (fraction_end == fraction) return refuse(text, "no digit after the point");
        next = fraction_end;
    }
    const uint64_t unit = unit_of(next);
    if (unit == 0) return refuse(text, "unknown unit");
    if (unit == 1 && fraction_end != fraction) return refuse(text, "a fraction of a byte");
    /* From the last digit: floor((floor(x) + n) / 10) = floor((x + n) / 10), so this is exact. */
    uint64_t part = 0;
    while (fraction_end > fraction) part = (part + (uint64_t)(*--fraction_end - '0') * unit) / 10;
    if (whole > (UINT64_MAX - part) / unit) return refuse(text, "too large");
    *bytes_out = whole * unit + part;
    return PI2_OK;
}

const char *pi2_format_size(uint64_t bytes, char text[PI2_SIZE_TEXT_BYTES]) {
    static const struct {
        const char *name;
        uint64_t bytes;
        unsigned parts; /* 10: one decimal, 100: two */
        int decimals;
    } units[] = {
        {"kB", 1000u, 10, 1},
        {"MB", 1000000u, 10, 1},
        {"GB", 1000000000u, 100, 2},
        {"TB", 1000000000000u, 100, 2},
    };
    enum { UNIT_COUNT = sizeof units / sizeof units[0] };
    if (bytes < 1000) {
        (void)snprintf(text, PI2_SIZE_TEXT_BYTES, "%u B", (unsigned)bytes);
        return text;
    }
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        const uint64_t part = units[i].bytes / units[i].parts;
        const uint64_t rounded = bytes / part + (bytes % part >= part - part / 2);
        if (i + 1 < UNIT_COUNT && rounded >= 1000u * units[i].parts) continue;
        (void)snprintf(text, PI2_SIZE_TEXT_BYTES, "%llu.%0*llu %s",
                       (unsigned long long)(rounded / units[i].parts), units[i].decimals,
                       (unsigned long long)(rounded % units[i].parts), units[i].name);
        break;
    }
    return text;
}
