/* run_command.c: "powerinfer2 run": one answer to a prompt, or a chat on a terminal. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer_options.h"
#include "chat.h"
#include "commands.h"
#include "machine_profile_cli.h"
#include "generation.h"
#include "grammar_options.h"
#include "mode_choice.h"
#include "output.h"
#include "plan_file.h"
#include "powerinfer2/cache_replay.h"
#include "powerinfer2/identity.h"
#include "prediction_report.h"
#include "samples.h"
#include "scheduler.h"
#include "signals.h"
#include "template_file.h"
#include "text_source.h"

enum { INPUT_FILES = 6 };

enum { MOST_TYPED_BYTES = 1 << 20 /* of a system message's file, and of a terminal */ };

typedef struct run_settings {
    const char *prompt, *prompt_file, *system, *system_file, *chat_template, *template_kwargs, *plan;
    const char *routing_trace, *statistics;
    bool escapes, raw, parse_special, json, ignore_end, print_special, simple_io;
    int64_t limit, parallel;
    pi2_cli_texts stop_words;
} run_settings;

#define RUN(field) offsetof(run_settings, field)
static const pi2_cli_option run_options[] = {
    {"-p, --prompt", "TEXT", PI2_CLI_TEXT, RUN(prompt), NULL,
     "Prompt. Without -p and -f: what stdin holds, or a chat when stdin is a terminal.", NULL, 0, 0},
    {"-f, --file", "FILE", PI2_CLI_TEXT, RUN(prompt_file), NULL,
     "Takes the prompt from a file, less one newline at its end and a byte-order mark at its beginning. \"-\" is "
     "stdin.", NULL, 0, 0},
    {"-sys, --system-prompt", "TEXT", PI2_CLI_TEXT, RUN(system), NULL, "System message of the chat template.",
     NULL, 0, 0},
    {"-sysf, --system-prompt-file", "FILE", PI2_CLI_TEXT, RUN(system_file), NULL,
     "Takes the system message from a file.", NULL, 0, 0},
    {"--chat-template, --chat-template-file", "FILE|NAME", PI2_CLI_TEXT, RUN(chat_template), NULL,
     PI2_CLI_CHAT_TEMPLATE_HELP, NULL, 0, 0},
    {"--chat-template-kwargs", "JSON", PI2_CLI_TEXT, RUN(template_kwargs), NULL,
     "Variables for the chat template, as a JSON object such as {\"enable_thinking\": false}. Texts in it stay text.",
     NULL, 0, 0},
    {"-e, --escape", NULL, PI2_CLI_FLAG, RUN(escapes), NULL,
     "Reads \\n, \\r, \\t, \\\\, \\', \\\" and \\xHH in -p and -sys. Off unless asked for, unlike in llama.cpp.",
     NULL, 0, 0},
    {"--raw, -no-cnv, --no-conversation", NULL, PI2_CLI_FLAG, RUN(raw), NULL,
     "Gives the prompt to the model as it is, without the chat template.", NULL, 0, 0},
    {"--parse-special", NULL, PI2_CLI_FLAG, RUN(parse_special), NULL,
     "With --raw: text such as <|im_start|> in the prompt becomes its token.", NULL, 0, 0},
    {"-n, --predict, --n-predict", "N", PI2_CLI_INTEGER, RUN(limit), "-1",
     "Tokens to generate at most; -1: until the model ends its answer or the context is full.",
     "LLAMA_ARG_N_PREDICT", -2, INT32_MAX},
    {"-r, --reverse-prompt, --stop", "TEXT", PI2_CLI_TEXTS, RUN(stop_words), NULL,
     "Ends the answer before this text. May be given again: the text that is complete first ends it.", NULL, 0, 0},
    {"-np, --parallel", "N", PI2_CLI_INTEGER, RUN(parallel), "1",
     "Answers to the one prompt, which is read once; they are made together, each with a seed of its own (--seed, the "
     "next one, ...), and printed one after another when all are done.", NULL, 1, PI2_SEQUENCES_MOST},
    {"--ignore-eos", NULL, PI2_CLI_FLAG, RUN(ignore_end), NULL, "Never picks a token that ends the answer.",
     NULL, 0, 0},
    {"-sp, --special", NULL, PI2_CLI_FLAG, RUN(print_special), NULL, "Prints special tokens too.", NULL, 0, 0},
    {"--simple-io", NULL, PI2_CLI_FLAG, RUN(simple_io), NULL,
     "Chat: reads messages without libedit: no arrow keys, no history.", NULL, 0, 0},
    {"--plan", "FILE", PI2_CLI_TEXT, RUN(plan), NULL,
     "Memory, context, batch, threads and read method of a plan ('powerinfer2 plan --json'). Options that are "
     "given beside it go first.", NULL, 0, 0},
    {"--routing-trace", "FILE", PI2_CLI_TEXT, RUN(routing_trace), NULL,
     "Mixtures of experts: the routing of an earlier run that --record-trace has recorded, otherwise that of the plan. "
     "It tells which experts are hot, and predicts; without one every expert is taken to be as likely as any other.",
     NULL, 0, 0},
    {"--statistics", "FILE", PI2_CLI_TEXT, RUN(statistics), NULL,
     "Sparse models: how often each neuron fires, for the prediction; otherwise that of the plan.", NULL, 0, 0},
    {"--json", NULL, PI2_CLI_FLAG, RUN(json), NULL,
     "Prints one JSON value at the end: text, tokens, timings, memory and reads.", NULL, 0, 0},
};

