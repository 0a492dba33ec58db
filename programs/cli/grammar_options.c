/* grammar_options.c: the table, and how a text or a file becomes a grammar. */
#include "grammar_options.h"

#include <stdlib.h>
#include <string.h>

#include "output.h"

#define GRAMMAR(field) offsetof(pi2_cli_grammar_settings, field)
static const pi2_cli_option grammar_options[] = {
    {"--grammar", "TEXT", PI2_CLI_TEXT, GRAMMAR(grammar), NULL,
     "The answer is a text of this grammar, in llama.cpp's notation (GBNF).", NULL, 0, 0},
    {"--grammar-file", "FILE", PI2_CLI_TEXT, GRAMMAR(grammar_file), NULL, "Takes the grammar from a file.", NULL, 0, 0},
    {"-j, --json-schema", "SCHEMA", PI2_CLI_TEXT, GRAMMAR(schema), NULL,
     "The answer is JSON that satisfies this schema; {} is any JSON. What a schema says and cannot be obeyed is "
     "refused.", NULL, 0, 0},
    {"-jf, --json-schema-file", "FILE", PI2_CLI_TEXT, GRAMMAR(schema_file), NULL, "Takes the schema from a file.", NULL,
     0, 0},
};

pi2_cli_section pi2_cli_grammar_section(pi2_cli_grammar_settings *settings) {
    const size_t count = sizeof grammar_options / sizeof grammar_options[0];
    return (pi2_cli_section){"Form of the answer", grammar_options, count, settings};
}

int pi2_cli_read_grammar(const pi2_cli_grammar_settings *settings, pi2_grammar **grammar_out) {
    const char *const given[] = {settings->grammar, settings->grammar_file, settings->schema, settings->schema_file};
    size_t which = 0, count = 0;
    *grammar_out = NULL;
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        which = given[i] ? i : which;
        count += given[i] != NULL;
    }
    if (count == 0) return PI2_EXIT_OK;
    if (count > 1) {
        return pi2_cli_usage_error("run: more than one form of the answer: a grammar, a schema, and a file with either "
                                   "exclude each other");
    }
    char *text = NULL;
    size_t length = strlen(given[which]);
    const bool is_file = which % 2 == 1;
    if (is_file) { /* one byte more than is taken, so that a file that is too long is not cut */
        const int code = pi2_cli_read_text(given[which], PI2_GRAMMAR_TEXT_BYTES + 1, &text, &length);
        if (code != PI2_EXIT_OK) return code;
    }
    const char *form = is_file ? text : given[which];
    const pi2_status status = which < 2 ? pi2_grammar_parse(form, length, NULL, grammar_out)
                                        : pi2_grammar_from_schema(form, length, grammar_out);
    free(text);
    if (status == PI2_OK) return PI2_EXIT_OK;
    if (is_file) return pi2_cli_usage_error("%s: %s", given[which], pi2_error_text());
    return pi2_cli_usage_error("%s", pi2_error_text());
}

uint64_t pi2_cli_grammar_memory(const pi2_grammar *grammar, uint64_t sessions) {
    return grammar ? pi2_grammar_bytes(grammar) + sessions * pi2_grammar_session_bytes() : 0;
}
