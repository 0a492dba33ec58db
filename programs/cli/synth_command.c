/* synth_command.c: "powerinfer2 synth": writes a model with random weights in a real one's shape. */
#include <string.h>

#include "commands.h"
#include "engine_options.h"
#include "options.h"
#include "output.h"
#include "powerinfer2/sizes.h"
#include "powerinfer2/synthetic.h"
#include "signals.h"

typedef struct synth_settings {
    const char *shape, *type, *output, *architecture, *tokenizer, *ffn_activation;
    int64_t layers, embedding, ffn, heads, kv_heads, head_dim, vocab, context;
    int64_t experts, experts_used, expert_ffn, seed;
    double rope_base, expert_skew, expert_repeat;
    double ffn_zeros, ffn_zeros_last, neuron_hot, neuron_repeat;
    bool hot_first;
    bool pure, tied, force, list, quiet;
} synth_settings;

#define SYNTH(field) offsetof(synth_settings, field)
static const pi2_cli_option file_options[] = {
    {"--shape", "NAME", PI2_CLI_TEXT, SYNTH(shape), NULL,
     "Shape of a real model; --list-shapes names them. The options below change its numbers, or "
     "without it those of a small llama.", NULL, 0, 0},
    {"--type", "TYPE", PI2_CLI_TEXT, SYNTH(type), "q4_0",
     "Weight type: any that is read, in small letters (a wrong one is answered with all of them), or q4_k_s or "
     "q4_k_m. Output and others get what llama-quantize would give them, or nearly.", NULL, 0, 0},
    {"--pure", NULL, PI2_CLI_FLAG, SYNTH(pure), NULL, "Every matrix gets the type itself.", NULL, 0, 0},
    {"-o, --output", "FILE", PI2_CLI_TEXT, SYNTH(output), NULL, "Where to write.", NULL, 0, 0},
    {"--seed", "N", PI2_CLI_INTEGER, SYNTH(seed), "1", "Equal seeds give equal files.", NULL, 0, INT64_MAX},
    {"--force", NULL, PI2_CLI_FLAG, SYNTH(force), NULL, "Replaces a file that is there.", NULL, 0, 0},
    {"--list-shapes", NULL, PI2_CLI_FLAG, SYNTH(list), NULL, "Prints the names of the shapes.", NULL, 0, 0},
    {"-q, --quiet", NULL, PI2_CLI_FLAG, SYNTH(quiet), NULL, "Only errors on stderr.", NULL, 0, 0},
};
static const pi2_cli_option shape_options[] = {
    {"--architecture", "NAME", PI2_CLI_TEXT, SYNTH(architecture), NULL,
     "llama, qwen3moe or smallthinker; others come with a --shape.", NULL, 0, 0},
    {"--tokenizer", "NAME", PI2_CLI_TEXT, SYNTH(tokenizer), NULL,
     "spm, or a BPE's pre-tokenizer: llama-bpe, qwen2, smollm, gpt-2, qwen35, gpt-4o, lfm2 or "
     "glm4.", NULL, 0, 0},
    {"--layers", "N", PI2_CLI_INTEGER, SYNTH(layers), NULL, "Layers.", NULL, 1, UINT32_MAX},
    {"--embedding", "N", PI2_CLI_INTEGER, SYNTH(embedding), NULL, "Width of the residual stream.", NULL, 1,
     UINT32_MAX},
    {"--ffn", "N", PI2_CLI_INTEGER, SYNTH(ffn), NULL, "Neurons of a feed-forward network.", NULL, 1, UINT32_MAX},
    {"--heads", "N", PI2_CLI_INTEGER, SYNTH(heads), NULL, "Attention heads.", NULL, 1, UINT32_MAX},
    {"--kv-heads", "N", PI2_CLI_INTEGER, SYNTH(kv_heads), NULL, "Heads of keys and values.", NULL, 1, UINT32_MAX},
    {"--head-dim", "N", PI2_CLI_INTEGER, SYNTH(head_dim), NULL,
     "Width of a head; otherwise the embedding's over the heads.", NULL, 1, UINT32_MAX},
    {"--vocab", "N", PI2_CLI_INTEGER, SYNTH(vocab), NULL, "Tokens of the vocabulary.", NULL, 1, UINT32_MAX},
    {"--context", "N", PI2_CLI_INTEGER, SYNTH(context), NULL, "Context that the file names.", NULL, 1, UINT32_MAX},
    {"--rope-base", "X", PI2_CLI_NUMBER, SYNTH(rope_base), NULL, "Base of the rotary frequencies.", NULL, 0, 0},
    {"--tied", NULL, PI2_CLI_FLAG, SYNTH(tied), NULL, "The embeddings are the output matrix too.", NULL, 0, 0},
    {"--experts", "N", PI2_CLI_INTEGER, SYNTH(experts), NULL, "Experts of a layer.", NULL, 1, UINT32_MAX},
    {"--experts-used", "N", PI2_CLI_INTEGER, SYNTH(experts_used), NULL, "Experts that a token uses.", NULL, 1,
     UINT32_MAX},
    {"--expert-ffn", "N", PI2_CLI_INTEGER, SYNTH(expert_ffn), NULL, "Neurons of an expert.", NULL, 1, UINT32_MAX},
    {"--expert-skew", "SHARE", PI2_CLI_NUMBER, SYNTH(expert_skew), NULL,
     "Share of a token's experts that a token far away uses too; even use gives used / experts.", NULL, 0, 1},
    {"--expert-repeat", "SHARE", PI2_CLI_NUMBER, SYNTH(expert_repeat), NULL,
     "Share of a token's experts that the token before used too.", NULL, 0, 1},
    {"--ffn-activation", PI2_CLI_FFN_ACTIVATIONS, PI2_CLI_CHOICE, SYNTH(ffn_activation), NULL,
     "Activation of the FFN, which the file names.", NULL, 0, 0},
    {"--ffn-zeros", "SHARE", PI2_CLI_NUMBER, SYNTH(ffn_zeros), NULL,
     "Share of the neurons (of a chosen expert's) that a token leaves at zero.", NULL, 0, 1},
    {"--ffn-zeros-last", "SHARE", PI2_CLI_NUMBER, SYNTH(ffn_zeros_last), NULL,
     "The same in the last layer; layers between have shares in between.", NULL, 0, 1},
    {"--neuron-hot", "SHARE", PI2_CLI_NUMBER, SYNTH(neuron_hot), NULL,
     "Share of the neurons that give 80 % of all activations.", NULL, 0, 1},
    {"--neuron-repeat", "SHARE", PI2_CLI_NUMBER, SYNTH(neuron_repeat), NULL,
     "Share of a token's active neurons that the token before had active too.", NULL, 0, 1},
    {"--hot-first", NULL, PI2_CLI_FLAG, SYNTH(hot_first), NULL,
     "Numbers neurons by how often they fire, as devices want them (docs/devices.md); otherwise at random.", NULL, 0,
     0},
};

