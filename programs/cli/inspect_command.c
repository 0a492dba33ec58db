/* inspect_command.c: "powerinfer2 inspect": what a model file holds. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "engine_options.h"
#include "inspect_routing.h"
#include "inspect_sparsity.h"
#include "options.h"
#include "output.h"
#include "powerinfer2/model_file.h"
#include "powerinfer2/sizes.h"
#include "signals.h"

enum { VALUE_BYTES = 1024, SHOWN_VALUE_BYTES = 72 };

typedef struct inspect_settings {
    const char *model, *text, *ffn_activation;
    int64_t tokens;
    uint64_t memory;
    bool json, verify, tensors, metadata, routing, sparsity, quiet;
} inspect_settings;

#define INSPECT(field) offsetof(inspect_settings, field)
static const pi2_cli_option inspect_options[] = {
    {"-m, --model", "FILE", PI2_CLI_TEXT, INSPECT(model), NULL,
     "GGUF file (of a split model its first part) or cluster file.", "LLAMA_ARG_MODEL", 0, 0},
    {"--tensors", NULL, PI2_CLI_FLAG, INSPECT(tensors), NULL, "Lists every tensor too.", NULL, 0, 0},
    {"--metadata", NULL, PI2_CLI_FLAG, INSPECT(metadata), NULL, "Lists every metadata entry too.", NULL, 0, 0},
    {"--verify", NULL, PI2_CLI_FLAG, INSPECT(verify), NULL,
     "Reads a cluster file wholly, checks every checksum and compares neurons with tiles.", NULL, 0, 0},
    {"--routing", NULL, PI2_CLI_FLAG, INSPECT(routing), NULL,
     "Runs the model and tells how many of a token's experts the token before used too, by layer.", NULL, 0, 0},
    {"--sparsity", NULL, PI2_CLI_FLAG, INSPECT(sparsity), NULL,
     "Runs the model and tells how many neurons give nothing, which fire most and which fire again, by layer.", NULL,
     0, 0},
    {"-f, --file", "FILE", PI2_CLI_TEXT, INSPECT(text), NULL,
     "Text for --sparsity; \"-\" is stdin. Otherwise tokens that are drawn.", NULL, 0, 0},
    {"--tokens", "N", PI2_CLI_INTEGER, INSPECT(tokens), "256", "Tokens that --routing and --sparsity run.", NULL, 16,
     65536},
    {"--ffn-activation", PI2_CLI_FFN_ACTIVATIONS, PI2_CLI_CHOICE, INSPECT(ffn_activation), NULL,
     "For --sparsity: activation of the FFN, where the file does not name it.", NULL, 0, 0},
    {"--memory", "SIZE", PI2_CLI_SIZE, INSPECT(memory), NULL,
     "Memory that --routing and --sparsity may use. 0, or none given: what is free, less a margin.", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, INSPECT(json), NULL, "Prints one JSON value, tensors and metadata included.", NULL,
     0, 0},
    {"-q, --quiet", NULL, PI2_CLI_FLAG, INSPECT(quiet), NULL, "Only errors on stderr.", NULL, 0, 0},
};

static json_t *text(const char *value) { return pi2_cli_json_text(value, strlen(value)); }
static json_t *integer(uint64_t value) { return json_integer((json_int_t)value); }

/* ---- the table ---- */

static void print_text(const char *label, const char *value) {
    if (!*value) return;
    (void)printf("%-22s", label);
    pi2_cli_print_safely(stdout, value, strlen(value));
    (void)printf("\n");
}

static void print_number(const char *label, uint64_t value) {
    if (value) (void)printf("%-22s%llu\n", label, (unsigned long long)value);
}

static void print_size(const char *label, uint64_t bytes) {
    char size[PI2_SIZE_TEXT_BYTES];
    if (bytes) (void)printf("%-22s%s (%llu bytes)\n", label, pi2_format_size(bytes, size), (unsigned long long)bytes);
}

