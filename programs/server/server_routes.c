/* server_routes.c: finds a route, and answers those that tell of the server and its model. */
#include "server_routes.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const pi2_route routes[] = {
#define ROUTE(method, path, form, is_public, needs, function) \
    {method, path, PI2_API_##form, is_public, PI2_NEEDS_##needs, function},
#include "server_routes.inc"
#undef ROUTE
};
enum { ROUTES = sizeof routes / sizeof routes[0] };

const pi2_route *pi2_route_find(const char *method, const char *path, const pi2_route **other_out) {
    for (size_t i = 0; i < ROUTES; i++) {
        const size_t length = strlen(routes[i].path);
        const bool is_folder = length > 1 && routes[i].path[length - 1] == '/'; /* the rest is the route's own */
        if (is_folder ? strncmp(routes[i].path, path, length) != 0 : strcmp(routes[i].path, path) != 0) continue;
        *other_out = &routes[i];
        if (strcmp(routes[i].method, method) == 0) return &routes[i];
        if (strcmp(method, "HEAD") == 0 && strcmp(routes[i].method, "GET") == 0) return &routes[i];
    }
    return NULL;
}

pi2_api_form pi2_route_form_of(const char *path) {
    if (strncmp(path, "/api/", 5) == 0) return PI2_API_OLLAMA;
    return strncmp(path, "/v1/messages", 12) == 0 ? PI2_API_ANTHROPIC : PI2_API_OPENAI;
}

static const pi2_engine_report *report_of(const pi2_exchange *exchange) {
    return pi2_engine_get_report(exchange->server->engine);
}

static json_t *text_json(const char *text) { return pi2_cli_json_text(text, strlen(text)); }

static enum MHD_Result folder_health(pi2_exchange *exchange) {
    pi2_holder_state state;
    pi2_model_holder_tell(exchange->server->holder, &state);
    if (*state.loading) {
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error", "Loading model");
    }
    if (*state.failure) {
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error",
                                  "the model does not load: %s", state.failure);
    }
    json_t *model = *state.loaded ? text_json(state.loaded) : json_null();
    return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:s, s:o}", "status", "ok", "model", model));
}

enum MHD_Result pi2_route_health(pi2_exchange *exchange) {
    if (!exchange->server->is_open) {
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error", "Loading model");
    }
    if (exchange->server->holder) return folder_health(exchange);
    return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

/** What is known of a model in memory. */
static json_t *meta_of(const pi2_engine_report *report) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "n_vocab", (json_int_t)report->vocabulary_size, "n_ctx_train",
                             (json_int_t)report->trained_context_tokens, "n_ctx", (json_int_t)report->context_tokens,
                             "n_params", (json_int_t)report->parameter_count, "size",
                             (json_int_t)report->weight_bytes);
}

static json_t *model_json(const pi2_exchange *exchange, const char *name, bool is_loaded) {
    json_t *model = json_pack("{s:o, s:s, s:I, s:s}", "id", text_json(name), "object", "model", "created",
                              (json_int_t)exchange->server->start_time, "owned_by", "powerinfer2");
    if (is_loaded) (void)json_object_set_new(model, "meta", meta_of(report_of(exchange)));
    return model;
}

/** An array of what `make` says of each of the folder's models; NULL: no memory, or the folder cannot be read. */
static json_t *folder_json(const pi2_exchange *exchange,
                           json_t *(*make)(const pi2_exchange *exchange, const char *name, const char *state)) {
    pi2_holder_state state;
    pi2_model_holder_tell(exchange->server->holder, &state);
    json_t *names = pi2_model_holder_names(exchange->server->holder), *all = names ? json_array() : NULL;
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        const bool is_loaded = exchange->has_model && strcmp(name, exchange->server->alias) == 0;
        const bool is_loading = strcmp(name, state.loading) == 0;
        (void)json_array_append_new(all, make(exchange, name, is_loaded ? "loaded" : is_loading ? "loading" :
                                                              "unloaded"));
    }
    json_decref(names);
    return all;
}

static json_t *folder_model_json(const pi2_exchange *exchange, const char *name, const char *state) {
    json_t *model = model_json(exchange, name, strcmp(state, "loaded") == 0);
    (void)json_object_set_new(model, "status", json_pack("{s:s}", "value", state));
    return model;
}

