/* apply_template_command.c: "powerinfer2 apply-template": a conversation in JSON to the text of a prompt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "options.h"
#include "output.h"
#include "powerinfer2/prompt.h"
#include "template_file.h"

enum { MOST_JSON_BYTES = 16 << 20 /* which is what the library reads */ };

typedef struct apply_settings {
    const char *model, *chat_template, *messages, *tools, *variables, *date;
    bool no_generation_prompt;
} apply_settings;

#define APPLY(field) offsetof(apply_settings, field)
static const pi2_cli_option apply_options[] = {
    {"-m, --model", "FILE", PI2_CLI_TEXT, APPLY(model), NULL,
     "GGUF or cluster file with the template and the special tokens; one that holds only a vocabulary will do. Without "
     "a model bos_token and eos_token are empty.", "LLAMA_ARG_MODEL", 0, 0},
    {"--chat-template, --chat-template-file", "FILE|NAME", PI2_CLI_TEXT, APPLY(chat_template), NULL,
     PI2_CLI_CHAT_TEMPLATE_HELP, NULL, 0, 0},
    {"--messages", "FILE", PI2_CLI_TEXT, APPLY(messages), NULL,
     "The conversation: a JSON array of messages as OpenAI's API has them, given to the template as they are (role, "
     "content, tool_calls, tool_call_id, reasoning_content and so on). \"-\" is stdin.", NULL, 0, 0},
    {"--tools", "FILE", PI2_CLI_TEXT, APPLY(tools), NULL,
     "A JSON array of the tools that are offered. A model with a template for tools of its own uses that one then.",
     NULL, 0, 0},
    {"--no-generation-prompt", NULL, PI2_CLI_FLAG, APPLY(no_generation_prompt), NULL,
     "Leaves out what begins the answer.", NULL, 0, 0},
    {"--kwargs, --chat-template-kwargs", "JSON", PI2_CLI_TEXT, APPLY(variables), NULL,
     "More variables for the template, as a JSON object such as {\"enable_thinking\": false}; bos_token and eos_token "
     "may be among them.", NULL, 0, 0},
    {"--date", "DATE", PI2_CLI_TEXT, APPLY(date), NULL,
     "The day, and perhaps the time, that a template is told: \"YYYY-MM-DD\" or \"YYYY-MM-DD HH:MM:SS\". Otherwise "
     "now.", NULL, 0, 0},
};

/** A file of JSON, less a byte-order mark; path NULL: none. Returns PI2_EXIT_OK, or a code after an error line. */
static int read_json(const char *path, char **text_out, size_t *length_out) {
    if (!path) return PI2_EXIT_OK;
    const int code = pi2_cli_read_text(path, MOST_JSON_BYTES + 1, text_out, length_out);
    if (code != PI2_EXIT_OK) return code;
    if (*length_out > MOST_JSON_BYTES) {
        return pi2_cli_usage_error("%s: %d bytes of JSON are read at most, and this is longer", path, MOST_JSON_BYTES);
    }
    return PI2_EXIT_OK;
}

/** Byte for byte, but on a terminal, which must not obey what a file says. */
static int print_prompt(const char *text, size_t length) {
    if (!isatty(STDOUT_FILENO)) {
        (void)fwrite(text, 1, length, stdout);
        return pi2_cli_finish_stdout();
    }
    while (length > 0) {
        const char *end = memchr(text, '\n', length);
        const size_t line = end ? (size_t)(end - text) : length;
        pi2_cli_print_safely(stdout, text, line);
        (void)putchar('\n');
        text += end ? line + 1 : line;
        length -= end ? line + 1 : line;
    }
    return pi2_cli_finish_stdout();
}

static int make_prompt(const apply_settings *settings, pi2_prompt_options *options) {
    pi2_status status = PI2_OK;
    if (settings->model) status = pi2_model_file_open(settings->model, &options->model);
    char *text = NULL;
    size_t length = 0;
    if (status == PI2_OK) status = pi2_prompt_make(options, &text, &length);
    pi2_model_file_close(options->model);
    if (status != PI2_OK) return pi2_cli_failed(status);
    const int code = print_prompt(text, length);
    free(text);
    return code;
}

static int check_settings(const apply_settings *settings) {
    if (!settings->model && !settings->chat_template) {
        return pi2_cli_usage_error("apply-template: no model and no chat template: give one with -m FILE or "
                                   "--chat-template FILE");
    }
    if (!settings->messages) return pi2_cli_usage_error("apply-template: no messages: give them with --messages FILE");
    if (settings->tools && strcmp(settings->messages, "-") == 0 && strcmp(settings->tools, "-") == 0) {
        return pi2_cli_usage_error("apply-template: stdin (\"-\") holds either the messages or the tools");
    }
    return PI2_EXIT_OK;
}

int pi2_cli_apply_template(int argument_count, char **arguments) {
    static apply_settings settings;
    const pi2_cli_section sections[] = {
        {"Options", apply_options, sizeof apply_options / sizeof apply_options[0], &settings}};
    const pi2_cli_command command = {
        "apply-template", "(-m MODEL | --chat-template FILE) --messages FILE [--tools FILE]",
        "Prints the prompt that a chat template makes of a conversation, and nothing else, as Hugging Face's "
        "transformers would. What the template refuses is refused, with its own words.", sections, 1};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    code = check_settings(&settings);
    if (code != PI2_EXIT_OK) return code;
    char *template_text = NULL, *messages = NULL, *tools = NULL;
    pi2_prompt_options options = {.variables = settings.variables, .date = settings.date,
                                  .add_generation_prompt = !settings.no_generation_prompt};
    if (settings.chat_template) {
        code = pi2_cli_read_template(settings.chat_template, &template_text, &options.chat_template);
    }
    if (code == PI2_EXIT_OK) code = read_json(settings.messages, &messages, &options.messages_length);
    if (code == PI2_EXIT_OK) code = read_json(settings.tools, &tools, &options.tools_length);
    options.messages = messages;
    options.tools = tools;
    if (code == PI2_EXIT_OK) code = make_prompt(&settings, &options);
    free(template_text);
    free(messages);
    free(tools);
    return code;
}
