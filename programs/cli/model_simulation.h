/* model_simulation.h: "simulate -m MODEL": a model's file on devices that are measured or described. */
#ifndef PI2_CLI_MODEL_SIMULATION_H
#define PI2_CLI_MODEL_SIMULATION_H

#include "options.h"

typedef struct pi2_cli_simulate_settings {
    pi2_cli_texts devices;
    const char *policy;
    int64_t seed;
    bool json;
    /* with a model's file */
    const char *model, *cluster_file, *trace, *statistics, *sparsity, *predictor, *cache_policy;
    uint64_t memory;
    int64_t context, threads, prompt, tokens, skipped;
} pi2_cli_simulate_settings;

/** Options that a model's file needs. */
pi2_cli_section pi2_cli_model_simulation_section(pi2_cli_simulate_settings *settings);
/** One of them that was given; NULL: none. */
const char *pi2_cli_stray_model_option(const pi2_cli_simulate_settings *settings);
/** The command with a model. Returns the exit code. */
int pi2_cli_simulate_model(const pi2_cli_simulate_settings *settings);

/** Reads a description's text, to be freed: 1 MB at most. Returns PI2_CLI_GO_ON, or the exit code after a line. */
int pi2_cli_read_description(const char *path, char **text_out, size_t *length_out);

#endif