/** Everything that a run needs; text pointers are malloc'd. */
typedef struct run_state {
    run_settings settings;
    pi2_sampling chosen; /* what those say */
    pi2_cli_grammar_settings grammar_settings;
    pi2_grammar *grammar;
    pi2_cli_answer_settings asked;
    pi2_engine_options opened; /* what the engine was opened with */
    char *prompt, *system, *chat_template;
    json_t *plan; /* of --plan */
    size_t prompt_length;
    pi2_cli_text_source source; /* of a prompt that is read when it is tokenized: a raw one */
    bool is_chat;
    pi2_engine *engine;
    pi2_session *session;
    pi2_prompt_cache *cache; /* NULL: none */
    int32_t *tokens;
    size_t token_count;
    pi2_cli_generation generation;
} run_state;

static int hex_digit(char character) {
    if (character >= '0' && character <= '9') return character - '0';
    if (character >= 'a' && character <= 'f') return character - 'a' + 10;
    if (character >= 'A' && character <= 'F') return character - 'A' + 10;
    return -1;
}

/** Replaces escapes in place; unknown ones stay as they are. Returns the new length. */
static size_t read_escapes(char *text, size_t length) {
    static const char letters[] = "nrt\\'\"", values[] = "\n\r\t\\'\"";
    size_t written = 0;
    for (size_t i = 0; i < length; i++) {
        const char *letter = text[i] == '\\' && i + 1 < length ? memchr(letters, text[i + 1], 6) : NULL;
        if (letter) {
            text[written++] = values[letter - letters];
            i++;
        } else if (text[i] == '\\' && i + 3 < length && text[i + 1] == 'x' && hex_digit(text[i + 2]) >= 0 &&
                   hex_digit(text[i + 3]) >= 0) {
            text[written++] = (char)(hex_digit(text[i + 2]) * 16 + hex_digit(text[i + 3]));
            i += 3;
        } else {
            text[written++] = text[i];
        }
    }
    text[written] = '\0';
    return written;
}

/** Text of an option or of a file, malloc'd; *text_out stays NULL when neither was given. */
static int read_text(const run_settings *settings, const char *text, const char *path, char **text_out,
                     size_t *length_out) {
    if (path) {
        const int code = pi2_cli_read_text(path, MOST_TYPED_BYTES, text_out, length_out);
        if (code == PI2_EXIT_OK && *length_out == MOST_TYPED_BYTES) {
            return pi2_cli_usage_error("%s is longer than %d bytes", path, MOST_TYPED_BYTES);
        }
        if (code != PI2_EXIT_OK) return code;
        if (*length_out && (*text_out)[*length_out - 1] == '\n') --*length_out;
        (*text_out)[*length_out] = '\0';
        return code;
    }
    if (!text) return PI2_EXIT_OK;
    *length_out = strlen(text);
    *text_out = malloc(*length_out + 1);
    if (!*text_out) {
        (void)pi2_cli_usage_error("no memory for the prompt");
        return PI2_EXIT_MEMORY;
    }
    memcpy(*text_out, text, *length_out + 1);
    if (settings->escapes) *length_out = read_escapes(*text_out, *length_out);
    return PI2_EXIT_OK;
}