/** Given numbers replace the shape's. */
static void change_shape(const synth_settings *settings, pi2_synthetic_shape *shape) {
    const struct { int64_t given; uint32_t *number; } numbers[] = {
        {settings->layers, &shape->layer_count}, {settings->embedding, &shape->embedding_length},
        {settings->ffn, &shape->feed_forward_length}, {settings->heads, &shape->head_count},
        {settings->kv_heads, &shape->head_count_kv}, {settings->head_dim, &shape->head_dimension},
        {settings->vocab, &shape->vocabulary_size}, {settings->context, &shape->context_length},
        {settings->experts, &shape->expert_count}, {settings->experts_used, &shape->expert_used_count},
        {settings->expert_ffn, &shape->expert_feed_forward_length}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i].given) *numbers[i].number = (uint32_t)numbers[i].given;
    }
    if (settings->architecture) shape->architecture = settings->architecture;
    if (settings->tokenizer) shape->tokenizer = settings->tokenizer;
    if (settings->rope_base != 0.0) shape->rope_base = (float)settings->rope_base;
    if (settings->expert_skew != 0.0) shape->expert_skew = settings->expert_skew;
    if (settings->expert_repeat != 0.0) shape->expert_repeat = settings->expert_repeat;
    if (settings->ffn_activation) shape->ffn_activation = settings->ffn_activation;
    if (settings->ffn_zeros != 0.0) shape->ffn_zeros = settings->ffn_zeros;
    if (settings->ffn_zeros_last != 0.0) shape->ffn_zeros_last = settings->ffn_zeros_last;
    if (settings->neuron_hot != 0.0) shape->neuron_hot = settings->neuron_hot;
    if (settings->neuron_repeat != 0.0) shape->neuron_repeat = settings->neuron_repeat;
    if (settings->hot_first) shape->hot_first = true;
    if (settings->tied) shape->tied_head = true;
}