static json_t *models_json(const pi2_exchange *exchange) {
    return exchange->server->holder ? folder_json(exchange, folder_model_json)
                                    : json_pack("[o]", model_json(exchange, exchange->server->alias, true));
}

enum MHD_Result pi2_route_models(pi2_exchange *exchange) {
    return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:s, s:o}", "object", "list", "data",
                                                              models_json(exchange)));
}

enum MHD_Result pi2_route_model(pi2_exchange *exchange) {
    const char *name = exchange->path + strlen(exchange->route->path);
    json_t *models = models_json(exchange), *found = NULL;
    for (size_t i = 0; i < json_array_size(models) && !found; i++) {
        json_t *model = json_array_get(models, i);
        const char *id = json_string_value(json_object_get(model, "id"));
        if (id && strcmp(id, name) == 0) found = json_incref(model);
    }
    json_decref(models);
    if (found) return pi2_exchange_json(exchange, MHD_HTTP_OK, found);
    return pi2_exchange_error(exchange, MHD_HTTP_NOT_FOUND, "not_found_error",
                              "there is no model '%.200s' (/v1/models lists those that are there)", name);
}

enum MHD_Result pi2_route_props(pi2_exchange *exchange) {
    if (!pi2_exchange_sees_model(exchange)) {
        return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:b, s:n, s:i, s:s}", "is_loaded", 0, "model_alias",
                                                                  "total_slots",
                                                                  (int)exchange->server->settings->parallel,
                                                                  "build_info", "powerinfer2 " PI2_VERSION));
    }
    const pi2_engine_report *report = report_of(exchange);
    const pi2_sampling sampling = pi2_exchange_sampling(exchange);
    json_t *params = json_pack(
        "{s:f, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:f, s:f, s:I}", "temperature",
        (double)sampling.temperature, "top_k", (int)sampling.top_k, "top_p", (double)sampling.top_p, "min_p",
        (double)sampling.min_p, "typical_p", (double)sampling.typical_p, "top_n_sigma",
        (double)sampling.top_n_sigma, "xtc_probability", (double)sampling.xtc_probability, "xtc_threshold",
        (double)sampling.xtc_threshold, "dynatemp_range", (double)sampling.dynamic_range, "dynatemp_exponent",
        (double)sampling.dynamic_exponent, "repeat_penalty", (double)sampling.repeat_penalty, "repeat_last_n",
        (int)sampling.repeat_last_n, "presence_penalty", (double)sampling.presence_penalty, "frequency_penalty",
        (double)sampling.frequency_penalty, "n_predict", (json_int_t)exchange->server->settings->limit);
    json_t *memory = json_pack(
        "{s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "budget_bytes", (json_int_t)report->budget_bytes,
        "budget_reason", text_json(report->budget_reason), "weight_bytes", (json_int_t)report->weight_bytes,
        "resident_bytes", (json_int_t)report->resident_bytes, "cache_bytes", (json_int_t)report->cache_bytes,
        "scratch_bytes", (json_int_t)report->scratch_bytes, "stream_buffer_bytes",
        (json_int_t)report->stream_buffer_bytes, "expert_cache_bytes", (json_int_t)report->expert_cache_bytes,
        "server_bytes", (json_int_t)pi2_server_beside_bytes(exchange->server->settings));
    json_t *value = json_pack("{s:b, s:{s:o, s:I}, s:i, s:o, s:o, s:o, s:b, s:b, s:o, s:s}", "is_loaded", 1,
                              "default_generation_settings", "params", params, "n_ctx",
                              (json_int_t)report->context_tokens, "total_slots", (int)report->sequences,
                              "model_alias", text_json(exchange->server->alias), "model_name",
                              text_json(report->model_name ? report->model_name : ""), "architecture",
                              text_json(report->architecture), "has_chat_template",
                              pi2_engine_has_chat_template(exchange->server->engine), "is_exact",
                              pi2_engine_is_exact(exchange->server->engine), "memory", memory, "build_info",
                              "powerinfer2 " PI2_VERSION);
    return pi2_exchange_json(exchange, MHD_HTTP_OK, value);
}

