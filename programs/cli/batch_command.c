/* batch_command.c: "powerinfer2 batch": answers to many prompts, made together, in the order of the prompts. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "answer_options.h"
#include "batch_file.h"
#include "commands.h"
#include "json_bounds.h"
#include "machine_profile_cli.h"
#include "output.h"
#include "powerinfer2/generate.h"
#include "powerinfer2/identity.h"
#include "powerinfer2/sizes.h"
#include "request_fields.h"
#include "scheduler.h"
#include "signals.h"
#include "template_file.h"
#include "text_source.h"

enum { AHEAD = 4 /* times as many lines are read as are answered at a time: a long answer holds others back */ };

typedef struct batch_settings {
    const char *prompts, *output, *system, *chat_template, *template_kwargs;
    bool raw, parse_special, ignore_end;
    int64_t limit, parallel;
} batch_settings;

#define BATCH(field) offsetof(batch_settings, field)
static const pi2_cli_option batch_options[] = {
    {"-f, --file", "FILE", PI2_CLI_TEXT, BATCH(prompts), NULL,
     "Prompts, a JSON object a line: {\"prompt\": \"...\"} or {\"messages\": [...]}, and what of this is to be "
     "otherwise than the options say: n_predict or max_tokens, temperature, top_k, top_p, min_p, seed, stop, "
     "repeat_penalty and so on; an \"id\" is handed on. \"-\" is stdin.", NULL, 0, 0},
    {"-o, --output", "FILE", PI2_CLI_TEXT, BATCH(output), NULL,
     "Where results go, a JSON object a line, in the order of the prompts; otherwise to stdout. Where the file has "
     "results of these prompts already, those behind them are made: after a kill at any moment too.", NULL, 0, 0},
    {"-np, --parallel", "N", PI2_CLI_INTEGER, BATCH(parallel), "4",
     "Prompts that are answered at a time, in common passes over the weights; each has a context of -c tokens of its "
     "own.", "LLAMA_ARG_N_PARALLEL", 1, PI2_SEQUENCES_MOST},
    {"-n, --predict, --n-predict", "N", PI2_CLI_INTEGER, BATCH(limit), "-1",
     "Tokens of an answer at most where its line does not say; -1: until the model ends it or the context is full.",
     "LLAMA_ARG_N_PREDICT", -2, INT32_MAX},
    {"-sys, --system-prompt", "TEXT", PI2_CLI_TEXT, BATCH(system), NULL,
     "System message of prompts, not of messages.", NULL, 0, 0},
    {"--raw, -no-cnv, --no-conversation", NULL, PI2_CLI_FLAG, BATCH(raw), NULL,
     "Gives prompts to the model as they are, without the chat template.", NULL, 0, 0},
    {"--parse-special", NULL, PI2_CLI_FLAG, BATCH(parse_special), NULL,
     "With --raw: text such as <|im_start|> in a prompt becomes its token.", NULL, 0, 0},
    {"--ignore-eos", NULL, PI2_CLI_FLAG, BATCH(ignore_end), NULL, "Never picks a token that ends the answer.", NULL, 0,
     0},
    {"--chat-template, --chat-template-file", "FILE|NAME", PI2_CLI_TEXT, BATCH(chat_template), NULL,
     PI2_CLI_CHAT_TEMPLATE_HELP, NULL, 0, 0},
    {"--chat-template-kwargs", "JSON", PI2_CLI_TEXT, BATCH(template_kwargs), NULL,
     "Variables for the chat template, as a JSON object.", NULL, 0, 0},
};

/** A line of the prompts and what became of it. */
typedef struct batch_line {
    pi2_job job;
    int32_t *prompt;
    json_t *id;               /* NULL: none */
    uint64_t number, hash;
    bool has_job;             /* else fault says why not */
    pi2_request_fault fault;
} batch_line;

typedef struct batch_state {
    batch_settings settings;
    pi2_cli_answer_settings asked;
    pi2_prompt_cache *cache; /* NULL: none */
    char *chat_template;
    pi2_engine *engine;
    pi2_scheduler *scheduler;
    pi2_sampling defaults;
    uint64_t subject;         /* a hash of what decides answers beside their lines */
    pi2_cli_lines lines;
    pi2_cli_results results;
    batch_line *ring;         /* [most]: lines that are answered, or wait for those before them */
    size_t most, first, count;
    uint64_t answers, faults, tokens;
    uint64_t old_answers, old_faults; /* that were there */
} batch_state;

/* ---- a line becomes a job ---- */

