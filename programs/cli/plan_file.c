/* plan_file.c: names that stay: other programs read them. */
#include "plan_file.h"

#include <stdlib.h>
#include <string.h>

#include "machine_profile_cli.h"
#include "engine_options.h"
#include "output.h"

/** Numbers of JSON end at INT64_MAX here: a larger one would be written as a negative one. */
static json_t *integer(uint64_t value) { return json_integer(value < INT64_MAX ? (json_int_t)value : INT64_MAX); }
static json_t *text(const char *value) { return pi2_cli_json_text(value, strlen(value)); }

static json_t *speed_json(const pi2_speed *speed) {
    json_t *object = json_object();
    json_object_set_new(object, "tokens_per_second", pi2_cli_json_number(speed->tokens_per_second));
    json_object_set_new(object, "low", pi2_cli_json_number(speed->low));
    json_object_set_new(object, "high", pi2_cli_json_number(speed->high));
    return object;
}

static json_t *model_json(const pi2_engine_report *report) {
    json_t *object = json_object();
    json_object_set_new(object, "name", text(report->model_name));
    json_object_set_new(object, "architecture", text(report->architecture));
    json_object_set_new(object, "ffn_activation", text(report->ffn_activation));
    json_object_set_new(object, "weight_types", text(report->weight_types));
    json_object_set_new(object, "parameter_count", integer(report->parameter_count));
    json_object_set_new(object, "weight_bytes", integer(report->weight_bytes));
    json_object_set_new(object, "layer_count", integer(report->layer_count));
    json_object_set_new(object, "expert_count", integer(report->expert_count));
    json_object_set_new(object, "expert_used_count", integer(report->expert_used_count));
    return object;
}

static json_t *parameters_json(const pi2_engine_report *report, const pi2_engine_options *options) {
    json_t *object = json_object();
    json_object_set_new(object, "memory_bytes", integer(report->budget_bytes));
    json_object_set_new(object, "context_tokens", integer(report->context_tokens));
    json_object_set_new(object, "batch_tokens", integer(report->batch_tokens));
    json_object_set_new(object, "threads", integer(report->thread_count));
    json_object_set_new(object, "read_method", text(options->read_method));
    json_object_set_new(object, "cache_type", text(pi2_cache_type_name(options->cache_type)));
    json_object_set_new(object, "cache_policy", text(options->cache_policy));
    json_object_set_new(object, "sparsity", text(options->sparsity));
    json_object_set_new(object, "predictor", options->predictor ? text(options->predictor) : json_null());
    json_object_set_new(object, "ffn_activation",
                        options->ffn_activation ? text(options->ffn_activation) : json_null());
    return object;
}

static json_t *points_json(const double *values) {
    static const char *const tokens[PI2_DEVICE_POINTS] = {"1", "8", "64"};
    json_t *object = json_object();
    for (size_t i = 0; i < PI2_DEVICE_POINTS; i++) {
        json_object_set_new(object, tokens[i], pi2_cli_json_number(values[i]));
    }
    return object;
}

static json_t *devices_json(const pi2_device_speed *speeds, size_t count, const pi2_prediction *prediction) {
    json_t *object = json_object(), *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *device = json_object();
        json_object_set_new(device, "name", text(speeds[i].name));
        json_object_set_new(device, "share_with_tokens", points_json(speeds[i].shares));
        json_object_set_new(device, "gain_with_tokens", points_json(speeds[i].gains));
        json_object_set_new(device, "left_out", json_boolean(speeds[i].is_left_out));
        json_array_append_new(list, device);
    }
    json_object_set_new(object, "list", list);
    const bool are_used = prediction->decode_alone.tokens_per_second > 0;
    json_object_set_new(object, "decode_without", are_used ? speed_json(&prediction->decode_alone) : json_null());
    json_object_set_new(object, "prefill_without", are_used ? speed_json(&prediction->prefill_alone) : json_null());
    return object;
}

static json_t *disk_json(const pi2_prediction *prediction) {
    json_t *object = json_object();
    json_object_set_new(object, "place", text(prediction->disk));
    json_object_set_new(object, "bytes_per_second", pi2_cli_json_number(prediction->disk_speed));
    json_object_set_new(object, "low", pi2_cli_json_number(prediction->disk_low));
    json_object_set_new(object, "high", pi2_cli_json_number(prediction->disk_high));
    return object;
}