static int refuse_system(const run_state *state) {
    return pi2_cli_usage_error("run: a system message needs the chat template%s",
                               state->settings.raw ? ", which --raw leaves out"
                                                   : ", which this model has not: name one with --chat-template");
}

static int read_prompt(run_state *state) {
    const run_settings *settings = &state->settings;
    if (settings->prompt && settings->prompt_file) {
        return pi2_cli_usage_error("run: -p and -f exclude each other");
    }
    if (settings->system && settings->system_file) {
        return pi2_cli_usage_error("run: -sys and -sysf exclude each other");
    }
    const char *path = settings->prompt_file;
    if (!settings->prompt && !path) {
        state->is_chat = isatty(STDIN_FILENO) != 0;
        if (state->is_chat && (settings->json || settings->raw)) {
            return pi2_cli_usage_error("run: no prompt: give one with -p, -f or on stdin");
        }
        if (state->is_chat && settings->parallel > 1) {
            return pi2_cli_usage_error("run: -np makes several answers to one prompt: give it with -p, -f or on stdin");
        }
        if (!state->is_chat) path = "-";
    }
    int code = PI2_EXIT_OK;
    if (path && !(strcmp(path, "-") == 0 && isatty(STDIN_FILENO))) {
        code = pi2_cli_text_open(path, &state->source); /* read when the engine tells how much it takes */
    } else {
        code = read_text(settings, settings->prompt, path, &state->prompt, &state->prompt_length);
    }
    if (code != PI2_EXIT_OK) return code;
    if (settings->raw && (settings->system || settings->system_file)) return refuse_system(state);
    size_t length = 0;
    if (!settings->prompt && !state->is_chat && !state->source.stream && state->prompt_length == 0) {
        return pi2_cli_usage_error("run: the prompt is empty: give one with -p, -f or on stdin");
    }
    code = read_text(settings, settings->system, settings->system_file, &state->system, &length);
    if (code == PI2_EXIT_OK && state->system && strlen(state->system) != length) {
        code = pi2_cli_usage_error("run: the system message holds a NUL byte");
    }
    return code;
}

/** The trace that was asked for must be one; that of a plan may be gone since, which is told. */
static void choose_routing(const run_state *state, pi2_engine_options *options) {
    pi2_replay *replay = NULL;
    const char *asked = state->settings.routing_trace;
    const char *trace = asked || !state->plan ? asked : pi2_cli_plan_routing_trace(state->plan);
    options->routing_trace = trace;
    const char *statistics = state->settings.statistics;
    if (!statistics && state->plan) statistics = pi2_cli_plan_statistics(state->plan);
    options->statistics = statistics;
    pi2_cli_predict_with(trace, statistics);
    if (!trace || asked || pi2_replay_open(trace, &replay) == PI2_OK) {
        pi2_replay_close(replay);
        return;
    }
    pi2_cli_note("no expert is hot by the plan's routing trace: %s", pi2_error_text());
    options->routing_trace = NULL;
}

/** Files that this command reads beside the model: no output may take the place of one. */
static void list_inputs(const run_state *state, const char *inputs[INPUT_FILES + 1]) {
    const run_settings *settings = &state->settings;
    const bool reads_stdin = !settings->prompt && !settings->prompt_file;
    const char *const all[INPUT_FILES] = {pi2_cli_input_path(reads_stdin ? "-" : settings->prompt_file),
                                          pi2_cli_input_path(settings->system_file),
                                          pi2_cli_input_path(settings->plan),
                                          pi2_cli_input_path(state->grammar_settings.grammar_file),
                                          pi2_cli_input_path(state->grammar_settings.schema_file),
                                          pi2_cli_input_path(pi2_cli_template_path(settings->chat_template))};
    size_t count = 0;
    for (size_t i = 0; i < INPUT_FILES; i++) {
        if (all[i]) inputs[count++] = all[i];
    }
    inputs[count] = NULL;
}

/** The template that --chat-template names: a known name stays one, a file is read. */
static int read_template(run_state *state, pi2_engine_options *options) {
    const run_settings *settings = &state->settings;
    const char *wanted = settings->chat_template;
    options->chat_template_kwargs = settings->template_kwargs;
    if (settings->raw && (wanted || settings->template_kwargs)) {
        return pi2_cli_usage_error("run: --raw leaves the chat template out: leave --chat-template%s out too",
                                   wanted ? "" : "-kwargs");
    }
    return pi2_cli_read_template(wanted, &state->chat_template, &options->chat_template);
}

