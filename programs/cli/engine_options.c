/* engine_options.c: the tables, and how they become pi2_engine_options. */
#include "engine_options.h"

#include <string.h>

#include "model_download.h"
#include "output.h"

const char pi2_cli_activation_words[] = ""
#define FFN_ACTIVATION(name, sparse) "|" #name
#include "powerinfer2/ffn_activations.inc"
#undef FFN_ACTIVATION
    ;

#define MODEL(field) offsetof(pi2_cli_model_settings, field)
static const pi2_cli_option model_options[] = {
    {"-m, --model", "FILE", PI2_CLI_TEXT, MODEL(model), NULL,
     "Model: a GGUF file (of a split model its first part) or a cluster file (.pi2).", "LLAMA_ARG_MODEL", 0, 0},
    {"-hf, -hfr, --hf-repo", "USER/REPO[:QUANT]", PI2_CLI_TEXT, MODEL(hf_repository), NULL,
     "Model of Hugging Face, downloaded once (docs/install.md); without QUANT Q4_K_M, else Q4_0, Q8_0, or what there "
     "is.",
     "LLAMA_ARG_HF_REPO", 0, 0},
    {"-hff, --hf-file", "NAME", PI2_CLI_TEXT, MODEL(hf_file), NULL, "This file of the repository.",
     "LLAMA_ARG_HF_FILE", 0, 0},
    {"-hft, --hf-token", "TOKEN", PI2_CLI_TEXT, MODEL(hf_token), NULL,
     "Who asks, where a repository wants to know. Others on this machine can see it here, not in the variable.",
     "HF_TOKEN", 0, 0},
    {"-mu, --model-url", "URL", PI2_CLI_TEXT, MODEL(model_url), NULL, "Model at this address, downloaded once.",
     "LLAMA_ARG_MODEL_URL", 0, 0},
    {"--offline", NULL, PI2_CLI_FLAG, MODEL(offline), NULL, "Ask no server: only what was downloaded before.",
     "LLAMA_ARG_OFFLINE", 0, 0},
    {"--cluster-file", "FILE", PI2_CLI_TEXT, MODEL(cluster_file), NULL,
     "Where the cluster file of a GGUF lies or shall be made. Otherwise beside the model, or in "
     "the cache folder where the model's folder cannot be written.", NULL, 0, 0},
    {"--no-prepare", NULL, PI2_CLI_FLAG, MODEL(no_prepare), NULL,
     "Never make a cluster file: fail when the model needs one.", NULL, 0, 0},
    {"--keep-memory", NULL, PI2_CLI_FLAG, MODEL(keep_memory), NULL,
     "Never give weights back to the system. Otherwise they leave memory while others need it, are read "
     "again for each token meanwhile, and return later; the text is the same.", NULL, 0, 0},
    {"--ffn-activation", PI2_CLI_FFN_ACTIVATIONS, PI2_CLI_CHOICE, MODEL(ffn_activation), NULL,
     "What the FFN does with Gate and Up, for a model that was converted as llama or qwen2 and does not say that it "
     "is another (docs/sparsity.md). Otherwise what the file or its architecture says.", NULL, 0, 0},
    {"--read-method", PI2_CLI_READ_METHODS, PI2_CLI_CHOICE, MODEL(read_method), "auto",
     "How weights are read from storage.", NULL, 0, 0},
    {"-dev, --device", "NAMES", PI2_CLI_TEXT, MODEL(devices), NULL,
     "Devices that compute beside the processor, as 'machine --list-devices' names them, with commas between them; "
     "none: none. The text is the same (docs/devices.md).", "LLAMA_ARG_DEVICE", 0, 0},
    {"--device-memory", "SIZE", PI2_CLI_SIZE, MODEL(device_memory), NULL,
     "For copies of weights on each device with a memory of its own; 0, or none given: three quarters of it.", NULL, 0,
     0},
    {"--device-share", "X", PI2_CLI_NUMBER, MODEL(device_share), "-1",
     "Share of each matrix, and of a sparse layer's neurons, that devices compute, from 0 to 1; below 0: as their "
     "speed says, which is measured.", NULL, -1, 1},
    {"--device-always", NULL, PI2_CLI_FLAG, MODEL(device_always), NULL,
     "For measuring: uses them also where passes take longer with them. Otherwise that is tried, and they are not.",
     NULL, 0, 0},
    {"--backend-precision", "exact|fast", PI2_CLI_CHOICE, MODEL(backend_precision), "exact",
     "exact: a device whose bits are not the processor's is not used. fast: it is, and the text is another one.", NULL,
     0, 0},
    {"--cache-policy", PI2_CLI_CACHE_POLICIES, PI2_CLI_CHOICE, MODEL(cache_policy), "auto",
     "Which expert leaves the cache when another needs its place.", NULL, 0, 0},
    {"--look-ahead", "auto|off|on", PI2_CLI_CHOICE, MODEL(look_ahead), "auto",
     "Fetch experts that the next two layers will probably want, or with a predictor neurons that the next one will; "
     "auto: tries whether that pays.", NULL, 0, 0},
    {"--hot-share", "X", PI2_CLI_NUMBER, MODEL(hot_share), "-1",
     "Share of the cache of experts, at most 0.75, for hot ones: those that a recorded run used most stay "
     "in memory; -1: chosen by what that run would have found.", NULL, 0, 0},
    {"--sparsity", PI2_CLI_SPARSITIES "|auto|SHARE|best", PI2_CLI_TEXT, MODEL(sparsity), "exact",
     "exact: where a model's neurons are often exactly zero (ReLU) and its cluster file has the neuron layout, tokens "
     "are computed with the neurons that fire alone; the text is the same. always: also several tokens at once, and "
     "experts, for which all neurons would be faster. off: with all of them. Another text gives, by a predictor, auto: "
     "tokens are computed with the neurons that are expected to fire; and SHARE, from 0 up to but not 1: so large a "
     "part of the neurons is left out, of any model (docs/sparsity.md, Predictors). best, of run, serve, batch and "
     "plan: exact, or what 'verify' measured within 'run --max-divergence', whichever is predicted to be faster.", NULL,
     0, 0},
    {"--predictor", "FILE|low-bit|gate|none", PI2_CLI_TEXT, MODEL(predictor), NULL,
     "For these two: a predictor's file, or low-bit, also without this option: small copies of the weights, made once "
     "beside the cluster file. With exact and always it only says which neurons are read ahead, and the text stays; "
     "gate (for these alone): the next layer's Gate says it, asked with this layer's input.",
     NULL, 0, 0},
    {"--neuron-cache", PI2_CLI_NEURON_CACHES, PI2_CLI_CHOICE, MODEL(neuron_cache), "auto",
     "Which single neuron leaves memory when another needs its place: by how near to firing its Gate was (gate, auto; "
     "where not all of Gate is computed as mix), how lately and how often it fired (mix), how often (heat), how lately "
     "(lru). off: none stays from one token to the next, to see what the cache "
     "gains.",
     NULL, 0, 0},
    {"--record-trace", "FILE", PI2_CLI_TEXT, MODEL(record_trace), NULL,
     "Records which experts are used, or which single neurons of a model without them, for cache-replay.", NULL, 0, 0},
    {"-ctk, --cache-type-k", PI2_CLI_CACHE_TYPES, PI2_CLI_CHOICE, MODEL(cache_type_k), "f16",
     "Type of the cached keys: halves, 8 bits in half the room, or floats, unrounded in twice the room. Keys and "
     "values must have one type.", "LLAMA_ARG_CACHE_TYPE_K", 0, 0},
    {"-ctv, --cache-type-v", PI2_CLI_CACHE_TYPES, PI2_CLI_CHOICE, MODEL(cache_type_v), "f16",
     "Type of the cached values.", "LLAMA_ARG_CACHE_TYPE_V", 0, 0},
    {"-q, --quiet, --log-disable", NULL, PI2_CLI_FLAG, MODEL(quiet), NULL,
     "Only errors on stderr: no report, warnings or progress.", NULL, 0, 0},
};

