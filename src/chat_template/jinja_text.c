/* jinja_text.c: strings whose bytes know their origin, and the text that grows from them. */
#include "chat_template/jinja.h"

#include <string.h>

/* ---- text that grows ---- */

static pi2_status grow(pi2_jinja_text *text, size_t more, bool need_marks) {
    if (more > PI2_JINJA_STRING_BYTES - text->length)
        return pi2_fail(PI2_ERR_FORMAT,
                        "chat template: one text passes the limit of %d MiB of output",
                        PI2_JINJA_STRING_BYTES >> 20);
    size_t capacity = text->capacity;
    if (text->length + more > capacity) {
        capacity = text->length + more + (text->length + more) / 2 + 32;
        char *bytes = pi2_jinja_alloc(text->arena, capacity, 1);
        if (bytes == NULL) return pi2_jinja_no_memory(text->arena);
        if (text->length > 0) memcpy(bytes, text->bytes, text->length);
        text->bytes = bytes;
    }
    if ((need_marks && text->marks == NULL) ||
        (text->marks != NULL && capacity != text->capacity)) {
        unsigned char *marks = pi2_jinja_alloc(text->arena, capacity, 1);
        if (marks == NULL) return pi2_jinja_no_memory(text->arena);
        if (text->marks != NULL) memcpy(marks, text->marks, text->length);
        else memset(marks, text->trusted, text->length);
        text->marks = marks;
    }
    text->capacity = capacity;
    return PI2_OK;
}

pi2_status pi2_jinja_text_add(pi2_jinja_text *text, pi2_jinja_string string) {
    if (string.length == 0) return PI2_OK;
    const bool mixed = string.marks != NULL || (text->length > 0 && text->trusted != string.trusted);
    if (text->length == 0 && text->marks == NULL) text->trusted = string.trusted;
    PI2_TRY(grow(text, string.length, mixed));
    memcpy(text->bytes + text->length, string.bytes, string.length);
    if (text->marks != NULL) {
        if (string.marks != NULL) memcpy(text->marks + text->length, string.marks, string.length);
        else memset(text->marks + text->length, string.trusted, string.length);
    }
    text->length += string.length;
    pi2_jinja_charge(text->arena, string.length / 64);
    return PI2_OK;
}

pi2_status pi2_jinja_text_add_bytes(pi2_jinja_text *text, const char *bytes, size_t length,
                                    bool trusted) {
    return pi2_jinja_text_add(text, (pi2_jinja_string){.bytes = bytes, .length = length, .trusted = trusted});
}

pi2_status pi2_jinja_text_add_own(pi2_jinja_text *text, const char *bytes) {
    return pi2_jinja_text_add(text, pi2_jinja_own_string(bytes));
}

pi2_jinja_string pi2_jinja_text_string(const pi2_jinja_text *text) {
    if (text->length == 0) return pi2_jinja_own_string("");
    return (pi2_jinja_string){text->bytes, text->marks, text->length, text->trusted, false};
}

/* ---- strings ---- */

pi2_jinja_string pi2_jinja_own_string(const char *bytes) {
    return (pi2_jinja_string){.bytes = bytes, .length = strlen(bytes), .trusted = true};
}

pi2_jinja_string pi2_jinja_part(pi2_jinja_string string, size_t start, size_t length) {
    if (length == 0) return (pi2_jinja_string){"", NULL, 0, string.trusted, string.markup};
    string.bytes += start;
    if (string.marks != NULL) string.marks += start;
    string.length = length;
    return string;
}

bool pi2_jinja_is_trusted(pi2_jinja_string string, size_t index) {
    return string.marks != NULL ? string.marks[index] != 0 : string.trusted;
}

