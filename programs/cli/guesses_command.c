/* guesses_command.c: "powerinfer2 guesses": makes the table that guesses come from where earlier text has none. */
#include "commands.h"
#include "engine_options.h"
#include "output.h"
#include "powerinfer2/next_table.h"
#include "signals.h"

enum { SEQUENCES = 16, CONTEXT = 32 };

int pi2_cli_guesses(int argument_count, char **arguments) {
    static pi2_cli_model_settings model;
    static pi2_cli_size_settings size;
    const pi2_cli_section sections[] = {
        pi2_cli_model_section(&model), pi2_cli_size_section(&size), pi2_cli_no_effect_section()};
    const pi2_cli_command command = {
        "guesses", "-m MODEL [options]",
        "Makes a table of what the model says behind each token of its vocabulary, for guesses ahead where earlier "
        "text has none (docs/guesses.md). It lies beside the model, as MODEL.next-tokens, and is used by itself.",
        sections, sizeof sections / sizeof sections[0]};
    pi2_engine_options options;
    int code = pi2_cli_parse_run(&command, argument_count, arguments, &model, &size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    char path[PI2_NEXT_TABLE_PATH_BYTES];
    pi2_engine *engine = NULL;
    options.sequences = SEQUENCES;
    options.context_tokens = CONTEXT;
    options.draft_tokens = 0;
    pi2_cli_catch_signals();
    pi2_status status = pi2_engine_open(&options, &engine);
    if (status == PI2_OK) status = pi2_next_table_make(engine, path);
    pi2_engine_close(engine);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    pi2_cli_note("%s: the table is made", path);
    return PI2_EXIT_OK;
}