#define SIZE(field) offsetof(pi2_cli_size_settings, field)
static const pi2_cli_option size_options[] = {
    {"--memory", "SIZE", PI2_CLI_SIZE, SIZE(memory), NULL,
     "Memory that the whole process may use. 0, or none given: what the machine and its control group "
     "have free, less a margin.", NULL, 0, 0},
    {"-c, --ctx-size", "N", PI2_CLI_INTEGER, SIZE(context), "0",
     "Context in tokens; 0: what the memory affords, at most what the model was trained for.",
     "LLAMA_ARG_CTX_SIZE", 0, INT32_MAX},
    {"-b, --batch-size", "N", PI2_CLI_INTEGER, SIZE(batch), "0",
     "Prompt tokens that are computed together; 0: chosen, at most 512.", "LLAMA_ARG_BATCH", 0, 65536},
    {"-t, --threads", "N", PI2_CLI_INTEGER, SIZE(threads), "0",
     "Threads that compute; 0: one for each processor that this process may use. At most 256 compute.",
     "LLAMA_ARG_THREADS", 0, INT32_MAX},
};

#define TRACE(field) offsetof(pi2_cli_trace_settings, field)
static const pi2_cli_option trace_options[] = {
    {"--trace", "FILE", PI2_CLI_TEXT, TRACE(trace), NULL,
     "Writes a timeline of reads, computing and waiting in Chrome's trace event format, which Perfetto "
     "(ui.perfetto.dev) opens. Takes a 64th of the memory, 256 KB to 16 MB; what does not fit is left out and "
     "counted.", NULL, 0, 0},
    {"--stats", "FILE", PI2_CLI_TEXT, TRACE(stats), NULL,
     "Writes a CSV table, a line for the prompt and each token after: time, computing, waiting, bytes.",
     NULL, 0, 0},
};