static bool library_fault(pi2_request_fault *fault) { return pi2_fault(fault, "%s", pi2_error_text()); }

/** The text of "prompt", through the chat template where there is one, as run takes it. */
static bool tokenize_prompt(const batch_state *state, const json_t *value, batch_line *line) {
    const char *text = json_string_value(value);
    const size_t length = json_string_length(value), most = pi2_engine_get_report(state->engine)->conversation_bytes;
    if (length == 0) return pi2_fault(&line->fault, "the prompt is empty");
    if (length > most) {
        return pi2_fault(&line->fault, "the prompt has %zu bytes, %zu are planned for a context: shorten it, or give a "
                         "longer context (-c)", length, most);
    }
    if (state->settings.raw || !pi2_engine_has_chat_template(state->engine)) {
        return pi2_engine_tokenize(state->engine, text, length, true, state->settings.parse_special, &line->prompt,
                                   &line->job.prompt_count) == PI2_OK || library_fault(&line->fault);
    }
    if (strlen(text) != length) {
        return pi2_fault(&line->fault, "the prompt holds a NUL byte, which the chat template cannot take");
    }
    const pi2_message messages[] = {{"system", state->settings.system}, {"user", text}};
    const size_t from = state->settings.system ? 0 : 1;
    return pi2_engine_chat_tokens(state->engine, messages + from, 2 - from, true, &line->prompt,
                                  &line->job.prompt_count) == PI2_OK || library_fault(&line->fault);
}

static bool tokenize_messages(const batch_state *state, const json_t *value, batch_line *line) {
    char *text = json_dumps(value, JSON_COMPACT);
    if (!text) return pi2_fault(&line->fault, "no memory for the messages");
    const pi2_conversation conversation = {.messages = text, .messages_length = strlen(text),
                                           .variables = state->settings.template_kwargs,
                                           .add_generation_prompt = true};
    const pi2_status status = pi2_engine_conversation_tokens(state->engine, &conversation, NULL, NULL, &line->prompt,
                                                             &line->job.prompt_count);
    free(text);
    return status == PI2_OK || library_fault(&line->fault);
}

static bool tokenize(const batch_state *state, const json_t *body, batch_line *line) {
    const json_t *prompt = json_object_get(body, "prompt"), *messages = json_object_get(body, "messages");
    if (!prompt == !messages) {
        return pi2_fault(&line->fault, "there must be either 'prompt' or 'messages'");
    }
    if (prompt && !json_is_string(prompt)) return pi2_fault(&line->fault, "'prompt' must be a text");
    if (messages && !json_is_array(messages)) return pi2_fault(&line->fault, "'messages' must be an array");
    if (!(prompt ? tokenize_prompt(state, prompt, line) : tokenize_messages(state, messages, line))) return false;
    line->job.prompt = line->prompt;
    const uint32_t context = pi2_engine_get_report(state->engine)->context_tokens;
    return line->job.prompt_count < context ||
           pi2_fault(&line->fault, "the prompt has %zu tokens, and the context holds %u: shorten it, or give a longer "
                     "context (-c)", line->job.prompt_count, (unsigned)context);
}

/** The line's value as an object within the bounds; NULL: a fault was noted. */
static json_t *parse(const pi2_cli_lines *lines, pi2_request_fault *fault) {
    const pi2_json_bounds bounds = pi2_json_measure(lines->text, lines->length);
    json_error_t error;
    json_t *value = NULL;
    if (lines->is_too_long || bounds.memory > 2 * lines->most) {
        (void)pi2_fault(fault, "the line is too long: %zu bytes at most, and %zu of memory", lines->most,
                        2 * lines->most);
    } else if (bounds.depth > PI2_JSON_DEPTH) {
        (void)pi2_fault(fault, "the JSON is nested %zu levels deep, %d are allowed", bounds.depth, PI2_JSON_DEPTH);
    } else if (!(value = json_loadb(lines->text, lines->length, JSON_REJECT_DUPLICATES, &error))) {
        (void)pi2_fault(fault, "no JSON: column %d: %s", error.column, error.text);
    } else if (!json_is_object(value)) {
        (void)pi2_fault(fault, "the line must be a JSON object");
        json_decref(value);
        value = NULL;
    }
    return value;
}

