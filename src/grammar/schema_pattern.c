/*
 * schema_pattern.c: regular expressions, as far as they are ones, as GBNF of what a JSON text writes for them.
 *
 * A pattern matches somewhere in a text unless '^' and '$' bind it; they may stand at the ends of the whole pattern's
 * alternatives. Characters that JSON writes with a backslash come out so. What looks around or back is refused.
 */
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar_internal.h"
#include "grammar/schema_internal.h"

enum { MOST_PATTERN_BYTES = 4096, MOST_GROUPS = 32, MOST_CLASS_RANGES = 256 };

typedef struct character_set {
    pi2_character_range ranges[MOST_CLASS_RANGES];
    size_t count;
} character_set;

typedef struct pattern_reader {
    const char *at, *end;
    const pi2_schema_place *place;
    pi2_schema_text *body;
    unsigned depth;
    bool is_negated; /* of the class that is read */
} pattern_reader;

static pi2_status refuse(const pattern_reader *reader, const char *what) {
    return pi2_schema_refuse(reader->place, "%s, %zu bytes before its end", what, (size_t)(reader->end - reader->at));
}

/* ---- sets of characters ---- */

static pi2_status add_range(const pattern_reader *reader, character_set *set, uint32_t first, uint32_t last) {
    if (set->count == MOST_CLASS_RANGES) return refuse(reader, "a class has too many ranges");
    set->ranges[set->count++] = (pi2_character_range){first, last};
    return PI2_OK;
}

static int compare_ranges(const void *a, const void *b) {
    const pi2_character_range *left = a, *right = b;
    return (left->first > right->first) - (left->first < right->first);
}

/** Every character that is not in the set. */
static pi2_status turn_round(const pattern_reader *reader, character_set *set) {
    character_set turned = {.count = 0};
    uint32_t next = 0;
    qsort(set->ranges, set->count, sizeof *set->ranges, compare_ranges);
    for (size_t i = 0; i < set->count; i++) {
        if (set->ranges[i].first > next) PI2_TRY(add_range(reader, &turned, next, set->ranges[i].first - 1));
        if (set->ranges[i].last + 1 > next) next = set->ranges[i].last + 1;
    }
    if (next <= PI2_LAST_CHARACTER) PI2_TRY(add_range(reader, &turned, next, PI2_LAST_CHARACTER));
    *set = turned;
    return PI2_OK;
}

/** \d \w \s and their opposites; *is_one_out false: the letter is none of them. */
static pi2_status add_shorthand(const pattern_reader *reader, char letter, character_set *set, bool *is_one_out) {
    character_set named = {.count = 0};
    *is_one_out = true;
    switch (letter) {
    case 'd':
    case 'D': PI2_TRY(add_range(reader, &named, '0', '9')); break;
    case 'w':
    case 'W':
        PI2_TRY(add_range(reader, &named, '0', '9'));
        PI2_TRY(add_range(reader, &named, 'A', 'Z'));
        PI2_TRY(add_range(reader, &named, '_', '_'));
        PI2_TRY(add_range(reader, &named, 'a', 'z'));
        break;
    case 's':
    case 'S':
        PI2_TRY(add_range(reader, &named, '\t', '\r'));
        PI2_TRY(add_range(reader, &named, ' ', ' '));
        if ((letter == 'S') != reader->is_negated) { /* some dialects have more white space: it is in neither */
            PI2_TRY(add_range(reader, &named, 0x1c, 0x1f));
            PI2_TRY(add_range(reader, &named, 0x85, 0x85));
            PI2_TRY(add_range(reader, &named, 0xa0, 0xa0));
            PI2_TRY(add_range(reader, &named, 0x1680, 0x1680));
            PI2_TRY(add_range(reader, &named, 0x2000, 0x200a));
            PI2_TRY(add_range(reader, &named, 0x2028, 0x2029));
            PI2_TRY(add_range(reader, &named, 0x202f, 0x202f));
            PI2_TRY(add_range(reader, &named, 0x205f, 0x205f));
            PI2_TRY(add_range(reader, &named, 0x3000, 0x3000));
            PI2_TRY(add_range(reader, &named, 0xfeff, 0xfeff));
        }
        break;
    default: *is_one_out = false; return PI2_OK;
    }
    const bool is_opposite = letter == 'D' || letter == 'W';
    if (strchr("dDwW", letter) && is_opposite != reader->is_negated) { /* as above, of digits and letters */
        PI2_TRY(add_range(reader, &named, 0x80, PI2_LAST_CHARACTER));
    }
    if (letter == 'D' || letter == 'W' || letter == 'S') PI2_TRY(turn_round(reader, &named));
    for (size_t i = 0; i < named.count; i++) {
        PI2_TRY(add_range(reader, set, named.ranges[i].first, named.ranges[i].last));
    }
    return PI2_OK;
}