static pi2_sampling sampling_of(const run_state *state) {
    pi2_sampling sampling = state->chosen;
    sampling.forbid_end_tokens = state->settings.ignore_end;
    sampling.grammar = state->grammar;
    sampling.grammar_has_special = state->settings.print_special;
    return sampling;
}

/* Answers share their prompt; what each has of its own is as long as an answer, and the last token that is read. */
static void plan_samples(const run_state *state, pi2_engine_options *options) {
    const int64_t limit = state->settings.limit;
    pi2_scheduler_plan(options, (uint32_t)state->settings.parallel, 0);
    if (limit >= 0 && limit < UINT32_MAX - 2) options->branch_tokens = (uint32_t)limit + 2;
}

static int open_engine(run_state *state) {
    pi2_engine_options options;
    int code = pi2_cli_fill_options(&state->asked.model, &state->asked.size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_fill_trace_options(&state->asked.trace, &options);
    pi2_cli_fill_draft_options(&state->asked.draft, &options);
    if (state->settings.parallel > 1) plan_samples(state, &options);
    code = pi2_cli_fill_prompt_cache_options(&state->asked.prompt_cache, &options);
    if (code == PI2_EXIT_OK) code = read_prompt(state);
    if (code == PI2_EXIT_OK) code = read_template(state, &options);
    if (code == PI2_EXIT_OK) code = pi2_cli_fill_sampling(&state->asked.sampling, &state->chosen);
    if (code == PI2_EXIT_OK) code = pi2_cli_read_grammar(&state->grammar_settings, &state->grammar);
    if (code != PI2_EXIT_OK) return code;
    options.beside_bytes += pi2_cli_grammar_memory(state->grammar, (uint64_t)state->settings.parallel);
    if (state->is_chat) options.identifies_weights = true; /* for /save and /load */
    const char *inputs[INPUT_FILES + 1];
    list_inputs(state, inputs);
    options.input_paths = inputs;
    pi2_cli_catch_signals();
    if (state->settings.plan) {
        const char *path = state->settings.plan;
        code = pi2_cli_plan_read(path, &options, &state->plan);
        if (code == PI2_EXIT_OK) code = pi2_cli_plan_check_model(path, state->plan, &options);
        if (code != PI2_EXIT_OK) return code;
    }
    choose_routing(state, &options);
    code = pi2_cli_refresh_disk(&options);
    if (code != PI2_EXIT_OK) return code;
    code = pi2_cli_open_within_guard(&state->asked.guard, &options, &state->engine);
    if (code != PI2_EXIT_OK) return code;
    state->opened = options;
    pi2_cli_advise_sampling(state->engine, &state->chosen);
    code = pi2_cli_open_prompt_cache(&state->asked.prompt_cache, state->engine, &state->cache);
    if (code != PI2_EXIT_OK || state->settings.parallel > 1) return code; /* the scheduler has the sessions */
    const pi2_sampling sampling = sampling_of(state);
    const pi2_status status = pi2_session_create(state->engine, &sampling, &state->session);
    return status == PI2_OK ? PI2_EXIT_OK : pi2_cli_failed(status);
}

/** Takes the tokens of a raw prompt: those that the context has room for, and the number of all. */
static pi2_status take_tokens(void *user, const int32_t *tokens, size_t count) {
    run_state *state = user;
    const size_t context = pi2_engine_get_report(state->engine)->context_tokens;
    for (size_t i = 0; i < count; i++, state->token_count++) {
        if (state->token_count < context) state->tokens[state->token_count] = tokens[i];
    }
    return pi2_cli_interrupted() ? PI2_ERR_INTERRUPTED : PI2_OK;
}

/** Tokenizes a prompt that was not read yet, part by part: one of any length takes no more than a context. */
static int tokenize_source(run_state *state) {
    const size_t context = pi2_engine_get_report(state->engine)->context_tokens;
    state->tokens = malloc(context * sizeof *state->tokens);
    if (!state->tokens) {
        (void)pi2_cli_usage_error("no memory for %zu tokens", context);
        return PI2_EXIT_MEMORY;
    }
    const pi2_status status =
        pi2_engine_tokenize_parts(state->engine, pi2_cli_text_read, &state->source, true,
                                  state->settings.parse_special, take_tokens, state);
    if (state->source.code != PI2_EXIT_OK) return state->source.code;
    if (status == PI2_ERR_INTERRUPTED) return PI2_EXIT_INTERRUPTED;
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (!state->source.has_text) {
        return pi2_cli_usage_error("run: the prompt is empty: give one with -p, -f or on stdin");
    }
    if (state->token_count <= context) return PI2_EXIT_OK;
    return pi2_cli_usage_error("the prompt has %zu tokens, and the context holds %zu: give a longer context (-c) or a "
                               "shorter prompt", state->token_count, context);
}

/** Reads the prompt that a chat template takes: as much as was planned for it. */
static int read_source(run_state *state) {
    const size_t most = pi2_engine_get_report(state->engine)->conversation_bytes;
    state->prompt = malloc(most + 2);
    if (!state->prompt) {
        (void)pi2_cli_usage_error("no memory for a prompt of %zu bytes", most);
        return PI2_EXIT_MEMORY;
    }
    for (size_t length = 1; length && state->prompt_length <= most; state->prompt_length += length) {
        const size_t room = most + 1 - state->prompt_length;
        if (room < 2) break;
        (void)pi2_cli_text_read(&state->source, state->prompt + state->prompt_length, room, &length);
        if (state->source.code != PI2_EXIT_OK) return state->source.code;
    }
    state->prompt[state->prompt_length] = '\0';
    if (state->prompt_length == 0) {
        return pi2_cli_usage_error("run: the prompt is empty: give one with -p, -f or on stdin");
    }
    if (state->prompt_length < most) return PI2_EXIT_OK;
    return pi2_cli_usage_error("%s has %zu bytes or more, and fewer are planned for a context of %u tokens: shorten "
                               "it, or give a longer context (-c)", state->source.path, most,
                               (unsigned)pi2_engine_get_report(state->engine)->context_tokens);
}

/** The prompt as tokens: through the chat template where the model has one. */
static int tokenize_prompt(run_state *state) {
    const bool with_template = !state->settings.raw && pi2_engine_has_chat_template(state->engine);
    if (!with_template && state->system) return refuse_system(state);
    pi2_status status = PI2_OK;
    if (state->source.stream) {
        const int code = with_template ? read_source(state) : tokenize_source(state);
        if (code != PI2_EXIT_OK) return code;
    }
    if (with_template) {
        if (strlen(state->prompt) != state->prompt_length) {
            return pi2_cli_usage_error("run: the prompt holds a NUL byte, which the chat template "
                                       "cannot take: use --raw");
        }
        pi2_message messages[2];
        size_t count = 0;
        if (state->system) messages[count++] = (pi2_message){"system", state->system};
        messages[count++] = (pi2_message){"user", state->prompt};
        status = pi2_engine_chat_tokens(state->engine, messages, count, true, &state->tokens,
                                        &state->token_count);
    } else if (!state->source.stream) {
        status = pi2_engine_tokenize(state->engine, state->prompt, state->prompt_length, true,
                                     state->settings.parse_special, &state->tokens, &state->token_count);
    }
    if (status != PI2_OK) return pi2_cli_failed(status);
    if (!with_template) {
        pi2_cli_warn_two_beginnings(state->tokens, state->token_count, pi2_engine_bos(state->engine));
    }
    if (state->token_count == 0) return pi2_cli_usage_error("run: the prompt is empty");
    return PI2_EXIT_OK;
}

static bool show(const char *text, size_t length) {
    return fwrite(text, 1, length, stdout) == length && fflush(stdout) == 0;
}

static json_t *json_tokens(const int32_t *tokens, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; array && i < count; i++) json_array_append_new(array, json_integer(tokens[i]));
    return array;
}

