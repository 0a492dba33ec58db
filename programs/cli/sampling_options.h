/* sampling_options.h: how tokens are picked, as run and serve take it. */
#ifndef PI2_CLI_SAMPLING_OPTIONS_H
#define PI2_CLI_SAMPLING_OPTIONS_H

#include "options.h"
#include "powerinfer2/session.h"

typedef struct pi2_cli_sampling_settings {
    int64_t seed, top_k, repeat_last_n;
    double temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    double typical_p, top_n_sigma, xtc_probability, xtc_threshold, dynamic_range, dynamic_exponent;
    pi2_cli_texts biases; /* "TOKEN+X" or "TOKEN-X" */
    pi2_logit_bias parsed_biases[PI2_CLI_MAX_TEXTS];
} pi2_cli_sampling_settings;

pi2_cli_section pi2_cli_sampling_section(pi2_cli_sampling_settings *settings);
/** Fills in what was asked for; biases lie in the settings. Returns PI2_EXIT_OK, or the code behind its message. */
int pi2_cli_fill_sampling(pi2_cli_sampling_settings *settings, pi2_sampling *sampling);
/** Puts what the model's file advises into what was filled in, but for what the user gave. */
void pi2_cli_advise_sampling(const pi2_engine *engine, pi2_sampling *sampling);

#endif