static bool has(const character_set *set, uint32_t character) {
    for (size_t i = 0; i < set->count; i++) {
        if (set->ranges[i].first <= character && character <= set->ranges[i].last) return true;
    }
    return false;
}

/** Adds the set as a JSON text writes its characters; control characters without a short escape are left out. */
static pi2_status add_set(const pattern_reader *reader, character_set *set) {
    static const struct { uint32_t character; const char *gbnf; } escapes[] = {
        {'"', "\"\\\\\\\"\""}, {'\\', "\"\\\\\\\\\""}, {'\n', "\"\\\\n\""}, {'\t', "\"\\\\t\""},
        {'\r', "\"\\\\r\""}, {'\b', "\"\\\\b\""}, {'\f', "\"\\\\f\""}};
    pi2_schema_text *body = reader->body;
    const char *mark = "";
    pi2_schema_add(body, "(");
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++) {
        if (!has(set, escapes[i].character)) continue;
        pi2_schema_add(body, "%s%s", mark, escapes[i].gbnf);
        mark = " | ";
    }
    PI2_TRY(turn_round(reader, set)); /* what is written plainly: neither outside of the set nor one of these */
    PI2_TRY(add_range(reader, set, 0, 0x1f));
    PI2_TRY(add_range(reader, set, '"', '"'));
    PI2_TRY(add_range(reader, set, '\\', '\\'));
    PI2_TRY(add_range(reader, set, 0xd800, 0xdfff));
    PI2_TRY(turn_round(reader, set));
    if (set->count == 0 && !*mark) return refuse(reader, "a class has no character that JSON can write here");
    if (set->count) pi2_schema_add(body, "%s[", mark);
    for (size_t i = 0; i < set->count; i++) {
        pi2_schema_add(body, "\\U%08X-\\U%08X", set->ranges[i].first, set->ranges[i].last);
    }
    pi2_schema_add(body, "%s)", set->count ? "]" : "");
    return PI2_OK;
}

/* ---- characters ---- */

static pi2_status read_hex(pattern_reader *reader, unsigned digits, uint32_t *character_out) {
    uint32_t value = 0;
    for (unsigned i = 0; i < digits; i++) {
        const char *all = "0123456789abcdef0123456789ABCDEF";
        const char *digit = reader->at < reader->end && *reader->at ? strchr(all, *reader->at) : NULL;
        if (!digit) return refuse(reader, "a hexadecimal digit is missing");
        value = value << 4 | (uint32_t)((digit - all) % 16);
        reader->at++;
    }
    *character_out = value;
    return PI2_OK;
}

/** One character: an escape's, behind its backslash, or that of UTF-8, which the JSON reader has checked. */
static pi2_status read_escape(pattern_reader *reader, uint32_t *character_out) {
    static const char names[] = "ntrfv0", characters[] = "\n\t\r\f\v";
    if (reader->at == reader->end) return refuse(reader, "nothing is behind a backslash");
    const char name = *reader->at;
    const char *found = strchr(names, name);
    const bool is_word = (name >= 'a' && name <= 'z') || (name >= 'A' && name <= 'Z') || (name >= '0' && name <= '9');
    if (!found && is_word && name != 'x' && name != 'u') return refuse(reader, "this escape is not supported");
    reader->at++;
    if (name == 'x') return read_hex(reader, 2, character_out);
    if (name == 'u') return read_hex(reader, 4, character_out);
    *character_out = found ? (unsigned char)characters[found - names] : (unsigned char)name;
    return PI2_OK;
}

