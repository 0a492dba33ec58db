/* sampling_options.c: the table, and how it becomes pi2_sampling. */
#include "sampling_options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "output.h"

static const double LEAST_PENALTY = 0.001; /* of repetition, which divides; as in requests */

#define SAMPLING(field) offsetof(pi2_cli_sampling_settings, field)
static const pi2_cli_option sampling_options[] = {
    {"-s, --seed", "N", PI2_CLI_INTEGER, SAMPLING(seed), "-1", "Seed of each answer; -1: another one each time.",
     NULL, -1, UINT32_MAX},
    {"--temp, --temperature", "X", PI2_CLI_NUMBER, SAMPLING(temperature), "0.8",
     "Temperature; 0: always the likeliest token. What a model's file advises goes before this default and the next "
     "ones.", NULL, -1000, 1000},
    {"--top-k", "N", PI2_CLI_INTEGER, SAMPLING(top_k), "40", "Chooses among the N likeliest tokens; 0: all.", NULL, 0,
     INT32_MAX},
    {"--top-p", "X", PI2_CLI_NUMBER, SAMPLING(top_p), "0.95",
     "Chooses among the likeliest tokens that reach this probability; 1: off.", NULL, 0, 1},
    {"--min-p", "X", PI2_CLI_NUMBER, SAMPLING(min_p), "0.05",
     "Drops tokens below this share of the likeliest one's probability; 0: off.", NULL, 0, 1},
    {"--top-n-sigma, --top-nsigma", "X", PI2_CLI_NUMBER, SAMPLING(top_n_sigma), "-1",
     "Drops tokens whose score is more than X standard deviations of all scores below the best; 0 and below: off.",
     NULL, -1000, 1000},
    {"--typical, --typical-p", "X", PI2_CLI_NUMBER, SAMPLING(typical_p), "1.0",
     "Chooses among the tokens whose surprise is nearest to what is expected, until they reach this probability; 1: "
     "off.", NULL, 0, 1},
    {"--xtc-probability", "X", PI2_CLI_NUMBER, SAMPLING(xtc_probability), "0.0",
     "How often the top choices are excluded, all but the last of them (XTC); 0: never.", NULL, 0, 1},
    {"--xtc-threshold", "X", PI2_CLI_NUMBER, SAMPLING(xtc_threshold), "0.1",
     "Probability from which on a token is a top choice; above 0.5: none is.", NULL, 0, 1000},
    {"--dynatemp-range", "X", PI2_CLI_NUMBER, SAMPLING(dynamic_range), "0.0",
     "The temperature goes up and down by so much at most, with the entropy of what is chosen among; 0: it does not.",
     NULL, 0, 1000},
    {"--dynatemp-exp", "X", PI2_CLI_NUMBER, SAMPLING(dynamic_exponent), "1.0",
     "Power of that entropy's share of the largest one.", NULL, 0, 1000},
    {"-l, --logit-bias", "TOKEN(+|-)X", PI2_CLI_TEXTS, SAMPLING(biases), NULL,
     "Adds to the score of a token, by its id: 15043+1.5, 15043-1, 15043-inf: never. May be given again.", NULL, 0, 0},
    {"--repeat-penalty", "X", PI2_CLI_NUMBER, SAMPLING(repeat_penalty), "1.0",
     "Penalty for tokens that occurred lately; 1: off.", NULL, 0, 1000},
    {"--repeat-last-n", "N", PI2_CLI_INTEGER, SAMPLING(repeat_last_n), "64",
     "Tokens that penalties look back at; 0: off, -1: the context.", NULL, -1, INT32_MAX},
    {"--presence-penalty", "X", PI2_CLI_NUMBER, SAMPLING(presence_penalty), "0.0",
     "Taken from the score of tokens that occurred.", NULL, -1000, 1000},
    {"--frequency-penalty", "X", PI2_CLI_NUMBER, SAMPLING(frequency_penalty), "0.0",
     "Taken from the score of tokens as often as they occurred.", NULL, -1000, 1000},
};

pi2_cli_section pi2_cli_sampling_section(pi2_cli_sampling_settings *settings) {
    const size_t count = sizeof sampling_options / sizeof sampling_options[0];
    return (pi2_cli_section){"Sampling", sampling_options, count, settings};
}

