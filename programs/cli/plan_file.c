/* plan_file.c: names that stay: other programs read them. */
#include "plan_file.h"

#include <stdlib.h>
#include <string.h>

#include "device_profile_cli.h"
#include "output.h"

static json_t *integer(uint64_t value) { return json_integer((json_int_t)value); }
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
    json_object_set_new(object, "cache_type", text(options->cache_type == PI2_CACHE_Q8_0 ? "q8_0" : "f16"));
    json_object_set_new(object, "cache_policy", text(options->cache_policy));
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

static json_t *experts_json(const pi2_prediction *prediction, const char *trace) {
    json_t *object = json_object();
    json_object_set_new(object, "slots", integer(prediction->expert_slots));
    json_object_set_new(object, "experts", integer(prediction->expert_total));
    json_object_set_new(object, "hit_rate", pi2_cli_json_number(prediction->expert_hit_rate));
    json_object_set_new(object, "routing", text(prediction->routing));
    json_object_set_new(object, "routing_trace", trace ? text(trace) : json_null());
    return object;
}

json_t *pi2_cli_plan_json(const pi2_plan *plan, const pi2_device_profile *profile, const pi2_engine_options *options,
                          const char *routing_trace) {
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
    json_object_set_new(object, "device", pi2_cli_device_json(pi2_device_profile_identity(profile)));
    json_object_set_new(object, "parameters", parameters_json(pi2_plan_report(plan), options));
    json_object_set_new(object, "decode", speed_json(&prediction->decode));
    json_object_set_new(object, "prefill", speed_json(&prediction->prefill));
    json_object_set_new(object, "bytes_per_token", integer(prediction->bytes_per_token));
    json_object_set_new(object, "resident_bytes", integer(prediction->resident_bytes));
    json_object_set_new(object, "load_ms", pi2_cli_json_number(prediction->load_ms));
    json_object_set_new(object, "time_to_first_token_ms", pi2_cli_json_number(prediction->time_to_first_token_ms));
    json_object_set_new(object, "bottleneck", text(pi2_bottleneck_name(prediction->bottleneck)));
    json_object_set_new(object, "prefill_bottleneck", text(pi2_bottleneck_name(prediction->prefill_bottleneck)));
    json_object_set_new(object, "disk", disk_json(prediction));
    if (prediction->expert_total) {
        json_object_set_new(object, "experts", experts_json(prediction, routing_trace));
    }
    json_object_set_new(object, "memory", memory);
    json_object_set_new(object, "what_helps", helps);
    return object;
}

/* ---- use ---- */

static int refuse(const char *format, const char *path, const char *what) {
    (void)pi2_cli_usage_error(format, path, what);
    return PI2_EXIT_BAD_FILE;
}

/** The name of the first member of `expected` that differs, or NULL. */
static const char *first_difference(const json_t *got, json_t *expected) {
    const char *key, *different = NULL;
    json_t *value;
    json_object_foreach(expected, key, value) {
        if (!different && !json_equal(json_object_get(got, key), value)) different = key;
    }
    return different;
}

static int check_device(const char *path, const json_t *plan) {
    static char different[32];
    pi2_device_identity identity;
    pi2_device_identify(&identity);
    json_t *here = pi2_cli_device_json(&identity);
    const char *name = first_difference(json_object_get(plan, "device"), here);
    if (name) {
        const size_t length = strlen(name) < sizeof different - 1 ? strlen(name) : sizeof different - 1;
        memcpy(different, name, length);
        different[length] = '\0';
    }
    json_decref(here);
    return name ? refuse("%s: the plan was made for another device (its %s differs): plan again", path, different)
                : PI2_EXIT_OK;
}

/** A whole number of the parameters within 0 .. most; -1: not there or out of range. */
static int64_t parameter(const json_t *plan, const char *name, int64_t most) {
    const json_t *value = json_object_get(json_object_get(plan, "parameters"), name);
    const json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    return number < 0 || number > most ? -1 : (int64_t)number;
}

static int fill_options(const char *path, const json_t *plan, pi2_engine_options *options) {
    const int64_t memory = parameter(plan, "memory_bytes", INT64_MAX);
    const int64_t context = parameter(plan, "context_tokens", INT32_MAX), batch = parameter(plan, "batch_tokens", 8192);
    const int64_t threads = parameter(plan, "threads", 256);
    if (memory < 0 || context < 0 || batch < 0 || threads < 0) {
        return refuse("%s: not a plan: '%s' is missing or out of range", path,
                      memory < 0 ? "memory_bytes" : context < 0 ? "context_tokens" : batch < 0 ? "batch_tokens"
                                                                                            : "threads");
    }
    const char *method = json_string_value(json_object_get(json_object_get(plan, "parameters"), "read_method"));
    const char *cache = json_string_value(json_object_get(json_object_get(plan, "parameters"), "cache_type"));
    if (!options->memory_bytes) options->memory_bytes = (uint64_t)memory;
    if (!options->context_tokens) options->context_tokens = (uint32_t)context;
    if (!options->batch_tokens) options->batch_tokens = (uint32_t)batch;
    if (!options->thread_count) options->thread_count = (uint32_t)threads;
    const char *policy = json_string_value(json_object_get(json_object_get(plan, "parameters"), "cache_policy"));
    if (method && strcmp(options->read_method, "auto") == 0) options->read_method = method;
    if (policy && strcmp(options->cache_policy, "auto") == 0) options->cache_policy = policy;
    if (cache && strcmp(cache, "q8_0") == 0) options->cache_type = PI2_CACHE_Q8_0;
    return PI2_EXIT_OK;
}

int pi2_cli_plan_read(const char *path, pi2_engine_options *options, json_t **plan_out) {
    char *data = NULL;
    size_t length = 0;
    int code = pi2_cli_read_file(path, &data, &length);
    if (code != PI2_EXIT_OK) return code;
    json_error_t error;
    json_t *plan = json_loadb(data, length, JSON_REJECT_DUPLICATES, &error);
    free(data);
    const char *version = json_string_value(json_object_get(plan, "version"));
    if (!plan || json_integer_value(json_object_get(plan, "powerinfer2_plan")) != 1 || !version) {
        code = refuse("%s: not a plan: make one with 'powerinfer2 plan --json'%s", path, "");
    } else if (strcmp(version, PI2_VERSION) != 0) {
        code = refuse("%s: the plan is of version %s, this program is another: plan again", path, version);
    } else {
        code = check_device(path, plan);
        if (code == PI2_EXIT_OK) code = fill_options(path, plan, options);
    }
    if (code == PI2_EXIT_OK) *plan_out = plan;
    else json_decref(plan);
    return code;
}

const char *pi2_cli_plan_routing_trace(const json_t *plan) {
    return json_string_value(json_object_get(json_object_get(plan, "experts"), "routing_trace"));
}

int pi2_cli_plan_check_model(const char *path, const json_t *plan, const pi2_engine_options *options) {
    pi2_plan *header = NULL;
    const pi2_status status = pi2_plan_make(options, NULL, NULL, &header);
    if (status != PI2_OK) return pi2_cli_failed(status);
    json_t *here = model_json(pi2_plan_report(header));
    const char *name = first_difference(json_object_get(plan, "model"), here);
    int code = PI2_EXIT_OK;
    if (name) code = refuse("%s: the plan was made for another model (its %s differs): plan again", path, name);
    json_decref(here);
    pi2_plan_free(header);
    return code;
}