/* Nothing of what is asked and answered is told here. */
enum MHD_Result pi2_route_slots(pi2_exchange *exchange) {
    json_t *slots = json_array();
    if (!pi2_exchange_sees_model(exchange)) return pi2_exchange_json(exchange, MHD_HTTP_OK, slots);
    const json_int_t context = (json_int_t)report_of(exchange)->context_tokens;
    bool has_free = false;
    for (uint32_t i = 0; i < report_of(exchange)->sequences; i++) {
        const pi2_slot_report slot = pi2_scheduler_slot(exchange->server->scheduler, i);
        const bool is_idle = slot.state == PI2_SLOT_IDLE;
        has_free = has_free || is_idle;
        (void)json_array_append_new(
            slots, json_pack("{s:I, s:I, s:b, s:s, s:I, s:I, s:I, s:I}", "id", (json_int_t)i, "n_ctx", context,
                             "is_processing", !is_idle, "state", pi2_slot_state_name(slot.state), "n_past",
                             (json_int_t)slot.timeline_tokens, "n_prompt", (json_int_t)slot.prompt_tokens, "n_cached",
                             (json_int_t)slot.cached_tokens, "n_decoded", (json_int_t)slot.answer_tokens));
    }
    const char *wanted =
        MHD_lookup_connection_value(exchange->connection, MHD_GET_ARGUMENT_KIND, "fail_on_no_slot");
    if (wanted && strcmp(wanted, "0") != 0 && !has_free) {
        json_decref(slots);
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "unavailable_error", "no slot is free");
    }
    return pi2_exchange_json(exchange, MHD_HTTP_OK, slots);
}

/** Adds a metric in Prometheus' text form. */
static bool add_metric(pi2_cli_text *text, const char *name, const char *kind, const char *help, double value) {
    char line[512];
    const int length = snprintf(line, sizeof line, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name, kind,
                                name, value);
    return length > 0 && (size_t)length < sizeof line && pi2_cli_text_add(text, line, (size_t)length);
}

/** Adds a metric with a value for each slot. */
static bool add_slot_metric(const pi2_exchange *exchange, pi2_cli_text *text, const char *name, const char *help,
                            size_t offset) {
    char line[256];
    int length = snprintf(line, sizeof line, "# HELP %s %s\n# TYPE %s counter\n", name, help, name);
    bool is_good = pi2_cli_text_add(text, line, (size_t)length);
    for (uint32_t i = 0; is_good && i < report_of(exchange)->sequences; i++) {
        const pi2_slot_report slot = pi2_scheduler_slot(exchange->server->scheduler, i);
        uint64_t value;
        memcpy(&value, (const char *)&slot + offset, sizeof value);
        length = snprintf(line, sizeof line, "%s{slot=\"%u\"} %llu\n", name, (unsigned)i, (unsigned long long)value);
        is_good = pi2_cli_text_add(text, line, (size_t)length);
    }
    return is_good;
}

static bool add_slot_metrics(const pi2_exchange *exchange, pi2_cli_text *text) {
    return add_slot_metric(exchange, text, "powerinfer2:slot_requests_total", "Requests that a slot took.",
                           offsetof(pi2_slot_report, all_jobs)) &&
           add_slot_metric(exchange, text, "powerinfer2:slot_prompt_tokens_total", "Prompt tokens computed in a slot.",
                           offsetof(pi2_slot_report, all_prompt_tokens)) &&
           add_slot_metric(exchange, text, "powerinfer2:slot_cached_tokens_total",
                           "Prompt tokens that were there already for a slot.",
                           offsetof(pi2_slot_report, all_cached_tokens)) &&
           add_slot_metric(exchange, text, "powerinfer2:slot_answer_tokens_total", "Tokens of a slot's answers.",
                           offsetof(pi2_slot_report, all_answer_tokens));
}

