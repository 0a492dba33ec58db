/* sampling_options.c: the table, and how it becomes pi2_sampling. */
#include "sampling_options.h"

#define SAMPLING(field) offsetof(pi2_cli_sampling_settings, field)
static const pi2_cli_option sampling_options[] = {
    {"-s, --seed", "N", PI2_CLI_INTEGER, SAMPLING(seed), "-1", "Seed of each answer; -1: another one each time.",
     NULL, -1, UINT32_MAX},
    {"--temp, --temperature", "X", PI2_CLI_NUMBER, SAMPLING(temperature), "0.8",
     "Temperature; 0: always the likeliest token.", NULL, 0, 0},
    {"--top-k", "N", PI2_CLI_INTEGER, SAMPLING(top_k), "40", "Chooses among the N likeliest tokens; 0: all.", NULL, 0,
     INT32_MAX},
    {"--top-p", "X", PI2_CLI_NUMBER, SAMPLING(top_p), "0.95",
     "Chooses among the likeliest tokens that reach this probability; 1: off.", NULL, 0, 0},
    {"--min-p", "X", PI2_CLI_NUMBER, SAMPLING(min_p), "0.05",
     "Drops tokens below this share of the likeliest one's probability; 0: off.", NULL, 0, 0},
    {"--repeat-penalty", "X", PI2_CLI_NUMBER, SAMPLING(repeat_penalty), "1.0",
     "Penalty for tokens that occurred lately; 1: off.", NULL, 0, 0},
    {"--repeat-last-n", "N", PI2_CLI_INTEGER, SAMPLING(repeat_last_n), "64",
     "Tokens that penalties look back at; 0: off, -1: the context.", NULL, -1, INT32_MAX},
    {"--presence-penalty", "X", PI2_CLI_NUMBER, SAMPLING(presence_penalty), "0.0",
     "Taken from the score of tokens that occurred.", NULL, 0, 0},
    {"--frequency-penalty", "X", PI2_CLI_NUMBER, SAMPLING(frequency_penalty), "0.0",
     "Taken from the score of tokens as often as they occurred.", NULL, 0, 0},
};

pi2_cli_section pi2_cli_sampling_section(pi2_cli_sampling_settings *settings) {
    const size_t count = sizeof sampling_options / sizeof sampling_options[0];
    return (pi2_cli_section){"Sampling", sampling_options, count, settings};
}

void pi2_cli_fill_sampling(const pi2_cli_sampling_settings *settings, pi2_sampling *sampling) {
    pi2_sampling_init(sampling);
    sampling->temperature = (float)settings->temperature;
    sampling->top_k = (int32_t)settings->top_k;
    sampling->top_p = (float)settings->top_p;
    sampling->min_p = (float)settings->min_p;
    sampling->repeat_penalty = (float)settings->repeat_penalty;
    sampling->repeat_last_n = (int32_t)settings->repeat_last_n;
    sampling->presence_penalty = (float)settings->presence_penalty;
    sampling->frequency_penalty = (float)settings->frequency_penalty;
    sampling->seed = settings->seed < 0 ? UINT32_MAX : (uint32_t)settings->seed;
}
