/* inspect_routing.c: generates greedily with a trace of experts on, then sums the trace up. */
#include "inspect_routing.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "output.h"
#include "powerinfer2/engine.h"
#include "powerinfer2/routing.h"
#include "powerinfer2/session.h"

/* The first tokens' attention has little to look at: they do not count. */
enum { SKIPPED_SHARE = 8, PATH_BYTES = 512, FIRST_TOKEN = 300 };

static pi2_status generate(pi2_engine *engine, uint32_t tokens) {
    pi2_session *session = NULL;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.temperature = 0;
    sampling.forbid_end_tokens = true; /* one would end the text too early */
    pi2_status status = pi2_session_create(engine, &sampling, &session);
    const uint32_t vocabulary = pi2_engine_get_report(engine)->vocabulary_size;
    int32_t token = FIRST_TOKEN < vocabulary ? FIRST_TOKEN : 0;
    for (uint32_t done = 0; done < tokens && status == PI2_OK; done++) {
        pi2_cli_progress("tokens", done, tokens);
        status = pi2_session_append(session, &token, 1, PI2_LOGITS_LAST);
        if (status == PI2_OK) status = pi2_session_sample(session, &token);
    }
    pi2_session_free(session);
    return status;
}

static pi2_status record(const char *model, uint32_t tokens, uint64_t memory, const char *trace, bool *has_experts) {
    pi2_engine_options options;
    pi2_engine *engine = NULL;
    pi2_engine_options_init(&options);
    options.model_path = model;
    options.memory_bytes = memory;
    options.context_tokens = tokens;
    options.record_trace = trace;
    options.callbacks = pi2_cli_callbacks();
    pi2_status status = pi2_engine_open(&options, &engine);
    *has_experts = status == PI2_OK && pi2_engine_get_report(engine)->expert_count > 0;
    if (*has_experts) status = generate(engine, tokens);
    if (*has_experts && status == PI2_OK) status = pi2_engine_finish_trace(engine);
    pi2_engine_close(engine);
    pi2_cli_clear_progress();
    return status;
}

static json_t *json_shares(const pi2_routing_shares *shares) {
    json_t *object = json_object();
    json_object_set_new(object, "repeat", pi2_cli_json_number(shares->repeat));
    json_object_set_new(object, "skew", pi2_cli_json_number(shares->skew));
    json_object_set_new(object, "top_quarter", pi2_cli_json_number(shares->top_quarter));
    return object;
}

static int print_json(const pi2_routing *routing) {
    json_t *object = json_object(), *layers = json_array();
    json_object_set_new(object, "expert_count", json_integer(routing->expert_count));
    json_object_set_new(object, "expert_used_count", json_integer(routing->used_count));
    json_object_set_new(object, "token_count", json_integer(routing->token_count));
    json_object_set_new(object, "mean", json_shares(&routing->mean));
    json_object_set_new(object, "layers", layers);
    for (uint32_t i = 0; i < routing->layer_count; i++) {
        json_array_append_new(layers, json_shares(&routing->layers[i]));
    }
    return pi2_cli_print_json(object, JSON_INDENT(2));
}

static void print_shares(const char *name, const pi2_routing_shares *shares) {
    (void)printf("%-8s %9.1f %% %9.1f %% %9.1f %%\n", name, 100.0 * shares->repeat, 100.0 * shares->skew,
                 100.0 * shares->top_quarter);
}

static int print_table(const pi2_routing *routing) {
    char name[16];
    (void)printf("%u tokens, each with %u of %u experts a layer (drawn evenly: %.1f %% repeat)\n\n",
                 routing->token_count, routing->used_count, routing->expert_count,
                 100.0 * routing->used_count / routing->expert_count);
    (void)printf("%-8s %11s %11s %11s\n", "layer", "repeat", "far", "top quarter");
    for (uint32_t i = 0; i < routing->layer_count; i++) {
        (void)snprintf(name, sizeof name, "%u", i);
        print_shares(name, &routing->layers[i]);
    }
    print_shares("mean", &routing->mean);
    (void)printf("\nrepeat: of a token's experts, those that the token before used too; far: those that a "
                 "token\nfar away used too; top quarter: those among the quarter of experts used most\n");
    return pi2_cli_finish_stdout();
}

int pi2_cli_inspect_routing(const char *model, uint32_t tokens, uint64_t memory, bool json) {
    const char *place = getenv("TMPDIR");
    char folder[PATH_BYTES], path[PATH_BYTES + sizeof "/trace"];
    (void)snprintf(folder, sizeof folder, "%s/powerinfer2-routing-XXXXXX", place && *place ? place : "/tmp");
    if (!mkdtemp(folder)) return pi2_cli_io_error("cannot make %s", folder);
    (void)snprintf(path, sizeof path, "%s/trace", folder);
    pi2_routing *routing = NULL;
    bool has_experts = false;
    pi2_status status = record(model, tokens, memory, path, &has_experts);
    if (has_experts && status == PI2_OK) status = pi2_routing_read(path, tokens / SKIPPED_SHARE, &routing);
    (void)unlink(path);
    (void)rmdir(folder);
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (!has_experts) return pi2_cli_usage_error("inspect: --routing: %s has no experts", model);
    const int code = json ? print_json(routing) : print_table(routing);
    pi2_routing_free(routing);
    return code;
}