static json_t *batch_json(const pi2_batch_check *batch) {
    if (!batch->tokens) return json_null();
    json_t *object = json_object();
    json_object_set_new(object, "tokens", integer(batch->tokens));
    json_object_set_new(object, "read_ms", pi2_cli_json_number(batch->read_ms));
    json_object_set_new(object, "compute_ms", pi2_cli_json_number(batch->compute_ms));
    json_object_set_new(object, "reading_hides", json_boolean(batch->reading_hides));
    json_object_set_new(object, "hides_from_tokens", batch->hides_from ? integer(batch->hides_from) : json_null());
    return object;
}

static json_t *experts_json(const pi2_plan *plan, const char *trace) {
    const pi2_prediction *prediction = pi2_plan_prediction(plan);
    const pi2_engine_report *report = pi2_plan_report(plan);
    const char *note = pi2_plan_expert_note(plan);
    json_t *object = json_object();
    json_object_set_new(object, "slots", integer(prediction->expert_slots));
    json_object_set_new(object, "experts", integer(prediction->expert_total));
    json_object_set_new(object, "used_per_token", integer((uint64_t)report->layer_count * report->expert_used_count));
    json_object_set_new(object, "note", note ? text(note) : json_null());
    json_object_set_new(object, "hit_rate", pi2_cli_json_number(prediction->expert_hit_rate));
    json_object_set_new(object, "hot", integer(report->hot_experts));
    json_object_set_new(object, "hot_share", pi2_cli_json_number(report->hot_share));
    json_object_set_new(object, "hot_reason", text(report->hot_reason));
    json_object_set_new(object, "routing", text(prediction->routing));
    json_object_set_new(object, "routing_trace", trace ? text(trace) : json_null());
    return object;
}

static json_t *neurons_json(const pi2_prediction *prediction, const char *statistics) {
    json_t *object = json_object();
    json_object_set_new(object, "slots", integer(prediction->neuron_slots));
    json_object_set_new(object, "units", integer(prediction->neuron_units));
    json_object_set_new(object, "share_used", pi2_cli_json_number(prediction->neuron_share));
    json_object_set_new(object, "hit_rate", pi2_cli_json_number(prediction->neuron_hit_rate));
    json_object_set_new(object, "reads_per_token", pi2_cli_json_number(prediction->neuron_reads));
    json_object_set_new(object, "sparsity", text(prediction->sparsity));
    json_object_set_new(object, "statistics", statistics ? text(statistics) : json_null());
    return object;
}