/** Submits the job of the present line, or notes what is wrong with it. */
static void take_line(batch_state *state, uint64_t hash) {
    batch_line *line = &state->ring[(state->first + state->count++) % state->most];
    *line = (batch_line){.number = state->lines.number, .hash = hash};
    pi2_job_init(&line->job, &state->defaults);
    line->job.limit = state->settings.limit;
    json_t *body = parse(&state->lines, &line->fault);
    line->id = json_incref(json_object_get(body, "id"));
    uint32_t count;
    line->has_job = body && pi2_field_choices(body, 1, &count, &line->fault) &&
                    pi2_fields_unsupported(body, &line->fault) &&
                    pi2_fields_of_text(body, &line->fault) &&
                    pi2_fields_sampling(body, &line->job, &line->fault) && tokenize(state, body, line) &&
                    pi2_scheduler_submit(state->scheduler, &(pi2_job *){&line->job}, 1);
    json_decref(body);
}

/* ---- a job becomes a result ---- */

static json_t *result_json(const batch_line *line) {
    const pi2_job *job = &line->job;
    char hash[17];
    (void)snprintf(hash, sizeof hash, "%016" PRIx64, line->hash);
    json_t *value = json_pack("{s:I, s:s, s:O*}", "line", (json_int_t)line->number, "hash", hash, "id", line->id);
    const char *error = line->has_job ? job->status == PI2_OK ? NULL : job->error : line->fault.text;
    if (error) {
        (void)json_object_set_new(value, "error", pi2_cli_json_text(error, strlen(error)));
        return value;
    }
    (void)json_object_update_new(
        value, json_pack("{s:o, s:s, s:I, s:I, s:I}", "text",
                         pi2_cli_json_text(job->text.data ? job->text.data : "", job->text.length), "stop_type",
                         pi2_stop_name(job->stop), "seed", (json_int_t)job->seed, "prompt_tokens",
                         (json_int_t)job->prompt_count, "completion_tokens", (json_int_t)job->tokens.length));
    return value;
}

static void free_first(batch_state *state) {
    batch_line *line = &state->ring[state->first];
    if (line->has_job) pi2_scheduler_finish(state->scheduler, &line->job, true);
    pi2_job_free(&line->job);
    free(line->prompt);
    json_decref(line->id);
    state->first = (state->first + 1) % state->most;
    state->count--;
}

/** Waits for the first line's answer and writes it. A failure that is not the line's own ends the batch. */
static int write_first(batch_state *state) {
    batch_line *line = &state->ring[state->first];
    pi2_job *job = &line->job;
    if (line->has_job) pi2_scheduler_finish(state->scheduler, job, false);
    if (line->has_job && job->status == PI2_ERR_INTERRUPTED) return PI2_EXIT_INTERRUPTED;
    if (line->has_job && (job->status == PI2_ERR_IO || job->status == PI2_ERR_MEMORY)) {
        (void)pi2_cli_usage_error("%s:%" PRIu64 ": %s", state->lines.path, line->number, job->error);
        return pi2_cli_exit_code(job->status);
    }
    const bool is_good = line->has_job && job->status == PI2_OK;
    if (!is_good) {
        pi2_cli_warn("%s:%" PRIu64 ": %s", state->lines.path, line->number,
                     line->has_job ? job->error : line->fault.text);
    }
    state->answers += is_good;
    state->faults += !is_good;
    state->tokens += job->tokens.length;
    const int code = pi2_cli_results_write(&state->results, result_json(line));
    free_first(state);
    pi2_cli_status_line("%" PRIu64 " answers, %" PRIu64 " tokens", state->answers, state->tokens);
    return code;
}

/* ---- all of them ---- */

/** The next line that is not blank, and its hash. False: there is none, or *code_out. */
static bool next_line(batch_state *state, uint64_t *hash_out, int *code_out) {
    while (pi2_cli_lines_next(&state->lines, code_out)) {
        pi2_cli_lines *lines = &state->lines;
        if (lines->number == 1) *code_out = pi2_cli_drop_mark(lines->path, lines->text, &lines->length);
        if (*code_out != PI2_EXIT_OK) return false;
        if (strspn(lines->text, " \t\r") == lines->length) continue;
        *hash_out = XXH3_64bits_withSeed(lines->text, lines->length, state->subject);
        return true;
    }
    return false;
}

/** Passes over lines whose results are there. */
static int skip_results(batch_state *state) {
    int code;
    uint64_t hash;
    while (pi2_cli_results_skip(&state->results, &code)) {
        const uint64_t line = state->results.line;
        state->old_faults += state->results.has_error;
        state->old_answers += !state->results.has_error;
        if (next_line(state, &hash, &code) && state->lines.number == line && hash == state->results.hash) continue;
        if (code != PI2_EXIT_OK) return code;
        return pi2_cli_usage_error("%s holds the result of another request for line %" PRIu64 " of %s, or of other "
                                   "options or another model: name another file, or remove it", state->results.path,
                                   line, state->lines.path);
    }
    if (code == PI2_EXIT_OK && state->results.line) {
        pi2_cli_note("%s: goes on behind line %" PRIu64, state->results.path, state->results.line);
    }
    return code;
}

