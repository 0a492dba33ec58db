/* model_simulation.c: see model_simulation.h. */
#include "model_simulation.h"

#include <stdlib.h>
#include <string.h>

#include "description_file.h"
#include "engine_options.h"
#include "machine_profile_cli.h"
#include "output.h"
#include "powerinfer2/simulate_model.h"
#include "powerinfer2/sizes.h"

enum { MOST_BYTES = 1 << 20 /* of a description */ };

static const char own_profile[] = "profile", profile_head[] = "powerinfer2-machine-profile ";

#define SIMULATE(field) offsetof(pi2_cli_simulate_settings, field)
static const pi2_cli_option model_options[] = {
    {"-m, --model", "FILE", PI2_CLI_TEXT, SIMULATE(model), NULL, "GGUF or cluster file, planned for the device.", NULL,
     0, 0},
    {"--cluster-file", "FILE", PI2_CLI_TEXT, SIMULATE(cluster_file), NULL,
     "The model's cluster file. Otherwise it is looked for beside the model and in the cache folder; without one the "
     "model is laid out as 'prepare' would.", NULL, 0, 0},
    {"--memory", "SIZE", PI2_CLI_SIZE, SIMULATE(memory), NULL,
     "Memory that the process may use. Otherwise the device's 'memory_bytes'; of this machine what it has free.", NULL,
     0, 0},
    {"-c, --ctx-size", "N", PI2_CLI_INTEGER, SIMULATE(context), "0",
     "Context in tokens; 0: what the memory affords, at most what the model was trained for.", NULL, 0, INT32_MAX},
    {"-t, --threads", "N", PI2_CLI_INTEGER, SIMULATE(threads), "0",
     "Threads that compute, where the device does not say it; 0: one for each processor of the profile.", NULL, 0,
     PI2_THREADS_MOST},
    {"--sparsity", "exact|always|off|auto|SHARE", PI2_CLI_TEXT, SIMULATE(sparsity), "exact",
     "Which neurons are computed, as of 'run'.", NULL, 0, 0},
    {"--predictor", "FILE", PI2_CLI_TEXT, SIMULATE(predictor), NULL, "Of --sparsity auto and SHARE, as of 'run'.",
     NULL, 0, 0},
    {"--cache-policy", PI2_CLI_CACHE_POLICIES, PI2_CLI_CHOICE, SIMULATE(cache_policy), "auto",
     "Which expert leaves the cache.", NULL, 0, 0},
    {"--trace", "FILE", PI2_CLI_TEXT, SIMULATE(trace), NULL,
     "What tokens use: a run of this model that 'run --record-trace' has recorded. Otherwise it is drawn.", NULL, 0, 0},
    {"--statistics", "FILE", PI2_CLI_TEXT, SIMULATE(statistics), NULL,
     "Single neurons that are drawn: how often each fires. Otherwise a share is assumed.", NULL, 0, 0},
    {"-p, --n-prompt", "N", PI2_CLI_INTEGER, SIMULATE(prompt), "16",
     "Tokens of the prompt before, where no trace has one.", NULL, 0, PI2_SIMULATED_TOKENS_MOST},
    {"-n, --n-gen", "N", PI2_CLI_INTEGER, SIMULATE(tokens), "128",
     "Tokens after the prompt; of a trace at most those that it has.", NULL, 1, PI2_SIMULATED_TOKENS_MOST},
    {"--skip", "N", PI2_CLI_INTEGER, SIMULATE(skipped), "0", "Of these, the first so many do not count.", NULL, 0,
     PI2_SIMULATED_TOKENS_MOST},
};

pi2_cli_section pi2_cli_model_simulation_section(pi2_cli_simulate_settings *settings) {
    return (pi2_cli_section){"With a model's file", model_options, sizeof model_options / sizeof model_options[0],
                             settings};
}

const char *pi2_cli_stray_model_option(const pi2_cli_simulate_settings *settings) {
    return settings->trace ? "--trace" : settings->statistics ? "--statistics" : settings->predictor ? "--predictor"
           : settings->cluster_file ? "--cluster-file" : settings->memory ? "--memory" : NULL;
}