json_t *pi2_cli_plan_json(const pi2_plan *plan, const pi2_machine_profile *profile, const pi2_engine_options *options,
                          const pi2_prediction_request *request) {
    const pi2_prediction *prediction = pi2_plan_prediction(plan);
    json_t *object = json_object(), *memory = json_array(), *helps = json_array();
    size_t count;
    const pi2_plan_line *lines = pi2_plan_lines(plan, &count);
    for (size_t i = 0; i < count; i++) {
        json_t *line = json_object();
        json_object_set_new(line, "what", text(lines[i].what));
        json_object_set_new(line, "bytes", integer(lines[i].bytes));
        json_object_set_new(line, "resident_bytes", integer(lines[i].resident_bytes));
        json_object_set_new(line, "why", text(lines[i].why));
        json_array_append_new(memory, line);
    }
    const pi2_advice *advice = pi2_plan_advice(plan, &count);
    for (size_t i = 0; i < count; i++) {
        json_t *help = json_object();
        json_object_set_new(help, "what", text(advice[i].what));
        json_object_set_new(help, "tokens_per_second", pi2_cli_json_number(advice[i].tokens_per_second));
        json_object_set_new(help, "factor", pi2_cli_json_number(advice[i].factor));
        json_array_append_new(helps, help);
    }
    json_object_set_new(object, "powerinfer2_plan", json_integer(1));
    json_object_set_new(object, "version", text(PI2_VERSION));
    json_object_set_new(object, "model", model_json(pi2_plan_report(plan)));
    json_object_set_new(object, "machine", pi2_cli_machine_json(pi2_machine_profile_identity(profile)));
    json_object_set_new(object, "parameters", parameters_json(pi2_plan_report(plan), options));
    json_object_set_new(object, "decode", speed_json(&prediction->decode));
    json_object_set_new(object, "prefill", speed_json(&prediction->prefill));
    json_object_set_new(object, "bytes_per_token", integer(prediction->bytes_per_token));
    json_object_set_new(object, "resident_bytes", integer(prediction->resident_bytes));
    json_object_set_new(object, "load_ms", pi2_cli_json_number(prediction->load_ms));
    json_object_set_new(object, "time_to_first_token_ms", pi2_cli_json_number(prediction->time_to_first_token_ms));
    json_object_set_new(object, "bottleneck", text(pi2_bottleneck_name(prediction->bottleneck)));
    json_object_set_new(object, "prefill_bottleneck", text(pi2_bottleneck_name(prediction->prefill_bottleneck)));
    json_object_set_new(object, "prefill_batch", batch_json(pi2_plan_batch_check(plan)));
    json_object_set_new(object, "disk", disk_json(prediction));
    if (prediction->expert_total) {
        json_object_set_new(object, "experts", experts_json(plan, request->routing_trace));
    }
    if (prediction->neuron_units) {
        json_object_set_new(object, "neurons", neurons_json(prediction, request->statistics));
    }
    size_t device_count;
    const pi2_device_speed *speeds = pi2_plan_device_speeds(plan, &device_count);
    if (device_count) json_object_set_new(object, "devices", devices_json(speeds, device_count, prediction));
    json_object_set_new(object, "memory", memory);
    json_object_set_new(object, "what_helps", helps);
    return object;
}

/* ---- use ---- */

enum { MOST_BYTES = 1 << 20 }; /* a plan has some KB */
/* What pi2_engine_open() takes: beyond it, its error would name neither the file nor the field. */
enum { MOST_CONTEXT = 1 << 26, MOST_BATCH = 8192 };

static int not_a_plan(const char *path, const char *what) {
    (void)pi2_cli_usage_error("%s: not a plan: %s: make one with 'powerinfer2 plan --json'", path, what);
    return PI2_EXIT_BAD_FILE;
}

static int wrong_field(const char *path, const char *name, const char *what) {
    char text[160];
    (void)snprintf(text, sizeof text, "'%s' is %s", name, what);
    return not_a_plan(path, text);
}

/** Refuses a plan whose object `section` has other values than those expected. Takes `expected`. */
static int check_same(const char *path, const json_t *plan, const char *section, json_t *expected) {
    const json_t *got = json_object_get(plan, section);
    const char *key, *different = NULL;
    json_t *value;
    int code = PI2_EXIT_OK;
    json_object_foreach(expected, key, value) {
        if (!different && !json_equal(json_object_get(got, key), value)) different = key;
    }
    if (!json_is_object(got)) {
        code = wrong_field(path, section, got ? "no object" : "missing");
    } else if (different) {
        (void)pi2_cli_usage_error("%s: the plan was made for another %s (its %s differs): plan again", path, section,
                                  different);
        code = PI2_EXIT_BAD_FILE;
    }
    json_decref(expected);
    return code;
}

/** A whole number of the parameters within 1 .. most: 0 would leave the choice to the run. */
static int read_number(const char *path, const json_t *parameters, const char *name, int64_t most,
                       int64_t *number_out) {
    const json_t *value = json_object_get(parameters, name);
    char text[64];
    *number_out = json_integer_value(value);
    if (json_is_integer(value) && *number_out >= 1 && *number_out <= most) return PI2_EXIT_OK;
    (void)snprintf(text, sizeof text, "no whole number within 1 .. %lld", (long long)most);
    return wrong_field(path, name, value ? text : "missing");
}

/** A word of the parameters; it lives as long as they. */
static int read_word(const char *path, const json_t *parameters, const char *name, const char *words,
                     const char **word_out) {
    const json_t *value = json_object_get(parameters, name);
    char text[96];
    *word_out = json_string_value(value);
    if (*word_out && pi2_cli_is_choice(words, *word_out)) return PI2_EXIT_OK;
    (void)snprintf(text, sizeof text, "none of %s", words);
    return wrong_field(path, name, value ? text : "missing");
}

