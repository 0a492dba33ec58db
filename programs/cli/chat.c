/*
 * chat.c: a conversation. The whole history is rendered anew each turn, so that the template is
 * always obeyed; the tokens that the session holds already are kept as far as they agree.
 */
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "line_editor.h"
#include "output.h"
#include "powerinfer2/session.h"
#include "signals.h"

typedef struct conversation {
    pi2_engine *engine;
    pi2_session *session;
    const pi2_cli_generation_options *options;
    pi2_message *messages; /* contents are malloc'd */
    size_t count, capacity, first_turn; /* first_turn: messages that /clear keeps */
    pi2_cli_tokens timeline; /* what the session holds */
} conversation;

/** Takes a malloc'd content. */
static bool add_message(conversation *chat, const char *role, char *content) {
    if (content && chat->count == chat->capacity) {
        const size_t capacity = chat->capacity ? 2 * chat->capacity : 16;
        pi2_message *grown = realloc(chat->messages, capacity * sizeof *grown);
        if (!grown) {
            free(content);
            return false;
        }
        chat->messages = grown;
        chat->capacity = capacity;
    }
    if (!content) return false;
    chat->messages[chat->count++] = (pi2_message){role, content};
    return true;
}

static void drop_messages(conversation *chat, size_t count) {
    while (chat->count > count) free((void *)(uintptr_t)chat->messages[--chat->count].content);
}

static char *copy_text(const char *text) {
    const size_t bytes = strlen(text) + 1;
    char *copy = malloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

static int no_memory(void) {
    (void)pi2_cli_usage_error("no memory for the conversation");
    return PI2_EXIT_MEMORY;
}

/** Cuts the session back to what it shares with the new prompt; returns how much that is. One
 *  token at least is left to compute, because its logits are needed. */
static pi2_status keep_common(conversation *chat, const int32_t *tokens, size_t count, size_t *kept_out) {
    size_t kept = 0;
    while (kept < chat->timeline.length && kept + 1 < count && chat->timeline.data[kept] == tokens[kept]) {
        kept++;
    }
    *kept_out = kept;
    chat->timeline.length = kept;
    return pi2_session_truncate(chat->session, (uint32_t)kept);
}

/** Answers the last message. Returns PI2_EXIT_OK also when the turn had to be given up. */
static int answer(conversation *chat) {
    int32_t *tokens = NULL;
    size_t count = 0, kept = 0;
    pi2_status status = pi2_engine_chat_tokens(chat->engine, chat->messages, chat->count, true, &tokens, &count);
    if (status != PI2_OK) {
        const int code = pi2_cli_failed(status);
        if (status == PI2_ERR_MEMORY) return code;
        drop_messages(chat, chat->count - 1); /* the template refuses it: another one may do */
        pi2_cli_note("the message is forgotten");
        return PI2_EXIT_OK;
    }
    if (count >= pi2_engine_get_report(chat->engine)->context_tokens) {
        (void)pi2_cli_usage_error("the conversation (%zu tokens) has filled the context: /clear starts anew", count);
        free(tokens);
        drop_messages(chat, chat->count - 1);
        return PI2_EXIT_OK;
    }
    status = keep_common(chat, tokens, count, &kept);
    pi2_cli_generation generation = {0};
    int code = status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
    if (code == PI2_EXIT_OK) {
        pi2_cli_note_start();
        code = pi2_cli_generate(chat->engine, chat->session, tokens, count, kept, chat->options, &generation);
    }
    if (code == PI2_EXIT_OK) {
        (void)fputc('\n', stdout);
        code = pi2_cli_finish_stdout();
        pi2_cli_print_report(chat->engine, &generation, pi2_session_seed(chat->session));
        /* The session may lack the last token, and after an interruption a part of the prompt. */
        if (!pi2_cli_tokens_add(&chat->timeline, tokens + kept, count - kept) ||
            !pi2_cli_tokens_add(&chat->timeline, generation.tokens.data, generation.tokens.length)) {
            code = no_memory();
        } else if (generation.prompt_count < generation.prompt_wanted) {
            drop_messages(chat, chat->count - 1); /* an empty answer would be an example to follow */
            pi2_cli_note("the message was not read to its end and is forgotten");
        } else if (!add_message(chat, "assistant", copy_text(generation.text.data))) {
            code = no_memory();
        }
        const uint32_t position = pi2_session_position(chat->session);
        if (position < chat->timeline.length) chat->timeline.length = position;
    }
    pi2_cli_generation_free(&generation);
    free(tokens);
    return code;
}

/** Handles one message. Sets *ends for /exit. */
static int take_message(conversation *chat, char *line, bool *ends) {
    if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) {
        *ends = true;
        return PI2_EXIT_OK;
    }
    if (strcmp(line, "/clear") == 0) {
        drop_messages(chat, chat->first_turn);
        return PI2_EXIT_OK;
    }
    if (line[strspn(line, " \t\n")] == '\0') return PI2_EXIT_OK;
    if (!add_message(chat, "user", copy_text(line))) return no_memory();
    pi2_cli_catch_signals(); /* Ctrl-C ends this answer, not the chat */
    return answer(chat);
}

int pi2_cli_chat(pi2_engine *engine, pi2_session *session, const char *system,
                 const pi2_cli_generation_options *options, bool simple_io) {
    if (!pi2_engine_has_chat_template(engine)) {
        return pi2_cli_usage_error("this model has no chat template: name one with --chat-template, "
                                   "or give a prompt with -p");
    }
    conversation chat = {.engine = engine, .session = session, .options = options};
    int code = PI2_EXIT_OK;
    if (system && !add_message(&chat, "system", copy_text(system))) code = no_memory();
    chat.first_turn = chat.count;
    pi2_cli_note("/clear starts anew, /exit or Ctrl-D ends; Ctrl-C ends an answer; a line that ends in \\ goes on "
                 "in the next");
    if (!pi2_cli_has_line_editor() && !simple_io) {
        pi2_cli_note("built without libedit: no arrow keys and no history (scripts/setup.sh build installs it)");
    }
    for (bool ends = false; code == PI2_EXIT_OK && !ends;) {
        char *line = pi2_cli_read_message("> ", simple_io);
        if (line) code = take_message(&chat, line, &ends);
        else if (pi2_cli_interrupted()) code = PI2_EXIT_INTERRUPTED;
        else ends = true;
        free(line);
    }
    drop_messages(&chat, 0);
    free(chat.messages);
    free(chat.timeline.data);
    return code;
}
