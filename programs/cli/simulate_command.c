/* simulate_command.c: "powerinfer2 simulate": how fast a described device would run a described model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "description_file.h"
#include "model_simulation.h"
#include "options.h"
#include "output.h"

typedef pi2_cli_simulate_settings simulate_settings;

#define SIMULATE(field) offsetof(simulate_settings, field)
static const pi2_cli_option simulate_options[] = {
    {"--device", "FILE", PI2_CLI_FILES, SIMULATE(devices), NULL,
     "Files that describe a device, a model and runs of it (docs/simulate.md); '-': stdin. With --model a device "
     "alone, also a machine profile's file, of whatever machine, or 'profile': this machine's.", NULL, 0, 0},
    {"--policy", "mix|heat|lru", PI2_CLI_CHOICE, SIMULATE(policy), NULL,
     "Which neuron leaves the cache, instead of what the runs say.", NULL, 0, 0},
    {"--seed", "N", PI2_CLI_INTEGER, SIMULATE(seed), "-1", "Seed of what is drawn, instead of the runs'.", NULL, -1,
     INT64_MAX},
    {"--json", NULL, PI2_CLI_FLAG, SIMULATE(json), NULL, "Prints one JSON object instead of tables.", NULL, 0, 0},
};

static json_t *number(double value) { return pi2_cli_json_number(value); }

static json_t *run_json(const pi2_described_run *described, const pi2_simulated_run *run, double ratio) {
    json_t *object = json_pack("{s:o}", "name", pi2_cli_json_text(described->name, strlen(described->name)));
    const pi2_cli_named_number members[] = {
        {"tokens_per_second", run->tokens_per_second}, {"mean_ms", 1e3 * run->mean_seconds},
        {"p50_ms", 1e3 * run->p50_seconds}, {"p90_ms", 1e3 * run->p90_seconds}, {"p99_ms", 1e3 * run->p99_seconds},
        {"exposed_share", run->exposed_share}, {"thread_share", run->thread_share},
        {"accelerator_share", run->accelerator_share}, {"disk_share", run->disk_share}, {"hit_share", run->hit_share},
        {"p99_miss_share", run->p99_miss_share}, {"bytes_per_pass", run->bytes_per_pass},
        {"reads_per_pass", run->reads_per_pass}, {"hot_share", run->hot_share}, {"cached_share", run->cached_share},
        {"joules_per_token", run->joules_per_token}, {"prompt_seconds", run->prompt_seconds}};
    pi2_cli_json_set_numbers(object, members, sizeof members / sizeof members[0]);
    if (described->figure) {
        (void)json_object_set_new(object, "of", json_string(pi2_described_figure_name(described->figure)));
        (void)json_object_set_new(object, "published", number(described->published));
        (void)json_object_set_new(object, "ratio", number(ratio));
    }
    return object;
}

static void print_head(const pi2_description *description) {
    pi2_cli_print_line("%s", description->name);
    (void)printf("%-34s %8s %8s %8s %8s %7s %6s %6s %8s  %-9s %9s %6s\n", "run", "tokens/s", "mean ms", "P99 ms",
                 "MB/pass", "exposed", "hits", "hot", "J/token", "", "published", "ratio");
}

static void print_run(const pi2_described_run *described, const pi2_simulated_run *run, double ratio) {
    char name[64], published[64] = "";
    (void)snprintf(name, sizeof name, "%.34s", described->name);
    if (described->figure) {
        const char *of = pi2_described_figure_name(described->figure);
        const double value = pi2_described_figure_of(described->figure, &described->simulation, run);
        if (described->figure == PI2_FIGURE_TOKENS) (void)snprintf(published, sizeof published, "%-9s", "");
        else (void)snprintf(published, sizeof published, "%s %.4g ", of, value);
    }
    char line[256];
    (void)snprintf(line, sizeof line, "%-34s %8.2f %8.2f %8.2f %8.1f %6.1f%% %5.1f%% %5.1f%% %8.3f", name,
                   run->tokens_per_second, 1e3 * run->mean_seconds, 1e3 * run->p99_seconds, run->bytes_per_pass / 1e6,
                   100 * run->exposed_share, 100 * run->hit_share, 100 * run->hot_share, run->joules_per_token);
    if (described->figure) pi2_cli_print_line("%s  %s%9.4g %6.2f", line, published, described->published, ratio);
    else pi2_cli_print_line("%s", line);
}

static int compare_doubles(const void *a, const void *b) {
    const double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/** Half of the ratios, as far as they are from 1, are at most so far. */
static double median_distance(double *ratios, size_t count) {
    for (size_t i = 0; i < count; i++) ratios[i] = ratios[i] > 1 ? ratios[i] - 1 : 1 - ratios[i];
    qsort(ratios, count, sizeof *ratios, compare_doubles);
    return count % 2 ? ratios[count / 2] : (ratios[count / 2 - 1] + ratios[count / 2]) / 2;
}

/** Ratios of figures to what was published, of all files. */
typedef struct ratio_list {
    double items[PI2_CLI_MAX_TEXTS * PI2_DESCRIBED_RUNS];
    size_t count;
} ratio_list;

/** Runs of a file together take no longer than one may. One that is too long by itself is refused when it is made. */
static int bound_runs(const char *path, const pi2_description *description) {
    double sum = 0;
    for (uint32_t i = 0; i < description->run_count; i++) {
        const pi2_described_run *described = &description->runs[i];
        if (described->previous != i) continue;
        const double own = pi2_simulation_draws(&description->device, &description->model, &described->simulation);
        if (!(own <= PI2_SIMULATION_DRAWS_MOST)) return PI2_CLI_GO_ON;
        sum += own;
        if (sum <= PI2_SIMULATION_DRAWS_MOST) continue;
        return pi2_cli_usage_error("simulate: %s: run %u: runs up to it draw %g neurons in all passes, and those of "
                                   "a file at most %g: give it fewer runs or tokens", path, (unsigned)i + 1, sum,
                                   PI2_SIMULATION_DRAWS_MOST);
    }
    return PI2_CLI_GO_ON;
}