/** One of the words, "auto", or a share below 1: what 'plan' writes of any mode that it plans. */
static int read_sparsity(const char *path, const json_t *parameters, const char **sparsity_out) {
    const char *value = json_string_value(json_object_get(parameters, "sparsity"));
    char *end = NULL;
    *sparsity_out = value;
    if (value && strcmp(value, "auto") == 0) return PI2_EXIT_OK;
    if (value && *value >= '0' && *value <= '9' && strtod(value, &end) < 1 && *end == '\0') return PI2_EXIT_OK;
    return read_word(path, parameters, "sparsity", PI2_CLI_SPARSITIES, sparsity_out);
}

/** Plans of runs without a predictor have null, and older ones nothing. */
static int read_predictor(const char *path, const json_t *parameters, const char **predictor_out) {
    const json_t *value = json_object_get(parameters, "predictor");
    *predictor_out = json_string_value(value);
    if (!value || json_is_null(value) || *predictor_out) return PI2_EXIT_OK;
    return wrong_field(path, "predictor", "neither text nor null");
}

static int fill_options(const char *path, const json_t *plan, pi2_engine_options *options) {
    const json_t *parameters = json_object_get(plan, "parameters");
    int64_t memory, context, batch, threads;
    const char *method, *type, *policy, *sparsity, *predictor = NULL;
    int code = json_is_object(parameters) ? PI2_EXIT_OK
                                          : wrong_field(path, "parameters", parameters ? "no object" : "missing");
    if (code == PI2_EXIT_OK) code = read_number(path, parameters, "memory_bytes", INT64_MAX, &memory);
    if (code == PI2_EXIT_OK) code = read_number(path, parameters, "context_tokens", MOST_CONTEXT, &context);
    if (code == PI2_EXIT_OK) code = read_number(path, parameters, "batch_tokens", MOST_BATCH, &batch);
    if (code == PI2_EXIT_OK) code = read_number(path, parameters, "threads", PI2_THREADS_MOST, &threads);
    if (code == PI2_EXIT_OK) code = read_word(path, parameters, "read_method", PI2_CLI_READ_METHODS, &method);
    if (code == PI2_EXIT_OK) code = read_word(path, parameters, "cache_type", PI2_CLI_CACHE_TYPES, &type);
    if (code == PI2_EXIT_OK) code = read_word(path, parameters, "cache_policy", PI2_CLI_CACHE_POLICIES, &policy);
    if (code == PI2_EXIT_OK) code = read_sparsity(path, parameters, &sparsity);
    if (code == PI2_EXIT_OK) code = read_predictor(path, parameters, &predictor);
    const json_t *activation = json_object_get(parameters, "ffn_activation");
    const char *function = NULL;
    if (code == PI2_EXIT_OK && !json_is_null(activation)) {
        code = read_word(path, parameters, "ffn_activation", PI2_CLI_FFN_ACTIVATIONS, &function);
    }
    if (code != PI2_EXIT_OK) return code;
    if (!options->ffn_activation) options->ffn_activation = function;
    if (!options->memory_bytes) options->memory_bytes = (uint64_t)memory;
    if (!options->context_tokens) options->context_tokens = (uint32_t)context;
    if (!options->batch_tokens) options->batch_tokens = (uint32_t)batch;
    if (!options->thread_count) options->thread_count = (uint32_t)threads;
    if (strcmp(options->read_method, "auto") == 0) options->read_method = method;
    if (strcmp(options->cache_policy, "auto") == 0) options->cache_policy = policy;
    if (strcmp(sparsity, "exact") != 0) options->sparsity = sparsity;
    if (!options->predictor) options->predictor = predictor;
    if (options->cache_type == PI2_CACHE_F16) options->cache_type = pi2_cli_cache_type(type);
    const json_t *share = json_object_get(json_object_get(plan, "experts"), "hot_share");
    if (share && options->hot_share < 0) options->hot_share = json_number_value(share);
    return PI2_EXIT_OK;
}

