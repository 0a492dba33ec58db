/* sampling_options.h: how tokens are picked, as run and serve take it. */
#ifndef PI2_CLI_SAMPLING_OPTIONS_H
#define PI2_CLI_SAMPLING_OPTIONS_H

#include "options.h"
#include "powerinfer2/session.h"

typedef struct pi2_cli_sampling_settings {
    int64_t seed, top_k, repeat_last_n;
    double temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
} pi2_cli_sampling_settings;

pi2_cli_section pi2_cli_sampling_section(pi2_cli_sampling_settings *settings);
void pi2_cli_fill_sampling(const pi2_cli_sampling_settings *settings, pi2_sampling *sampling);

#endif