/** All runs are made before any is told. */
static int make_runs(pi2_description *description, const simulate_settings *settings, pi2_simulated_run *results) {
    for (uint32_t i = 0; i < description->run_count; i++) {
        pi2_described_run *described = &description->runs[i];
        if (settings->policy) described->simulation.policy = settings->policy;
        if (settings->seed >= 0) described->simulation.seed = (uint64_t)settings->seed;
        if (described->previous != i) {
            results[i] = results[described->previous];
            continue;
        }
        const pi2_status status =
            pi2_simulate(&description->device, &description->model, &described->simulation, &results[i]);
        if (status != PI2_OK) return pi2_cli_failed(status);
    }
    return PI2_CLI_GO_ON;
}

static void tell_runs(const pi2_description *description, const pi2_simulated_run *results, bool as_json, json_t *runs,
                      ratio_list *ratios) {
    if (!as_json) print_head(description);
    for (uint32_t i = 0; i < description->run_count; i++) {
        const pi2_described_run *described = &description->runs[i];
        double ratio = (double)NAN;
        if (described->figure) {
            ratio = pi2_described_figure_of(described->figure, &described->simulation, &results[i]);
            ratio /= described->published;
        }
        if (isfinite(ratio)) ratios->items[ratios->count++] = ratio;
        if (as_json) (void)json_array_append_new(runs, run_json(described, &results[i], ratio));
        else print_run(described, &results[i], ratio);
    }
}

static void print_assumed(const pi2_description *description) {
    const json_t *assumed = json_object_get(description->json, "assumed");
    for (size_t i = 0; i < json_array_size(assumed); i++) {
        const char *line = json_string_value(json_array_get(assumed, i));
        if (line) pi2_cli_print_line("  assumed: %s", line);
    }
}

static int simulate_file(const char *path, const simulate_settings *settings, json_t *files, ratio_list *ratios) {
    pi2_description description;
    char *text = NULL;
    size_t length = 0;
    int code = pi2_cli_read_description(path, &text, &length);
    if (code != PI2_CLI_GO_ON) return code;
    code = pi2_description_read(path, text, length, &description);
    free(text);
    if (code != PI2_CLI_GO_ON) return code;
    json_t *runs = json_array();
    static pi2_simulated_run results[PI2_DESCRIBED_RUNS];
    code = bound_runs(path, &description);
    if (code == PI2_CLI_GO_ON) code = make_runs(&description, settings, results);
    if (code == PI2_CLI_GO_ON) tell_runs(&description, results, settings->json, runs, ratios);
    if (code == PI2_CLI_GO_ON && settings->json) {
        json_t *file = json_pack("{s:o, s:O}", "name", pi2_cli_json_text(description.name, strlen(description.name)),
                                 "runs", runs);
        (void)json_array_append_new(files, file);
    } else if (code == PI2_CLI_GO_ON) {
        print_assumed(&description);
    }
    json_decref(runs);
    pi2_description_free(&description);
    return code;
}

int pi2_cli_simulate(int argument_count, char **arguments) {
    static simulate_settings settings;
    static ratio_list ratios;
    const pi2_cli_section sections[] = {
        {"Options", simulate_options, sizeof simulate_options / sizeof simulate_options[0], &settings},
        pi2_cli_model_simulation_section(&settings)};
    const pi2_cli_command command = {
        "simulate", "[-m MODEL] --device FILE... [options]",
        "Says how fast a device that is described would run a model that is described: clusters of neurons are drawn, "
        "cached, read and computed as PowerInfer-2 has it, with predictor and accelerator, and time is counted. Beside "
        "it stands what was published of it, where the file has that. With -m a model's file takes the place of the "
        "described one: it is planned for the device's memory, and its passes go through the engine's own stores.",
        sections, 2};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    if (settings.devices.count == 0) {
        return pi2_cli_usage_error("simulate: no description: give one with --device FILE (examples/simulate has "
                                   "some)");
    }
    if (settings.model) return pi2_cli_simulate_model(&settings);
    const char *stray = pi2_cli_stray_model_option(&settings);
    if (stray) return pi2_cli_usage_error("simulate: %s needs a model's file: name it with -m FILE", stray);
    json_t *files = json_array();
    for (size_t i = 0; i < settings.devices.count && code == PI2_CLI_GO_ON; i++) {
        if (i > 0 && !settings.json) (void)printf("\n");
        code = simulate_file(settings.devices.items[i], &settings, files, &ratios);
    }
    if (code != PI2_CLI_GO_ON) {
        json_decref(files);
        return code;
    }
    const size_t count = ratios.count;
    const double distance = count ? median_distance(ratios.items, count) : 0;
    if (settings.json) {
        json_t *value = json_pack("{s:o, s:I, s:o}", "files", files, "published_figures", (json_int_t)count,
                                  "median_distance", count ? number(distance) : json_null());
        return pi2_cli_print_json(value, JSON_COMPACT);
    }
    json_decref(files);
    if (count) {
        (void)printf("\n%zu published figures; half of them are at most %.0f%% from what is simulated\n", count,
                     100 * distance);
    }
    return pi2_cli_finish_stdout();
}
