/* template_file.c: the chat template that --chat-template names, a file's text or a known name. */
#include "template_file.h"

#include <string.h>
#include <unistd.h>

#include "options.h"
#include "output.h"

enum { MOST_TEMPLATE_BYTES = 1 << 20 /* which is what the library runs */ };

const char *pi2_cli_template_path(const char *wanted) {
    if (!wanted || pi2_cli_is_choice(PI2_CLI_CHAT_TEMPLATES, wanted)) return NULL;
    return *wanted == '@' ? wanted + 1 : wanted; /* as curl and others write a file */
}

int pi2_cli_read_template(const char *wanted, char **text_out, const char **template_out) {
    *template_out = wanted;
    const char *path = pi2_cli_template_path(wanted);
    if (!path) return PI2_EXIT_OK;
    if (access(path, F_OK) != 0) {
        return pi2_cli_usage_error("--chat-template: '%s' is neither a file nor one of " PI2_CLI_CHAT_TEMPLATES, path);
    }
    size_t length = 0;
    const int code = pi2_cli_read_text(path, MOST_TEMPLATE_BYTES + 1, text_out, &length);
    *template_out = *text_out;
    if (code == PI2_EXIT_OK && length > MOST_TEMPLATE_BYTES) {
        return pi2_cli_usage_error("%s: a chat template has %d bytes at most, and this is longer", path,
                                   MOST_TEMPLATE_BYTES);
    }
    if (code != PI2_EXIT_OK) return code;
    if (strlen(*text_out) == length) return code;
    return pi2_cli_usage_error("%s: a chat template holds no NUL byte", path);
}