/** A dense model's plan has no experts. */
static int check_experts(const char *path, const json_t *plan) {
    const json_t *experts = json_object_get(plan, "experts"), *trace = json_object_get(experts, "routing_trace");
    if (experts && !json_is_object(experts)) return wrong_field(path, "experts", "no object");
    if (trace && !json_is_null(trace) && !json_is_string(trace)) {
        return wrong_field(path, "routing_trace", "neither text nor null");
    }
    const json_t *share = json_object_get(experts, "hot_share");
    if (share && !(json_is_number(share) && json_number_value(share) >= 0 && json_number_value(share) <= 0.75)) {
        return wrong_field(path, "hot_share", "no number within 0 .. 0.75");
    }
    return PI2_EXIT_OK;
}

/** A plan of dense passes has no neurons. */
static int check_neurons(const char *path, const json_t *plan) {
    const json_t *neurons = json_object_get(plan, "neurons"), *file = json_object_get(neurons, "statistics");
    if (neurons && !json_is_object(neurons)) return wrong_field(path, "neurons", "no object");
    if (!file || json_is_null(file) || json_is_string(file)) return PI2_EXIT_OK;
    return wrong_field(path, "statistics", "neither text nor null");
}

static int check_plan(const char *path, const json_t *plan, pi2_engine_options *options) {
    const char *version = json_string_value(json_object_get(plan, "version"));
    if (json_integer_value(json_object_get(plan, "powerinfer2_plan")) != 1) {
        return wrong_field(path, "powerinfer2_plan", json_object_get(plan, "powerinfer2_plan") ? "not 1" : "missing");
    }
    if (!version) {
        return wrong_field(path, "version", json_object_get(plan, "version") ? "no text" : "missing");
    }
    if (strcmp(version, PI2_VERSION) != 0) {
        (void)pi2_cli_usage_error("%s: the plan is of version %.40s, this program of %s: plan again", path, version,
                                  PI2_VERSION);
        return PI2_EXIT_BAD_FILE;
    }
    pi2_machine_identity identity;
    pi2_machine_identify(&identity);
    int code = check_same(path, plan, "machine", pi2_cli_machine_json(&identity));
    if (code == PI2_EXIT_OK) code = check_experts(path, plan);
    if (code == PI2_EXIT_OK) code = check_neurons(path, plan);
    return code == PI2_EXIT_OK ? fill_options(path, plan, options) : code;
}

int pi2_cli_plan_read(const char *path, pi2_engine_options *options, json_t **plan_out) {
    char *data = NULL, text[224];
    size_t length = 0;
    int code = pi2_cli_read_text(path, MOST_BYTES + 1, &data, &length);
    if (code != PI2_EXIT_OK) return code;
    if (length > MOST_BYTES) {
        free(data);
        return not_a_plan(path, "it has more than 1 MB");
    }
    json_error_t error;
    json_t *plan = json_loadb(data, length, JSON_REJECT_DUPLICATES, &error);
    free(data);
    if (!plan && json_error_code(&error) == json_error_out_of_memory) {
        (void)pi2_cli_usage_error("%s: not enough memory to read it", path);
        return PI2_EXIT_MEMORY;
    }
    if (!plan) {
        (void)snprintf(text, sizeof text, "line %d, column %d: %s", error.line, error.column, error.text);
        return not_a_plan(path, text);
    }
    code = check_plan(path, plan, options);
    if (code == PI2_EXIT_OK) *plan_out = plan;
    else json_decref(plan);
    return code;
}

const char *pi2_cli_plan_routing_trace(const json_t *plan) {
    return json_string_value(json_object_get(json_object_get(plan, "experts"), "routing_trace"));
}

const char *pi2_cli_plan_statistics(const json_t *plan) {
    return json_string_value(json_object_get(json_object_get(plan, "neurons"), "statistics"));
}

int pi2_cli_plan_check_model(const char *path, const json_t *plan, const pi2_engine_options *options) {
    pi2_plan *header = NULL;
    pi2_engine_options quiet = *options;
    quiet.callbacks.log = NULL; /* the run itself tells it */
    const pi2_status status = pi2_plan_make(&quiet, NULL, NULL, &header);
    if (status != PI2_OK) return pi2_cli_failed(status);
    const int code = check_same(path, plan, "model", model_json(pi2_plan_report(header)));
    pi2_plan_free(header);
    return code;
}
