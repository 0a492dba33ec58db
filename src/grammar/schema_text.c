/* schema_text.c: text in pieces, and where something is. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/schema_internal.h"

#define MOST_BYTES (PI2_GRAMMAR_TEXT_BYTES + 1)

static bool make_room(pi2_schema_text *text, size_t length) {
    if (text->has_failed || length > MOST_BYTES - 1 - text->length) text->has_failed = true;
    if (text->has_failed || text->length + length < text->room) return !text->has_failed;
    size_t room = text->room ? text->room : 256;
    while (room <= text->length + length) room *= 2;
    char *grown = realloc(text->data, room);
    if (!grown) {
        text->has_failed = true;
        return false;
    }
    text->data = grown;
    text->room = room;
    return true;
}

void pi2_schema_add_bytes(pi2_schema_text *text, const char *bytes, size_t length) {
    if (!make_room(text, length)) return;
    if (length) memcpy(text->data + text->length, bytes, length);
    text->length += length;
    text->data[text->length] = '\0';
}

void pi2_schema_text_free(pi2_schema_text *text) {
    free(text->data);
    *text = (pi2_schema_text){0};
}

void pi2_schema_add(pi2_schema_text *text, const char *format, ...) {
    char piece[512];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(piece, sizeof piece, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof piece) text->has_failed = true;
    else pi2_schema_add_bytes(text, piece, (size_t)length);
}

void pi2_schema_add_literal(pi2_schema_text *text, const char *bytes, size_t length) {
    pi2_schema_add(text, "\"");
    for (size_t i = 0; i < length; i++) {
        const unsigned char byte = (unsigned char)bytes[i];
        if (byte == '"' || byte == '\\') pi2_schema_add(text, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f) pi2_schema_add(text, "\\x%02X", byte);
        else pi2_schema_add_bytes(text, bytes + i, 1);
    }
    pi2_schema_add(text, "\"");
}

/** The pointer's text, as much of its end as has room. */
static void add_place(const pi2_schema_place *place, char *text, size_t room) {
    if (place->up) add_place(place->up, text, room);
    const size_t length = strlen(text);
    if (!place->up) (void)snprintf(text, room, "%s", place->name);
    else if (place->name) (void)snprintf(text + length, room - length, "/%s", place->name);
    else (void)snprintf(text + length, room - length, "/%zu", place->index);
}

pi2_status pi2_schema_refuse(const pi2_schema_place *place, const char *format, ...) {
    char where[512] = "", what[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    add_place(place, where, sizeof where);
    return pi2_fail(PI2_ERR_UNSUPPORTED, "the JSON schema, at %s: %s", where, what);
}

pi2_status pi2_schema_count(const json_t *schema, const char *name, const pi2_schema_place *place, int64_t *value) {
    const json_t *member = json_object_get(schema, name);
    const pi2_schema_place at = {place, name, 0};
    if (!member) return PI2_OK;
    if (json_is_real(member) && json_real_value(member) >= 0 && json_real_value(member) <= 1e15 &&
        (double)(int64_t)json_real_value(member) == json_real_value(member)) {
        *value = (int64_t)json_real_value(member);
        return PI2_OK;
    }
    if (!json_is_integer(member) || json_integer_value(member) < 0) {
        return pi2_schema_refuse(&at, "this must be a whole number, 0 at least");
    }
    *value = json_integer_value(member);
    return PI2_OK;
}