bool pi2_jinja_same_bytes(pi2_jinja_string a, pi2_jinja_string b) {
    return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

bool pi2_jinja_is(pi2_jinja_string string, const char *text) {
    return pi2_jinja_same_bytes(string, pi2_jinja_own_string(text));
}

size_t pi2_jinja_find(pi2_jinja_arena *arena, pi2_jinja_string string, pi2_jinja_string part,
                      size_t from) {
    if (part.length > string.length || from > string.length - part.length) return SIZE_MAX;
    if (part.length == 0) return from;
    const size_t last = string.length - part.length;
    /* A first byte that keeps matching makes memcmp the cost: count what is really compared. */
    size_t compared = 0, at = from;
    while (at <= last) {
        const char *found = memchr(string.bytes + at, part.bytes[0], last - at + 1);
        if (found == NULL) break;
        at = (size_t)(found - string.bytes);
        size_t same = 1;
        while (same < part.length && found[same] == part.bytes[same]) same++;
        compared += same;
        if (same == part.length) {
            pi2_jinja_charge(arena, (at - from + compared) / 64);
            return at;
        }
        at++;
        if (compared / 64 > PI2_JINJA_WORK) break; /* the next step reports the limit */
    }
    pi2_jinja_charge(arena, (string.length - from + compared) / 64);
    return SIZE_MAX;
}

/** Bytes of a well-formed character that begins with `first`, 0 for what begins none. */
static size_t sequence_length(unsigned char first) {
    if (first < 0x80) return 1;
    if (first >= 0xc2 && first < 0xe0) return 2;
    if (first >= 0xe0 && first < 0xf0) return 3;
    if (first >= 0xf0 && first < 0xf5) return 4;
    return 0;
}

size_t pi2_jinja_character(pi2_jinja_string string, size_t at, int32_t *code_point) {
    const unsigned char *bytes = (const unsigned char *)string.bytes + at;
    const size_t length = sequence_length(bytes[0]);
    *code_point = bytes[0];
    if (length == 1) return 1;
    *code_point = -1;
    if (length == 0 || length > string.length - at) return 1;
    int32_t code = bytes[0] & (0x7f >> length);
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80) return 1;
        code = code << 6 | (bytes[i] & 0x3f);
    }
    const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return 1;
    *code_point = code;
    return length;
}

/* Start of the character that ends before `end`. */
static size_t start_of_previous(pi2_jinja_string string, size_t end) {
    for (size_t back = 2; back <= 4 && back <= end; back++) {
        const unsigned char byte = (unsigned char)string.bytes[end - back];
        if ((byte & 0xc0) == 0x80) continue;
        int32_t code_point;
        const pi2_jinja_string head = {.bytes = string.bytes, .length = end, .trusted = true};
        if (pi2_jinja_character(head, end - back, &code_point) == back) return end - back;
        break;
    }
    return end - 1;
}

size_t pi2_jinja_character_count(pi2_jinja_arena *arena, pi2_jinja_string string) {
    size_t count = 0;
    int32_t code_point;
    for (size_t at = 0; at < string.length; count++)
        at += pi2_jinja_character(string, at, &code_point);
    pi2_jinja_charge(arena, string.length / 64);
    return count;
}

bool pi2_jinja_is_space(int32_t c) {
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool strips(pi2_jinja_string string, size_t at, size_t length, int32_t code_point,
                   const pi2_jinja_string *set) {
    if (set == NULL) return pi2_jinja_is_space(code_point);
    int32_t other;
    for (size_t i = 0; i < set->length;) {
        const size_t bytes = pi2_jinja_character(*set, i, &other);
        if (bytes == length && memcmp(set->bytes + i, string.bytes + at, bytes) == 0) return true;
        i += bytes;
    }
    return false;
}

pi2_jinja_string pi2_jinja_strip(pi2_jinja_arena *arena, pi2_jinja_string string,
                                 const pi2_jinja_string *set, bool left, bool right) {
    size_t start = 0, end = string.length;
    int32_t code_point;
    while (left && start < end) {
        const size_t bytes = pi2_jinja_character(string, start, &code_point);
        if (!strips(string, start, bytes, code_point, set)) break;
        start += bytes;
    }
    while (right && end > start) {
        const size_t at = start_of_previous(string, end);
        if (at < start) break;
        (void)pi2_jinja_character(string, at, &code_point);
        if (!strips(string, at, end - at, code_point, set)) break;
        end = at;
    }
    const size_t stripped = string.length - (end - start);
    pi2_jinja_charge(arena, stripped * (set != NULL ? set->length + 1 : 1) / 64);
    return pi2_jinja_part(string, start, end - start);
}

size_t pi2_jinja_encode(int32_t c, char out[4]) {
    if (c < 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) c = 0xfffd;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    const size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    const int32_t head[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = length - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(head[length] | c);
    return length;
}
