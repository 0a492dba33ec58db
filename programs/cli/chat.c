/*
 * chat.c: a conversation. The whole history is rendered anew each turn, so that the template is
 * always obeyed; the tokens that the session holds already are kept as far as they agree.
 */
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat_note.h"
#include "line_editor.h"
#include "output.h"
#include "powerinfer2/prompt_cache.h"
#include "signals.h"

typedef struct conversation {
    pi2_engine *engine;
    pi2_session *session;
    const pi2_cli_generation_options *options;
    pi2_message *messages; /* contents are malloc'd */
    size_t count, capacity, first_turn; /* first_turn: messages that /clear keeps */
    bool is_behind; /* the session holds what the conversation has lost, until the next prompt */
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

/** Answers the last message. Returns PI2_EXIT_OK also when the turn had to be given up. */
static int answer(conversation *chat) {
    int32_t *tokens = NULL;
    size_t count = 0;
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
    pi2_cli_generation generation = {0};
    pi2_cli_note_start();
    int code = pi2_cli_generate(chat->engine, chat->session, tokens, count, chat->options, &generation);
    chat->is_behind = false;
    if (code == PI2_EXIT_OK) {
        (void)fputc('\n', stdout);
        code = pi2_cli_finish_stdout();
        pi2_cli_print_report(chat->engine, &generation, pi2_session_seed(chat->session));
        if (generation.prompt_count < generation.prompt_wanted) {
            drop_messages(chat, chat->count - 1); /* an empty answer would be an example to follow */
            chat->is_behind = true;
            pi2_cli_note("the message was not read to its end and is forgotten");
        } else if (!add_message(chat, "assistant", copy_text(generation.text.data))) {
            code = no_memory();
        }
    }
    pi2_cli_generation_free(&generation);
    free(tokens);
    return code;
}

/* ---- commands ---- */

static int clear(conversation *chat, const char *argument) {
    (void)argument;
    drop_messages(chat, chat->first_turn);
    chat->is_behind = true;
    return PI2_EXIT_OK;
}

static int undo(conversation *chat, const char *argument) {
    (void)argument;
    size_t last = chat->count;
    while (last > chat->first_turn && strcmp(chat->messages[last - 1].role, "user") != 0) last--;
    if (last == chat->first_turn) {
        pi2_cli_note("there is no message to take back");
        return PI2_EXIT_OK;
    }
    drop_messages(chat, last - 1);
    chat->is_behind = true;
    pi2_cli_note("the last message and its answer are forgotten; %zu messages are left", chat->count);
    return PI2_EXIT_OK;
}

static int answer_again(conversation *chat, const char *argument) {
    (void)argument;
    if (chat->count == chat->first_turn || strcmp(chat->messages[chat->count - 1].role, "assistant") != 0) {
        pi2_cli_note("there is no answer to make again");
        return PI2_EXIT_OK;
    }
    drop_messages(chat, chat->count - 1);
    return answer(chat);
}

/* Cuts from the session what the conversation has lost, so that it is in no file. */
static void catch_up(conversation *chat) {
    int32_t *tokens = NULL;
    size_t count = 0;
    if (!chat->is_behind) return;
    chat->is_behind = false;
    if (chat->count == 0 ||
        pi2_engine_chat_tokens(chat->engine, chat->messages, chat->count, false, &tokens, &count) != PI2_OK) {
        count = 0;
    }
    (void)pi2_session_recall(chat->session, tokens, count, NULL);
    free(tokens);
}

static int save(conversation *chat, const char *path) {
    char *note = NULL;
    size_t length = 0;
    catch_up(chat);
    if (!pi2_cli_pack_messages(chat->messages, chat->count, &note, &length)) return no_memory();
    const pi2_status status = pi2_session_save(chat->session, path, note, length);
    free(note);
    if (status != PI2_OK) (void)pi2_cli_failed(status);
    else pi2_cli_note("%s has %zu messages, %u tokens", path, chat->count, pi2_session_position(chat->session));
    return PI2_EXIT_OK;
}

/* The conversation becomes what the note holds; an error line tells what is wrong with it. */
static int take_note(conversation *chat, const char *path, char *note, size_t length) {
    size_t at = 0;
    if (!pi2_cli_check_messages(note, length)) {
        chat->is_behind = true;
        (void)pi2_cli_usage_error("%s holds no conversation: it was saved by another program", path);
        return PI2_EXIT_OK;
    }
    drop_messages(chat, 0);
    for (const char *role; (role = pi2_cli_next_message(note, length, &at));) {
        if (!add_message(chat, role, copy_text(note + at))) return no_memory();
        at += strlen(note + at) + 1;
    }
    chat->first_turn = chat->count && strcmp(chat->messages[0].role, "system") == 0;
    pi2_cli_note("%zu messages, %u tokens from %s", chat->count, pi2_session_position(chat->session), path);
    return PI2_EXIT_OK;
}

static int load(conversation *chat, const char *path) {
    char *note = NULL;
    size_t length = 0;
    const pi2_status status = pi2_session_load(chat->session, path, &note, &length);
    if (status != PI2_OK) (void)pi2_cli_failed(status);
    chat->is_behind = status != PI2_OK; /* it may be empty, which is made good by the next prompt */
    const int code = status == PI2_OK ? take_note(chat, path, note, length) : PI2_EXIT_OK;
    free(note);
    return code;
}

static int help(conversation *chat, const char *argument);

/** What can be typed in place of a message. */
static const struct command {
    const char *name, *argument, *does;
    int (*run)(conversation *chat, const char *argument); /* NULL: ends the chat */
} commands[] = {
    {"/help", NULL, "prints this", help},
    {"/clear", NULL, "starts a new conversation; the system message stays", clear},
    {"/undo", NULL, "takes the last message and its answer back", undo},
    {"/regen", NULL, "answers the last message again: in another way where --seed is -1", answer_again},
    {"/save", "FILE", "writes the conversation, and what was computed of it, into a file", save},
    {"/load", "FILE", "goes on with one that was saved with this model", load},
    {"/exit", NULL, "ends the chat, as /quit and Ctrl-D do", NULL},
    {"/quit", NULL, NULL, NULL},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int help(conversation *chat, const char *argument) {
    (void)chat;
    (void)argument;
    for (size_t i = 0; i < COMMANDS; i++) {
        const char *name = commands[i].name, *wanted = commands[i].argument ? commands[i].argument : "";
        if (commands[i].does) pi2_cli_note("  %s %-*s %s", name, (int)(11 - strlen(name)), wanted, commands[i].does);
    }
    return PI2_EXIT_OK;
}

/** The command that a line is, and its argument, without the blanks around it; NULL: it is a message. */
static const struct command *find_command(char *line, const char **argument_out) {
    const size_t length = strcspn(line, " ");
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strlen(commands[i].name) != length || memcmp(commands[i].name, line, length) != 0) continue;
        char *argument = line + length + strspn(line + length, " ");
        size_t end = strlen(argument);
        while (end && (argument[end - 1] == ' ' || argument[end - 1] == '\n')) end--;
        if ((end > 0 && !commands[i].argument) || strchr(argument, '\n')) return NULL;
        argument[end] = '\0';
        *argument_out = argument;
        return &commands[i];
    }
    return NULL;
}

static int run_command(conversation *chat, const struct command *command, const char *argument) {
    char path[4096];
    if (command->argument && *argument == '\0') {
        pi2_cli_note("%s needs the name of a file", command->name);
        return PI2_EXIT_OK;
    }
    const char *home = strncmp(argument, "~/", 2) == 0 ? getenv("HOME") : NULL;
    const int length = snprintf(path, sizeof path, "%s%s", home ? home : "", home ? argument + 1 : argument);
    if ((size_t)length >= sizeof path) {
        pi2_cli_note("the name of the file is too long");
        return PI2_EXIT_OK;
    }
    return command->run(chat, path);
}

/** Handles one message. Sets *ends for /exit. */
static int take_message(conversation *chat, char *line, bool *ends) {
    const char *argument = NULL;
    const struct command *command = find_command(line, &argument);
    if (command) {
        *ends = !command->run;
        return *ends ? PI2_EXIT_OK : run_command(chat, command, argument);
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
    pi2_cli_note("/help tells of commands, /exit or Ctrl-D ends; Ctrl-C ends an answer; a line that ends in \\ goes on "
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
    return code;
}
