/* jinja_arena.c: bounded memory, counted work and located errors of the interpreter. */
#include "chat_template/jinja.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, CHUNK_BYTES = 32 * 1024 };

struct pi2_jinja_chunk {
    pi2_jinja_chunk *next;
    size_t used, size;
};

/* The header's size, rounded so that the bytes after it stay aligned. */
static const size_t header_bytes = (sizeof(pi2_jinja_chunk) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

static size_t limit_of(const pi2_jinja_arena *arena) {
    return arena->most_bytes != 0 && arena->most_bytes < PI2_JINJA_MEMORY_BYTES ? arena->most_bytes
                                                                               : PI2_JINJA_MEMORY_BYTES;
}

void *pi2_jinja_alloc(pi2_jinja_arena *arena, size_t count, size_t size) {
    const size_t limit = limit_of(arena);
    if (size != 0 && count > limit / size) {
        arena->bytes = SIZE_MAX; /* what pi2_jinja_no_memory() reports as the limit */
        return NULL;
    }
    const size_t bytes = (count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (arena->bytes > limit || bytes > limit - arena->bytes) {
        arena->bytes = SIZE_MAX;
        return NULL;
    }
    pi2_jinja_chunk *chunk = arena->chunks;
    if (chunk == NULL || chunk->size - chunk->used < bytes) {
        const size_t room = bytes > CHUNK_BYTES / 4 ? bytes : CHUNK_BYTES;
        pi2_jinja_chunk *added = calloc(1, header_bytes + room);
        if (added == NULL) return NULL;
        added->size = room;
        if (room == bytes && chunk != NULL) { /* a large one leaves the present chunk in use */
            added->next = chunk->next;
            chunk->next = added;
        } else {
            added->next = chunk;
            arena->chunks = added;
        }
        chunk = added;
    }
    void *memory = (char *)chunk + header_bytes + chunk->used;
    chunk->used += bytes;
    arena->bytes += bytes;
    arena->work += bytes / 64;
    return memory;
}

void pi2_jinja_arena_free(pi2_jinja_arena *arena) {
    while (arena->chunks != NULL) {
        pi2_jinja_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
    arena->bytes = 0;
}

pi2_status pi2_jinja_no_memory(const pi2_jinja_arena *arena) {
    const size_t limit = limit_of(arena);
    if (arena->bytes > limit && limit < PI2_JINJA_MEMORY_BYTES)
        return pi2_fail(PI2_ERR_CONTEXT, "chat template: it needs more than the %zu bytes that are "
                        "planned for it: shorten the conversation, or give a longer context (-c)",
                        limit);
    if (arena->bytes > limit)
        return pi2_fail(PI2_ERR_FORMAT,
                        "chat template: it needs more than its limit of %d MiB of memory",
                        PI2_JINJA_MEMORY_BYTES >> 20);
    return pi2_fail(PI2_ERR_MEMORY, "chat template: the machine has no memory to run it");
}

void pi2_jinja_charge(pi2_jinja_arena *arena, size_t items) { arena->work += items; }

/* ---- errors ---- */

/* A template's text goes to a terminal here: no control character of it may. */
static void make_printable(char *text) {
    for (; *text != '\0'; text++) {
        const unsigned char byte = (unsigned char)*text;
        if (byte < 0x20 || byte == 0x7f) *text = ' ';
    }
}

pi2_status pi2_jinja_fail_at(uint32_t line, uint32_t column, pi2_status status, const char *format,
                             ...) {
    char text[800];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    make_printable(text);
    return pi2_fail(status, "chat template, line %lu, column %lu: %s", (unsigned long)line,
                    (unsigned long)column, text);
}

pi2_status pi2_jinja_refuse_at(uint32_t line, uint32_t column, const char *format, ...) {
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return pi2_jinja_fail_at(line, column, PI2_ERR_UNSUPPORTED,
                             "%s is not supported; use 'run --raw' or 'run --chat-template NAME'", text);
}