static bool add_engine_metrics(const pi2_exchange *exchange, pi2_cli_text *text) {
    pi2_scheduler_counts counts;
    pi2_scheduler_count(exchange->server->scheduler, &counts);
    const pi2_slots_counts *slots = &counts.slots;
    const double busy = slots->passes ? (double)slots->passes_slots / (double)slots->passes : 0;
    const struct { const char *name, *kind, *help; double value; } metrics[] = {
        {"llamacpp:prompt_tokens_total", "counter", "Prompt tokens that were computed.", (double)slots->prompt_tokens},
        {"llamacpp:prompt_seconds_total", "counter", "Seconds of computing prompts.", slots->prompt_seconds},
        {"llamacpp:tokens_predicted_total", "counter", "Tokens of answers.", (double)slots->answer_tokens},
        {"llamacpp:tokens_predicted_seconds_total", "counter", "Seconds of computing answers.", slots->answer_seconds},
        {"llamacpp:n_busy_slots_per_decode", "gauge", "Slots with a part in a pass, on average.", busy},
        {"powerinfer2:passes_total", "counter", "Passes over the weights for requests.", (double)slots->passes},
        {"llamacpp:requests_processing", "gauge", "Requests that are computed.", (double)slots->running},
        {"llamacpp:requests_deferred", "gauge", "Requests that wait.", (double)counts.waiting},
        {"powerinfer2:requests_total", "counter", "Requests that were taken.", (double)counts.requests},
        {"powerinfer2:requests_refused_total", "counter", "Requests that found no room.", (double)counts.refused},
        {"powerinfer2:cached_tokens_total", "counter", "Prompt tokens that were there already.",
         (double)slots->cached_tokens},
        {"powerinfer2:budget_bytes", "gauge", "Memory that the process may use.",
         (double)report_of(exchange)->budget_bytes}};
    bool is_good = true;
    for (size_t i = 0; is_good && i < sizeof metrics / sizeof metrics[0]; i++) {
        is_good = add_metric(text, metrics[i].name, metrics[i].kind, metrics[i].help, metrics[i].value);
    }
    size_t count;
    const pi2_counter_description *all = pi2_counter_descriptions(&count);
    for (size_t i = 0; is_good && i < count; i++) {
        char name[96];
        const bool is_sum = all[i].kind != PI2_COUNTER_NOW;
        (void)snprintf(name, sizeof name, "powerinfer2:%s%s", all[i].name, is_sum ? "_total" : "");
        is_good = add_metric(text, name, is_sum ? "counter" : "gauge", all[i].text,
                             (double)pi2_counter_value(&counts.counters, &all[i]));
    }
    return is_good && add_slot_metrics(exchange, text);
}

/** Of a folder's models; what is told of the one in memory begins anew with each. */
static bool add_folder_metrics(const pi2_exchange *exchange, pi2_cli_text *text) {
    pi2_holder_state state;
    if (!exchange->server->holder) return true;
    pi2_model_holder_tell(exchange->server->holder, &state);
    return add_metric(text, "powerinfer2:models_loaded", "gauge", "Models in memory.", *state.loaded ? 1 : 0) &&
           add_metric(text, "powerinfer2:model_loads_total", "counter", "Models that were opened.",
                      (double)state.loads) &&
           add_metric(text, "powerinfer2:model_unloads_total", "counter", "Models that left memory.",
                      (double)state.unloads) &&
           add_metric(text, "powerinfer2:model_requests_waiting", "gauge", "Requests that wait for another model.",
                      (double)state.waiting);
}

enum MHD_Result pi2_route_metrics(pi2_exchange *exchange) {
    pi2_cli_text text = {0};
    if (!add_metric(&text, "powerinfer2:peak_memory_bytes", "gauge", "Peak resident memory of the process.",
                    (double)pi2_peak_memory_bytes()) ||
        !add_folder_metrics(exchange, &text) ||
        (pi2_exchange_sees_model(exchange) && !add_engine_metrics(exchange, &text))) {
        free(text.data);
        return pi2_exchange_error(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "server_error", "no memory for the metrics");
    }
    const enum MHD_Result result =
        pi2_exchange_text(exchange, "text/plain; version=0.0.4; charset=utf-8", text.data, text.length);
    free(text.data);
    return result;
}

/* ---- Ollama ---- */

