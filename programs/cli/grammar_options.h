/* grammar_options.h: what an answer's text must look like, as run takes it. */
#ifndef PI2_CLI_GRAMMAR_OPTIONS_H
#define PI2_CLI_GRAMMAR_OPTIONS_H

#include "options.h"
#include "powerinfer2/grammar.h"

typedef struct pi2_cli_grammar_settings {
    const char *grammar, *grammar_file, *schema, *schema_file;
} pi2_cli_grammar_settings;

pi2_cli_section pi2_cli_grammar_section(pi2_cli_grammar_settings *settings);
/** The grammar that the options give, which the caller frees; NULL: none. Returns PI2_EXIT_OK, or an exit code after an
 *  error line. */
int pi2_cli_read_grammar(const pi2_cli_grammar_settings *settings, pi2_grammar **grammar_out);
/** Memory of a grammar and of the sessions that follow it. */
uint64_t pi2_cli_grammar_memory(const pi2_grammar *grammar, uint64_t sessions);

#endif