/** What a cluster file of the neuron layout holds beside the tiles. */
static void print_banks(const pi2_model_summary *summary) {
    print_number("neuron banks", summary->bank_count);
    print_number("neuron units", summary->bank_unit_count);
    print_size("neuron units' size", summary->bank_bytes);
    print_size("neuron heads' size", summary->bank_head_bytes);
    if (summary->banks_left_out) {
        (void)printf("%-22s%u: a weight that is infinite, no number or minute, in %s\n", "without a bank",
                     (unsigned)summary->banks_left_out, summary->left_out);
    }
}

/** What PowerInfer's files have beside the model. */
static void print_predictors(const pi2_model_summary *summary) {
    if (summary->predictor_matrix_count == 0) return;
    char size[PI2_SIZE_TEXT_BYTES], most[32] = "";
    if (summary->predictor_rank_most != summary->predictor_rank_least) {
        (void)snprintf(most, sizeof most, " .. %llu", (unsigned long long)summary->predictor_rank_most);
    }
    (void)printf("%-22s%u matrices (fc1, fc2) of rank %llu%s, %s (%llu bytes), not used\n", "predictors",
                 (unsigned)summary->predictor_matrix_count, (unsigned long long)summary->predictor_rank_least, most,
                 pi2_format_size(summary->predictor_bytes, size), (unsigned long long)summary->predictor_bytes);
}

static void print_summary(const pi2_model_summary *summary) {
    print_text("format", summary->is_cluster_file ? "cluster file (GGUF container)"
                         : summary->is_powerinfer ? "PowerInfer GGUF (PWRI)"
                                                  : "GGUF");
    print_text("name", summary->name);
    print_text("architecture", summary->architecture);
    print_text("FFN activation", summary->ffn_activation);
    print_text("FFN", summary->ffn_is_ungated ? "without Gate" : "");
    print_text("runs here", summary->runnable ? "yes" : "no");
    print_text("because", summary->not_runnable_reason);
    print_text("note", summary->note);
    print_text("weight types", summary->weight_types);
    print_text("tokenizer", summary->tokenizer);
    if (summary->file_count > 1) print_number("files", summary->file_count);
    print_size("file size", summary->file_bytes);
    print_size("weights", summary->weight_bytes);
    if (summary->parameter_count) {
        (void)printf("%-22s%.2f million\n", "parameters", (double)summary->parameter_count / 1e6);
    }
    print_number("layers", summary->layer_count);
    print_number("embedding", summary->embedding_length);
    print_number("feed-forward", summary->feed_forward_length);
    print_number("heads", summary->head_count);
    print_number("key-value heads", summary->head_count_kv);
    print_number("experts", summary->expert_count);
    print_number("experts per token", summary->expert_used_count);
    print_number("trained context", summary->context_length);
    print_number("vocabulary", summary->vocabulary_size);
    print_size("cache per token (F16)", summary->cache_bytes_per_token);
    print_number("tensors", summary->tensor_count);
    print_number("metadata entries", summary->metadata_count);
    print_number("groups", summary->group_count);
    print_number("extents", summary->extent_count);
    print_number("neurons per cluster", summary->cluster_neurons);
    print_banks(summary);
    print_predictors(summary);
}

static pi2_status print_tensors(const pi2_model_file *file, uint32_t count) {
    (void)printf("\n%-8s %-22s %14s %14s  tensor\n", "type", "shape", "bytes", "offset");
    for (uint32_t i = 0; i < count; i++) {
        pi2_tensor_info info;
        const pi2_status status = pi2_model_file_tensor(file, i, &info);
        if (status != PI2_OK) return status;
        char shape[96];
        size_t length = 0;
        for (uint32_t k = 0; k < info.dimension_count; k++) {
            length += (size_t)snprintf(shape + length, sizeof shape - length, "%s%llu", k ? " x " : "",
                                       (unsigned long long)info.dimensions[k]);
        }
        (void)printf("%-8s %-22s %14llu %14llu  ", info.type, shape, (unsigned long long)info.bytes,
                     (unsigned long long)info.file_offset);
        pi2_cli_print_safely(stdout, info.name, strlen(info.name));
        (void)printf("\n");
    }
    return PI2_OK;
}

