/* prompt_cache_options.h: where beginnings of prompts are kept. */
#ifndef PI2_CLI_PROMPT_CACHE_OPTIONS_H
#define PI2_CLI_PROMPT_CACHE_OPTIONS_H

#include "options.h"
#include "powerinfer2/prompt_cache.h"

typedef struct pi2_cli_prompt_cache_settings {
    const char *folder; /* NULL: none are kept */
    uint64_t bytes;
} pi2_cli_prompt_cache_settings;

pi2_cli_section pi2_cli_prompt_cache_section(pi2_cli_prompt_cache_settings *settings);
/** Before the engine is opened. Returns PI2_EXIT_OK, or an exit code after an error line: something else lies there. */
int pi2_cli_fill_prompt_cache_options(const pi2_cli_prompt_cache_settings *settings, pi2_engine_options *options);
/**
 * The engine's sessions use it from then on. *cache_out: NULL where none was asked for, or where the folder cannot be
 * used, which a line tells: a run can do without. Returns PI2_EXIT_OK, or an exit code after an error line: what was
 * asked for cannot be.
 */
int pi2_cli_open_prompt_cache(const pi2_cli_prompt_cache_settings *settings, pi2_engine *engine,
                              pi2_prompt_cache **cache_out);

#endif