static int answer_all(batch_state *state) {
    int code = skip_results(state);
    uint64_t hash;
    bool has_more = true;
    while (code == PI2_EXIT_OK && (has_more || state->count)) {
        while (has_more && state->count < state->most && code == PI2_EXIT_OK) {
            has_more = next_line(state, &hash, &code);
            if (has_more) take_line(state, hash);
        }
        if (code == PI2_EXIT_OK && state->count) code = write_first(state);
        if (pi2_cli_interrupted()) code = PI2_EXIT_INTERRUPTED;
    }
    return code;
}

static void print_report(const batch_state *state, uint64_t begin_ns) {
    char peak[PI2_SIZE_TEXT_BYTES], budget[PI2_SIZE_TEXT_BYTES];
    const pi2_engine_report *report = pi2_engine_get_report(state->engine);
    const double seconds = (double)(pi2_cli_now_ns() - begin_ns) / 1e9;
    pi2_scheduler_counts counts;
    pi2_scheduler_count(state->scheduler, &counts);
    pi2_cli_clear_progress();
    pi2_cli_note("batch    %" PRIu64 " answers, %" PRIu64 " tokens, %.2f tokens/s together", state->answers,
                 state->tokens, (double)state->tokens / seconds);
    pi2_cli_note("prompts  %" PRIu64 " tokens computed, %" PRIu64 " were there already", counts.slots.prompt_tokens,
                 counts.slots.cached_tokens);
    pi2_cli_note("memory   peak %s of %s (%s)", pi2_format_size(pi2_peak_memory_bytes(), peak),
                 pi2_format_size(report->budget_bytes, budget), report->budget_reason);
}

static int answer_with_scheduler(batch_state *state) {
    pi2_scheduler_watch watch = {0};
    state->most = AHEAD * (size_t)state->settings.parallel;
    state->ring = calloc(state->most, sizeof *state->ring);
    if (!state->ring || pi2_scheduler_create(state->engine, &watch, state->most, &state->scheduler) != PI2_OK) {
        free(state->ring);
        (void)pi2_cli_usage_error("batch: no memory for %zu lines", state->most);
        return PI2_EXIT_MEMORY;
    }
    const uint64_t begin_ns = pi2_cli_now_ns();
    int code = answer_all(state);
    pi2_scheduler_stop(state->scheduler);
    while (state->count) free_first(state);
    if (code == PI2_EXIT_OK) print_report(state, begin_ns);
    pi2_scheduler_free(state->scheduler);
    free(state->ring);
    const uint64_t faults = state->old_faults + state->faults, answers = state->old_answers + state->answers;
    if (code != PI2_EXIT_OK || faults == 0) return code;
    (void)pi2_cli_usage_error("batch: %" PRIu64 " of %" PRIu64 " lines have no answer: their results say why", faults,
                              faults + answers);
    return PI2_EXIT_BAD_FILE;
}

/** What decides answers beside the lines, so that results of other options are not taken for these. */
static int hash_subject(batch_state *state) {
    const batch_settings *settings = &state->settings;
    uint64_t weights = 0;
    const pi2_status status = pi2_engine_weights_hash(state->engine, &weights);
    if (status != PI2_OK) return pi2_cli_failed(status);
    const pi2_sampling *s = &state->defaults;
    char text[256];
    (void)snprintf(text, sizeof text, "%016" PRIx64 " %d %d %u %d %d %d %" PRId64, weights, (int)s->top_k,
                   (int)s->repeat_last_n, (unsigned)s->seed, (int)s->forbid_end_tokens, (int)settings->raw,
                   (int)settings->parse_special, settings->limit);
    uint64_t hash = XXH3_64bits(text, strlen(text));
    const float numbers[] = {s->temperature, s->top_p, s->min_p, s->repeat_penalty, s->presence_penalty,
                             s->frequency_penalty, s->typical_p, s->top_n_sigma, s->xtc_probability, s->xtc_threshold,
                             s->dynamic_range, s->dynamic_exponent};
    hash = XXH3_64bits_withSeed(numbers, sizeof numbers, hash);
    hash = XXH3_64bits_withSeed(s->logit_biases, s->logit_bias_count * sizeof *s->logit_biases, hash);
    const char *const texts[] = {settings->system, settings->chat_template, settings->template_kwargs,
                                 pi2_engine_arithmetic(state->engine)};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *each = texts[i] ? texts[i] : "";
        hash = XXH3_64bits_withSeed(each, strlen(each) + 1, hash);
    }
    state->subject = hash;
    return PI2_EXIT_OK;
}