static json_t *details(const pi2_exchange *exchange) {
    const pi2_engine_report *report = report_of(exchange);
    return json_pack("{s:s, s:o, s:[o], s:o}", "format", "gguf", "family", text_json(report->architecture), "families",
                     text_json(report->architecture), "quantization_level", text_json(report->weight_types));
}

static json_t *tag_json(const pi2_exchange *exchange, const char *name, uint64_t bytes, json_t *of_it) {
    char date[32];
    const time_t start = (time_t)exchange->server->start_time;
    struct tm parts;
    (void)gmtime_r(&start, &parts);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return json_pack("{s:o, s:o, s:s, s:I, s:s, s:o}", "name", text_json(name), "model", text_json(name), "modified_at",
                     date, "size", (json_int_t)bytes, "digest", "", "details", of_it);
}

static json_t *details_unloaded(void) { return json_pack("{s:s}", "format", "gguf"); }

static json_t *folder_tag_json(const pi2_exchange *exchange, const char *name, const char *state) {
    char found[PI2_MODEL_NAME_BYTES];
    uint64_t bytes = 0;
    (void)pi2_model_holder_find(exchange->server->holder, name, found, &bytes);
    const bool is_loaded = strcmp(state, "loaded") == 0;
    json_t *tag = tag_json(exchange, name, is_loaded ? report_of(exchange)->weight_bytes : bytes,
                           is_loaded ? details(exchange) : details_unloaded());
    (void)json_object_set_new(tag, "state", json_string(state));
    return tag;
}

enum MHD_Result pi2_route_ollama_tags(pi2_exchange *exchange) {
    const pi2_server *server = exchange->server;
    json_t *tags = server->holder ? folder_json(exchange, folder_tag_json)
                                  : json_pack("[o]", tag_json(exchange, server->alias,
                                                              report_of(exchange)->weight_bytes, details(exchange)));
    return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:o}", "models", tags));
}

/** The model in memory; it stays, whatever a request's keep_alive says, so it never expires for a client. */
enum MHD_Result pi2_route_ollama_ps(pi2_exchange *exchange) {
    json_t *running = json_array();
    if (pi2_exchange_sees_model(exchange)) {
        const pi2_engine_report *report = report_of(exchange);
        json_t *tag = tag_json(exchange, exchange->server->alias, report->weight_bytes, details(exchange));
        (void)json_object_set_new(tag, "size_vram", json_integer(0));
        (void)json_object_set_new(tag, "context_length", json_integer((json_int_t)report->context_tokens));
        (void)json_object_set_new(tag, "expires_at", json_string("9999-12-31T23:59:59Z"));
        (void)json_array_append_new(running, tag);
    }
    return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:o}", "models", running));
}

enum MHD_Result pi2_route_ollama_show(pi2_exchange *exchange) {
    enum MHD_Result result = MHD_NO;
    bool is_loaded;
    if (!pi2_exchange_find_model(exchange, &is_loaded, &result)) return result;
    if (!is_loaded) { /* its file is not opened for this */
        return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:o, s:{}, s:[s]}", "details", details_unloaded(),
                                                                  "model_info", "capabilities", "completion"));
    }
    const pi2_engine_report *report = report_of(exchange);
    json_t *info = json_pack("{s:o, s:I, s:I}", "general.architecture", text_json(report->architecture),
                             "general.parameter_count", (json_int_t)report->parameter_count, "context_length",
                             (json_int_t)report->context_tokens);
    char key[128]; /* Ollama's clients look for it behind the architecture's name */
    (void)snprintf(key, sizeof key, "%s.context_length", report->architecture);
    if (info) (void)json_object_set_new(info, key, json_integer((json_int_t)report->trained_context_tokens));
    json_t *capabilities = json_pack("[s]", "completion");
    if (pi2_engine_has_chat_template(exchange->server->engine)) {
        (void)json_array_append_new(capabilities, json_string("tools"));
    }
    return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:o, s:o, s:o}", "details", details(exchange),
                                                              "model_info", info, "capabilities", capabilities));
}

enum MHD_Result pi2_route_ollama_version(pi2_exchange *exchange) {
    return pi2_exchange_json(exchange, MHD_HTTP_OK, json_pack("{s:s}", "version", PI2_VERSION));
}