static json_t *json_timings(const pi2_cli_generation *generation) {
    const double prompt_ms = 1e3 * generation->prompt_seconds, decode_ms = 1e3 * generation->decode_seconds;
    const double prompt_count = (double)generation->prompt_count;
    const double decoded = (double)pi2_cli_decoded_count(generation);
    json_t *object = json_object();
    json_object_set_new(object, "cache_n", json_integer((json_int_t)generation->cached_count));
    json_object_set_new(object, "prompt_cache_n", json_integer((json_int_t)generation->recalled_count));
    json_object_set_new(object, "prompt_n", json_integer((json_int_t)generation->prompt_count));
    json_object_set_new(object, "prompt_ms", pi2_cli_json_number(prompt_ms));
    json_object_set_new(object, "prompt_per_token_ms", pi2_cli_json_number(prompt_ms / prompt_count));
    json_object_set_new(object, "prompt_per_second", pi2_cli_json_number(1e3 * prompt_count / prompt_ms));
    json_object_set_new(object, "predicted_n", json_integer((json_int_t)generation->tokens.length));
    json_object_set_new(object, "predicted_ms", pi2_cli_json_number(decode_ms));
    json_object_set_new(object, "predicted_per_token_ms", pi2_cli_json_number(decode_ms / decoded));
    json_object_set_new(object, "predicted_per_second", pi2_cli_json_number(1e3 * decoded / decode_ms));
    pi2_cli_set_percentiles(object, &generation->latency);
    json_object_set_new(object, "draft_n", json_integer((json_int_t)generation->drafts.all.guessed));
    json_object_set_new(object, "draft_n_accepted", json_integer((json_int_t)generation->drafts.all.right));
    json_object_set_new(object, "tokens_per_pass",
                        pi2_cli_json_number(pi2_cli_tokens_per_pass(&generation->drafts)));
    json_object_set_new(object, "ttft_ms",
                        generation->tokens.length
                            ? pi2_cli_json_number(1e3 * generation->first_token_seconds) : json_null());
    return object;
}

