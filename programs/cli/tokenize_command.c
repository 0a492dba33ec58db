/* tokenize_command.c: "powerinfer2 tokenize": text to token ids. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "options.h"
#include "output.h"
#include "powerinfer2/model_file.h"

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

static int print_tokens(const tokenize_settings *settings, const char *text, size_t length) {
    pi2_model_file *file = NULL;
    pi2_status status = pi2_model_file_open(settings->model, &file);
    if (status != PI2_OK) return pi2_cli_failed(status);
    int32_t *tokens = NULL;
    size_t count = 0;
    if (length) { /* empty text gives an empty line: not even a beginning */
        status = pi2_model_file_tokenize(file, text, length, !settings->no_bos, settings->parse_special,
                                         &tokens, &count);
    }
    int32_t begin = -1, end = -1;
    if (status == PI2_OK && length) status = pi2_model_file_text_ends(file, &begin, &end);
    pi2_model_file_close(file);
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (!settings->no_bos) pi2_cli_warn_two_beginnings(tokens, count, begin);
    for (size_t i = 0; i < count; i++) (void)printf("%s%d", i ? " " : "", (int)tokens[i]);
    if (settings->eos && end >= 0) (void)printf("%s%d", count ? " " : "", (int)end);
    (void)printf("\n");
    free(tokens);
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
    if (settings.text) return print_tokens(&settings, settings.text, strlen(settings.text));
    char *text = NULL;
    size_t length = 0;
    code = pi2_cli_read_file(settings.file, &text, &length);
    if (code == PI2_EXIT_OK) code = print_tokens(&settings, text, length);
    free(text);
    return code;
}
