/* engine_options.h: options that every command which runs a model takes. */
#ifndef PI2_CLI_ENGINE_OPTIONS_H
#define PI2_CLI_ENGINE_OPTIONS_H

#include "options.h"
#include "powerinfer2/engine.h"

/* Words of options that plan files hold too. */
#define PI2_CLI_READ_METHODS "auto|io_uring|pread"
#define PI2_CLI_CACHE_POLICIES "auto|adaptive|blend|lru|lfu|lrfu|s3_fifo|keep|gate|mix|heat"
#define PI2_CLI_NEURON_CACHES "auto|gate|mix|heat|lru|off"
#define PI2_CLI_CACHE_TYPES "f16|q8_0|f32"
/** The names of ffn_activations.inc, separated by '|'. */
extern const char pi2_cli_activation_words[];
#define PI2_CLI_FFN_ACTIVATIONS (pi2_cli_activation_words + 1) /* without the first '|' */
#define PI2_CLI_SPARSITIES "exact|always|off"

typedef struct pi2_cli_model_settings {
    const char *hf_repository, *hf_file, *hf_token, *model_url; /* in place of model */
    const char *model, *cluster_file, *read_method, *ffn_activation;
    const char *cache_type_k, *cache_type_v;
    const char *cache_policy, *look_ahead, *sparsity, *predictor, *neuron_cache, *record_trace;
    const char *devices, *backend_precision;
    uint64_t device_memory;
    double device_share;
    double hot_share;
    bool device_always, no_prepare, keep_memory, quiet, offline;
} pi2_cli_model_settings;

typedef struct pi2_cli_size_settings {
    uint64_t memory;
    int64_t context, batch, threads;
} pi2_cli_size_settings;

typedef struct pi2_cli_trace_settings {
    const char *trace, *stats;
} pi2_cli_trace_settings;

/** Sections for the structs, and the llama.cpp options without effect. */
pi2_cli_section pi2_cli_model_section(pi2_cli_model_settings *settings);
pi2_cli_section pi2_cli_size_section(pi2_cli_size_settings *settings);
pi2_cli_section pi2_cli_trace_section(pi2_cli_trace_settings *settings);
pi2_cli_section pi2_cli_no_effect_section(void);

/** Checks the model settings and makes `options` of them, callbacks included, and turns quiet on
 *  where it was asked for. size: NULL: none. Returns PI2_CLI_GO_ON, or the exit code after an error line. */
int pi2_cli_fill_options(const pi2_cli_model_settings *settings, const pi2_cli_size_settings *size,
                         pi2_engine_options *options);
/** Parses the arguments of a command that runs a model, whose sections these settings are, and makes `options` of them.
 *  Returns likewise. */
int pi2_cli_parse_run(const pi2_cli_command *command, int argument_count, char **arguments,
                      const pi2_cli_model_settings *settings, const pi2_cli_size_settings *size,
                      pi2_engine_options *options);
/** The type of cache by a word of PI2_CLI_CACHE_TYPES, which it must be. */
pi2_cache_type pi2_cli_cache_type(const char *word);
void pi2_cli_fill_trace_options(const pi2_cli_trace_settings *settings, pi2_engine_options *options);

#endif