int pi2_cli_read_description(const char *path, char **text, size_t *length) {
    const int code = pi2_cli_read_text(path, MOST_BYTES + 1, text, length);
    if (code != PI2_EXIT_OK) return code;
    if (*length <= MOST_BYTES) return PI2_CLI_GO_ON;
    free(*text);
    (void)pi2_cli_usage_error("simulate: %s: a description has at most %d bytes", path, MOST_BYTES);
    return PI2_EXIT_BAD_FILE;
}

/* ---- devices ---- */

/** One of them: a description, or a profile. */
typedef struct device {
    pi2_description description;
    bool is_described;
    pi2_machine_profile *profile;
    char name[128];
} device;

static int open_own_profile(const pi2_cli_simulate_settings *settings, device *of) {
    const pi2_machine_options machine = {.disk_path = settings->model, .callbacks = pi2_cli_callbacks()};
    int code = pi2_cli_find_machine(&machine, &of->profile);
    if (code == PI2_EXIT_OK) code = pi2_cli_find_disk(of->profile, &machine);
    return code == PI2_EXIT_OK ? PI2_CLI_GO_ON : code;
}

static int read_device(const char *path, device *of) {
    char *text = NULL;
    size_t length = 0;
    int code = pi2_cli_read_description(path, &text, &length);
    if (code != PI2_CLI_GO_ON) return code;
    const size_t head = sizeof profile_head - 1;
    if (length >= head && memcmp(text, profile_head, head) == 0) {
        const pi2_status status = pi2_machine_read(path, &of->profile);
        code = status == PI2_OK ? PI2_CLI_GO_ON : pi2_cli_failed(status);
    } else {
        code = pi2_description_read_device(path, text, length, &of->description);
        of->is_described = code == PI2_CLI_GO_ON;
    }
    free(text);
    return code;
}

static int open_device(const pi2_cli_simulate_settings *settings, const char *path, device *of) {
    memset(of, 0, sizeof *of);
    const bool is_own = strcmp(path, own_profile) == 0;
    const int code = is_own ? open_own_profile(settings, of) : read_device(path, of);
    if (code != PI2_CLI_GO_ON) return code;
    const char *name = of->is_described ? of->description.name : pi2_machine_profile_identity(of->profile)->cpu;
    (void)snprintf(of->name, sizeof of->name, "%s", name);
    const double memory = of->is_described ? of->description.device.memory_bytes : 0;
    if (is_own || settings->memory || memory >= 1) return PI2_CLI_GO_ON;
    return pi2_cli_usage_error("simulate: %s: how much memory? give --memory SIZE%s", path,
                               of->is_described ? ", or the device a 'memory_bytes'" : "");
}

static void close_device(device *of) {
    if (of->is_described) pi2_description_free(&of->description);
    pi2_machine_free(of->profile);
}

/* ---- runs ---- */

static int simulate(const pi2_cli_simulate_settings *settings, const device *of, pi2_model_simulated *run) {
    pi2_engine_options options;
    pi2_model_simulation asked;
    pi2_engine_options_init(&options);
    pi2_model_simulation_init(&asked);
    options.model_path = settings->model;
    options.cluster_path = settings->cluster_file;
    options.memory_bytes = settings->memory;
    if (!options.memory_bytes && of->is_described) {
        const double bytes = of->description.device.memory_bytes;
        options.memory_bytes = bytes < 1e18 ? (uint64_t)bytes : (uint64_t)1e18;
    }
    options.context_tokens = (uint32_t)settings->context;
    options.thread_count = (uint32_t)settings->threads;
    options.sparsity = settings->sparsity;
    options.predictor = settings->predictor;
    options.cache_policy = settings->cache_policy;
    options.neuron_cache = settings->policy;
    options.statistics = settings->statistics;
    asked.device = of->is_described ? &of->description.device : NULL;
    asked.profile = of->profile;
    asked.trace = settings->trace;
    asked.statistics = settings->statistics;
    asked.prompt_tokens = (uint32_t)settings->prompt;
    asked.tokens = (uint32_t)settings->tokens;
    asked.skipped_tokens = (uint32_t)settings->skipped;
    if (settings->seed >= 0) asked.seed = (uint64_t)settings->seed;
    const pi2_status status = pi2_simulate_model(&options, &asked, run);
    return status == PI2_OK ? PI2_CLI_GO_ON : pi2_cli_failed(status);
}

