/*
 * make_tiny_model.c: writes a small random model for the shell tests.
 *
 *   make_tiny_model out.gguf layers=4 embedding=256 type=Q4_K vocabulary=spm seed=7
 *   make_tiny_model out.gguf advises=temp:0 advises=top_p:0.5     general.sampling.temp and so on
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/tiny_model.h"

static int fail(const char *argument) {
    (void)fprintf(stderr, "make_tiny_model: cannot use '%s'\n", argument);
    return 2;
}

static bool parse_type(const char *name, pi2_weight_type *type_out) {
    size_t count;
    const pi2_weight_format *const *formats = pi2_weight_formats(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, formats[i]->name) == 0) {
            *type_out = formats[i]->type;
            return true;
        }
    }
    return false;
}

static bool set_type(pi2_tiny_model_options *options, const char *key, const char *value) {
    const struct { const char *key; pi2_weight_type *type; } fields[] = {
        {"query", &options->query_type},   {"key", &options->key_type},
        {"value", &options->value_type},   {"attention_output", &options->attention_output_type},
        {"gate", &options->gate_type},     {"up", &options->up_type},
        {"down", &options->down_type},     {"embedding_type", &options->embedding_type},
        {"head_type", &options->head_type}};
    pi2_weight_type type;
    if (!parse_type(value, &type)) return false;
    if (strcmp(key, "type") == 0) {
        pi2_tiny_model_set_types(options, type);
        return true;
    }
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (strcmp(key, fields[i].key) == 0) {
            *fields[i].type = type;
            return true;
        }
    }
    return false;
}

static bool set_number(pi2_tiny_model_options *options, const char *key, const char *value) {
    const struct { const char *key; uint32_t *number; } fields[] = {
        {"seed", &options->seed},
        {"layers", &options->layer_count},
        {"embedding", &options->embedding_length},
        {"feed_forward", &options->feed_forward_length},
        {"heads", &options->head_count},
        {"heads_kv", &options->head_count_kv},
        {"head_dimension", &options->head_dimension},
        {"context", &options->context_length},
        {"predictor_rank", &options->predictor_rank},
        {"experts", &options->expert_count},
        {"experts_used", &options->expert_used_count},
        {"expert_feed_forward", &options->expert_feed_forward_length},
        {"expert_gating", &options->expert_gating},
        {"vocabulary_size", &options->vocabulary_size},
        {"rope_dimensions", &options->rope_dimension_count}};
    char *end = NULL;
    const unsigned long number = strtoul(value, &end, 10);
    if (!*value || *end) return false;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (strcmp(key, fields[i].key) == 0) {
            *fields[i].number = (uint32_t)number;
            return true;
        }
    }
    const struct { const char *key; bool *flag; } flags[] = {
        {"tied", &options->tied_head},
        {"down_by_neuron", &options->down_by_neuron},
        {"biases", &options->attention_biases},
        {"ffn_biases", &options->feed_forward_biases},
        {"add_eos", &options->add_eos},
        {"add_bos", &options->add_bos}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(key, flags[i].key) == 0) {
            *flags[i].flag = number != 0;
            return true;
        }
    }
    return false;
}

/* One share for all layers. */
static bool set_sparsity(pi2_tiny_model_options *options, const char *value) {
    static float share;
    char *end = NULL;
    share = strtof(value, &end);
    options->gate_sparsity = &share;
    return *value && !*end;
}

enum { MOST_ADVICE = 8 };
static struct { char key[64]; float value; } advice[MOST_ADVICE];
static size_t advice_count;

static bool add_advice(const char *text) {
    const char *colon = strchr(text, ':');
    char *end = NULL;
    if (!colon || colon - text > 30 || advice_count == MOST_ADVICE) return false;
    (void)snprintf(advice[advice_count].key, sizeof advice[0].key, "general.sampling.%.*s", (int)(colon - text), text);
    advice[advice_count++].value = strtof(colon + 1, &end);
    return end != colon + 1 && !*end;
}

static int write_model(const pi2_tiny_model_options *options, const char *path) {
    pi2_gguf_builder builder;
    pi2_tiny_model_build(options, &builder);
    for (size_t i = 0; i < advice_count; i++) pi2_gguf_builder_f32(&builder, advice[i].key, advice[i].value);
    const int error = pi2_gguf_builder_write(&builder, path);
    pi2_gguf_builder_free(&builder);
    return error;
}

static bool set_option(pi2_tiny_model_options *options, const char *key, const char *value) {
    if (strcmp(key, "architecture") == 0) options->architecture = value;
    else if (strcmp(key, "activation") == 0) options->ffn_activation = value;
    else if (strcmp(key, "rope_scaling") == 0) options->rope_scaling = value;
    else if (strcmp(key, "template") == 0) options->chat_template = *value ? value : NULL;
    else if (strcmp(key, "empty_template") == 0) options->chat_template = "";
    else if (strcmp(key, "vocabulary") == 0 && strcmp(value, "spm") == 0) options->vocabulary = PI2_TINY_SPM;
    else if (strcmp(key, "vocabulary") == 0 && strcmp(value, "bpe") == 0) options->vocabulary = PI2_TINY_BPE;
    else if (strcmp(key, "sparsity") == 0) return set_sparsity(options, value);
    else if (strcmp(key, "advises") == 0) return add_advice(value);
    else return set_type(options, key, value) || set_number(options, key, value);
    return true;
}

int main(int argument_count, char **arguments) {
    if (argument_count < 2) {
        (void)fprintf(stderr, "usage: make_tiny_model FILE [option=value]...\n");
        return 2;
    }
    pi2_tiny_model_options options;
    pi2_tiny_model_options_init(&options);
    for (int i = 2; i < argument_count; i++) {
        char key[32];
        const char *equals = strchr(arguments[i], '=');
        if (!equals || (size_t)(equals - arguments[i]) >= sizeof key) return fail(arguments[i]);
        (void)snprintf(key, sizeof key, "%.*s", (int)(equals - arguments[i]), arguments[i]);
        if (!set_option(&options, key, equals + 1)) return fail(arguments[i]);
    }
    const int error = write_model(&options, arguments[1]);
    if (error) (void)fprintf(stderr, "make_tiny_model: %s: %s\n", arguments[1], strerror(error));
    return error ? 1 : 0;
}