static int run(batch_state *state, pi2_engine_options *options) {
    const batch_settings *settings = &state->settings;
    const size_t line_bytes = pi2_json_text_bytes(state->asked.size.memory);
    if (!settings->prompts) return pi2_cli_usage_error("batch: no prompts: give a file with -f");
    if (settings->raw && (settings->system || settings->chat_template || settings->template_kwargs)) {
        return pi2_cli_usage_error("batch: --raw leaves the chat template out: leave its options and -sys out too");
    }
    int code = pi2_cli_fill_sampling(&state->asked.sampling, &state->defaults);
    if (code == PI2_EXIT_OK) code = pi2_cli_fill_prompt_cache_options(&state->asked.prompt_cache, options);
    if (code == PI2_EXIT_OK) code = pi2_cli_lines_open(&state->lines, settings->prompts, line_bytes);
    const char *const inputs[] = {settings->prompts, options->model_path, NULL};
    if (code == PI2_EXIT_OK) code = pi2_cli_results_open(&state->results, settings->output, inputs);
    if (code != PI2_EXIT_OK) return code;
    pi2_scheduler_plan(options, (uint32_t)settings->parallel, AHEAD * (size_t)settings->parallel);
    options->beside_bytes = 4 * (uint64_t)line_bytes; /* a line, its value, and what of it the template takes */
    options->beside_token_bytes += AHEAD * 12;        /* answers that wait for one before them */
    options->input_paths = inputs;
    pi2_cli_catch_signals();
    code = pi2_cli_refresh_disk(options);
    if (code == PI2_EXIT_OK) code = pi2_cli_open_within_guard(&state->asked.guard, options, &state->engine);
    if (code == PI2_EXIT_OK) code = pi2_cli_open_prompt_cache(&state->asked.prompt_cache, state->engine, &state->cache);
    if (code != PI2_EXIT_OK) return code;
    pi2_cli_advise_sampling(state->engine, &state->defaults);
    state->defaults.forbid_end_tokens = settings->ignore_end;
    code = hash_subject(state);
    if (code == PI2_EXIT_OK) code = answer_with_scheduler(state);
    const pi2_status status = pi2_engine_finish_trace(state->engine);
    return status != PI2_OK && code == PI2_EXIT_OK ? pi2_cli_failed(status) : code;
}

int pi2_cli_batch(int argument_count, char **arguments) {
    static batch_state state;
    pi2_cli_section sections[1 + PI2_CLI_ANSWER_SECTIONS] = {
        {"Prompts and answers", batch_options, sizeof batch_options / sizeof batch_options[0], &state.settings}};
    pi2_cli_answer_sections(&state.asked, sections + 1);
    const pi2_cli_command command = {
        "batch", "-m MODEL -f PROMPTS.jsonl [-o RESULTS.jsonl] [options]",
        "Answers many prompts, some at a time, each as 'run' answers it alone. Results come in the order of the "
        "prompts; a line that cannot be answered gets one that says why, and the others are answered. Ctrl-C, or a "
        "kill, loses only what was not written: the same command goes on.",
        sections, sizeof sections / sizeof sections[0]};
    pi2_engine_options options;
    int code = pi2_cli_parse_run(&command, argument_count, arguments, &state.asked.model, &state.asked.size, &options);
    if (code != PI2_CLI_GO_ON) return code;
    pi2_cli_fill_trace_options(&state.asked.trace, &options);
    pi2_cli_fill_draft_options(&state.asked.draft, &options);
    options.chat_template_kwargs = state.settings.template_kwargs;
    options.identifies_weights = true;
    code = pi2_cli_read_template(state.settings.chat_template, &state.chat_template, &options.chat_template);
    if (code == PI2_EXIT_OK) code = run(&state, &options);
    const int closed = pi2_cli_results_close(&state.results);
    pi2_prompt_cache_close(state.cache);
    pi2_engine_close(state.engine);
    pi2_cli_lines_close(&state.lines);
    free(state.chat_template);
    return code == PI2_EXIT_OK ? closed : code;
}