/** Shows how fast the file grows, and how long it will still take. */
static void show_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    const double seconds = pi2_cli_seconds_since_start();
    char written[PI2_SIZE_TEXT_BYTES], whole[PI2_SIZE_TEXT_BYTES], speed[PI2_SIZE_TEXT_BYTES];
    (void)user;
    if (seconds < 1.0 || done == 0) return;
    const double rate = (double)done / seconds;
    pi2_cli_status_line("%s %s of %s, %s/s, %.0f s left", what, pi2_format_size(done, written),
                        pi2_format_size(total, whole), pi2_format_size((uint64_t)rate, speed),
                        (double)(total - done) / rate);
}

static int list_shapes(void) {
    for (const char *const *name = pi2_synthetic_shape_names(); *name; name++) (void)printf("%s\n", *name);
    return pi2_cli_finish_stdout();
}

static int write_model(const synth_settings *settings) {
    pi2_synthetic_options options;
    pi2_synthetic_report report;
    pi2_synthetic_options_init(&options);
    pi2_status status = PI2_OK;
    if (settings->shape) status = pi2_synthetic_shape_find(settings->shape, &options.shape);
    if (status != PI2_OK) return pi2_cli_failed(status);
    change_shape(settings, &options.shape);
    options.type = settings->type;
    options.pure = settings->pure;
    options.seed = (uint64_t)settings->seed;
    options.output_path = settings->output;
    options.overwrite = settings->force;
    options.callbacks = pi2_cli_callbacks();
    options.callbacks.progress = show_progress;
    const uint64_t start = pi2_cli_now_ns();
    status = pi2_synthetic_write(&options, &report);
    pi2_cli_clear_progress();
    if (status != PI2_OK) return pi2_cli_failed(status);
    const double seconds = (double)(pi2_cli_now_ns() - start) / 1e9;
    char size[PI2_SIZE_TEXT_BYTES], speed[PI2_SIZE_TEXT_BYTES], peak[PI2_SIZE_TEXT_BYTES];
    pi2_cli_note("%s: %s, %.2f billion weights in %u tensors, written in %.1f s (%s/s, peak memory %s)",
                 settings->output, pi2_format_size(report.file_bytes, size),
                 (double)report.parameter_count / 1e9, report.tensor_count, seconds,
                 pi2_format_size((uint64_t)((double)report.file_bytes / seconds), speed),
                 pi2_format_size(pi2_peak_memory_bytes(), peak));
    return PI2_EXIT_OK;
}

int pi2_cli_synth(int argument_count, char **arguments) {
    static synth_settings settings;
    const pi2_cli_section sections[] = {
        {"File", file_options, sizeof file_options / sizeof file_options[0], &settings},
        {"Shape", shape_options, sizeof shape_options / sizeof shape_options[0], &settings}};
    const pi2_cli_command command = {
        "synth", "--shape NAME [--type TYPE] -o FILE",
        "Writes a model with random weights in the exact shape of a real one, to measure speed with. "
        "What it says is nonsense.",
        sections, 2};
    const int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_set_quiet(settings.quiet);
    if (settings.list) return list_shapes();
    if (!settings.output) return pi2_cli_usage_error("synth: no file to write: give one with -o FILE");
    pi2_cli_catch_signals();
    return write_model(&settings);
}