/* Every counter by its name; times in milliseconds, null where they were not taken. */
static void set_counters(json_t *io, const pi2_engine_counters *counters) {
    size_t count;
    const pi2_counter_description *all = pi2_counter_descriptions(&count);
    for (size_t i = 0; i < count; i++) {
        const uint64_t value = pi2_counter_value(counters, &all[i]);
        if (all[i].kind != PI2_COUNTER_TIME) {
            json_object_set_new(io, all[i].name, json_integer((json_int_t)value));
            continue;
        }
        char name[64];
        (void)snprintf(name, sizeof name, "%.*s_ms", (int)(strlen(all[i].name) - strlen("_ns")), all[i].name);
        const bool is_taken = value > 0 || all[i].offset != offsetof(pi2_engine_counters, compute_ns);
        json_object_set_new(io, name, is_taken ? pi2_cli_json_number((double)value / 1e6) : json_null());
    }
}

static int print_json(run_state *state) {
    const pi2_cli_generation *generation = &state->generation;
    const pi2_engine_report *report = pi2_engine_get_report(state->engine);
    json_t *memory = json_object(), *io = json_object(), *object = json_object();
    json_object_set_new(memory, "budget_bytes", json_integer((json_int_t)report->budget_bytes));
    json_object_set_new(memory, "peak_bytes", json_integer((json_int_t)pi2_peak_memory_bytes()));
    pi2_engine_counters total; /* since the engine was opened: loading reads too */
    pi2_engine_count(state->engine, &total);
    set_counters(io, &total);
    json_object_set_new(io, "bytes_per_token", pi2_cli_json_number(pi2_cli_bytes_per_token(generation)));
    json_object_set_new(io, "hit_rate", pi2_cli_json_number(pi2_cli_hit_rate(&generation->decode)));
    json_object_set_new(io, "read_method", pi2_cli_json_text(report->read_method, strlen(report->read_method)));
    json_object_set_new(object, "text", pi2_cli_json_text(generation->text.data, generation->text.length));
    json_object_set_new(object, "tokens", json_tokens(generation->tokens.data, generation->tokens.length));
    json_object_set_new(object, "prompt_tokens", json_tokens(state->tokens, state->token_count));
    json_object_set_new(object, "stop_type", json_string(pi2_stop_name(generation->stop)));
    json_object_set_new(object, "seed", json_integer(pi2_session_seed(state->session)));
    json_object_set_new(object, "arithmetic", json_string(pi2_engine_arithmetic(state->engine)));
    json_object_set_new(object, "n_ctx", json_integer(report->context_tokens));
    json_object_set_new(object, "timings", json_timings(generation));
    json_object_set_new(object, "predicted", pi2_cli_predicted_json(state->engine, generation));
    json_object_set_new(object, "drafters", pi2_cli_drafters_json(&generation->drafts));
    json_object_set_new(object, "memory", memory);
    json_object_set_new(object, "io", io);
    return pi2_cli_print_json(object, JSON_COMPACT);
}

