/* template_file.h: the chat template that --chat-template names. */
#ifndef PI2_CLI_TEMPLATE_FILE_H
#define PI2_CLI_TEMPLATE_FILE_H

/* Names of pi2_chat_template_known(); test_cli_run tries each. */
#define PI2_CLI_CHAT_TEMPLATES "alpaca|chatml|gemma|granite|llama2|llama3|mistral|phi3|vicuna|zephyr"
#define PI2_CLI_CHAT_TEMPLATE_HELP \
    "Chat template in place of the model's: a file, or one of " PI2_CLI_CHAT_TEMPLATES "."

/** The file that `wanted` names; NULL: none, or a built-in template. */
const char *pi2_cli_template_path(const char *wanted);
/**
 * The template that `wanted` names: *template_out is a known name, or the text of a file, which *text_out owns
 * (free()). Returns PI2_EXIT_OK, or an exit code after an error line.
 */
int pi2_cli_read_template(const char *wanted, char **text_out, const char **template_out);

#endif
