/* draft_options.h: options of guessing ahead, of every command that makes answers. */
#ifndef PI2_CLI_DRAFT_OPTIONS_H
#define PI2_CLI_DRAFT_OPTIONS_H

#include "options.h"
#include "powerinfer2/engine.h"

typedef struct pi2_cli_draft_settings {
    const char *model;
    int64_t most, nodes, least;
    double least_chance;
    bool always;
} pi2_cli_draft_settings;

pi2_cli_section pi2_cli_draft_section(pi2_cli_draft_settings *settings);
void pi2_cli_fill_draft_options(const pi2_cli_draft_settings *settings, pi2_engine_options *options);

#endif