static pi2_status read_plain(pattern_reader *reader, uint32_t *character_out) {
    const unsigned char first = (unsigned char)*reader->at++;
    const unsigned more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    uint32_t value = more ? first & (0x3fu >> more) : first;
    for (unsigned i = 0; i < more && reader->at < reader->end; i++) {
        value = value << 6 | ((unsigned char)*reader->at++ & 0x3f);
    }
    *character_out = value;
    return PI2_OK;
}

/** A part of a class: a character, which may begin a range, or a shorthand. */
static pi2_status read_class_part(pattern_reader *reader, character_set *set, uint32_t *character_out,
                                  bool *is_character_out) {
    *is_character_out = true;
    if (*reader->at != '\\') return read_plain(reader, character_out);
    reader->at++;
    bool is_shorthand = false;
    if (reader->at < reader->end) PI2_TRY(add_shorthand(reader, *reader->at, set, &is_shorthand));
    *is_character_out = !is_shorthand;
    if (!is_shorthand && reader->at < reader->end && *reader->at == 'b') { /* within a class it is a character */
        reader->at++;
        *character_out = '\b';
        return PI2_OK;
    }
    if (!is_shorthand) return read_escape(reader, character_out);
    reader->at++;
    return PI2_OK;
}

static pi2_status read_class(pattern_reader *reader) {
    character_set set = {.count = 0};
    const bool is_negated = reader->is_negated = reader->at < reader->end && *reader->at == '^';
    reader->at += is_negated;
    while (reader->at < reader->end && *reader->at != ']') {
        uint32_t first = 0, last;
        bool is_character, is_range_end = true;
        if (*reader->at == '[') return refuse(reader, "'[' within a class is not supported: write \\[");
        PI2_TRY(read_class_part(reader, &set, &first, &is_character));
        if (!is_character) continue;
        last = first;
        if (reader->end - reader->at >= 2 && reader->at[0] == '-' && reader->at[1] != ']') {
            reader->at++;
            PI2_TRY(read_class_part(reader, &set, &last, &is_range_end));
        }
        if (!is_range_end || last < first) return refuse(reader, "a range ends before it begins");
        PI2_TRY(add_range(reader, &set, first, last));
    }
    if (reader->at == reader->end) return refuse(reader, "']' is missing");
    reader->at++;
    reader->is_negated = false;
    if (is_negated) PI2_TRY(turn_round(reader, &set));
    return add_set(reader, &set);
}

/* ---- structure ---- */

static pi2_status read_alternatives(pattern_reader *reader, bool is_whole);

static pi2_status read_group(pattern_reader *reader) {
    const size_t left = (size_t)(reader->end - reader->at);
    if (left && *reader->at == '?') {
        if (left < 2 || reader->at[1] != ':') return refuse(reader, "of groups with '?' only (?:...) is supported");
        reader->at += 2;
    }
    if (reader->depth++ == MOST_GROUPS) return refuse(reader, "groups are nested more than 32 deep");
    pi2_schema_add(reader->body, "(");
    PI2_TRY(read_alternatives(reader, false));
    pi2_schema_add(reader->body, ")");
    reader->depth--;
    if (reader->at == reader->end) return refuse(reader, "')' is missing");
    reader->at++;
    return PI2_OK;
}

