/* tokenize_command.c: "powerinfer2 tokenize": text to token ids. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "options.h"
#include "output.h"
#include "powerinfer2/model_file.h"
#include "text_source.h"

typedef struct tokenize_settings {
    const char *model, *text, *file;
    bool no_bos, eos, parse_special;
} tokenize_settings;

#define TOKENIZE(field) offsetof(tokenize_settings, field)
static const pi2_cli_option tokenize_options[] = {
    {"-m, --model", "FILE", PI2_CLI_TEXT, TOKENIZE(model), NULL,
     "GGUF or cluster file; one that holds only a vocabulary will do.", "LLAMA_ARG_MODEL", 0, 0},
    {"-p, --prompt", "TEXT", PI2_CLI_TEXT, TOKENIZE(text), NULL, "The text.", NULL, 0, 0},
    {"-f, --file", "FILE", PI2_CLI_TEXT, TOKENIZE(file), NULL, "Takes the text from a file; \"-\" is stdin.",
     NULL, 0, 0},
    {"--no-bos", NULL, PI2_CLI_FLAG, TOKENIZE(no_bos), NULL,
     "Puts no beginning-of-sequence token before the text.", NULL, 0, 0},
    {"--eos", NULL, PI2_CLI_FLAG, TOKENIZE(eos), NULL,
     "Puts the end-of-sequence token behind the text where the model's metadata asks for it (add_eos_token). A prompt "
     "has none, so it is left out otherwise.", NULL, 0, 0},
    {"--parse-special", NULL, PI2_CLI_FLAG, TOKENIZE(parse_special), NULL,
     "Text such as <|im_start|> becomes its token.", NULL, 0, 0},
    {"--ids", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
};

/** A text on its way to a line of ids. */
typedef struct token_line {
    const tokenize_settings *settings;
    pi2_cli_text_source source; /* stream NULL: the text is in memory */
    const char *text;
    size_t length;              /* of what is left of it */
    bool has_text;
    int32_t begin, end;         /* that the model's text has; -1: none */
    int32_t first[2];
    size_t count;
} token_line;

static void print_token(token_line *line, int32_t token) {
    (void)printf("%s%d", line->count ? " " : "", (int)token);
    if (line->count < 2) line->first[line->count] = token;
    line->count++;
}

static pi2_status read_part(void *user, char *bytes, size_t capacity, size_t *length_out) {
    token_line *line = user;
    if (line->source.stream) {
        const pi2_status status = pi2_cli_text_read(&line->source, bytes, capacity, length_out);
        if (status != PI2_OK) return status;
    } else {
        *length_out = line->length < capacity ? line->length : capacity;
        if (*length_out) memcpy(bytes, line->text, *length_out);
        line->text += *length_out;
        line->length -= *length_out;
    }
    /* Empty text gives an empty line: not even a beginning. */
    if (*length_out && !line->has_text && !line->settings->no_bos && line->begin >= 0) print_token(line, line->begin);
    line->has_text |= *length_out > 0;
    return PI2_OK;
}

static pi2_status take_tokens(void *user, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < count; i++) print_token(user, tokens[i]);
    return ferror(stdout) ? PI2_ERR_IO : PI2_OK; /* nobody reads on: the text may have no end */
}

static int print_tokens(token_line *line) {
    const tokenize_settings *settings = line->settings;
    pi2_model_file *file = NULL;
    pi2_status status = pi2_model_file_open(settings->model, &file);
    if (status == PI2_OK) status = pi2_model_file_text_ends(file, &line->begin, &line->end);
    if (status == PI2_OK) {
        status = pi2_model_file_tokenize_parts(file, read_part, line, false, settings->parse_special, take_tokens,
                                               line);
    }
    pi2_model_file_close(file);
    if (line->source.code != PI2_EXIT_OK) return line->source.code;
    if (ferror(stdout)) return pi2_cli_finish_stdout();
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (!settings->no_bos) pi2_cli_warn_two_beginnings(line->first, line->count, line->begin);
    if (line->has_text && settings->eos && line->end >= 0) print_token(line, line->end);
    (void)printf("\n");
    return pi2_cli_finish_stdout();
}

int pi2_cli_tokenize(int argument_count, char **arguments) {
    static tokenize_settings settings;
    const pi2_cli_section sections[] = {
        {"Options", tokenize_options, sizeof tokenize_options / sizeof tokenize_options[0] - 1, &settings},
        {"", tokenize_options + sizeof tokenize_options / sizeof tokenize_options[0] - 1, 1, &settings}};
    const pi2_cli_command command = {
        "tokenize", "-m MODEL (-p TEXT | -f FILE)",
        "Prints the token ids of a text on one line, separated by spaces. The text is taken byte for byte.",
        sections, 2};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    if (!settings.model) return pi2_cli_usage_error("tokenize: no model: give one with -m FILE");
    if (!settings.text == !settings.file) {
        return pi2_cli_usage_error("tokenize: give the text with either -p or -f");
    }
    token_line line = {.settings = &settings, .text = settings.text};
    char *typed = NULL;
    if (settings.text) {
        line.length = strlen(settings.text);
    } else if (strcmp(settings.file, "-") == 0 && isatty(STDIN_FILENO)) {
        code = pi2_cli_read_file(settings.file, &typed, &line.length);
        line.text = typed;
    } else {
        code = pi2_cli_text_open(settings.file, &line.source);
        line.source.is_exact = true;
    }
    if (code == PI2_EXIT_OK || code == PI2_CLI_GO_ON) code = print_tokens(&line);
    pi2_cli_text_close(&line.source);
    free(typed);
    return code;
}