#define BY_DEVICE "a device computes where '--device NAME' names it, '--device-share X' of the weights"
#define BY_SPEED "all that '--device NAME,NAME' names share the work by their speeds"
#define BY_MEMORY "what stays in memory follows from --memory"
#define BY_PAGES "sequences share the pages of one cache, each with up to -c tokens"
#define BY_PROMPT_CACHE "'run --prompt-cache FOLDER' keeps what was computed of prompts"
#define BY_GAIN "guesses are made in every way that saves time; 'run --draft-max 0': in none"

static const pi2_cli_option no_effect_options[] = {
    {"-ngl, --n-gpu-layers, --gpu-layers", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_DEVICE, NULL, 0, 0},
    {"-sm, --split-mode", "MODE", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_SPEED, NULL, 0, 0},
    {"-ts, --tensor-split", "LIST", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_SPEED, NULL, 0, 0},
    {"-mg, --main-gpu", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_SPEED, NULL, 0, 0},
    {"-ot, --override-tensor", "LIST", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-ncmoe, --n-cpu-moe", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-cmoe, --cpu-moe", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-ncffn, --n-cpu-ffn", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--moe-cache-mib", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_MEMORY, NULL, 0, 0},
    {"-kvo, --kv-offload", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-nkvo, --no-kv-offload", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"--op-offload", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"--no-op-offload", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-fa, --flash-attn", NULL, PI2_CLI_NO_EFFECT_SWITCH, 0, NULL, "", NULL, 0, 0},
    {"-ub, --ubatch-size", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-tb, --threads-batch", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-C, --cpu-mask", "MASK", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-Cr, --cpu-range", "RANGE", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--cpu-strict", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--prio", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--poll", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--numa", "TYPE", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-lm, --load-mode", "MODE", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--mlock", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"--mmap", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-ndio, --no-direct-io", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-lzm, --lazy-mode", "MODE", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_MEMORY, NULL, 0, 0},
    {"-fitt, --fit-target", "LIST", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_MEMORY, NULL, 0, 0},
    {"-fitc, --fit-ctx", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_MEMORY, NULL, 0, 0},
    {"--repack", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-nr, --no-repack", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-dt, --defrag-thold", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--swa-full", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-kvu, --kv-unified", NULL, PI2_CLI_NO_EFFECT, 0, NULL, BY_PAGES, NULL, 0, 0},
    {"-no-kvu, --no-kv-unified", NULL, PI2_CLI_NO_EFFECT, 0, NULL, BY_PAGES, NULL, 0, 0},
    {"-cram, --cache-ram", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_PROMPT_CACHE, NULL, 0, 0},
    {"-ctxcp, --ctx-checkpoints, --swa-checkpoints", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-cms, --checkpoint-min-step", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--cache-reuse", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--cache-idle-slots", NULL, PI2_CLI_NO_EFFECT, 0, NULL, BY_PROMPT_CACHE, NULL, 0, 0},
    {"--no-cache-idle-slots", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"--keep", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--check-tensors", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    /* Of guessing ahead. */
    {"--spec-type", "LIST", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_GAIN, NULL, 0, 0},
    {"-ngld, --n-gpu-layers-draft, --gpu-layers-draft, --spec-draft-ngl", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "",
     NULL, 0, 0},
    {"-devd, --device-draft, --spec-draft-device", "LIST", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"-otd, --override-tensor-draft, --spec-draft-override-tensor", "LIST", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL,
     0, 0},
    {"-ncmoed, --n-cpu-moe-draft, --spec-draft-n-cpu-moe, --spec-draft-ncmoe", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL,
     "", NULL, 0, 0},
    {"-cmoed, --cpu-moe-draft, --spec-draft-cpu-moe", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0, 0},
    {"-td, --threads-draft, --spec-draft-threads, -tbd, --threads-batch-draft, --spec-draft-threads-batch", "N",
     PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "the draft model has the threads of -t", NULL, 0, 0},
    {"-cd, --ctx-size-draft", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "the draft model has the context of -c", NULL, 0,
     0},
    {"-ctkd, --cache-type-k-draft, --spec-draft-type-k, -ctvd, --cache-type-v-draft, --spec-draft-type-v", "TYPE",
     PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--spec-draft-n-ubatch", "N", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--draft-p-split, --spec-draft-p-split", "P", PI2_CLI_NO_EFFECT_VALUE, 0, NULL,
     "'run --draft-nodes N' says how many alternatives there are", NULL, 0, 0},
    {"--spec-draft-sampling", "WORD", PI2_CLI_NO_EFFECT_VALUE, 0, NULL, "", NULL, 0, 0},
    {"--spec-draft-backend-sampling, --no-spec-draft-backend-sampling", NULL, PI2_CLI_NO_EFFECT, 0, NULL, "", NULL, 0,
     0},
    {"--spec-ngram-size-n, --spec-ngram-size-m, --spec-ngram-min-hits, --spec-ngram-simple-size-n, "
     "--spec-ngram-simple-size-m, --spec-ngram-simple-min-hits, --spec-ngram-mod-n-min, --spec-ngram-mod-n-max, "
     "--spec-ngram-mod-n-match, --spec-ngram-map-k-size-n, --spec-ngram-map-k-size-m, --spec-ngram-map-k-min-hits, "
     "--spec-ngram-map-k4v-size-n, --spec-ngram-map-k4v-size-m, --spec-ngram-map-k4v-min-hits", "N",
     PI2_CLI_NO_EFFECT_VALUE, 0, NULL, BY_GAIN, NULL, 0, 0},
    {"-lcs, --lookup-cache-static, -lcd, --lookup-cache-dynamic", "FILE", PI2_CLI_NO_EFFECT_VALUE, 0, NULL,
     "'powerinfer2 guesses' makes a table that guesses come from", NULL, 0, 0},
    /* These ask for what happens anyway. */
    {"--spec-default", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"-fit, --fit", NULL, PI2_CLI_SILENT_SWITCH, 0, NULL, "", NULL, 0, 0},
    {"--no-mmap", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"-dio, --direct-io", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"--no-warmup", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"--no-context-shift", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"--color, -co", NULL, PI2_CLI_SILENT_SWITCH, 0, NULL, "", NULL, 0, 0},
    {"--jinja", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"-cnv, --conversation", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"-st, --single-turn", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
    {"--no-display-prompt", NULL, PI2_CLI_SILENT, 0, NULL, "", NULL, 0, 0},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

pi2_cli_section pi2_cli_model_section(pi2_cli_model_settings *settings) {
    return (pi2_cli_section){"Model", model_options, COUNT(model_options), settings};
}

pi2_cli_section pi2_cli_size_section(pi2_cli_size_settings *settings) {
    return (pi2_cli_section){"Size", size_options, COUNT(size_options), settings};
}

pi2_cli_section pi2_cli_trace_section(pi2_cli_trace_settings *settings) {
    return (pi2_cli_section){"Seeing what happens", trace_options, COUNT(trace_options), settings};
}

pi2_cli_section pi2_cli_no_effect_section(void) {
    static char unused;
    return (pi2_cli_section){"", no_effect_options, COUNT(no_effect_options), &unused};
}

/** The model's file, which may have to be downloaded. */
static int find_model(const pi2_cli_model_settings *settings, const char **path_out) {
    const int given = !!settings->model + !!settings->hf_repository + !!settings->model_url;
    if (given > 1) return pi2_cli_usage_error("-m, -hf and --model-url exclude each other");
    if (settings->hf_file && !settings->hf_repository) return pi2_cli_usage_error("--hf-file: of which -hf USER/REPO?");
    if (settings->model) return PI2_CLI_GO_ON;
    if (given == 0) return pi2_cli_usage_error("no model: give one with -m FILE");
    const pi2_cli_download download = {settings->hf_repository, settings->hf_file, settings->model_url,
                                       settings->hf_token, settings->offline};
    return pi2_cli_find_download(&download, path_out);
}

pi2_cache_type pi2_cli_cache_type(const char *word) {
    size_t type = 0;
    while (strcmp(pi2_cache_type_name(type), word) != 0) type++;
    return (pi2_cache_type)type;
}

int pi2_cli_fill_options(const pi2_cli_model_settings *settings, const pi2_cli_size_settings *size,
                         pi2_engine_options *options) {
    pi2_engine_options_init(options);
    pi2_cli_set_quiet(settings->quiet);
    const char *model = settings->model;
    const int found = find_model(settings, &model);
    if (found != PI2_CLI_GO_ON) return found;
    if (strcmp(settings->cache_type_k, settings->cache_type_v) != 0) {
        return pi2_cli_usage_error("-ctk %s and -ctv %s: keys and values must have the same type here",
                                   settings->cache_type_k, settings->cache_type_v);
    }
    options->model_path = model;
    options->cluster_path = settings->cluster_file;
    options->ffn_activation = settings->ffn_activation;
    options->read_method = settings->read_method;
    options->devices = settings->devices;
    options->device_bytes = settings->device_memory;
    options->device_always = settings->device_always;
    options->device_share = settings->device_share;
    options->device_any_precision = strcmp(settings->backend_precision, "fast") == 0;
    options->cache_policy = settings->cache_policy;
    options->look_ahead = settings->look_ahead;
    options->sparsity = settings->sparsity;
    options->predictor = settings->predictor;
    options->neuron_cache = settings->neuron_cache;
    options->record_trace = settings->record_trace;
    options->hot_share = settings->hot_share;
    options->cache_type = pi2_cli_cache_type(settings->cache_type_k);
    options->allow_prepare = !settings->no_prepare;
    options->keep_memory = settings->keep_memory;
    options->callbacks = pi2_cli_callbacks();
    if (!size) return PI2_CLI_GO_ON;
    options->memory_bytes = size->memory;
    options->context_tokens = (uint32_t)size->context;
    options->batch_tokens = (uint32_t)size->batch;
    options->thread_count = (uint32_t)size->threads;
    return PI2_CLI_GO_ON;
}

int pi2_cli_parse_run(const pi2_cli_command *command, int argument_count, char **arguments,
                      const pi2_cli_model_settings *settings, const pi2_cli_size_settings *size,
                      pi2_engine_options *options) {
    const int code = pi2_cli_parse(command, argument_count, arguments);
    return code == PI2_CLI_GO_ON ? pi2_cli_fill_options(settings, size, options) : code;
}

void pi2_cli_fill_trace_options(const pi2_cli_trace_settings *settings, pi2_engine_options *options) {
    options->trace_path = settings->trace;
    options->stats_path = settings->stats;
}