static pi2_status read_part(pattern_reader *reader) {
    character_set set = {.count = 0};
    uint32_t character = 0;
    bool is_shorthand = false;
    switch (*reader->at) {
    case '(': reader->at++; return read_group(reader);
    case '[': reader->at++; return read_class(reader);
    case '^':
    case '$': return refuse(reader, "'^' and '$' are supported at the ends of the pattern's alternatives");
    case '*':
    case '+':
    case '?':
    case '{': return refuse(reader, "nothing is before a repetition");
    case '.':
        reader->at++;
        PI2_TRY(add_range(reader, &set, '\n', '\n'));
        PI2_TRY(add_range(reader, &set, '\r', '\r'));
        PI2_TRY(add_range(reader, &set, 0x2028, 0x2029));
        PI2_TRY(turn_round(reader, &set));
        return add_set(reader, &set);
    case '\\':
        reader->at++;
        if (reader->at < reader->end) PI2_TRY(add_shorthand(reader, *reader->at, &set, &is_shorthand));
        if (is_shorthand) reader->at++;
        else PI2_TRY(read_escape(reader, &character));
        break;
    default: PI2_TRY(read_plain(reader, &character)); break;
    }
    if (!is_shorthand) PI2_TRY(add_range(reader, &set, character, character));
    return add_set(reader, &set);
}

/** "*", "+", "?", "{1,2}" as GBNF has them too; behind one "?" changes which match is found, not whether. */
static pi2_status read_repeat(pattern_reader *reader) {
    const char *begin = reader->at;
    if (reader->at == reader->end || !strchr("*+?{", *reader->at)) return PI2_OK;
    if (*reader->at == '{') {
        while (reader->at < reader->end && *reader->at != '}') {
            reader->at++;
            if (reader->at < reader->end && !strchr("0123456789,}", *reader->at)) {
                return refuse(reader, "a repetition is {3}, {3,} or {3,5}: write \\{ for the character");
            }
        }
        if (reader->at == reader->end) return refuse(reader, "'}' is missing");
        if (begin[1] == ',' || begin[1] == '}') return refuse(reader, "a repetition is {3}, {3,} or {3,5}");
    }
    reader->at++;
    pi2_schema_add_bytes(reader->body, begin, (size_t)(reader->at - begin));
    if (reader->at < reader->end && *reader->at == '?') reader->at++;
    if (reader->at < reader->end && strchr("*+?{", *reader->at)) return refuse(reader, "a repetition is repeated");
    return PI2_OK;
}

static pi2_status read_alternative(pattern_reader *reader, bool is_whole) {
    const bool is_bound = is_whole && reader->at < reader->end && *reader->at == '^';
    reader->at += is_bound;
    if (is_whole && !is_bound) pi2_schema_add(reader->body, "character* ");
    while (reader->at < reader->end && *reader->at != '|' && *reader->at != ')') {
        if (is_whole && *reader->at == '$' && (reader->at + 1 == reader->end || reader->at[1] == '|')) {
            reader->at++;
            return PI2_OK;
        }
        PI2_TRY(read_part(reader));
        PI2_TRY(read_repeat(reader));
        pi2_schema_add(reader->body, " ");
    }
    if (is_whole) pi2_schema_add(reader->body, "character*");
    else pi2_schema_add(reader->body, "\"\"");
    return PI2_OK;
}

static pi2_status read_alternatives(pattern_reader *reader, bool is_whole) {
    for (;;) {
        PI2_TRY(read_alternative(reader, is_whole));
        if (reader->at == reader->end || *reader->at != '|') return PI2_OK;
        reader->at++;
        pi2_schema_add(reader->body, " | ");
    }
}

pi2_status pi2_schema_pattern(const char *pattern, size_t length, const pi2_schema_place *place,
                              pi2_schema_text *body) {
    pattern_reader reader = {pattern, pattern + length, place, body, 0, false};
    if (length > MOST_PATTERN_BYTES) return pi2_schema_refuse(place, "the pattern has more than 4096 bytes");
    PI2_TRY(read_alternatives(&reader, true));
    return reader.at == reader.end ? PI2_OK : refuse(&reader, "')' without '('");
}
