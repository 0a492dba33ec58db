/* chat.h: a conversation on a terminal. */
#ifndef PI2_CLI_CHAT_H
#define PI2_CLI_CHAT_H

#include "generation.h"

/**
 * Reads messages from the terminal and answers each, until the end of input or /exit. system may be
 * NULL. simple_io: without libedit. Returns the exit code.
 */
int pi2_cli_chat(pi2_engine *engine, pi2_session *session, const char *system,
                 const pi2_cli_generation_options *options, bool simple_io);

#endif
