/* chat_note.c: messages to bytes and back. */
#include "chat_note.h"

#include <stdlib.h>
#include <string.h>

static const char *const roles[] = {"system", "user", "assistant"};

bool pi2_cli_pack_messages(const pi2_message *messages, size_t count, char **note_out, size_t *length_out) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) length += strlen(messages[i].role) + strlen(messages[i].content) + 2;
    char *at = malloc(length + 1);
    *note_out = at;
    *length_out = length;
    for (size_t i = 0; at && i < count; i++) {
        const char *const texts[] = {messages[i].role, messages[i].content};
        for (size_t t = 0; t < 2; t++) {
            const size_t bytes = strlen(texts[t]) + 1;
            memcpy(at, texts[t], bytes);
            at += bytes;
        }
    }
    return *note_out != NULL;
}

const char *pi2_cli_next_message(const char *note, size_t length, size_t *at) {
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        const size_t bytes = strlen(roles[i]) + 1;
        if (length - *at <= bytes || memcmp(note + *at, roles[i], bytes) != 0) continue;
        *at += bytes;
        return memchr(note + *at, '\0', length - *at) ? roles[i] : NULL;
    }
    return NULL;
}

bool pi2_cli_check_messages(const char *note, size_t length) {
    size_t at = 0;
    while (at < length && pi2_cli_next_message(note, length, &at)) at += strlen(note + at) + 1;
    return note && length > 0 && at == length;
}