static pi2_status print_metadata(const pi2_model_file *file, uint32_t count) {
    (void)printf("\n");
    for (uint32_t i = 0; i < count; i++) {
        const char *key = NULL;
        size_t length = 0;
        char value[SHOWN_VALUE_BYTES];
        const pi2_status status = pi2_model_file_metadata(file, i, &key, &length, value, sizeof value);
        if (status != PI2_OK) return status;
        pi2_cli_print_safely(stdout, key, length);
        (void)printf(" = ");
        pi2_cli_print_safely(stdout, value, strlen(value));
        (void)printf("\n");
    }
    return PI2_OK;
}

/* ---- JSON ---- */

static json_t *json_summary(const pi2_model_summary *summary) {
    json_t *object = json_object();
    json_object_set_new(object, "format", text(summary->is_cluster_file ? "cluster"
                                               : summary->is_powerinfer ? "powerinfer"
                                                                        : "gguf"));
    json_object_set_new(object, "name", text(summary->name));
    json_object_set_new(object, "architecture", text(summary->architecture));
    json_object_set_new(object, "ffn_activation", text(summary->ffn_activation));
    json_object_set_new(object, "ffn_is_ungated", json_boolean(summary->ffn_is_ungated));
    json_object_set_new(object, "runnable", json_boolean(summary->runnable));
    json_object_set_new(object, "not_runnable_reason", text(summary->not_runnable_reason));
    json_object_set_new(object, "note", text(summary->note));
    json_object_set_new(object, "weight_types", text(summary->weight_types));
    json_object_set_new(object, "tokenizer", text(summary->tokenizer));
    const struct { const char *key; uint64_t value; } numbers[] = {
        {"file_count", summary->file_count}, {"file_bytes", summary->file_bytes},
        {"weight_bytes", summary->weight_bytes}, {"parameter_count", summary->parameter_count},
        {"layer_count", summary->layer_count}, {"embedding_length", summary->embedding_length},
        {"feed_forward_length", summary->feed_forward_length}, {"head_count", summary->head_count},
        {"head_count_kv", summary->head_count_kv}, {"expert_count", summary->expert_count},
        {"expert_used_count", summary->expert_used_count}, {"context_length", summary->context_length},
        {"vocabulary_size", summary->vocabulary_size},
        {"cache_bytes_per_token", summary->cache_bytes_per_token}, {"tensor_count", summary->tensor_count},
        {"metadata_count", summary->metadata_count}, {"group_count", summary->group_count},
        {"extent_count", summary->extent_count}, {"cluster_neurons", summary->cluster_neurons},
        {"bank_count", summary->bank_count}, {"bank_unit_count", summary->bank_unit_count},
        {"bank_bytes", summary->bank_bytes}, {"bank_head_bytes", summary->bank_head_bytes},
        {"banks_left_out", summary->banks_left_out},
        {"predictor_matrix_count", summary->predictor_matrix_count}, {"predictor_bytes", summary->predictor_bytes},
        {"predictor_rank_least", summary->predictor_rank_least},
        {"predictor_rank_most", summary->predictor_rank_most}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        json_object_set_new(object, numbers[i].key, integer(numbers[i].value));
    }
    return object;
}

static pi2_status add_tensors(const pi2_model_file *file, uint32_t count, json_t *object) {
    json_t *array = json_array();
    json_object_set_new(object, "tensors", array);
    for (uint32_t i = 0; i < count; i++) {
        pi2_tensor_info info;
        const pi2_status status = pi2_model_file_tensor(file, i, &info);
        if (status != PI2_OK) return status;
        json_t *tensor = json_object(), *shape = json_array();
        for (uint32_t k = 0; k < info.dimension_count; k++) json_array_append_new(shape, integer(info.dimensions[k]));
        json_object_set_new(tensor, "name", text(info.name));
        json_object_set_new(tensor, "type", text(info.type));
        json_object_set_new(tensor, "shape", shape);
        json_object_set_new(tensor, "bytes", integer(info.bytes));
        json_object_set_new(tensor, "file_index", integer(info.file_index));
        json_object_set_new(tensor, "file_offset", integer(info.file_offset));
        json_array_append_new(array, tensor);
    }
    return PI2_OK;
}