/** "15043+1.5": the id, and what follows it with its sign. */
static bool read_bias(const char *text, pi2_logit_bias *bias) {
    char *end;
    errno = 0;
    const long token = strtol(text, &end, 10);
    if (errno || end == text || *text < '0' || *text > '9' || token > INT32_MAX || (*end != '+' && *end != '-')) {
        return false;
    }
    const char *number = end;
    const double value = strtod(number, &end);
    if (end == number || *end || isnan(value) || (isinf(value) && value > 0)) return false;
    *bias = (pi2_logit_bias){.token = (int32_t)token, .bias = (float)value};
    return isfinite(value) == isfinite(bias->bias);
}

static int fill_biases(pi2_cli_sampling_settings *settings, pi2_sampling *sampling) {
    for (size_t i = 0; i < settings->biases.count; i++) {
        if (read_bias(settings->biases.items[i], &settings->parsed_biases[i])) continue;
        return pi2_cli_usage_error("a logit bias, '%s', is no token's id with a number behind + or -, such as "
                                   "15043+1.5 or 15043-inf", settings->biases.items[i]);
    }
    sampling->logit_biases = settings->parsed_biases;
    sampling->logit_bias_count = (uint32_t)settings->biases.count;
    return PI2_EXIT_OK;
}

int pi2_cli_fill_sampling(pi2_cli_sampling_settings *settings, pi2_sampling *sampling) {
    if (settings->repeat_penalty < LEAST_PENALTY) {
        return pi2_cli_usage_error("repeat-penalty: %g is too small: from %g on (1: off)", settings->repeat_penalty,
                                   LEAST_PENALTY);
    }
    pi2_sampling_init(sampling);
    sampling->temperature = (float)settings->temperature;
    sampling->top_k = (int32_t)settings->top_k;
    sampling->top_p = (float)settings->top_p;
    sampling->min_p = (float)settings->min_p;
    sampling->typical_p = (float)settings->typical_p;
    sampling->top_n_sigma = (float)settings->top_n_sigma;
    sampling->xtc_probability = (float)settings->xtc_probability;
    sampling->xtc_threshold = (float)settings->xtc_threshold;
    sampling->dynamic_range = (float)settings->dynamic_range;
    sampling->dynamic_exponent = (float)settings->dynamic_exponent;
    sampling->repeat_penalty = (float)settings->repeat_penalty;
    sampling->repeat_last_n = (int32_t)settings->repeat_last_n;
    sampling->presence_penalty = (float)settings->presence_penalty;
    sampling->frequency_penalty = (float)settings->frequency_penalty;
    sampling->seed = settings->seed < 0 ? UINT32_MAX : (uint32_t)settings->seed;
    return fill_biases(settings, sampling);
}

static bool is_given(size_t offset) {
    for (size_t i = 0; i < sizeof sampling_options / sizeof sampling_options[0]; i++) {
        if (sampling_options[i].offset == offset) return pi2_cli_was_given(&sampling_options[i]);
    }
    return false;
}

void pi2_cli_advise_sampling(const pi2_engine *engine, pi2_sampling *sampling) {
    const pi2_sampling asked = *sampling;
    pi2_engine_advise_sampling(engine, sampling);
    if (is_given(SAMPLING(temperature))) sampling->temperature = asked.temperature;
    if (is_given(SAMPLING(top_k))) sampling->top_k = asked.top_k;
    if (is_given(SAMPLING(top_p))) sampling->top_p = asked.top_p;
    if (is_given(SAMPLING(min_p))) sampling->min_p = asked.min_p;
    if (is_given(SAMPLING(xtc_probability))) sampling->xtc_probability = asked.xtc_probability;
    if (is_given(SAMPLING(xtc_threshold))) sampling->xtc_threshold = asked.xtc_threshold;
    if (is_given(SAMPLING(repeat_penalty))) sampling->repeat_penalty = asked.repeat_penalty;
    if (is_given(SAMPLING(repeat_last_n))) sampling->repeat_last_n = asked.repeat_last_n;
}