static void print_run(const device *of, const pi2_model_simulated *run, bool is_first) {
    char budget[PI2_SIZE_TEXT_BYTES], resident[PI2_SIZE_TEXT_BYTES], name[64];
    if (is_first) {
        pi2_cli_print_line("%s, %u tokens after a prompt of %u", run->model, (unsigned)run->tokens,
                           (unsigned)run->prompt_tokens);
        if (*run->uses) pi2_cli_print_line("  uses: %s", run->uses);
        (void)printf("%-30s %9s %9s %8s %8s %8s %8s %8s %8s %7s %6s %8s %8s\n", "device", "memory", "resident",
                     "tokens/s", "mean ms", "P50 ms", "P90 ms", "P99 ms", "MB/token", "exposed", "hits", "J/token",
                     "prompt s");
    }
    (void)snprintf(name, sizeof name, "%.30s", of->name);
    pi2_cli_print_line("%-30s %9s %9s %8.2f %8.2f %8.2f %8.2f %8.2f %8.1f %6.1f%% %5.1f%% %8.3f %8.2f", name,
                       pi2_format_size(run->budget_bytes, budget), pi2_format_size(run->resident_bytes, resident),
                       run->tokens_per_second, 1e3 * run->mean_seconds, 1e3 * run->p50_seconds, 1e3 * run->p90_seconds,
                       1e3 * run->p99_seconds, run->bytes_per_token / 1e6, 100 * run->exposed_share,
                       100 * run->hit_share, run->joules_per_token, run->prompt_seconds);
    if (of->is_described && of->description.device.accelerator_bytes_per_second > 0) {
        pi2_cli_print_line("  its accelerator is not used: this engine's passes are simulated, on processors");
    }
}

static json_t *simulation_json(const device *of, const pi2_model_simulated *run) {
    json_t *object = json_pack("{s:o, s:o, s:o}", "device", pi2_cli_json_text(of->name, strlen(of->name)), "model",
                               pi2_cli_json_text(run->model, strlen(run->model)), "uses",
                               pi2_cli_json_text(run->uses, strlen(run->uses)));
    const pi2_cli_named_number members[] = {
        {"tokens_per_second", run->tokens_per_second}, {"mean_ms", 1e3 * run->mean_seconds},
        {"p50_ms", 1e3 * run->p50_seconds}, {"p90_ms", 1e3 * run->p90_seconds}, {"p99_ms", 1e3 * run->p99_seconds},
        {"exposed_share", run->exposed_share}, {"disk_share", run->disk_share},
        {"bytes_per_token", run->bytes_per_token}, {"reads_per_token", run->reads_per_token},
        {"hit_share", run->hit_share}, {"joules_per_token", run->joules_per_token},
        {"prompt_seconds", run->prompt_seconds}, {"tokens", run->tokens}, {"prompt_tokens", run->prompt_tokens},
        {"threads", run->threads}, {"budget_bytes", (double)run->budget_bytes},
        {"resident_bytes", (double)run->resident_bytes}};
    pi2_cli_json_set_numbers(object, members, sizeof members / sizeof members[0]);
    return object;
}

int pi2_cli_simulate_model(const pi2_cli_simulate_settings *settings) {
    json_t *runs = json_array();
    int code = PI2_CLI_GO_ON;
    for (size_t i = 0; i < settings->devices.count && code == PI2_CLI_GO_ON; i++) {
        static device of;
        pi2_model_simulated run;
        code = open_device(settings, settings->devices.items[i], &of);
        if (code == PI2_CLI_GO_ON) code = simulate(settings, &of, &run);
        if (code == PI2_CLI_GO_ON && settings->json) (void)json_array_append_new(runs, simulation_json(&of, &run));
        else if (code == PI2_CLI_GO_ON) print_run(&of, &run, i == 0);
        close_device(&of);
    }
    if (code == PI2_CLI_GO_ON && settings->json) return pi2_cli_print_json(json_pack("{s:o}", "runs", runs),
                                                                            JSON_COMPACT);
    json_decref(runs);
    return code == PI2_CLI_GO_ON ? pi2_cli_finish_stdout() : code;
}
