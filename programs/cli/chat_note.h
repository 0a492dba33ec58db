/*
 * chat_note.h: the messages of a chat as bytes, which go into a session's file: role and text of each in turn, with a
 * NUL behind each. A note that is read is untrusted.
 */
#ifndef PI2_CLI_CHAT_NOTE_H
#define PI2_CLI_CHAT_NOTE_H

#include <stdbool.h>

#include "powerinfer2/engine.h"

/** *note_out: malloc'd. False: no memory. */
bool pi2_cli_pack_messages(const pi2_message *messages, size_t count, char **note_out, size_t *length_out);
/** Whether the bytes are messages of roles that a chat has, at least one. */
bool pi2_cli_check_messages(const char *note, size_t length);
/** The role of the message that begins at *at, which moves to its text; NULL: there is no more, or it is none. */
const char *pi2_cli_next_message(const char *note, size_t length, size_t *at);

#endif