static pi2_status add_metadata(const pi2_model_file *file, uint32_t count, json_t *object) {
    json_t *entries = json_object();
    json_object_set_new(object, "metadata", entries);
    for (uint32_t i = 0; i < count; i++) {
        const char *key = NULL;
        size_t length = 0;
        char value[VALUE_BYTES];
        const pi2_status status = pi2_model_file_metadata(file, i, &key, &length, value, sizeof value);
        if (status != PI2_OK) return status;
        json_t *name = pi2_cli_json_text(key, length); /* makes the key valid UTF-8 */
        if (name) json_object_set_new(entries, json_string_value(name), text(value));
        json_decref(name);
    }
    return PI2_OK;
}

/** A model that cannot be run is shown, and the exit code says so. */
static int judge(const pi2_model_summary *summary, int code) {
    if (code != PI2_EXIT_OK || summary->runnable) return code;
    (void)pi2_cli_usage_error("%s", summary->not_runnable_reason);
    return PI2_EXIT_BAD_FILE;
}

static int inspect(const pi2_model_file *file, const inspect_settings *settings) {
    const pi2_model_summary *summary = pi2_model_file_summary(file);
    const pi2_callbacks callbacks = pi2_cli_callbacks();
    pi2_status status = PI2_OK;
    if (settings->verify) {
        status = pi2_model_file_verify(file, &callbacks); /* first: on an error stdout stays empty */
        pi2_cli_clear_progress();
        if (status != PI2_OK) return pi2_cli_failed(status);
    }
    if (settings->json) {
        json_t *object = json_summary(summary);
        if (settings->verify) json_object_set_new(object, "verified", json_true());
        status = add_metadata(file, summary->metadata_count, object);
        if (status == PI2_OK) status = add_tensors(file, summary->tensor_count, object);
        if (status == PI2_OK) return judge(summary, pi2_cli_print_json(object, JSON_INDENT(2)));
        json_decref(object);
        return pi2_cli_failed(status);
    }
    print_summary(summary);
    if (settings->metadata) status = print_metadata(file, summary->metadata_count);
    if (status == PI2_OK && settings->tensors) status = print_tensors(file, summary->tensor_count);
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (settings->verify) (void)printf("%-22severy checksum is right\n", "verified");
    return judge(summary, pi2_cli_finish_stdout());
}

int pi2_cli_inspect(int argument_count, char **arguments) {
    static inspect_settings settings;
    const pi2_cli_section sections[] = {
        {"Options", inspect_options, sizeof inspect_options / sizeof inspect_options[0], &settings}};
    const pi2_cli_command command = {
        "inspect", "-m MODEL [--tensors] [--metadata] [--verify] [--routing] [--sparsity] [--json]",
        "Shows what a model file holds, and whether it can be run; the exit code is 3 when it cannot.", sections, 1};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_set_quiet(settings.quiet);
    if (!settings.model) return pi2_cli_usage_error("inspect: no model: give one with -m FILE");
    pi2_cli_catch_signals();
    if (settings.sparsity) {
        const pi2_cli_sparsity_settings run = {.model = settings.model, .text_path = settings.text,
                                               .ffn_activation = settings.ffn_activation,
                                               .tokens = (uint32_t)settings.tokens, .memory = settings.memory,
                                               .json = settings.json};
        return pi2_cli_inspect_sparsity(&run);
    }
    if (settings.routing) {
        return pi2_cli_inspect_routing(settings.model, (uint32_t)settings.tokens, settings.memory, settings.json);
    }
    pi2_model_file *file = NULL;
    const pi2_status status = pi2_model_file_open(settings.model, &file);
    if (status != PI2_OK) return pi2_cli_failed(status);
    code = inspect(file, &settings);
    pi2_model_file_close(file);
    return code;
}