/** Several answers: -np. */
static int answer_samples(const run_state *state) {
    const run_settings *settings = &state->settings;
    const pi2_cli_samples asked = {
        .engine = state->engine, .prompt = state->tokens, .prompt_count = state->token_count,
        .sampling = sampling_of(state), .limit = settings->limit, .print_special = settings->print_special,
        .stop_words = &settings->stop_words, .count = (uint32_t)settings->parallel, .json = settings->json};
    return pi2_cli_answer_samples(&asked);
}

static int answer_prompt(run_state *state) {
    int code = tokenize_prompt(state);
    if (code != PI2_EXIT_OK) return code;
    if (state->settings.parallel > 1) return answer_samples(state);
    const pi2_cli_generation_options options = {
        .limit = state->settings.limit, .print_special = state->settings.print_special,
        .stop_words = &state->settings.stop_words, .show = state->settings.json ? NULL : show};
    code = pi2_cli_generate(state->engine, state->session, state->tokens, state->token_count, &options,
                            &state->generation);
    if (code != PI2_EXIT_OK) return code;
    if (state->settings.json) {
        code = print_json(state);
    } else {
        (void)fputc('\n', stdout);
        code = pi2_cli_finish_stdout();
    }
    if (code != PI2_EXIT_OK) return code;
    pi2_cli_print_report(state->engine, &state->generation, pi2_session_seed(state->session));
    return state->generation.stop == PI2_STOP_INTERRUPTED ? PI2_EXIT_INTERRUPTED : PI2_EXIT_OK;
}

/** Ends the files of --trace, --stats and --record-trace. An earlier error stays the one that the exit code tells. */
static int finish_trace(pi2_engine *engine, int code) {
    const pi2_status status = engine ? pi2_engine_finish_trace(engine) : PI2_OK;
    if (status == PI2_OK || (code != PI2_EXIT_OK && code != PI2_EXIT_INTERRUPTED)) return code;
    return pi2_cli_failed(status);
}

int pi2_cli_run(int argument_count, char **arguments) {
    static run_state state;
    pi2_cli_section sections[2 + PI2_CLI_ANSWER_SECTIONS] = {
        {"Prompt and answer", run_options, sizeof run_options / sizeof run_options[0], &state.settings},
        pi2_cli_grammar_section(&state.grammar_settings)};
    pi2_cli_answer_sections(&state.asked, sections + 2);
    const pi2_cli_command command = {
        "run", "-m MODEL [-p TEXT] [options]",
        "Answers a prompt, or chats on a terminal. The answer goes to stdout, the report to stderr. The "
        "prompt goes through the model's chat template unless --raw is given. Ctrl-C ends the answer, "
        "a second one the program. In a chat a pasted block is one message; Alt-Enter, or \\ at a line's end, "
        "begins a new line; /help tells of commands, such as /save and /undo; /exit or Ctrl-D ends.",
        sections, sizeof sections / sizeof sections[0]};
    int code = pi2_cli_parse(&command, argument_count, arguments);
    if (code != PI2_CLI_GO_ON) return code;
    code = open_engine(&state);
    if (code == PI2_EXIT_OK && state.is_chat) {
        const pi2_cli_generation_options options = {
            .limit = state.settings.limit, .print_special = state.settings.print_special,
            .stop_words = &state.settings.stop_words, .show = show};
        code = pi2_cli_chat(state.engine, state.session, state.system, &options, state.settings.simple_io);
    } else if (code == PI2_EXIT_OK) {
        code = answer_prompt(&state);
    }
    code = finish_trace(state.engine, code);
    pi2_cli_generation_free(&state.generation);
    pi2_session_free(state.session);
    pi2_grammar_free(state.grammar);
    pi2_prompt_cache_close(state.cache);
    pi2_engine_close(state.engine);
    if (code == PI2_EXIT_OK) pi2_cli_tell_gain(&state.opened); /* plans take memory, of which the run shall have all */
    pi2_cli_text_close(&state.source);
    json_decref(state.plan);
    free(state.tokens);
    free(state.prompt);
    free(state.system);
    free(state.chat_template);
    return code;
}
